"""Faults of the files of one sample; those of a whole data set are in test_audit_all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from lungseg.auditing import integrity
from lungseg.auditing.integrity import Fault, Inspection, inspect
from lungseg.data.covidqu import CLASSES
from lungseg.data.sample import Sample

Grey = npt.NDArray[np.uint8]
SIDE = 40


def ellipse(*centres: tuple[int, int], axes: tuple[int, int] = (7, 12)) -> Grey:
    """A mask with an ellipse at each centre (column, row)."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for centre in centres:
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1)
    return mask


LUNGS = ellipse((10, 20), (29, 20))


class Case:
    """A sample whose files can be replaced."""

    def __init__(self, root: Path) -> None:
        self.root, self.infection_unknown = root, [1]
        self.sample = Sample("image.png", root / "image.png", root / "lung.png", root / "infection.png", 0, "train")
        self.write("image.png", np.random.default_rng(0).integers(0, 255, (SIDE, SIDE)).astype(np.uint8))
        self.write("lung.png", LUNGS)
        self.write("infection.png", ellipse((10, 20), axes=(3, 3)))

    def write(self, name: str, picture: npt.NDArray[Any]) -> None:
        (self.root / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())

    def look(self, **changes: Any) -> Inspection:
        sample = replace(self.sample, **changes)
        sample = replace(sample, class_name=None if sample.label is None else CLASSES[sample.label])
        return inspect(sample, self.root, self.infection_unknown)

    def told(self, **changes: Any) -> list[tuple[str, str, str]]:
        return [(fault.kind, fault.file, fault.detail) for fault in self.look(**changes).faults]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_sound_sample_has_no_fault_and_gives_what_the_audit_needs(case: Case) -> None:
    look = case.look()
    assert look.faults == []
    assert look.signature is not None and look.signature.lungs is not None
    assert look.shape == (SIDE, SIDE)
    assert look.lung_digest == case.look(infection=None).lung_digest
    assert look.cover is not None and look.cover.shape == (32, 32)
    assert look.cover.mean() / 255 == pytest.approx((LUNGS > 0).mean(), abs=0.01)


def test_sample_of_an_image_alone_is_sound(case: Case) -> None:
    look = case.look(lung=None, infection=None, label=None)
    assert (look.faults, look.lung_digest, look.cover) == ([], None, None)


@pytest.mark.parametrize(
    ("name", "cut", "detail"),
    [
        ("image.png", 200, "cannot be read as an image (truncated PNG)"),
        ("lung.png", 60, "cannot be read as an image (truncated PNG)"),
        ("infection.png", 0, "cannot be read as an image (the file is empty)"),
    ],
)
def test_file_that_is_cut_is_named_with_its_reason(case: Case, name: str, cut: int, detail: str) -> None:
    path = case.root / name
    path.write_bytes(path.read_bytes()[:cut])
    assert case.told() == [(integrity.UNREADABLE, name, detail)]


def test_missing_file_is_unreadable_and_the_others_are_looked_at(case: Case) -> None:
    case.write("lung.png", np.zeros((SIDE, SIDE), np.uint8))
    (case.root / "image.png").unlink()
    look = case.look()
    assert [fault[:2] for fault in look.faults] == [
        (integrity.UNREADABLE, "image.png"),
        (integrity.EMPTY_LUNG, "lung.png"),
        (integrity.OUTSIDE, "infection.png"),
    ]
    assert (look.signature, look.shape) == (None, None)


def test_image_of_one_grey_value(case: Case) -> None:
    case.write("image.png", np.full((SIDE, SIDE), 77, np.uint8))
    assert case.told() == [(integrity.BLANK, "image.png", "")]
    assert case.look().signature is None


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_mask_in_the_place_of_an_image(case: Case, suffix: str) -> None:
    image = case.root / f"image.{suffix}"
    cv2.imwrite(str(image), LUNGS)
    assert [fault[:2] for fault in case.look(image=image).faults] == [(integrity.NO_GREY, f"image.{suffix}")]


def test_size_must_be_that_of_the_image_or_its_aspect_where_masks_may_be_fitted(case: Case) -> None:
    case.write("lung.png", np.asarray(cv2.resize(LUNGS, (20, 20), interpolation=cv2.INTER_NEAREST)))
    assert case.told() == [(integrity.SIZE, "lung.png", "20x20 pixels, the image 40x40 pixels")]
    assert case.told(fit_masks=True) == []
    strict, fitted = (case.look(fit_masks=fit).signature for fit in (False, True))
    assert strict is not None and strict.lungs is None
    assert fitted is not None and fitted.lungs is not None
    case.write("lung.png", np.asarray(cv2.resize(LUNGS, (20, 22), interpolation=cv2.INTER_NEAREST)))
    assert case.told(fit_masks=True) == [(integrity.SIZE, "lung.png", "20x22 pixels, the image 40x40 pixels")]


@pytest.mark.parametrize(
    ("levels", "detail"),
    [
        ((0, 3, 255), "holds 0, 3, 255"),
        ((0, 2), "holds 0, 2"),
        ((128, 255), "holds 128, 255"),
        ((0, 1, 2, 3, 254, 255), "holds 0, 1, 2, ..., 255 (6 values)"),
        ((0, 255), ""),
        ((0, 254), ""),
        ((0, 1), ""),
    ],
)
def test_mask_holds_zero_and_one_other_value(case: Case, levels: tuple[int, ...], detail: str) -> None:
    mask = np.where(LUNGS > 0, max(levels), min(levels)).astype(np.uint8)
    mask[20, 6 : 6 + len(levels)] = levels
    case.write("lung.png", mask)
    told = [told for told in case.told(infection=None) if told[0] == integrity.VALUES]
    assert told == ([(integrity.VALUES, "lung.png", detail)] if detail else [])


def test_mask_in_16_bit_is_two_valued(case: Case) -> None:
    case.write("lung.png", LUNGS.astype(np.uint16) * 257)
    assert case.told() == []


def test_mask_of_the_whole_frame_and_its_opposite(case: Case) -> None:
    for mask, share in ((np.full_like(LUNGS, 255), 100), (255 - LUNGS, 100)):
        case.write("lung.png", mask)
        told = case.told(infection=None)
        assert told == [(integrity.FRAME, "lung.png", f"{share} % of the frame's pixels")]


def test_lungs_that_reach_two_edges_are_sound(case: Case) -> None:
    mask = LUNGS.copy()
    mask[:20, 5:15] = 255
    mask[20:, 25:33] = 255
    case.write("lung.png", mask)
    assert case.told() == []


def merged() -> Grey:
    mask = LUNGS.copy()
    mask[10:13, 5:35] = 255
    return mask


def specked() -> Grey:
    mask = ellipse((10, 20))
    mask[5:8, 25:28] = 255
    return mask


@pytest.mark.parametrize(
    ("mask", "is_one"),
    [
        (ellipse((10, 20)), True),
        (ellipse((29, 20)), True),
        (specked(), True),
        (merged(), False),
        (LUNGS, False),
    ],
    ids=["left", "right", "with a speck", "merged", "both"],
)
def test_one_lung_is_one_part_on_one_side(case: Case, mask: Grey, is_one: bool) -> None:
    case.write("lung.png", mask)
    kinds = [fault.kind for fault in case.look(infection=None).faults]
    assert kinds == ([integrity.ONE_LUNG] if is_one else [])


def test_lungs_kept_in_two_files_are_one_mask(case: Case) -> None:
    for side, mask in (("left", ellipse((10, 20))), ("right", ellipse((29, 20)))):
        (case.root / f"{side}Mask").mkdir()
        case.write(f"{side}Mask/lung.png", mask)
    lung = case.root / "leftMask/lung.png"
    assert case.told(lung=lung) == []
    case.write("rightMask/lung.png", np.zeros((20, 20), np.uint8))
    assert case.told(lung=lung) == [(integrity.SIZE, "rightMask/lung.png", "20x20 pixels, the other side 40x40 pixels")]


def test_infection_is_inside_the_lung_but_for_a_pixel_in_a_hundred(case: Case) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[LUNGS > 0] = 255
    area = np.count_nonzero(mask)
    mask[0, 0:4] = 255
    case.write("infection.png", mask)
    assert case.told() == []
    mask[0, 4:8] = 255
    case.write("infection.png", mask)
    assert case.told() == [(integrity.OUTSIDE, "infection.png", f"8 of {area + 8} pixels")]


@pytest.mark.parametrize(
    ("label", "empty", "kind"),
    [
        (0, True, integrity.EMPTY_INFECTION),
        (0, False, None),
        (1, True, None),
        (1, False, None),
        (2, True, None),
        (2, False, integrity.NO_INFECTION),
        (None, False, None),
    ],
)
def test_infection_belongs_to_the_class(case: Case, label: int | None, empty: bool, kind: str | None) -> None:
    if empty:
        case.write("infection.png", np.zeros((SIDE, SIDE), np.uint8))
    assert [fault.kind for fault in case.look(label=label).faults] == ([kind] if kind else [])


def test_an_empty_infection_mask_is_a_fault_of_every_class_whose_are_known(case: Case) -> None:
    case.write("infection.png", np.zeros((SIDE, SIDE), np.uint8))
    case.infection_unknown = [0]
    assert [case.told(label=label) for label in (0, 1, 2)] == [
        [],
        [(integrity.EMPTY_INFECTION, "infection.png", "Non-COVID")],
        [],
    ]


def test_file_outside_the_root_is_named_in_full(case: Case, tmp_path: Path) -> None:
    (case.root / "image.png").unlink()
    faults = inspect(case.sample, tmp_path / "elsewhere", [1]).faults
    assert faults[0][:2] == Fault(integrity.UNREADABLE, (case.root / "image.png").as_posix())[:2]
