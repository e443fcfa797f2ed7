from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lungseg.command import run_command
from lungseg.compare import _parser, main
from lungseg.evaluation.comparison import TABLE, compare, holm
from lungseg.evaluation.evaluator import Options, evaluate
from lungseg.evaluation.saved import SavedEvaluation, read_evaluation
from lungseg.evaluation.target import load_target
from lungseg.reporting.comparison_report import comparison_latex, comparison_markdown, format_p

FEW = Options(faithfulness=0, bootstraps=40, shortcuts=0, robustness=0)


@pytest.fixture(scope="module")
def runs(evaluated_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs, networks of other weights, evaluated on the same images."""
    second = tmp_path_factory.mktemp("runs") / "second"
    shutil.copytree(evaluated_run, second, ignore=shutil.ignore_patterns("calibration.json", "evaluation"))
    path = second / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    generator = torch.Generator().manual_seed(7)
    for value in checkpoint["state_dict"].values():
        if value.is_floating_point() and value.ndim > 1:
            value.add_(0.3 * value.std() * torch.randn(value.shape, generator=generator))
    torch.save(checkpoint, path)
    target = load_target(second, [], "test")
    evaluate(target, FEW, target.output)
    return evaluated_run, second


@pytest.fixture
def copies(runs: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The same, to be changed."""
    for run in runs:
        shutil.copytree(run, tmp_path / run.name)
    return tmp_path / "first", tmp_path / "second"


def _both(runs: tuple[Path, Path]) -> list[SavedEvaluation]:
    return [read_evaluation(run, "test") for run in runs]


def _rewrite(run: Path, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    path = run / "evaluation" / "test" / "per_image.csv"
    with path.open(newline="") as file:
        rows = change(list(csv.DictReader(file)))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_numbers_of_a_run_are_those_that_evaluate_wrote(runs: tuple[Path, Path]) -> None:
    content = compare(_both(runs), replicates=20)
    for run in runs:
        wrote = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
        wrote["class_maps"] = wrote["class_maps"]["cam"]["intervals"]
        wrote["calibration"] = wrote["calibration"]["before"]
        sections = ("segmentation", "classification", "calibration", "class_maps")
        numbers: dict[str, Any] = {f"{section}/{name}": n for section in sections for name, n in wrote[section].items()}
        found = content["runs"][run.name]
        assert len(found) > 100
        for name, number in found.items():
            assert number["value"] == pytest.approx(numbers[name]["value"], abs=1e-7), name
        lacking = {name for name, number in numbers.items() if number["value"] is not None} - set(found)
        assert all("lesion" in name or "_true" in name for name in lacking), lacking


def test_differences_are_run_minus_baseline_and_none_of_a_run_with_itself(runs: tuple[Path, Path]) -> None:
    first, second = _both(runs)
    content = compare([first, second, first], replicates=50)
    assert list(content["differences"]) == ["second", "first (2)"]
    for name, found in content["differences"]["second"].items():
        values = [content["runs"][run][name]["value"] for run in ("second", "first")]
        if not name.startswith("class_maps") and "hd95" not in name and "asd" not in name:  # means of what both define
            assert found["value"] == pytest.approx(values[0] - values[1]), name
        assert found["low"] <= found["high"]
    for found in content["differences"]["first (2)"].values():
        assert (found["value"], found["low"], found["high"], found["p_value"]) == (0, 0, 0, 1)
    assert "first (2) and first are the same checkpoint" in content["notes"]


def test_images_are_paired_by_what_they_are_not_by_their_row(copies: tuple[Path, Path]) -> None:
    before = compare(_both(copies), replicates=50)
    _rewrite(copies[1], lambda rows: rows[::-1])
    after = compare(_both(copies), replicates=50)
    for name, found in before["differences"]["second"].items():
        assert after["differences"]["second"][name] == pytest.approx(found, nan_ok=True), name


def test_other_images_are_refused_unless_the_shared_ones_are_asked_for(copies: tuple[Path, Path]) -> None:
    _rewrite(copies[1], lambda rows: [*rows[:4], rows[4] | {"digest": "another file"}])
    with pytest.raises(
        ValueError, match=r"not evaluated on the same images \(first 6, second 5, in common 4\).*--shared"
    ):
        compare(_both(copies))
    content = compare(_both(copies), shared=True, replicates=20)
    assert content["what"]["images"] == 4
    assert "first: 2 of its 6 images are left out" in content["notes"]
    _rewrite(copies[1], lambda rows: [row | {"digest": "x"} for row in rows])
    with pytest.raises(ValueError, match="no image in common"):
        compare(_both(copies), shared=True)


def test_labels_that_contradict_each_other_are_refused(copies: tuple[Path, Path]) -> None:
    _rewrite(copies[1], lambda rows: [rows[0] | {"label": "Normal"}, *rows[1:]])
    with pytest.raises(
        ValueError, match=r"1 images have another label in second than in first.*'Normal' and 'COVID-19'"
    ):
        compare(_both(copies))


def test_networks_of_other_sizes_are_not_compared_in_pixels(copies: tuple[Path, Path]) -> None:
    path = copies[1] / "evaluation" / "test" / "metrics.json"
    content = json.loads(path.read_text())
    content["what"]["data"]["image_size"] = 128
    path.write_text(json.dumps(content))
    found = compare(_both(copies), replicates=10)
    assert not [name for name in found["differences"]["second"] if "_px" in name]
    assert any("128 and 64 px" in note for note in found["notes"])


def test_one_run_and_runs_not_evaluated_are_refused_in_a_line(
    runs: tuple[Path, Path], untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, _parser(), [str(runs[0])]) == 2
    assert capsys.readouterr().err == "error: RUN: give two runs or more to compare, got 1\n"
    assert run_command(main, _parser(), [str(runs[0]), str(tmp_path / "none")]) == 2
    assert "none: no such folder; give run folders" in capsys.readouterr().err
    assert run_command(main, _parser(), ["--split", "val", str(runs[0]), str(runs[1])]) == 2
    said = capsys.readouterr().err
    assert "--split takes one of test; or run `python -m lungseg.evaluate --checkpoint" in said
    assert "data.split=val` first" in said


def test_holm_multiplies_by_the_tests_left_and_never_falls() -> None:
    assert holm([0.01, math.nan, 0.04, 0.03]) == pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_tables_escape_names_and_tell_small_p_values(runs: tuple[Path, Path]) -> None:
    content = compare(_both(runs), replicates=20)
    content["table"][0]["run"] = "a_b|c"
    assert "a\\_b|c" in comparison_latex(content)
    assert "a_b\\|c" in comparison_markdown(content)
    assert "& -" not in comparison_latex(content)  # a hyphen is no minus
    assert (format_p(0.0004), format_p(0.0312), format_p(None)) == ("< 0.001", "0.031", "-")


def test_the_command_prints_the_table_and_writes_every_kind(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*map(str, runs), "--bootstraps", "30", "--output", str(tmp_path)]
    assert run_command(main, _parser(), words) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].startswith("score")
    assert "Balanced accuracy" in said and "train several to know" in said
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert {row["name"] for row in content["table"]} <= {name for name, _ in TABLE}
    page = (tmp_path / "comparison.html").read_text()
    assert page.count("<svg") == 2 and "http://" not in page and "https://" not in page and "<script" not in page
    with (tmp_path / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(content["differences"]["second"])
    assert float(rows[0]["difference"]) == pytest.approx(content["differences"]["second"]["segmentation/dice"]["value"])
    assert (tmp_path / "comparison.md").read_text().count("\n| ") == len(content["table"]) + 1
    assert "\\begin{tabular}" in (tmp_path / "comparison.tex").read_text()
