from __future__ import annotations

import errno
import io
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lungseg.data import cache
from lungseg.data.cache import ImageCache, cache_key, cache_path
from lungseg.data.decode import read_sample, row_bytes
from lungseg.data.index import load_index
from lungseg.data.sample import Sample
from lungseg.errors import DataError
from lungseg.runs import progress


@pytest.fixture
def samples(phantoms: Path) -> list[Sample]:
    return [sample for sample in load_index(phantoms) if sample.split == "train"]


@pytest.fixture
def copied(samples: list[Sample], phantoms: Path, tmp_path: Path) -> list[Sample]:
    """The samples over files of their own, to be damaged."""
    shutil.copytree(phantoms, tmp_path / "set")
    return [sample for sample in load_index(tmp_path / "set") if sample.split == "train"]


def _break(*paths: Path) -> None:
    for path in paths:
        path.write_bytes(path.read_bytes()[:-30])


def _names(folder: Path) -> list[str]:
    """What lies in a folder, lock files aside."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("size", [64, 33])
def test_cached_samples_equal_decoded_ones(samples: list[Sample], tmp_path: Path, size: int) -> None:
    samples = [*samples, replace(samples[0], lung=None), replace(samples[1], infection=None)]
    built = ImageCache.open_or_build(samples, size, folder=tmp_path)
    assert built.count == len(samples) and built.path.stat().st_size == len(samples) * row_bytes(size)
    for index in reversed(range(len(samples))):
        image, masks = built.read(index)
        true_image, true_masks = read_sample(samples[index], size)
        assert np.array_equal(image, true_image) and np.array_equal(masks, true_masks)
        assert image.flags.writeable and masks.flags.writeable
    with pytest.raises(IndexError, match="holds 14 samples, no sample 14"):
        built.read(14)


def test_a_stretched_cache_is_another_one(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((32, 64), 90, np.uint8))
    sample = Sample("wide.png", tmp_path / "wide.png", None, None, 0, "train")
    boxed, stretched = (ImageCache.open_or_build([sample], 64, keep, tmp_path / "c") for keep in (True, False))
    assert (boxed.read(0)[0] == 0).sum() == 32 * 64 and (stretched.read(0)[0] == 90).all()


def test_what_is_there_is_opened_and_not_built(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ImageCache.open_or_build(samples, 64, folder=tmp_path)
    monkeypatch.setattr(cache, "read_sample", None)
    assert ImageCache.open_or_build(samples, 64, folder=tmp_path).read(3)[0].any()


def test_whatever_changes_a_byte_changes_the_key(copied: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [cache_key(copied, 64), cache_key(copied, 32), cache_key(copied, 64, False), cache_key(copied[::-1], 64)]
    keys.append(cache_key([replace(copied[0], infection=None), *copied[1:]], 64))
    for path in (copied[0].image, copied[5].lung, copied[7].infection):
        assert path is not None
        before = path.stat()
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        keys.append(cache_key(copied, 64))
        path.write_bytes(path.read_bytes() + b"\0")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        keys.append(cache_key(copied, 64))
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    keys.append(cache_key(copied, 64))
    assert len(set(keys)) == len(keys) == 12
    assert cache_key(copied, 64) == keys[-1]


def test_both_files_of_a_lung_mask_count(copied: list[Sample], tmp_path: Path) -> None:
    left, right = (tmp_path / "ManualMask" / side / "a.png" for side in ("leftMask", "rightMask"))
    for path in (left, right):
        path.parent.mkdir(parents=True)
        shutil.copy(str(copied[0].lung), path)
    sided = [replace(copied[0], lung=left)]
    before = cache_key(sided, 64)
    os.utime(right, ns=(0, 0))
    assert cache_key(sided, 64) != before


def test_a_changed_file_is_read_anew(copied: list[Sample], tmp_path: Path) -> None:
    first = ImageCache.open_or_build(copied, 64, folder=tmp_path / "c")
    cv2.imwrite(str(copied[2].image), np.full((64, 64), 7, np.uint8))
    second = ImageCache.open_or_build(copied, 64, folder=tmp_path / "c")
    assert (second.read(2)[0] == 7).all() and not (first.read(2)[0] == 7).all()


def test_all_faulty_files_are_told_at_once_and_nothing_is_left(copied: list[Sample], tmp_path: Path) -> None:
    assert copied[1].lung and copied[2].infection and copied[9].lung
    _break(copied[0].image, copied[1].lung, copied[2].infection, copied[9].lung)
    copied[11].image.unlink()
    first = ".*".join(re.escape(str(path)) for path in (copied[0].image, copied[1].lung, copied[2].infection))
    with pytest.raises(DataError, match=rf"^5 of 12 samples cannot be decoded: {first}.*lungseg\.audit") as caught:
        ImageCache.open_or_build(copied, 64, folder=tmp_path / "c")
    assert "\n" not in str(caught.value) and str(copied[9].lung) not in str(caught.value)
    assert _names(tmp_path / "c") == []


def test_a_folder_that_cannot_take_it_ends_in_one_line(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file: the cache cannot be written there \(.*\); set data\.cache_dir or"):
        ImageCache.open_or_build(samples, 64, folder=tmp_path / "file")

    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 60_000))
        with pytest.raises(DataError, match=r"\(0\.1 MB needed, 0\.1 MB free\).*data\.cache=false"):
            ImageCache.open_or_build(samples, 64, folder=tmp_path / "small")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"full: the cache cannot be written there \(No space left on device\)"):
        ImageCache.open_or_build(samples, 64, folder=tmp_path / "full")
    assert _names(tmp_path / "full") == _names(tmp_path / "small") == []


def test_a_cut_cache_is_built_anew(samples: list[Sample], tmp_path: Path) -> None:
    path = ImageCache.open_or_build(samples, 64, folder=tmp_path).path
    os.truncate(path, 1000)
    assert ImageCache.open_or_build(samples, 64, folder=tmp_path).read(11)[0].any()
    assert _names(tmp_path) == [path.name]


def test_a_cache_that_was_deleted_is_told(samples: list[Sample], tmp_path: Path) -> None:
    built = ImageCache.open_or_build(samples, 64, folder=tmp_path)
    built.path.unlink()
    with pytest.raises(DataError, match=r"the cache cannot be opened \(No such file or directory\); start again"):
        built.read(0)


def test_another_process_opens_the_file_itself(samples: list[Sample], tmp_path: Path) -> None:
    built = ImageCache.open_or_build(samples, 64, folder=tmp_path)
    image, masks = built.read(5)
    sent = pickle.dumps(built)
    assert len(sent) < 1000
    received_image, received_masks = pickle.loads(sent).read(5)
    assert np.array_equal(received_image, image) and np.array_equal(received_masks, masks)


_PROCESS = """
import os, pickle, signal, sys
from pathlib import Path
from lungseg.data import cache
samples, folder, dies_after = pickle.loads(sys.stdin.buffer.read())
read, count = cache.read_sample, 0
def counted(*arguments):
    global count
    count += 1
    if count == dies_after:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(*arguments)
cache.read_sample = counted
print(int(cache.ImageCache.open_or_build(samples, 64, folder=folder).read(4)[0].sum()))
"""


def _start(samples: list[Sample], folder: Path, dies_after: int = 0) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", _PROCESS], stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdin
    process.stdin.write(pickle.dumps((samples, folder, dies_after)))
    process.stdin.close()
    process.stdin = None
    return process


def test_of_several_processes_at_once_one_builds_and_all_read(samples: list[Sample], tmp_path: Path) -> None:
    many = [replace(samples[i % 12], id=str(i)) for i in range(600)]
    processes = [_start(many, tmp_path) for _ in range(3)]
    said = [process.communicate(timeout=60) for process in processes]
    total = int(read_sample(samples[4], 64)[0].sum())
    assert [int(out) for out, _ in said] == [total] * 3
    assert sum(b"cache: 600 images" in err for _, err in said) == 1
    assert len(_names(tmp_path)) == 1


def test_a_builder_that_was_killed_holds_nobody_up(samples: list[Sample], tmp_path: Path) -> None:
    killed = _start(samples, tmp_path, dies_after=7)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert [name.rpartition(".")[2] for name in _names(tmp_path)] == ["partial"]
    built = ImageCache.open_or_build(samples, 64, folder=tmp_path)
    assert _names(tmp_path) == [built.path.name]


def test_without_locks_each_process_builds_for_itself(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    other = tmp_path / "other.partial"
    other.touch()
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", unknown)
    assert ImageCache.open_or_build(samples, 64, folder=tmp_path).read(0)[0].any()
    assert "no lock here" in caplog.text and other.exists()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_stays_flat_however_large_the_file(tmp_path: Path) -> None:
    count = 1000
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", count * row_bytes(256))
    large = ImageCache(tmp_path / "large", count, 256)

    def resident_mb() -> float:
        return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) / 1e3

    large.read(0)
    before = resident_mb()
    for index in range(count):
        large.read(index)
    assert resident_mb() - before < 12 < count * row_bytes(256) / 1e6


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    plain, terminal = io.StringIO(), _Terminal()
    monkeypatch.setattr(sys, "stderr", plain)
    ImageCache.open_or_build(samples, 64, folder=tmp_path)
    lines = plain.getvalue().splitlines()
    assert lines[4].startswith("cache of train: 5 of 12 (") and len(lines) == 13
    assert re.fullmatch(r"cache: 12 images, 0\.1 MB in .*\.cache", lines[-1])

    monkeypatch.setattr(sys, "stderr", terminal)
    ImageCache.open_or_build(samples, 32, folder=tmp_path)
    bar = terminal.getvalue()
    assert "cache of train" in bar and "\r" in bar
    assert bar.endswith("; 1 more in this folder, 0.1 MB\n")


def test_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LUNGSEG_CACHE", raising=False)
    assert cache_path(None, "x") == Path("/home/someone/.cache/lungseg/x")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_path(None, "x") == Path("/elsewhere/lungseg/x")
    monkeypatch.setenv("LUNGSEG_CACHE", "/here")
    assert cache_path(None, "x") == Path("/here/x")
    assert cache_path(Path("~/own"), "x") == Path("/home/someone/own/x")
