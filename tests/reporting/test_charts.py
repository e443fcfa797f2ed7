"""Charts: marks and lines lie at the values, few images look different, words tell them to those who do not see."""

from __future__ import annotations

import html
import re
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from synthetic import number

from lungseg.evaluation.results import CurvePoints, ReliabilityBin
from lungseg.reporting import charts as kinds
from lungseg.reporting.chart_files import Chart, to_svg, write_figures
from lungseg.reporting.charts import COLOURS, TOOLTIP, Drawing, Row

POINTS = [(0.0, number(0.8)), (0.2, number(0.6)), (0.3, number(None))]


def lines(drawing: Drawing, label: str | None = None) -> list[tuple[list[float], list[float]]]:
    """Points of the lines of a figure's first axes, of those with a label only if one is given."""
    found = [line for line in drawing.figure.axes[0].lines if label is None or line.get_label() == label]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in found]


def tooltips(drawing: Drawing) -> list[str]:
    """What is said of marks, bars and boxes."""
    artists = [artist for axes in drawing.figure.axes for artist in (*axes.lines, *axes.patches)]
    return [gid.removeprefix(TOOLTIP) for artist in artists if (gid := artist.get_gid())]


def test_roc_goes_through_its_points_and_tells_the_area() -> None:
    drawing = kinds.draw_roc({"A": CurvePoints([0.0, 0.0, 1.0], [0.0, 0.5, 1.0], [])}, {"auroc_A": number(0.75)})
    assert lines(drawing, "A: AUROC 0.750 [0.730, 0.770]") == [([0.0, 0.0, 1.0], [0.0, 0.5, 1.0])]
    assert "A: AUROC 0.750 [0.730, 0.770]" in drawing.label


@pytest.mark.filterwarnings("error")
def test_names_of_classes_are_drawn_as_they_are_written() -> None:
    names = ("$x_2$ {", "_private", "結核", "100% & <b>")
    curve = CurvePoints([0.0, 0.0, 1.0], [0.0, 0.5, 1.0], [])
    roc = kinds.draw_roc(dict.fromkeys(names, curve), {f"auroc_{name}": number(0.75) for name in names})
    svg = to_svg(Chart("roc", "", "", roc))
    assert all(f"{html.escape(name)}: AUROC" in svg for name in names)


def test_precision_is_drawn_in_steps_and_beside_that_of_guessing() -> None:
    curve = CurvePoints([0.0, 0.5, 1.0], [1.0, 1.0, 0.5], [])
    drawing = kinds.draw_precision_recall({"A": curve}, {"average_precision_A": number(0.75)}, {"A": 0.25})
    guess, steps = drawing.figure.axes[0].lines
    # up to a recall of 0.5 at 1, then at once down to 0.5: the area under it is the average precision
    assert steps.get_drawstyle() == "steps-pre" and list(steps.get_ydata()) == [1.0, 1.0, 0.5]
    assert list(guess.get_ydata()) == [0.25, 0.25] and "guessing 0.250" in steps.get_label()


def test_bins_of_few_images_are_open_and_empty_ones_not_drawn() -> None:
    bins = [ReliabilityBin(0.0, 0, None, None), ReliabilityBin(0.5, 9, 0.6, 0.5), ReliabilityBin(0.75, 10, 0.9, 0.8)]
    drawing = kinds.draw_reliability(bins, [], [number(0.1), None], "confidence", "accuracy")
    marks = [line for line in drawing.figure.axes[0].lines if line.get_gid()]
    assert [(mark.get_xdata()[0], mark.get_ydata()[0]) for mark in marks] == [(0.6, 0.5), (0.9, 0.8)]
    assert [mark.get_markerfacecolor() for mark in marks] == [kinds.PAPER, COLOURS[0]]
    assert [bar.get_height() for bar in drawing.figure.axes[1].patches] == [9, 10]
    assert "after temperature scaling" not in drawing.label


def test_a_distribution_counts_every_value_once_and_boxes_show_its_quantiles() -> None:
    values = [0.2, 0.95, 0.95, 1.0]
    drawing = kinds.draw_distribution({"all": values, "none": []}, "dice", 0.9, reference=0.97)
    histogram, boxes = drawing.figure.axes
    assert sum(bar.get_height() for bar in histogram.patches) == 4
    assert lines(drawing) == [([0.97, 0.97], [0, 1])]
    (box,) = boxes.patches
    assert box.get_path().get_extents().intervalx.tolist() == pytest.approx([0.7625, 0.9625])
    assert "all: median 0.950 (4 images, lowest 0.200)" in drawing.label and "none" not in drawing.label


def test_intervals_stand_one_below_the_other_and_what_is_undefined_has_words_only() -> None:
    rows = [Row("first", number(0.5), 1), Row("second", number(None))]
    drawing = kinds.draw_intervals(rows, "score", (0.3, "chance"))
    interval, mark, reference = lines(drawing)
    assert interval == (pytest.approx([0.48, 0.52]), [0, 0]) and mark == ([0.5], [0]) and reference[0] == [0.3, 0.3]
    assert [text.get_text() for text in drawing.figure.axes[0].texts] == ["first", "second", "chance"]
    assert tooltips(drawing) == ["first"]


def test_a_series_has_a_mark_and_an_interval_a_point_and_skips_what_is_undefined() -> None:
    drawing = kinds.draw_series({"accuracy": POINTS, "dice": [(0.0, number(None))]}, "noise: grey", "", 0.5)
    assert lines(drawing, "accuracy") == [([0.0, 0.2], [0.8, 0.6])] and lines(drawing, "dice") == [([], [])]
    assert tooltips(drawing) == ["accuracy at 0: 0.800 [0.780, 0.820]", "accuracy at 0.2: 0.600 [0.580, 0.620]"]
    assert "accuracy from 0.800 [0.780, 0.820] to not measured" in drawing.label


def test_confusion_shows_counts_and_shares_of_the_true_class() -> None:
    drawing = kinds.draw_confusion([[3, 1], [0, 0]], ["a", "b"])
    texts = [text.get_text() for text in drawing.figure.axes[0].texts]
    assert texts == ["3\n75.0%", "1\n25.0%", "0\n0.0%", "0\n0.0%"]
    assert "a: 3, 1; b: 0, 0" in drawing.label


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "drawing",
    [
        kinds.draw_roc({}, {}),
        kinds.draw_reliability([], [], [None, None], "confidence", "accuracy"),
        kinds.draw_distribution({"a < b & c": [0.5]}, "a < b & c", 0.0, 0.2),
        kinds.draw_intervals([Row("<x>", number(0.5)), Row("y", number(None))], "score", None, limits=None),
        kinds.draw_series({"nothing": []}, "dilation", "", 0.5),
    ],
    ids=["roc", "reliability", "distribution", "intervals", "series"],
)
def test_every_chart_is_drawn_with_a_text_beside_even_if_empty(drawing: Drawing) -> None:
    root = ElementTree.fromstring(to_svg(Chart("c", "", "", drawing)))
    assert root.attrib["role"] == "img" and len(root.attrib["aria-label"]) > 10


def test_svg_has_text_as_text_tooltips_and_the_colours_of_the_page() -> None:
    chart = Chart("noise", "", "", kinds.draw_series({"a < b": POINTS}, "noise: grey", "", None))
    svg = to_svg(chart)
    root = ElementTree.fromstring(svg)
    assert {"noise: grey", "a < b", "0.2"} <= {text.text for text in root.iter("text")}
    assert [title.text for title in root.iter("title")] == [
        "a < b at 0: 0.800 [0.780, 0.820]",
        "a < b at 0.2: 0.600 [0.580, 0.620]",
    ]
    assert "var(--c0)" in svg and "var(--ink)" in svg
    assert not re.search(r"#[0-9a-f]{6}\b(?!\))|DejaVu|<style|metadata|xmlns", re.sub(r'"#?m[0-9a-f]{10}"', "", svg))
    assert len(svg) < 12_000


def test_the_same_numbers_give_the_same_svg_and_ids_differ_between_charts() -> None:
    def draw(name: str) -> str:
        return str(to_svg(Chart(name, "", "", kinds.draw_series({"a": POINTS}, "x", "y", None))))

    one, again, other = draw("one"), draw("one"), draw("other")
    ids = [set(re.findall(r'id="([^"]*)"', svg)) for svg in (one, other)]
    assert one == again
    assert ids[0] and not ids[0] & ids[1]


def test_figures_are_written_and_those_of_an_earlier_report_removed(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    for old in ("old.pdf", "notes.txt"):
        (tmp_path / "figures" / old).write_text("")
    write_figures([Chart("a", "", "", kinds.draw_series({"a": POINTS}, "x", "y", None))], tmp_path)
    document, image = (tmp_path / "figures" / name for name in ("a.pdf", "a.png"))
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"a.pdf", "a.png", "notes.txt"}
    assert document.read_bytes().startswith(b"%PDF") and b"CreationDate" not in document.read_bytes()
    picture = Image.open(image)
    assert picture.width == 990  # 3.3 inches at 300 an inch
    assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def _luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, by WCAG 2."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_series_stand_out_from_the_paper_light_or_dark() -> None:
    style = (resources.files("lungseg.reporting") / "templates" / "style.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--(\w+): (#\w+)", part)) for part in style.split("@media")[:2])
    assert tuple(light[f"c{index}"] for index in range(len(COLOURS))) == COLOURS
    for index in range(len(COLOURS)):
        assert 1.05 / (_luminance(light[f"c{index}"]) + 0.05) >= 3  # WCAG 2.1, 1.4.11
        assert (_luminance(dark[f"c{index}"]) + 0.05) / (_luminance(dark["paper"]) + 0.05) >= 3
