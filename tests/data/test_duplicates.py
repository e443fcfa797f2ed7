"""Copies among the samples: all that are planted are found, and no two different chests are taken for one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from lungseg.config import PhantomConfig
from lungseg.data import duplicates
from lungseg.data.duplicates import (
    Leak,
    copies_in_train,
    find_leaks,
    group_copies,
    read_signature,
    without_training_copies,
)
from lungseg.data.images import read_image
from lungseg.data.index import load_index
from lungseg.data.phantom.phantom_set import write_phantoms
from lungseg.data.sample import Sample, Split
from lungseg.errors import DataError

Image = npt.NDArray[np.uint8]
Planted = set[frozenset[str]]


def brightened(image: Image, gain: float, offset: float, gamma: float) -> Image:
    return np.round(np.clip(image / 255 * gain + offset / 255, 0, 1) ** gamma * 255).astype(np.uint8)


def scaled(image: Image, factor: float) -> Image:
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))


MILD: tuple[tuple[str, Callable[[Image], Image]], ...] = (
    (".jpg", lambda image: image),
    (".png", lambda image: scaled(image, 1.5)),
    (".png", lambda image: scaled(image, 0.8)),
    (".png", lambda image: brightened(image, 0.8, 20, 1)),
    (".png", lambda image: brightened(image, 1.1, -10, 1.3)),
)
"""For images of 64 px: a JPEG of quality 80, two sizes, two exposures."""
STRONG: tuple[tuple[str, Callable[[Image], Image]], ...] = (
    *MILD,
    (".png", lambda image: scaled(image, 0.5)),
    (".jpg", lambda image: scaled(brightened(image, 0.85, 15, 1.2), 0.7)),
    (".jpg", lambda image: brightened(image, 1.2, 0, 0.8)),
)


def write_copy(sample: Sample, split: Split, name: str, suffix: str, image: Image) -> Sample:
    """Write an altered image and its lung mask in the sample's size, beside it; give its sample."""
    _, data = cv2.imencode(suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 80] if suffix == ".jpg" else [])
    assert sample.lung is not None
    lung = cv2.resize(read_image(sample.lung), image.shape[::-1], interpolation=cv2.INTER_NEAREST)
    paths = sample.image.with_name(f"{name}{suffix}"), sample.lung.with_name(f"{name}.png")
    paths[0].write_bytes(data.tobytes())
    paths[1].write_bytes(cv2.imencode(".png", lung)[1].tobytes())
    return replace(sample, id=f"{sample.id}/{name}", image=paths[0], lung=paths[1], split=split)


def plant(samples: Sequence[Sample], changes: Sequence[tuple[str, Callable[[Image], Image]]]) -> list[Sample]:
    """20 exact and 20 altered copies of 40 samples, each in another split than its original."""
    chosen = random.Random(0).sample(list(samples), 40)
    other: dict[Split, Split] = {"train": "val", "val": "test", "test": "train"}
    copies = []
    for at, sample in enumerate(chosen):
        suffix, change = (".png", np.copy) if at < 20 else changes[at % len(changes)]
        copies.append(write_copy(sample, other[sample.split], f"copy-{at}", suffix, change(read_image(sample.image))))
    return copies


def pairs_of(leaks: Sequence[Leak], kind: str) -> Planted:
    return {frozenset((leak.first.id, leak.second.id)) for leak in leaks if leak.kind == kind}


def check_planted(samples: Sequence[Sample], copies: Sequence[Sample]) -> None:
    """Every copy is found, in any order of the samples, and nothing else."""
    mixed = [*samples, *copies]
    random.Random(1).shuffle(mixed)
    leaks = find_leaks(mixed, quiet=True)
    wanted = [frozenset((copy.id, copy.id.rpartition("/")[0])) for copy in copies]
    assert pairs_of(leaks, "exact") == set(wanted[:20])
    assert pairs_of(leaks, "near") == set(wanted[20:])
    assert all(leak.across for leak in leaks)
    assert [leak.likeness for leak in leaks] == sorted((leak.likeness for leak in leaks), reverse=True)


def test_planted_copies_are_found_and_no_other_pair_among_90_chests(tmp_path: Path) -> None:
    chests = load_index(write_phantoms(PhantomConfig(train=54, val=18, test=18, size_px=64, dir=str(tmp_path))))
    check_planted(chests, plant(chests, MILD))


@pytest.mark.slow
@pytest.mark.parametrize(("size_px", "changes"), [(64, MILD), (256, STRONG)])
def test_planted_copies_are_found_and_no_other_pair_among_2000_chests(
    tmp_path: Path, size_px: int, changes: Sequence[tuple[str, Callable[[Image], Image]]]
) -> None:
    config = PhantomConfig(train=1200, val=400, test=400, size_px=size_px, dir=str(tmp_path))
    samples = load_index(write_phantoms(config))
    check_planted(samples, plant(samples, changes))
    bare = [replace(sample, lung=None) for sample in samples]
    assert find_leaks(bare, quiet=True) == []


@pytest.fixture
def few(phantoms: Path) -> list[Sample]:
    return load_index(phantoms)


def test_phantoms_have_no_copies(few: list[Sample]) -> None:
    assert find_leaks(few, quiet=True) == []


def test_copy_without_masks_is_found(few: list[Sample], tmp_path: Path) -> None:
    jpeg = tmp_path / "copy.jpg"
    _, data = cv2.imencode(".jpg", scaled(read_image(few[3].image), 1.5))
    jpeg.write_bytes(data.tobytes())
    copy = Sample("copy", jpeg, None, None, None, "test")
    leaks = find_leaks([*few, copy], quiet=True)
    assert [(leak.kind, leak.first.id, leak.second.id) for leak in leaks] == [("near", few[3].id, "copy")]


def test_exact_copy_in_another_format_is_exact(few: list[Sample], tmp_path: Path) -> None:
    image = read_image(few[0].image)
    colour = tmp_path / "copy.bmp"
    colour.write_bytes(cv2.imencode(".bmp", cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))[1].tobytes())
    leaks = find_leaks([*few, replace(few[0], id="zz", image=colour)], quiet=True)
    assert leaks == [Leak("exact", 1.0, few[0], replace(few[0], id="zz", image=colour))]
    assert not leaks[0].across


def named(name: str, split: Split) -> Sample:
    return Sample(name, Path(name), None, None, None, split)


A, B, C, D, E, F = (named(name, "val" if name in "bdf" else "train") for name in "abcdef")


def test_groups_join_pairs_that_share_an_image() -> None:
    leaks = [Leak("near", 0.99, C, D), Leak("near", 0.99, E, F), Leak("exact", 1.0, A, D), Leak("near", 0.98, B, C)]
    assert group_copies(leaks) == [[A, B, C, D], [E, F]]
    assert group_copies(reversed(leaks)) == [[A, B, C, D], [E, F]]
    assert group_copies([]) == []


def test_training_copies_are_dropped_even_if_another_training_image_links_them() -> None:
    train = [named(name, "train") for name in ("t1", "t2", "t3", "t4")]
    val, test = named("v", "val"), named("x", "test")
    chain = [Leak("near", 0.99, train[0], train[1]), Leak("near", 0.99, train[1], val)]
    within = Leak("exact", 1.0, train[2], train[3])
    assert copies_in_train([*chain, within, Leak("exact", 1.0, val, test)]) == {"t1", "t2"}


def test_training_copies_names_planted_train_images_only(few: list[Sample]) -> None:
    val = next(sample for sample in few if sample.split == "val")
    train = [sample for sample in few if sample.split == "train"]
    copy = replace(val, id="planted", split="train")
    twice = replace(train[0], id="twice")
    assert copies_in_train(find_leaks([*few, copy, twice], quiet=True)) == {"planted"}


def test_leaks_across_splits_come_first(few: list[Sample]) -> None:
    train = [sample for sample in few if sample.split == "train"]
    across, within = replace(train[1], id="z1", split="val"), replace(train[0], id="z0")
    assert [leak.across for leak in find_leaks([*few, within, across], quiet=True)] == [True, False]


def test_unreadable_image_is_named(few: list[Sample], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        find_leaks([*few, replace(few[0], image=broken)], quiet=True)


def test_lung_mask_of_another_size_is_fitted_only_where_it_may_be(few: list[Sample], tmp_path: Path) -> None:
    small = tmp_path / "small.png"
    small.write_bytes(cv2.imencode(".png", scaled(read_image(few[0].image), 0.5))[1].tobytes())
    sample = replace(few[0], image=small)
    with pytest.raises(DataError, match="another size than its image"):
        read_signature(sample)
    fitted, original = read_signature(replace(sample, fit_masks=True)).lungs, read_signature(few[0]).lungs
    assert fitted is not None and original is not None
    assert np.corrcoef(fitted.ravel(), original.ravel())[0, 1] > 0.9


def test_samples_without_signature_are_skipped_and_one_alone_has_no_copy(few: list[Sample]) -> None:
    signature = read_signature(few[0])
    assert find_leaks(few[:2], [signature, None], quiet=True) == []
    assert find_leaks([], quiet=True) == []


def test_the_training_copy_goes_and_the_scored_image_stays(leaking: Path, tmp_path: Path) -> None:
    samples = load_index(leaking)
    kept = without_training_copies(samples, tmp_path / "cache")
    (gone,) = {sample.id for sample in samples} - {sample.id for sample in kept}
    assert gone.endswith("Train/Normal/images/Normal (999).png")


def test_the_search_is_made_once_and_again_when_a_file_changes(
    leaking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(duplicates, "find_leaks", lambda samples: calls.append(1) or find_leaks(samples))
    for _ in range(2):
        without_training_copies(load_index(leaking), tmp_path / "cache")
    assert len(calls) == 1
    image = sorted(leaking.rglob("Train/Normal/images/*.png"))[0]
    image.write_bytes(image.read_bytes() + b"\0")
    without_training_copies(load_index(leaking), tmp_path / "cache")
    assert len(calls) == 2
