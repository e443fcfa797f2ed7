"""The index of COVID-QU-Ex: both trees, every way the folders are named, and every fault told in one line."""

from __future__ import annotations

import logging
import os
import random
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from lungseg.data.covidqu import CLASSES
from lungseg.data.index import fingerprint, load_index, read_index
from lungseg.data.sample import Sample
from lungseg.errors import DataError

LUNG = "Lung Segmentation Data/Lung Segmentation Data"
INFECTION = "Infection Segmentation Data/Infection Segmentation Data"
PARTS = {LUNG: ("images", "lung masks"), INFECTION: ("images", "lung masks", "infection masks")}


def write(root: Path, *names: str) -> None:
    """The index opens no image, so any bytes do."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def write_case(root: Path, tree: str, split: str, class_name: str, name: str) -> None:
    write(root, *(f"{tree}/{split}/{class_name}/{part}/{name}" for part in PARTS[tree]))


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """Two images a class and split in the lung tree; in the infection tree the first of each, in the next split."""
    splits = ("Train", "Val", "Test")
    for number, split in enumerate(splits):
        for class_name in CLASSES:
            for name in (f"{class_name} ({number}).png", f"{class_name} ({number + 10}).png"):
                write_case(tmp_path, LUNG, split, class_name, name)
            moved = splits[(number + 1) % 3]
            write_case(tmp_path, INFECTION, moved, class_name, f"{class_name.upper()} ({number}).PNG")
    return tmp_path


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_trees_merge_and_the_lung_tree_decides_the_split(both: Path) -> None:
    samples = load_index(both)
    assert Counter((s.split, s.label) for s in samples) == {
        (split, label): 2 for split in ("train", "val", "test") for label in range(3)
    }
    with_infection = [s for s in samples if s.infection is not None]
    assert len(with_infection) == 9
    for sample in with_infection:
        assert sample.id.startswith(LUNG) and sample.image == both / sample.id
        assert sample.lung == sample.image.parent.parent / "lung masks" / sample.image.name
        assert sample.infection is not None and INFECTION in str(sample.infection)
        assert sample.infection.stem == sample.image.stem.upper()
        assert sample.infection.parent.parent.parent.name.casefold() != sample.split


def test_image_of_the_infection_tree_alone_is_added(both: Path) -> None:
    write_case(both, INFECTION, "Val", "Normal", "extra.png")
    samples = load_index(both)
    extra = [s for s in samples if s.image.stem == "extra"]
    image = f"{INFECTION}/Val/Normal/images/extra.png"
    masks = (
        both / INFECTION / "Val/Normal/lung masks/extra.png",
        both / INFECTION / "Val/Normal/infection masks/extra.png",
    )
    assert extra == [Sample(image, both / image, *masks, CLASSES.index("Normal"), "val", class_name="Normal")]
    assert len(samples) == 19


def test_same_name_in_another_class_is_another_image(both: Path) -> None:
    write_case(both, INFECTION, "Train", "Normal", "COVID-19 (0).png")
    samples = load_index(both)
    assert len(samples) == 19
    assert sum(s.image.stem == "COVID-19 (0)" for s in samples) == 2


def test_lung_mask_of_the_infection_tree_serves_the_same_image(both: Path) -> None:
    (both / LUNG / "Train/Normal/lung masks/Normal (0).png").unlink()
    (sample,) = [s for s in load_index(both) if s.image.name == "Normal (0).png"]
    assert sample.lung == both / INFECTION / "Val/Normal/lung masks/NORMAL (0).PNG"


def test_infection_mask_goes_to_the_same_split_where_a_name_stands_twice(both: Path) -> None:
    write_case(both, LUNG, "Val", "COVID-19", "COVID-19 (0).png")
    twice = {s.split: s for s in load_index(both) if s.image.name == "COVID-19 (0).png"}
    assert twice["val"].infection is not None
    assert twice["train"].infection is None


def test_infection_mask_that_fits_two_images_is_left_out_with_a_warning(
    both: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_case(both, LUNG, "Test", "COVID-19", "COVID-19 (0).png")
    samples = load_index(both)
    assert len(samples) == 19
    assert all(s.infection is None for s in samples if s.image.name == "COVID-19 (0).png")
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert f"{INFECTION}/Val/COVID-19/images/COVID-19 (0).PNG" in caplog.text


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("root", ["parent", "tree", "inner"])
@pytest.mark.parametrize("tree", [LUNG, INFECTION])
def test_a_tree_is_found_doubled_or_flat_from_any_of_its_folders(
    tmp_path: Path, tree: str, root: str, flat: bool
) -> None:
    outer = tree.split("/")[0]
    for class_name in CLASSES:
        for split in ("Train", "Val"):
            write_case(tmp_path, tree, split, class_name, "a.png")
    if flat:
        (tmp_path / tree).rename(tmp_path / "flat")
        shutil.rmtree(tmp_path / outer)
        (tmp_path / "flat").rename(tmp_path / outer)
    place = {"parent": "", "tree": outer, "inner": outer if flat else tree}[root]
    above = {"parent": f"{outer}/" if flat else f"{tree}/", "tree": "" if flat else f"{outer}/", "inner": ""}[root]
    samples = load_index(tmp_path / place)
    wanted = [f"{above}{split}/{name}/images/a.png" for split in ("Train", "Val") for name in CLASSES]
    assert [s.id for s in samples] == sorted(wanted)
    assert all((s.infection is not None) == (tree == INFECTION) for s in samples)


def test_names_compare_without_case_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    for class_name, suffix in zip(("COVID-19", "non-covid", "NORMAL"), ("JPG", "tif", "Jpeg"), strict=True):
        write(tmp_path, f"TRAIN/{class_name}/Images/A (1).{suffix}", f"TRAIN/{class_name}/Lung Masks/a (1).bmp")
    write(tmp_path, "validation/Normal/IMAGES/b.PNG", "validation/Normal/LUNG MASKS/B.png")
    write(
        tmp_path,
        "TRAIN/NORMAL/Images/._A (1).png",
        "__MACOSX/Train/Normal/images/c.png",
        "TRAIN/NORMAL/Images/Thumbs.db",
    )
    samples = load_index(tmp_path)
    assert [(s.id, s.label, s.split) for s in samples] == [
        ("TRAIN/COVID-19/Images/A (1).JPG", 0, "train"),
        ("TRAIN/NORMAL/Images/A (1).Jpeg", 2, "train"),
        ("TRAIN/non-covid/Images/A (1).tif", 1, "train"),
        ("validation/Normal/IMAGES/b.PNG", 2, "val"),
    ]
    assert samples[1].lung == tmp_path / "TRAIN/NORMAL/Lung Masks/a (1).bmp"


def test_mask_without_an_image_is_left_to_the_audit(both: Path) -> None:
    write(both, f"{LUNG}/Train/Normal/lung masks/alone.png")
    assert len(load_index(both)) == 18


def test_index_does_not_depend_on_the_order_of_listing(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = load_index(both, test_fraction=0.0, fold=1)
    real = os.scandir

    class Shuffled:
        def __init__(self, path: Path) -> None:
            with real(path) as entries:
                self.entries = list(entries)
            random.Random(1).shuffle(self.entries)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(os, "scandir", Shuffled)
    assert load_index(both, test_fraction=0.0, fold=1) == samples
    assert [s.id for s in samples] == sorted(s.id for s in samples)


# Splits


def tree_without_test(root: Path, count: int = 60) -> Path:
    for class_name in CLASSES:
        for number in range(count):
            write_case(root, INFECTION, "Train", class_name, f"{class_name} ({number}).png")
        write_case(root, INFECTION, "Val", class_name, "v.png")
    return root


def test_without_a_test_split_and_a_fraction_there_is_no_test(tmp_path: Path) -> None:
    samples = load_index(tree_without_test(tmp_path, 3))
    assert Counter(s.split for s in samples) == {"train": 9, "val": 3}


def test_test_split_is_carved_from_every_class_of_train(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tree_without_test(tmp_path)
    samples = load_index(root, test_fraction=0.3, seed=3)
    assert all("/Train/" in s.id for s in samples if s.split == "test")
    assert Counter(s.split for s in samples)["val"] == 3
    for label in range(3):
        share = sum(s.split == "test" and s.label == label for s in samples)
        assert 18 - 3 * 3.6 < share < 18 + 3 * 3.6
    assert samples == load_index(root, test_fraction=0.3, seed=3)
    assert samples != load_index(root, test_fraction=0.3, seed=4)
    assert not caplog.records


def test_test_fraction_is_ignored_with_one_warning_where_test_exists(
    both: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = load_index(both)
    assert not caplog.records
    assert load_index(both, test_fraction=0.2) == plain
    assert [r.getMessage() for r in caplog.records] == [f"{both} has a Test split: test_fraction=0.2 is ignored"]


def test_fold_redraws_train_and_val_and_keeps_test(tmp_path: Path) -> None:
    root = tree_without_test(tmp_path)
    test = {s.id for s in load_index(root, test_fraction=0.2) if s.split == "test"}
    folds = [load_index(root, test_fraction=0.2, fold=fold, folds=3) for fold in range(3)]
    assert all({s.id for s in samples if s.split == "test"} == test for samples in folds)
    vals = [s.id for samples in folds for s in samples if s.split == "val"]
    assert sorted(vals) == sorted({s.id for s in folds[0]} - test)


# Faults


def test_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; set data\.root"):
        load_index(tmp_path / "nowhere")


def test_root_below_a_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, "file")
    with pytest.raises(DataError, match="file/deeper: cannot be reached: Not a directory"):
        load_index(tmp_path / "file" / "deeper")


def test_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "chest.png")
    with pytest.raises(DataError, match=r"chest\.png is a file; data\.root must be a folder"):
        load_index(tmp_path / "chest.png")


def test_empty_root_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data set found; looked for .*COVID-QU-Ex.*there is nothing") as error:
        load_index(tmp_path)
    assert str(tmp_path) in one_line(error)


def test_wrong_root_says_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, "archive/covid.zip", *(f"note {i}.txt" for i in range(9)))
    with pytest.raises(DataError, match=r"there is 'archive/', 'note 0\.txt', .* and 4 more"):
        load_index(tmp_path)


def test_tree_of_empty_folders_names_every_class_of_train(tmp_path: Path) -> None:
    for class_name in CLASSES:
        for part in PARTS[LUNG]:
            (tmp_path / LUNG / "Train" / class_name / part).mkdir(parents=True)
    with pytest.raises(DataError, match="class without an image in Train: 3 ") as error:
        load_index(tmp_path)
    assert all(f"'{LUNG}/Train/{class_name}'" in one_line(error) for class_name in CLASSES)


def test_images_without_a_lung_mask_are_counted_and_three_named(both: Path) -> None:
    for number in (10, 11, 12):
        (mask,) = both.glob(f"{LUNG}/*/Normal/lung masks/Normal ({number}).png")
        mask.unlink()
    (both / f"{LUNG}/Test/COVID-19/lung masks/COVID-19 (12).png").unlink()
    with pytest.raises(DataError, match="image without a lung mask: 4 ") as error:
        load_index(both)
    message = one_line(error)
    assert f"'{LUNG}/Test/COVID-19/images/COVID-19 (12).png'" in message
    assert message.count("/images/") == 3 and "...; add it to 'lung masks'" in message
    assert "python -m lungseg.audit" in message


def test_class_without_images_in_train_is_named_with_its_folder(both: Path) -> None:
    shutil.rmtree(both / LUNG / "Train/Non-COVID")
    with pytest.raises(DataError, match=rf"class without an image in Train: 1 \('{LUNG}/Train/Non-COVID'"):
        load_index(both)


def test_test_split_alone_needs_no_train(tmp_path: Path) -> None:
    write_case(tmp_path, LUNG, "Test", "Normal", "a.png")
    assert [s.split for s in load_index(tmp_path)] == ["test"]


def test_unreadable_folder_is_named(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def refuse(path: Path) -> object:
        if str(path).endswith("Train/Normal/lung masks"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="folder that cannot be read: 2 ") as error:
        load_index(both)
    assert f"'{LUNG}/Train/Normal/lung masks: Permission denied'" in one_line(error)


def test_split_and_class_folders_of_unknown_name_are_named(both: Path) -> None:
    write_case(both, LUNG, "Trian", "Normal", "a.png")
    write_case(both, LUNG, "Train", "Tuberculosis", "b.png")
    with pytest.raises(DataError, match="folder whose name is no split: 1 ") as error:
        load_index(both)
    message = one_line(error)
    assert f"'{LUNG}/Trian'" in message
    assert "folder or label that names no class: 1 ('Tuberculosis'; classes are COVID-19" in message


def test_label_map_names_the_class_of_a_folder(both: Path) -> None:
    write_case(both, LUNG, "Train", "Tuberculosis", "b.png")
    samples = load_index(both, label_map={"tuberculosis": "non-covid"})
    assert [s.label for s in samples if s.image.name == "b.png"] == [CLASSES.index("Non-COVID")]
    with pytest.raises(ValueError, match=r"data\.label_map: 'x' must map to one of .*, got 'TB'"):
        load_index(both, label_map={"x": "TB"})


def test_second_copy_of_a_tree_is_refused(both: Path) -> None:
    shutil.copytree(both / LUNG, both / "copy")
    with pytest.raises(DataError, match=rf"more than one lung tree: 2 \('{LUNG}', 'copy'; point data\.root at one"):
        load_index(both)


def test_two_files_of_one_name_are_refused(both: Path) -> None:
    write(both, f"{LUNG}/Val/Normal/images/normal (1).jpg")
    with pytest.raises(DataError, match=r"second file of one name: 1 \('.*/Val/Normal/images/normal \(1\)\.jpg'"):
        load_index(both)


def test_every_fault_is_told_at_once_and_read_index_does_not_raise(both: Path) -> None:
    (both / LUNG / "Val/Normal/lung masks/Normal (11).png").unlink()
    shutil.rmtree(both / LUNG / "Train/Non-COVID")
    write_case(both, LUNG, "Train", "TB", "b.png")
    with pytest.raises(
        DataError, match=r"without a lung mask: 1 .*without an image in Train: 1 .*names no class: 1 "
    ) as error:
        load_index(both)
    one_line(error)
    reading = read_index(both)
    assert len(reading.problems) == 2 and reading.unknown == ("TB",)
    assert [s.image.name for s in reading.samples if s.lung is None] == ["Normal (11).png"]


# Fingerprint


def test_fingerprint_is_equal_for_a_copy_elsewhere_in_any_order(
    both: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copy = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(both, copy)
    samples = load_index(both)
    assert fingerprint(samples) == fingerprint(load_index(copy)) == fingerprint(samples[::-1])
    assert len(fingerprint(samples)) == 12


def test_fingerprint_changes_with_id_split_label_and_each_size(both: Path) -> None:
    samples = [s for s in load_index(both) if s.infection is not None]
    first, rest = samples[0], samples[1:]
    prints = [fingerprint(samples), fingerprint(rest)]
    prints += [
        fingerprint([replace(first, **change), *rest]) for change in ({"id": "x"}, {"split": "val"}, {"label": 2})
    ]
    for path in (first.image, first.lung, first.infection):
        assert path is not None
        path.write_bytes(path.read_bytes() + b"more")
        prints.append(fingerprint(samples))
    assert len(set(prints)) == len(prints)


def test_fingerprint_of_known_files_is_known(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    sample = Sample("a.png", tmp_path / "a.png", None, None, None, "train")
    assert fingerprint([sample]) == "a08520925b89"  # sha256 of "('a.png', 'train', None, [5, -1, -1])"


@pytest.mark.slow
def test_index_of_the_full_size_is_ready_in_seconds(tmp_path: Path) -> None:
    count = 33_920
    for part in PARTS[LUNG]:
        (tmp_path / part).write_bytes(b"one file, linked, for each part")
        for class_name in CLASSES:
            (tmp_path / LUNG / "Train" / class_name / part).mkdir(parents=True)
    for number in range(count):
        folder = tmp_path / LUNG / "Train" / CLASSES[number % 3]
        for part in PARTS[LUNG]:
            os.link(tmp_path / part, folder / part / f"{number}.png")
    start = time.perf_counter()
    samples = load_index(tmp_path)
    indexed = time.perf_counter()
    fingerprint(samples)
    assert len(samples) == count
    assert indexed - start < 5 and time.perf_counter() - indexed < 5


@pytest.mark.parametrize("mask", ["x-mask", "x_mask", "mask_x", "X_Mask", "x-seg", "x_segmentation"])
def test_masks_lying_among_the_images_are_no_images(tmp_path: Path, mask: str) -> None:
    write(tmp_path, *(f"{name}/{stem}.png" for name in CLASSES for stem in ("x", "y", "unmasked-mask")))
    assert len(load_index(tmp_path)) == 9  # of the last there is no image beside
    write(tmp_path, f"Normal/{mask}.png")
    samples = load_index(tmp_path)
    assert [(s.image.name, s.lung.name) for s in samples if s.lung is not None] == [("x.png", f"{mask}.png")]
    assert len(samples) == 9
