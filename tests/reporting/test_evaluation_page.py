"""The page of an evaluation: complete, self-contained, and never broken by what lacks."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from synthetic import CLASSES, make_evaluation, number
from wellformed import checked

from lungseg.evaluation.results import EvaluationResults
from lungseg.evaluation.saved import from_plain, to_plain
from lungseg.reporting.chart_files import Chart
from lungseg.reporting.evaluation_charts import evaluation_charts
from lungseg.reporting.evaluation_files import Content, read_content
from lungseg.reporting.report_run import evaluation_page, write_report

Charts = dict[str, list[Chart]]
NO_CHARTS: Charts = {part: [] for part in ("masks", "classes", "maps", "shortcuts", "robustness")}


def words_of(content: Content, charts: Charts | None = None, folder: Path = Path(), **changed: Any) -> str:
    """The words of the page with sections of the results changed; without charts if there are none given."""
    content = dataclasses.replace(content, results=dataclasses.replace(content.results, **changed))
    return checked(evaluation_page(content, charts or NO_CHARTS, folder)).text


def test_page_is_well_formed_and_refers_to_nothing_outside_itself(page: str) -> None:
    checker = checked(page)
    assert all(reference.startswith(("data:", "#")) for reference in checker.references)
    assert not re.search(r"https?://", page)
    assert "@import" not in page
    assert {reference[1:] for reference in checker.references if reference.startswith("#")} <= set(checker.ids)
    parts = ("summary", "notes", "masks", "classes", "maps", "shortcuts", "robustness", "gallery", "scoreboard")
    assert {*parts, "setup"} <= set(checker.ids)
    assert "script-src 'unsafe-inline'; img-src 'self' file: data:; base-uri 'none'" in page


def test_every_chart_has_a_text_beside_and_every_table_heads(page: str, charts: Charts) -> None:
    drawn = [chart for part, of_part in charts.items() for chart in of_part if part != "paper"]
    assert len(drawn) == page.count('<svg viewBox="0 0 237.6') == page.count("<svg") - 1 == 9
    assert re.findall(r'<svg viewBox[^>]*role="img" aria-label="ROC curves', page)
    assert page.count("<table>") == page.count("<thead>") > 10
    assert page.count('<th scope="row">') > 50
    # an accessible name holds what can be seen, and a heading is not empty
    assert not re.findall(r"<th[^>]*>\s*</th>", page)
    assert set(re.findall(r'<button[^>]*aria-label="([^"]*)"', page)) <= {"close"}


def test_numbers_are_those_of_the_files(page: str) -> None:
    text = checked(page).text
    assert "0.951 [0.931, 0.971]" in text
    assert "0.951 (95 % interval 0.931 to 0.971)" in text
    assert "3.20 [3.18, 3.22]" in text  # pixels have two digits
    assert "always naming the most frequent class would reach 0.333" in text
    assert "a balanced accuracy of 0.800 falls to 0.600 at 0.2 (grey range)" in text
    assert "a map that knows nothing of lungs would have 0.240" in text
    assert "0.330 [0.310, 0.350]" in text and "Measured on 7 images" in text  # maps and their faithfulness
    assert "head 0.100, encoder -" in text
    assert "At the strongest, 20% of the predictions change, most often to COVID-19." in text
    assert "Temperature 1.400, chosen on val." in text


def test_page_says_that_it_is_no_medical_device(page: str) -> None:
    said = (
        "Research software, not a medical device. Nothing here may be used to diagnose, treat or triage a patient; no "
    )
    assert checked(page).text.count(f"{said}number here says how the network does on other data.") == 2


def test_page_names_no_file_patient_or_folder(page: str, content: Content) -> None:
    assert content.rows[0]["id"] == "SECRET-0.png" and content.rows[0]["group"] == "PATIENT-0"
    assert "SECRET" not in page and "PATIENT" not in page and "someone" not in page
    assert "demo/best.ckpt" in page


def test_infection_is_shown_by_both_conventions_apart_by_size_and_beside_what_needs_no_map(content: Content) -> None:
    numbers = {"dice": 0.88, "dice_infected": 0.76, "dice_lesion_small": 0.4, "dice_COVID-19": 0.77, "iou": 0.83}
    numbers |= {f"severity_error{end}": 0.09 for end in ("", "_infected", "_lesion_small", "_COVID-19")}
    numbers |= {"false_positive": 0.31, "false_share": 0.02}
    found = {f"infection_{name}": number(value, images=7) for name, value in numbers.items()}
    baselines = {"lungs": {"infection_hit": number(0.55), "infection_hit_lesion_small": number(0.06)}}
    text = words_of(content, segmentation=content.results.segmentation | found, map_baselines=baselines)
    assert "with infection70.760 [0.740, 0.780]" in text and "small lesions70.400" in text
    assert "COVID-197--0.090" in text  # its dice may count two empty masks as 1
    assert "as 1, over all images whose infection is known: dice 0.880 [0.860, 0.900]" in text
    assert "of 7 images known to have none, a share of 0.310" in text
    assert "lungs as the map-0.550" in text and "lungs as the mapsmall0.060" in text


def test_a_flag_stands_in_the_summary_with_its_reason(page: str, content: Content) -> None:
    assert "Shortcut: the network tells the class where no lung is to be seen. Without lungs 0.6." in checked(page).text
    verdict = dataclasses.replace(content.results.verdict, flag="no sign")  # type: ignore[type-var]
    assert "No sign of a shortcut in this test" in words_of(content, verdict=verdict)


def test_maps_no_better_than_uniform_are_said_to_be_so(page: str, content: Content) -> None:
    maps = content.results.class_maps["cam"]
    uniform = dataclasses.replace(maps, intervals=maps.intervals | {"evidence_in_lungs": number(0.25)})
    said = words_of(content, class_maps={"cam": uniform})
    assert "So the maps not prefer" not in said and "So the maps do not prefer the lungs" in said
    assert "a map cropped to the lungs would look better than it is" in said
    sentence = "So the maps clearly prefer the lungs; in 5 of 12 images most of the evidence lies outside."
    assert sentence in checked(page).text


def test_parts_that_were_not_measured_are_left_out_with_a_sentence(content: Content) -> None:
    empty = dataclasses.replace(content, results=EvaluationResults(content.results.setup), rows=[], pictures={})
    charts = evaluation_charts(empty)
    assert not any(charts.values())
    text = words_of(empty, charts)
    for sentence in (
        "There are none.",
        "No masks were measured",
        "The classes were not measured",
        "Class maps were not measured",
        "Whether the class can be told without the lungs is therefore not known",
        "this evaluation cannot say where the accuracy comes from",
        "Not measured.",
        "There are no pictures",
        "There is no scoreboard",
    ):
        assert sentence in text


def test_null_numbers_everywhere_do_not_break_the_page(content: Content, evaluation: Path) -> None:
    def hollow(value: Any) -> Any:
        if isinstance(value, dict):
            undefined = {"value", "low", "high", "lung_area", "confidence", "accuracy"}
            return {k: None if k in undefined and not isinstance(v, dict) else hollow(v) for k, v in value.items()}
        return [hollow(inner) for inner in value] if isinstance(value, list) else value

    plain = to_plain(content.results)
    hollowed = hollow(plain)
    hollowed["calibration"]["reliability"] = [b | {"low": 0.5} for b in hollowed["calibration"]["reliability"]]
    hollowed["calibration"]["reliability_after"] = []
    hollowed["classification"] |= {name: hollow(n) for name, n in plain["classification"].items()}
    found = dataclasses.replace(content, results=from_plain(hollowed))
    text = words_of(found, evaluation_charts(found), evaluation)
    assert "not measured" in text
    assert not re.search(r"\bnan\b|\bNone\b", text)


def test_strings_are_escaped_wherever_they_stand(tmp_path: Path) -> None:
    bad = "</script><script>alert(1)</script>\"'&<b>"
    folder = make_evaluation(tmp_path, images=3)
    text = (folder / "metrics.json").read_text()
    (folder / "metrics.json").write_text(text.replace("COVID-19", json.dumps(bad)[1:-1]))
    table = (folder / "per_image.csv").read_text()
    quoted = bad.replace('"', '""')
    (folder / "per_image.csv").write_text(table.replace("prob_COVID-19", "prob").replace("COVID-19", f'"{quoted}"'))
    content = read_content(folder)
    charts = NO_CHARTS | {"classes": evaluation_charts(content)["classes"]}
    page = evaluation_page(content, charts, folder)
    assert page.count("<script") == 2
    assert bad in checked(page).text


def test_scores_without_an_error_are_not_praised(page: str, content: Content) -> None:
    perfect = {f"sensitivity_{name}": number(1.0, 0.0) for name in CLASSES}
    calibration = dataclasses.replace(content.results.calibration, used=[0.01])  # type: ignore[type-var]
    text = words_of(content, classification=content.results.classification | perfect, calibration=calibration)
    assert "is recognised least often" not in text
    assert "of other images, up to about 25% may be wrong (rule of three)" in text  # 3 of 12
    assert "with none in 4 images, up to about 75% of all may still be wrong" in text
    assert "no temperature is told" in text and "after temperature scaling by" not in text
    assert "is recognised least often" not in checked(page).text  # all the same there


def test_a_report_is_page_table_and_a_figure_a_chart(
    evaluation: Path, charts: Charts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(
        "lungseg.reporting.report_run.write_figures",
        lambda found, folder: written.extend(chart.name for chart in found),
    )
    shutil.copy(evaluation / "metrics.json", tmp_path)
    page = write_report(tmp_path)
    assert "There are no pictures" in page.read_text()
    assert (tmp_path / "table.tex").read_text().startswith("% written by lungseg")
    assert {"roc", "precision_recall", "confusion", "reliability", "shortcuts", "robustness_noise"} <= set(written)
    assert "dice" not in written and "dice" in [chart.name for chart in charts["masks"]]  # it needs per_image.csv


def test_a_folder_that_is_no_evaluation_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"metrics\.json: not there; `python -m lungseg\.evaluate"):
        write_report(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json: is no JSON"):
        write_report(tmp_path)
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold an object, got 'list'"):
        write_report(tmp_path)
