from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lungseg.data.covidqu import CLASSES
from lungseg.errors import DataError
from lungseg.evaluation.find_data import read_other_data_set
from lungseg.evaluation.target import load_target


@pytest.fixture
def files(phantoms: Path) -> list[tuple[Path, Path]]:
    """Images and lung masks."""
    tree = phantoms / "Lung Segmentation Data" / "Lung Segmentation Data" / "Test"
    images = sorted(tree.rglob("images/*.png"))
    return [(image, image.parent.parent / "lung masks" / image.name) for image in images]


def lay(root: Path, place: str, files: list[tuple[Path, Path]]) -> None:
    for number, (image, mask) in enumerate(files):
        for folder, source in (("images", image), ("masks", mask)):
            (root / place / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, root / place / folder / f"{place.replace('/', '_')}_{number}.png")


def test_images_of_unknown_classes_are_kept_without_a_label(tmp_path: Path, files) -> None:
    lay(tmp_path, "Normal", files[:2])
    lay(tmp_path, "Tuberculosis", files[2:5])
    found = read_other_data_set(tmp_path, {}, CLASSES)
    assert [sample.label for sample in found.samples] == [2, 2, None, None, None]
    assert not found.has_splits and {sample.split for sample in found.samples} == {"test"}
    assert (found.unknown_classes, found.unknown_images) == (["Tuberculosis"], 3)
    assert all(sample.lung is not None for sample in found.samples)
    mapped = read_other_data_set(tmp_path, {"Tuberculosis": "Non-COVID"}, CLASSES)
    assert [sample.label for sample in mapped.samples] == [2, 2, 1, 1, 1] and not mapped.unknown_classes


def test_the_layout_of_covidqu_is_read_with_other_class_names(tmp_path: Path, files) -> None:
    for split in ("Train", "Test"):
        for number, (image, mask) in enumerate(files[:2]):
            for folder, source in (("images", image), ("lung masks", mask)):
                target = tmp_path / "deep" / split / "TB" / folder
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target / f"{split}{number}.png")
    found = read_other_data_set(tmp_path, {}, CLASSES)
    assert [(s.split, s.label, s.lung is not None) for s in found.samples] == [
        *[("test", None, True)] * 2,
        *[("train", None, True)] * 2,
    ]
    assert found.has_splits and found.unknown_classes == ["TB"]


def test_a_manifest_may_name_unknown_classes(tmp_path: Path, files) -> None:
    lines = [f"{files[0][0]},Normal", f"{files[1][0]},TB", f"{files[2][0]},1", f"{files[3][0]},"]
    (tmp_path / "list.csv").write_text("image,label\n" + "\n".join(lines) + "\n")
    found = read_other_data_set(tmp_path / "list.csv", {}, CLASSES)
    labels = {sample.image: sample.label for sample in found.samples}
    assert [labels[files[i][0]] for i in range(4)] == [2, None, 1, None]
    assert (found.unknown_classes, found.unknown_images) == (["TB"], 1)


def test_other_faults_are_still_told(tmp_path: Path, files) -> None:
    (tmp_path / "list.csv").write_text(f"image,label\n{files[0][0]},TB\nnowhere.png,TB\n")
    with pytest.raises(DataError, match=r"image file not found: 1 on line 3 \('nowhere.png'\)"):
        read_other_data_set(tmp_path / "list.csv", {})
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_other_data_set(tmp_path / "nowhere", {})


def test_another_set_needs_no_train_split_and_is_measured_whole_without_splits(
    untrained: Path, tmp_path: Path, files
) -> None:
    lay(tmp_path / "flat", "Normal", files[:1])
    target = load_target(untrained, [f"data.root={tmp_path / 'flat'}"])
    assert (target.data_origin, target.split_name, len(target.samples)) == ("other", "all", 1)
    assert target.output == untrained / "evaluation" / "flat-all"
    lay(tmp_path / "split", "Test/Normal", files[:2])
    lay(tmp_path / "split", "Val/Normal", files[2:3])
    split = [f"data.root={tmp_path / 'split'}"]
    assert len(load_target(untrained, split).samples) == 2
    assert len(load_target(untrained, split, "val").samples) == 1
    whole = load_target(untrained, split, "all")
    assert len(whole.samples) == 3 and "all 3 images" in " ".join(whole.caveats)
    shutil.rmtree(tmp_path / "split" / "Test")
    with pytest.raises(ValueError, match=r"'test' has no images here \(there are: val 1\); data.split=all"):
        load_target(untrained, split)


def test_the_data_of_the_training_are_known_again_where_they_lie_now(
    untrained: Path, phantoms: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(untrained, run)
    own = load_target(run, [])
    assert own.data_origin == "own" and own.caveats == ()
    (run / "environment.json").write_text(f'{{"data_fingerprint": "{own.data.fingerprint}"}}')
    shutil.copytree(phantoms, tmp_path / "moved")
    moved = load_target(run, [f"data.root={tmp_path / 'moved'}"])
    assert (moved.data_origin, moved.output) == ("own", run / "evaluation" / "test")
    with pytest.raises(ValueError, match="'all' holds the images the network was trained on"):
        load_target(run, [], "all")
    (run / "environment.json").write_text('{"data_fingerprint": "000000000000"}')
    changed = load_target(run, [])
    assert changed.data_origin == "changed" and "may be among those it learned from" in changed.caveats[0]


def test_own_data_that_were_divided_by_hash_are_divided_the_same_way_when_moved(
    untrained: Path, tmp_path: Path, files, phantoms: Path
) -> None:
    images = sorted((phantoms / "Lung Segmentation Data").rglob("Train/**/images/*.png"))
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        for image in images:
            shutil.copy(image, tmp_path / place / image.name)
    run = tmp_path / "run"
    shutil.copytree(untrained, run)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace(str(phantoms), str(tmp_path / "one")))
    own = load_target(run, [])
    (run / "environment.json").write_text(f'{{"data_fingerprint": "{own.data.fingerprint}"}}')
    moved = load_target(run, [f"data.root={tmp_path / 'other'}"])
    assert moved.data_origin == "own" and 0 < len(moved.samples) < len(images)
    assert [sample.id for sample in moved.samples] == [sample.id for sample in own.samples]


def test_a_run_of_someone_elses_does_not_say_where_files_are_made(own_run: Path, tmp_path: Path) -> None:
    config = own_run / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("cache_dir: null", f"cache_dir: {tmp_path / 'anywhere'}"))
    load_target(own_run, [])
    assert not (tmp_path / "anywhere").exists()
    load_target(own_run, [f"data.cache_dir={tmp_path / 'asked for'}"])
    assert any((tmp_path / "asked for").glob("*.cache"))
    config.write_text(text.replace("cache_dir: null", f"cache_dir: {tmp_path / 'asked for'}"))  # in use: own
    assert load_target(own_run, []).config.data.cache_dir == str(tmp_path / "asked for")
