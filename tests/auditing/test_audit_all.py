"""Each fault planted by itself in a phantom set is found, named by file, and nothing else is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from lungseg.auditing import integrity
from lungseg.auditing.audit import (
    NO_IMAGE,
    NO_INFECTION_MASK,
    NO_LUNG_MASK,
    OTHER_IMAGE,
    OTHER_MASK,
    Audit,
    audit,
)
from lungseg.config import PhantomConfig
from lungseg.data.images import read_image
from lungseg.data.phantom.phantom_set import write_phantoms
from lungseg.errors import DataError

LUNG = "Lung Segmentation Data/Lung Segmentation Data"
INFECTION = "Infection Segmentation Data/Infection Segmentation Data"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom set of 6 / 3 / 3 images, in both trees. Not to be changed by a test."""
    folder = str(tmp_path_factory.mktemp("sound"))
    return write_phantoms(PhantomConfig(train=6, val=3, test=3, size_px=64, dir=folder))


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    """A copy of the sound set that a test may break."""
    return Path(shutil.copytree(sound, tmp_path / "set"))


def first(root: Path, tree: str, folder: str) -> str:
    """The first file of a folder of a tree, relative to the root."""
    return min((root / tree / folder).iterdir()).relative_to(root).as_posix()


def save(path: Path, picture: npt.NDArray[Any]) -> None:
    """Write anew: the same file of the other tree may be a hard link."""
    path.unlink(missing_ok=True)
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: len(data) // 2])


def halve(path: Path) -> None:
    save(path, cv2.resize(read_image(path), (32, 32), interpolation=cv2.INTER_NEAREST))


def soften(path: Path) -> None:
    save(path, cv2.GaussianBlur(read_image(path), (5, 5), 0))


def fill(value: int) -> Callable[[Path], None]:
    return lambda path: save(path, np.full((64, 64), value, np.uint8))


def invert(path: Path) -> None:
    save(path, 255 - read_image(path))


def keep_left(path: Path) -> None:
    mask = read_image(path).copy()
    mask[:, 32:] = 0
    save(path, mask)


def spill(path: Path) -> None:
    mask = read_image(path).copy()
    mask[:6, :20] = 255
    save(path, mask)


def copy_lung(path: Path) -> None:
    save(path, read_image(path.parent.parent / "lung masks" / path.name))


PLANTED = [
    (INFECTION, "Train/COVID-19/images", cut, integrity.UNREADABLE),
    (LUNG, "Val/Normal/lung masks", cut, integrity.UNREADABLE),
    (INFECTION, "Test/Normal/infection masks", cut, integrity.UNREADABLE),
    (LUNG, "Train/Normal/images", lambda path: path.write_bytes(b""), integrity.UNREADABLE),
    (LUNG, "Train/COVID-19/images", fill(80), integrity.BLANK),
    (LUNG, "Train/Normal/lung masks", halve, integrity.SIZE),
    (INFECTION, "Train/COVID-19/infection masks", halve, integrity.SIZE),
    (LUNG, "Train/Normal/lung masks", soften, integrity.VALUES),
    (INFECTION, "Train/COVID-19/infection masks", soften, integrity.VALUES),
    (LUNG, "Val/Non-COVID/lung masks", fill(0), integrity.EMPTY_LUNG),
    (LUNG, "Test/Normal/lung masks", fill(255), integrity.FRAME),
    (LUNG, "Test/Normal/lung masks", invert, integrity.FRAME),
    (LUNG, "Train/COVID-19/lung masks", keep_left, integrity.ONE_LUNG),
    (INFECTION, "Train/COVID-19/infection masks", spill, integrity.OUTSIDE),
    (INFECTION, "Val/Normal/infection masks", copy_lung, integrity.NO_INFECTION),
    (INFECTION, "Train/COVID-19/infection masks", fill(0), integrity.EMPTY_INFECTION),
]


@pytest.mark.parametrize(("tree", "folder", "spoil", "kind"), PLANTED, ids=[f"{p[3]}, {p[1]}" for p in PLANTED])
def test_fault_of_a_file_is_found_in_one_tree(
    root: Path, tree: str, folder: str, spoil: Callable[[Path], None], kind: str
) -> None:
    file = first(root, tree, folder)
    one = root / tree
    spoil(root / file)
    result = audit(one, quiet=True)
    assert [(fault.kind, fault.file) for fault in result.faults] == [(kind, file.removeprefix(f"{tree}/"))]
    assert not result.is_clean and result.leaks == []


def faults_of(result: Audit) -> list[tuple[str, str]]:
    return [(fault.kind, fault.file) for fault in result.faults]


def test_phantom_set_is_clean_and_its_images_are_in_both_trees(sound: Path) -> None:
    result = audit(sound, quiet=True)
    assert result.is_clean
    assert (result.layout, result.has_splits, result.images) == ("COVID-QU-Ex", True, 12)
    assert (result.in_both_trees, result.moved, result.leaks) == (12, [], [])
    assert result.sizes == {"64x64": 12}
    assert (result.problems, result.faults, result.groups, result.training_copies) == ([], [], [], set())


@pytest.mark.parametrize(
    ("tree", "gone", "kind", "named"),
    [
        (LUNG, "lung masks", NO_LUNG_MASK, "images"),
        (INFECTION, "infection masks", NO_INFECTION_MASK, "images"),
        (INFECTION, "images", NO_IMAGE, "lung masks"),
    ],
)
def test_missing_half_of_a_pair_is_named_by_the_other(root: Path, tree: str, gone: str, kind: str, named: str) -> None:
    file = first(root, tree, f"Train/COVID-19/{gone}")
    (root / file).unlink()
    result = audit(root / tree, quiet=True)
    other = file.removeprefix(f"{tree}/").replace(f"/{gone}/", f"/{named}/")
    assert (kind, other) in faults_of(result)
    assert {fault.kind for fault in result.faults} == {kind}
    assert result.problems == []


def test_same_image_under_two_splits_of_the_trees_is_told_from_the_expected_pair(root: Path) -> None:
    image = root / first(root, INFECTION, "Train/Normal/images")
    for part in ("images", "lung masks", "infection masks"):
        (image.parent.parent / part / image.name).rename(root / INFECTION / "Val/Normal" / part / image.name)
    result = audit(root, quiet=True)
    assert (result.in_both_trees, result.faults, result.leaks) == (11, [], [])
    (moved,) = result.moved
    assert (moved.kind, moved.first.split, moved.second.split) == ("exact", "train", "val")
    assert moved.first.id == f"{LUNG}/Train/Normal/images/{image.name}"
    assert moved.second.id == f"{INFECTION}/Val/Normal/images/{image.name}"
    assert not result.is_clean


def test_image_and_mask_that_differ_between_the_trees_are_named(root: Path) -> None:
    image = first(root, INFECTION, "Train/Normal/images")
    mask = first(root, INFECTION, "Val/Normal/lung masks")
    save(root / image, read_image(root / first(root, INFECTION, "Test/Normal/images")) // 2)
    save(root / mask, cv2.dilate(read_image(root / mask), np.ones((3, 3), np.uint8)))
    result = audit(root, quiet=True)
    assert faults_of(result) == [(OTHER_IMAGE, image), (OTHER_MASK, mask)]
    assert result.in_both_trees == 11


def test_same_image_in_two_splits_is_a_leak_and_its_training_copy_is_dropped(root: Path) -> None:
    for part in ("images", "lung masks"):
        source = root / first(root, LUNG, f"Val/Normal/{part}")
        shutil.copyfile(source, root / LUNG / "Train/Normal" / part / "again.png")
    result = audit(root, quiet=True)
    assert result.faults == []
    (leak,) = result.leaks
    assert (leak.kind, leak.across) == ("exact", True)
    assert result.training_copies == {f"{LUNG}/Train/Normal/images/again.png"}
    assert [len(group) for group in result.groups] == [2]
    assert result.in_both_trees == 12 and not result.is_clean


def test_problem_of_the_index_is_kept_unless_a_fault_says_it(root: Path) -> None:
    (root / first(root, LUNG, "Train/Normal/lung masks")).unlink()
    (root / LUNG / "Train/Normal").rename(root / LUNG / "Train/Healthy")
    result = audit(root / LUNG, quiet=True)
    assert len(result.problems) == 2
    assert result.problems[0].startswith("class without an image in Train: 1 ('Train/Normal'")
    assert result.problems[1].startswith("folder or label that names no class: 1 ('Healthy'")


def test_masks_of_another_size_are_fitted_in_the_layout_that_is_published_so(root: Path, tmp_path: Path) -> None:
    for name, folder in (("COVID", "COVID-19"), ("Normal", "Normal")):
        for part, as_published in (("images", "images"), ("lung masks", "masks")):
            shutil.copytree(root / LUNG / "Train" / folder / part, tmp_path / "other" / name / as_published)
    for mask in tmp_path.glob("other/*/masks/*.png"):
        halve(mask)
    result = audit(tmp_path / "other", quiet=True)
    assert (result.layout, result.has_splits) == ("COVID-19 Radiography Database", False)
    assert result.is_clean


def test_manifest_is_audited_by_the_names_in_it(root: Path) -> None:
    image, mask = (first(root, LUNG, f"Train/Normal/{part}") for part in ("images", "lung masks"))
    manifest = root / "list.csv"
    manifest.write_text(f"image,lung,label\n{image},{mask},Normal\n{image},,Normal\ngone.png,,\n")
    result = audit(manifest, quiet=True)
    assert faults_of(result) == [(integrity.UNREADABLE, "gone.png"), (NO_LUNG_MASK, image)]
    assert any(problem.startswith("image named before: 1 on line 3") for problem in result.problems)


def test_shortcut_of_the_phantom_set_is_found_and_only_where_it_is_planted(tmp_path: Path) -> None:
    for shortcut, found in (("none", False), ("all", True)):
        config = PhantomConfig(train=36, val=18, test=3, size_px=64, shortcut=shortcut, dir=str(tmp_path))  # type: ignore[arg-type]
        result = audit(write_phantoms(config) / LUNG, quiet=True)
        assert len(result.probes) == 3
        assert any(probe.is_shortcut for probe in result.probes) is found
        assert result.is_clean is not found


def test_what_is_no_data_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        audit(tmp_path / "nowhere", quiet=True)
    with pytest.raises(DataError, match="no data set found"):
        audit(tmp_path, quiet=True)
