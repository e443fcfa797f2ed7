from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
from torch.utils.data import default_collate

from lungseg.bench import BENCHMARKS, _parser, main
from lungseg.benchmarks import data
from lungseg.command import run_command
from lungseg.config import AugmentConfig
from lungseg.data.batch import unpack
from lungseg.data.cache import ImageCache
from lungseg.data.dataset import LungDataset
from lungseg.data.index import load_index


def _run(*arguments: str) -> int:
    return run_command(main, _parser(), arguments)


def test_data_prints_rates_and_ratios_and_leaves_threads_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads(), cv2.getNumThreads()
    assert _run("data", "--quick") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"data: {BENCHMARKS['data']}"
    rows = [re.fullmatch(r"  64 px  (\S.*\S) +(\d+) +(\d+\.\d) x", line) for line in lines[2:]]
    assert len(rows) == 3 and all(rows)
    rates, ratios = ([float(row[group]) for row in rows if row] for group in (2, 3))
    assert ratios[0] == 1 and ratios[1] == pytest.approx(rates[1] / rates[0], abs=0.06)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == threads


def test_all_run_where_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--quick") == 0
    assert all(f"{name}: " in capsys.readouterr().out for name in BENCHMARKS)


def test_an_unknown_benchmark_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("dta") == 2
    assert capsys.readouterr().err == "error: no benchmark 'dta'; there are: data\n"


def test_both_ways_give_the_same_batch_where_nothing_is_augmented(phantoms: Path, tmp_path: Path) -> None:
    """Else they would not be compared fairly."""
    off = AugmentConfig(shift=0, scale=0, rotate=0, flip=0, brightness=0, contrast=0, gamma=0, noise=0)
    samples = [replace(sample, infection=None) for sample in load_index(phantoms)[:4]]
    plain = default_collate(list(map(data.PlainDataset(samples, 64, off).__getitem__, range(4))))
    cached = LungDataset(samples, 64, off, 0, cache=ImageCache.open_or_build(samples, 64, folder=tmp_path))
    batch = unpack(default_collate([cached[0, i] for i in range(4)]))
    assert torch.equal(plain["lung"], batch["lung"]) and torch.equal(plain["label"], batch["label"])
    assert (plain["image"] - batch["image"]).abs().max() < 1.01 / 255  # albumentations' gamma of 1 truncates
