"""The trees, their counts beside the published ones, masks that belong to nothing; the rest is in test_audit_all."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungseg.auditing.audit import (
    COUNT,
    NO_IMAGE,
    NO_INFECTION_MASK,
    NO_LUNG_MASK,
    PUBLISHED,
    Cell,
    Tree,
    count_cells,
    count_faults,
    list_trees,
    missing_masks,
    stray_masks,
)
from lungseg.auditing.integrity import Fault
from lungseg.data.covidqu import CLASSES
from lungseg.data.index import read_index
from lungseg.data.sample import SPLITS, Sample

LUNG = "Lung Segmentation Data/Lung Segmentation Data"
INFECTION = "Infection Segmentation Data/Infection Segmentation Data"


def write(root: Path, *names: str) -> None:
    """Nothing here opens an image, so any bytes do."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def trees_of(root: Path) -> list[Tree]:
    return list_trees(root, read_index(root))


def test_published_counts_sum_to_what_the_paper_says() -> None:
    lung, infection = PUBLISHED["lung"], PUBLISHED["infection"]
    assert [sum(row) for row in lung] == [21715, 5417, 6788]
    assert [sum(column) for column in zip(*lung, strict=True)] == [11956, 11263, 10701]
    assert sum(map(sum, lung)) == 33920 and sum(map(sum, infection)) == 5826


def test_each_tree_is_listed_by_itself(phantoms: Path) -> None:
    trees = trees_of(phantoms)
    assert [(tree.folder, tree.kind, len(tree.samples)) for tree in trees] == [
        (INFECTION, "infection", 24),
        (LUNG, "lung", 24),
    ]
    assert [(tree.folder, tree.kind) for tree in trees_of(phantoms / LUNG)] == [(".", "lung")]


def test_cells_count_each_split_and_class_beside_the_published_number(phantoms: Path) -> None:
    cells = count_cells(trees_of(phantoms), CLASSES)
    assert len(cells) == 2 * 9
    assert cells[:3] == [
        Cell(INFECTION, "train", "COVID-19", 4, 1864),
        Cell(INFECTION, "train", "Non-COVID", 4, 932),
        Cell(INFECTION, "train", "Normal", 4, 932),
    ]
    assert cells[-1] == Cell(LUNG, "test", "Normal", 2, 2140)


def test_classes_of_ones_own_are_beside_no_published_number(phantoms: Path) -> None:
    cells = count_cells(trees_of(phantoms), ["a", "b", "c"])
    assert cells and all(cell.published is None for cell in cells)
    assert count_cells(trees_of(phantoms), ["a", "b", "c", "d"]) == cells


def test_cells_of_another_layout_are_those_that_hold_images(tmp_path: Path) -> None:
    write(tmp_path, "Normal/a.png", "Normal/b.png", "c.png")
    cells = count_cells(trees_of(tmp_path), ["Normal"])
    assert cells == [Cell(".", "train", "Normal", 2, None), Cell(".", "train", "no class", 1, None)]


def full(kind: str) -> list[Cell]:
    rows = zip(SPLITS, PUBLISHED[kind], strict=True)
    return [Cell("t", split, name, n, n) for split, row in rows for name, n in zip(CLASSES, row, strict=True)]


@pytest.mark.parametrize(
    ("change", "told"),
    [(0, False), (-1, True), (+1, True), (-18, True), (-19, False), (-1864, False)],
)
def test_count_is_a_fault_where_it_is_nearly_the_published_one(change: int, told: bool) -> None:
    cells = full("infection")
    cells[0] = cells[0]._replace(images=1864 + change)
    wanted = [Fault(COUNT, "t/train/COVID-19", f"{1864 + change:,} images, published are 1,864")]
    assert list(count_faults(cells)) == (wanted if told else [])


def test_images_without_masks_are_named_in_either_tree(tmp_path: Path) -> None:
    for tree, parts in ((LUNG, ("images", "lung masks")), (INFECTION, ("images", "lung masks", "infection masks"))):
        for name in CLASSES:
            write(tmp_path, *(f"{tree}/Train/{name}/{part}/{n}.png" for part in parts for n in (1, 2)))
    (tmp_path / f"{LUNG}/Train/Normal/lung masks/1.png").unlink()
    (tmp_path / f"{INFECTION}/Train/COVID-19/infection masks/2.png").unlink()
    assert set(missing_masks(trees_of(tmp_path))) == {
        Fault(NO_INFECTION_MASK, f"{INFECTION}/Train/COVID-19/images/2.png"),
        Fault(NO_LUNG_MASK, f"{LUNG}/Train/Normal/images/1.png"),
    }


def test_masks_are_missed_elsewhere_only_where_others_in_the_folder_have_them(tmp_path: Path) -> None:
    write(tmp_path, "Normal/images/a.png", "Normal/images/b.png", "Normal/masks/a.png", "COVID-19/c.png")
    assert list(missing_masks(trees_of(tmp_path))) == [Fault(NO_LUNG_MASK, "Normal/images/b.png")]


def test_masks_without_images_are_named_wherever_masks_lie(tmp_path: Path) -> None:
    write(tmp_path, "Normal/images/a.png", "Normal/masks/a.png", "Normal/masks/z.png", "Normal/masks/readme.txt")
    write(tmp_path, "COVID-19/images/c.png", "COVID-19/lung masks/c.png", "COVID-19/infection masks/d.png")
    assert list(stray_masks(tmp_path, trees_of(tmp_path))) == [
        Fault(NO_IMAGE, "COVID-19/infection masks/d.png"),
        Fault(NO_IMAGE, "Normal/masks/z.png"),
    ]


def test_both_sides_of_a_mask_in_two_files_are_used(tmp_path: Path) -> None:
    for side in ("leftMask", "rightMask"):
        write(tmp_path, f"ManualMask/{side}/1.png", f"ManualMask/{side}/2.png")
    write(tmp_path, "CXR_png/1.png")
    assert list(stray_masks(tmp_path, trees_of(tmp_path))) == [
        Fault(NO_IMAGE, "ManualMask/leftMask/2.png"),
        Fault(NO_IMAGE, "ManualMask/rightMask/2.png"),
    ]


def test_manifest_is_one_tree(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    manifest = tmp_path / "list.csv"
    manifest.write_text("image,label\na.png,Normal\n")
    trees = trees_of(manifest)
    assert trees == [Tree(".", "", [Sample("a.png", tmp_path / "a.png", None, None, 0, "train", class_name="Normal")])]
