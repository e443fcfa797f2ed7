"""The page of an evaluation: complete, self-contained, and never broken by what lacks."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from synthetic import CLASSES, make_evaluation, make_metrics, number
from wellformed import checked

from lungseg.reporting.report.page import ANCHORS, DISCLAIMER, write_report


def _changed(folder: Path, evaluation: Path, change: Any) -> Path:
    """A copy of the evaluation with metrics.json changed."""
    shutil.copytree(evaluation, folder, dirs_exist_ok=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics = change(metrics) or metrics
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_page_is_well_formed_and_refers_to_nothing_outside_itself(evaluation: Path) -> None:
    checker = checked(write_report(evaluation))
    assert all(reference.startswith(("data:", "#")) for reference in checker.references)
    text = (evaluation / "report.html").read_text()
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    assert "@import" not in text
    assert {reference[1:] for reference in checker.references if reference.startswith("#")} <= set(checker.ids)
    assert set(ANCHORS) <= set(checker.ids)


def test_numbers_are_those_of_the_files(evaluation: Path) -> None:
    text = checked(write_report(evaluation)).text
    assert "0.951 [0.931, 0.971]" in text
    assert "0.951 (95 % interval 0.931 to 0.971)" in text
    assert "3.20 [3.18, 3.22]" in text  # pixels have two digits
    assert "always naming the most frequent class would reach 0.333" in text
    assert "a balanced accuracy of 0.800 falls to 0.600 at 0.2 (grey range)" in text
    assert "a map that knows nothing of lungs would have 0.240" in text


def test_page_says_that_it_is_no_medical_device(evaluation: Path) -> None:
    assert checked(write_report(evaluation)).text.count(DISCLAIMER) == 2
    assert "not a medical device" in DISCLAIMER


def test_page_names_no_file_patient_or_folder_unless_told_to(tmp_path: Path) -> None:
    folder = make_evaluation(tmp_path, images=3)
    hidden = write_report(folder).read_text()
    assert "SECRET" not in hidden and "PATIENT" not in hidden and "someone" not in hidden
    shown = write_report(folder, names=True).read_text()
    assert "SECRET-0.png" in shown and "PATIENT-0" in shown
    assert "/home/someone" not in shown


def test_a_flag_stands_in_the_summary_with_its_reason(evaluation: Path, tmp_path: Path) -> None:
    text = checked(write_report(evaluation)).text
    assert "Shortcut: the network tells the class where no lung is to be seen" in text
    clean = _changed(tmp_path, evaluation, lambda m: m["verdict"].update(flag="no sign"))
    assert "No sign of a shortcut in this test" in checked(write_report(clean)).text


def test_maps_no_better_than_uniform_are_said_to_be_so(evaluation: Path, tmp_path: Path) -> None:
    def change(metrics: dict[str, Any]) -> None:
        metrics["class_maps"]["cam"]["intervals"]["evidence_in_lungs"] = number(0.25)

    folder = _changed(tmp_path, evaluation, change)
    said = checked(write_report(folder)).text
    assert "So the maps not prefer" not in said and "So the maps do not prefer the lungs" in said
    assert "a map cropped to the lungs would look better than it is" in said
    assert (
        "So the maps clearly prefer the lungs; in 5 of 12 images most of the evidence lies outside."
        in checked(write_report(evaluation)).text
    )


def test_numbers_of_maps_stand_with_their_intervals(evaluation: Path) -> None:
    text = checked(write_report(evaluation)).text
    assert "0.330 [0.310, 0.350]" in text and "Measured on 7 images" in text


@pytest.mark.parametrize("section", sorted(make_metrics([{"label": CLASSES[0], "predicted": CLASSES[0]}])))
@pytest.mark.parametrize("empty", ["absent", None, "of its kind"])
def test_a_part_that_is_missing_is_left_out_with_a_sentence(
    evaluation: Path, tmp_path: Path, section: str, empty: str | None
) -> None:
    def change(metrics: dict[str, Any]) -> None:
        kind = type(metrics[section])
        if empty == "absent":
            del metrics[section]
        else:
            metrics[section] = None if empty is None else kind()

    text = checked(write_report(_changed(tmp_path, evaluation, change))).text
    said = {
        "segmentation": "No masks were measured",
        "classification": "The classes were not measured",
        "class_maps": "Class maps were not measured",
        "shortcuts": "Whether the class can be told without the lungs is therefore not known",
        "verdict": "this evaluation cannot say where the accuracy comes from",
        "scoreboard": "There is no scoreboard",
        "notes": "There are none",
    }
    assert said.get(section, "Config and environment") in text


def test_null_numbers_everywhere_do_not_break_the_page(evaluation: Path, tmp_path: Path) -> None:
    def hollow(value: Any) -> Any:
        if isinstance(value, dict):
            undefined = {"value", "low", "high", "lung_area", "confidence", "accuracy"}
            return {k: None if k in undefined and not isinstance(v, dict) else hollow(v) for k, v in value.items()}
        return [hollow(inner) for inner in value] if isinstance(value, list) else value

    def change(metrics: dict[str, Any]) -> dict[str, Any]:
        bins = [{**b, "low": 0.5} for b in metrics["calibration"]["reliability"]]
        hollowed: dict[str, Any] = hollow(metrics)
        hollowed["calibration"]["reliability"] = [{**b, "accuracy": None, "confidence": None} for b in bins]
        hollowed["calibration"]["reliability_after"] = []
        return hollowed

    folder = _changed(tmp_path, evaluation, change)
    text = checked(write_report(folder)).text
    assert "not measured" in text
    assert not re.search(r"\bnan\b|\bNone\b", text)


def test_metrics_alone_give_a_page_without_a_gallery(tmp_path: Path, evaluation: Path) -> None:
    shutil.copy(evaluation / "metrics.json", tmp_path)
    text = checked(write_report(tmp_path)).text
    assert "There are no pictures" in text
    (tmp_path / "metrics.json").write_text("{}")
    assert "Measured on 0 images" in checked(write_report(tmp_path)).text


def test_strings_are_escaped_wherever_they_stand(tmp_path: Path) -> None:
    bad = "</script><script>alert(1)</script>\"'&<b>"
    folder = make_evaluation(tmp_path, images=3)
    text = (folder / "metrics.json").read_text()
    (folder / "metrics.json").write_text(text.replace("COVID-19", json.dumps(bad)[1:-1]))
    table = (folder / "per_image.csv").read_text()
    quoted = bad.replace('"', '""')
    (folder / "per_image.csv").write_text(table.replace("prob_COVID-19", "prob").replace("COVID-19", f'"{quoted}"'))
    page = write_report(folder, names=True)
    checker = checked(page)
    assert page.read_text().count("<script") == 2
    assert bad in checker.text


def test_a_folder_that_is_no_evaluation_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"metrics\.json: not there; `python -m lungseg\.evaluate"):
        write_report(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json: is no JSON"):
        write_report(tmp_path)
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold an object, got 'list'"):
        write_report(tmp_path)


def test_scores_without_an_error_are_not_praised(evaluation: Path, tmp_path: Path) -> None:
    def change(metrics: dict[str, Any]) -> None:
        for name in CLASSES:
            metrics["classification"][f"sensitivity_{name}"] = number(1.0, 0.0)
        metrics["calibration"]["used"] = [0.01]

    text = checked(write_report(_changed(tmp_path, evaluation, change))).text
    assert "is recognised least often" not in text
    assert "of other images, up to about 25% may be wrong (rule of three)" in text  # 3 of 12
    assert "no temperature is told" in text and "after temperature scaling by" not in text
    assert "is recognised least often" not in checked(write_report(evaluation)).text  # all the same there
