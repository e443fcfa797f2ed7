"""The audit in words, as JSON and as files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lungseg.auditing.audit import Audit, Cell
from lungseg.auditing.class_probes import Probe
from lungseg.auditing.integrity import Fault
from lungseg.data.duplicates import Leak
from lungseg.data.sample import Sample, Split
from lungseg.reporting.audit_report import (
    check_output,
    list_findings,
    summarise,
    to_json,
    write_report,
)
from lungseg.runs.whole_files import write_whole

CLEAN = Audit(
    root=Path("/data/set"),
    layout="COVID-QU-Ex",
    classes=("COVID-19", "Non-COVID", "Normal"),
    has_splits=True,
    images=1234,
    sizes={"256x256": 1233, "128x256": 1},
    cells=[Cell("tree", "train", "COVID-19", 1864, 1864), Cell("tree", "test", "COVID-19", 0, 583)],
    problems=[],
    faults=[],
    in_both_trees=7,
    moved=[],
    leaks=[],
    probes=[Probe("thumbnail", 0.9, 1 / 3, 0.02, 100, 50), Probe("border", 0.34, 1 / 3, 0.02, 100, 50)],
)


def sample(root: Path, name: str, split: Split, label: int | None = 0) -> Sample:
    name_of = None if label is None else CLEAN.classes[label]
    return Sample(name, root / name, None, None, label, split, class_name=name_of)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with the images a.png to e.png."""
    for number, name in enumerate("abcde"):
        picture = np.full((30, 40), 40 * number, np.uint8)
        (tmp_path / f"{name}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return tmp_path


@pytest.fixture
def faulty(images: Path) -> Audit:
    a, b = sample(images, "a.png", "train"), sample(images, "b.png", "val")
    c, d = sample(images, "c.png", "train", 1), sample(images, "d.png", "train", None)
    e = sample(images, "e.png", "test")
    return replace(
        CLEAN,
        problems=["folder whose name is no class: 1 ('Train/x'; move it)"],
        faults=[*(Fault("bad", f"f{n:02d}.png", "why") for n in range(12)), Fault("worse", "g.png")],
        moved=[Leak("exact", 1.0, a, e)],
        leaks=[Leak("exact", 1.0, a, b), Leak("near", 0.98764, c, d)],
        probes=[Probe("thumbnail", 0.9, 0.5, 0.02, 9, 8), Probe("border", 0.8, 0.5, 0.02, 9, 8)],
    )


def test_clean_data_set_has_no_findings() -> None:
    text = summarise(CLEAN)
    assert CLEAN.is_clean and list_findings(CLEAN) == []
    assert text.endswith("\nno findings")
    assert "audit of /data/set: COVID-QU-Ex, 1,234 images (256x256, 128x256)" in text
    assert "COVID-19 train 1,864 of 1,864 ok test 0 of 583 differs a part of the tree may differ" in " ".join(
        text.split()
    )
    assert "files and masks: no fault" in text
    assert "both trees: 7 images under the same split (expected), 0 not" in text
    assert "copies: none, neither exact nor near" in text
    assert "  thumbnail     0.900 +- 0.020  may show the disease itself" in text
    assert "  border        0.340 +- 0.020  not clearly above chance" in text


@pytest.mark.parametrize(
    "change",
    [
        {"problems": ["p"]},
        {"faults": [Fault("bad", "f.png")]},
        {"moved": [Leak("exact", 1.0, sample(Path(), "a", "train"), sample(Path(), "b", "val"))]},
        {"leaks": [Leak("near", 0.97, sample(Path(), "a", "train"), sample(Path(), "b", "train"))]},
        {"probes": [Probe("border", 0.9, 1 / 3, 0.02, 100, 50)]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_kind_of_finding_by_itself_is_one(change: dict[str, Any]) -> None:
    audit = replace(CLEAN, **change)
    assert not audit.is_clean
    assert len(list_findings(audit)) == 1


def test_findings_tell_every_kind_with_its_count(faulty: Audit) -> None:
    assert list_findings(faulty) == [
        "folder whose name is no class: 1 ('Train/x'; move it)",
        "bad: 12",
        "worse: 1",
        "images that the two trees have under different splits: 1",
        "leaks, pairs of one image in two splits: 1",
        "pairs of one image twice in one split: 1",
        "shortcut: the class can be told from the border alone",
    ]


def test_summary_names_the_first_files_and_counts_the_rest(faulty: Audit) -> None:
    text = summarise(faulty)
    assert "files and masks: 13 faults\n  bad: 12\n    f00.png: why\n" in text
    assert "    f09.png: why\n    ... and 2 more, see faults.csv\n  worse: 1\n    g.png\n" in text
    assert "copies: 4 images show 2 exposures (up to 2 images of one)" in text
    assert "  across splits: 1 exact and 0 near pairs\n  within a split: 0 exact and 1 near pairs\n" in text
    assert "  1 exposures lie in several splits; data.exclude_leaks=true drops 1 training images" in text
    assert "  1 pairs have two different classes" in text
    assert "  border        0.800 +- 0.020  a shortcut: training will learn it" in text


def test_set_without_splits_speaks_of_none() -> None:
    leak = Leak("near", 0.97, sample(Path(), "a", "train"), sample(Path(), "b", "train"))
    audit = replace(
        CLEAN, has_splits=False, in_both_trees=0, leaks=[leak], cells=[Cell(".", "train", "Normal", 3, None)]
    )
    text = summarise(audit)
    assert "COVID-QU-Ex, no splits" in text and "across splits" not in text and "both trees" not in text
    assert "  in the set: 0 exact and 1 near pairs" in text
    assert "images in . Normal train 3 files and masks" in " ".join(text.split())
    assert list_findings(audit) == ["pairs of one image twice in the set: 1"]


def test_name_that_is_no_text_can_be_printed_and_written(tmp_path: Path) -> None:
    audit = replace(CLEAN, faults=[Fault("bad", "caf\udce9.png")])
    assert "caf\\udce9.png" in summarise(audit)
    write_report(audit, tmp_path)
    assert b"caf\xe9.png" in (tmp_path / "faults.csv").read_bytes()


def test_json_holds_everything(faulty: Audit) -> None:
    values = json.loads(json.dumps(to_json(faulty)))
    assert values["clean"] is False and values["findings"] == list_findings(faulty)
    assert values["counts"][1] == {
        "tree": "tree",
        "split": "test",
        "name": "COVID-19",
        "images": 0,
        "published": 583,
        "verdict": "differs",
    }
    assert len(values["faults"]) == 13 and values["faults"][12] == {"kind": "worse", "file": "g.png", "detail": ""}
    assert values["leaks"][1]["correlation"] == 0.9876 and values["moved"][0]["id_b"] == "e.png"
    assert values["groups"] == [["a.png", "b.png"], ["c.png", "d.png"]]
    assert values["training_copies"] == ["a.png"]
    assert values["probes"][1]["shortcut"] is True


def test_files_hold_all_pairs_and_faults(faulty: Audit, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    written = write_report(faulty, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["faults.csv", "leaks.csv", "pairs.png"]
    assert sorted(written) == sorted(folder.iterdir())
    rows = list(csv.DictReader((folder / "leaks.csv").open(newline="")))
    assert [(row["id_a"], row["id_b"], row["across_splits"]) for row in rows] == [
        ("a.png", "b.png", "True"),
        ("a.png", "e.png", "True"),
        ("c.png", "d.png", "False"),
    ]
    assert rows[2] == {
        "kind": "near",
        "correlation": "0.9876",
        "across_splits": "False",
        "id_a": "c.png",
        "split_a": "train",
        "label_a": "Non-COVID",
        "id_b": "d.png",
        "split_b": "train",
        "label_b": "",
    }
    assert len(list(csv.DictReader((folder / "faults.csv").open(newline="")))) == 13


def test_later_audit_replaces_the_files_of_an_earlier_one(faulty: Audit, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_report(faulty, folder)
    (folder / "notes.txt").write_text("mine")
    check_output(folder, tmp_path / "elsewhere")
    write_report(CLEAN, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["faults.csv", "leaks.csv", "notes.txt"]
    assert (folder / "leaks.csv").read_text().count("\n") == 1


@pytest.mark.parametrize("name", ["leaks.csv", "faults.csv", "pairs.png"])
def test_file_of_someone_else_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match=rf"{name}' was not written by an audit"):
        check_output(tmp_path, tmp_path / "data")


def test_output_must_be_a_folder_outside_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="lies inside the data set"):
        check_output(tmp_path / "data" / "out", tmp_path / "data")
    with pytest.raises(FileExistsError, match="is a file"):
        check_output(tmp_path / "file", tmp_path / "data")
    check_output(tmp_path / "new", tmp_path / "data")


def test_file_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, target: Path) -> None:
        raise OSError("full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="full"):
        write_whole(tmp_path / "x.csv", b"data")
    assert not (tmp_path / "x.csv").exists()
