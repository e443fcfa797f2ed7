"""What a paper takes: the LaTeX table and figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lungseg.reporting.report import figures
from lungseg.reporting.report.content import load_content
from lungseg.reporting.report.figures import draw_figures, write_figures
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
    names = {"confusion", "shortcuts", "robustness_noise"}
    assert {path.name for path in paths} == {f"{name}{suffix}" for name in names for suffix in (".pdf", ".png")}
    assert Image.open(tmp_path / "figures" / "shortcuts.png").width == 990  # 3.3 inches at 300 an inch
    assert (tmp_path / "figures" / "shortcuts.pdf").read_bytes().startswith(b"%PDF")
    metrics["shortcuts"] = None
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    write_figures(tmp_path)
    assert not (tmp_path / "figures" / "shortcuts.pdf").exists()


def test_figures_show_the_numbers_of_the_files(evaluation: Path) -> None:
    pytest.importorskip("matplotlib")
    figures = draw_figures(load_content(evaluation))
    shortcuts = figures["shortcuts"].axes[0]
    assert [tick.get_text() for tick in shortcuts.get_yticklabels()][2] == "lungs blanked"
    drawn, ends = shortcuts.containers[0].lines[0], shortcuts.containers[0].lines[1]
    assert drawn.get_xdata()[0] == pytest.approx(0.6)
    assert (ends[0].get_xdata()[0], ends[1].get_xdata()[0]) == pytest.approx((0.58, 0.62))
    roc = figures["roc"].axes[0].lines[0]
    assert list(roc.get_xdata()) == [0.0, 0.1, 0.5, 1.0] and list(roc.get_ydata()) == [0.0, 0.6, 0.9, 1.0]
    assert roc.get_label() == "COVID-19 0.800 [0.780, 0.820]"


def test_without_matplotlib_there_are_no_figures_and_a_line_says_why(
    evaluation: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    assert write_figures(evaluation) == []
    assert caplog.messages == ["no figures/: matplotlib is not installed; `pip install matplotlib` brings them"]
