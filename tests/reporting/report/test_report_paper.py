"""What a paper takes: the LaTeX table and figures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from lungseg.reporting.report import figures
from lungseg.reporting.report.content import load_content
from lungseg.reporting.report.figures import write_figures
from lungseg.reporting.report.latex import escape_latex, latex_table
from lungseg.reporting.report.page import write_report


def test_latex_table_holds_the_headline_numbers(evaluation: Path) -> None:
    write_report(evaluation)
    table = (evaluation / "table.tex").read_text()
    assert r"Lung dice, mean over images & 0.951 & [0.931, 0.971] & 12 \\" in table
    assert r"95 \% Hausdorff distance, pixels & 3.20 & [3.18, 3.22] & 12 \\" in table
    assert "mm" not in table  # undefined there
    rows = table.split(r"\hline")[2].strip().splitlines()
    assert all(row.count("&") == 3 and row.endswith(r"\\") for row in rows)
    assert "test of made up, 12 images (COVID-19 4, Non-COVID 4, Normal 4)" in table


def test_latex_escapes_all_it_would_take_for_commands() -> None:
    assert escape_latex("a_b & 95 % {x}\\") == r"a\_b \& 95 \% \{x\}\textbackslash{}"


def test_latex_table_of_nothing_is_still_a_table(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    assert "nothing was measured" in latex_table(load_content(tmp_path))


def test_figures_are_written_for_what_was_measured_and_only_that(evaluation: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    metrics = json.loads((evaluation / "metrics.json").read_text())
    metrics["curves"], metrics["calibration"] = None, {}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    paths = write_figures(tmp_path)
    assert {path.stem for path in paths} == {"confusion", "shortcuts", "robustness_noise"}
    assert {path.suffix for path in paths} == {".pdf", ".svg", ".png"}
    words = "".join(ET.parse(tmp_path / "figures" / "shortcuts.svg").getroot().itertext())
    assert "lungs blanked" in words


def test_without_matplotlib_there_are_no_figures(evaluation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    assert write_figures(evaluation) == []
