"""Charts: values lie where the axes say, and words tell them to those who do not see."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from importlib import resources

import pytest
from synthetic import number

from lungseg.reporting.report.charts import (
    distribution_chart,
    precision_recall_chart,
    reliability_chart,
    roc_chart,
)
from lungseg.reporting.report.figures import COLOURS
from lungseg.reporting.report.study_charts import dilation_chart, interval_chart, robustness_chart
from lungseg.reporting.report.svg import Scale, bar, line


def test_a_scale_is_linear_and_ends_at_its_ends() -> None:
    scale = Scale(0, 2, 100, 300)
    assert [scale(0), scale(0.5), scale(2), scale(5)] == [100, 150, 300, 300]
    assert Scale(3, 3, 0, 10)(3) == 5


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.83, 1), (0, 95), (0, 0.04), (0, 1200)])
def test_ticks_are_round_few_and_within(low: float, high: float) -> None:
    ticks = Scale(low, high, 0, 1).ticks()
    assert 2 <= len(ticks) <= 7
    assert low <= ticks[0] and ticks[-1] <= high
    assert ticks == sorted(set(ticks))


def test_roc_goes_through_its_points_and_tells_the_area() -> None:
    curves = {"A": {"x": [0.0, 0.0, 1.0], "y": [0.0, 0.5, 1.0]}}
    drawn = roc_chart(curves, {"auroc_A": number(0.75)})
    path = re.search(r'class="curve c0" d="M([^"]*)"', drawn)
    assert path is not None
    assert path[1] == "44.0 250.0L44.0 138.0L366.0 26.0"
    assert "A: AUROC 0.750 [0.730, 0.770]" in drawn


def test_precision_is_drawn_in_steps_and_beside_that_of_guessing() -> None:
    curves = {"A": {"x": [0.0, 0.5, 1.0], "y": [1.0, 1.0, 0.5]}}
    drawn = precision_recall_chart(curves, {"average_precision_A": number(0.75)}, {"A": 0.25})
    # up to a recall of 0.5 at 1, then at once down to 0.5: the area under it is the average precision
    assert 'd="M44.0 26.0L205.0 26.0L205.0 138.0L366.0 138.0"' in drawn
    assert "guessing 0.250" in drawn


def test_bins_of_few_images_are_open_and_empty_ones_not_drawn() -> None:
    bins = [
        {"low": 0.0, "images": 0, "confidence": None, "accuracy": None},
        {"low": 0.5, "images": 9, "confidence": 0.6, "accuracy": 0.5},
        {"low": 0.75, "images": 10, "confidence": 0.9, "accuracy": 0.8},
    ]
    drawn = reliability_chart(bins, [], {"before": number(0.1)})
    assert drawn.count("mark c0 open") == 1
    assert drawn.count('class="mark c0"') == 2  # one in the key
    assert "after temperature scaling" not in drawn


def test_a_distribution_counts_every_value_once() -> None:
    values = [0.2, 0.95, 0.95, 1.0]
    drawn = distribution_chart(values, {"all": values, "none": []}, "dice", 0.9)
    titles = [int(count) for count in re.findall(r": (\d+) images</title></rect>", drawn)]
    assert sum(titles) == 4
    assert "all: median 0.950, 4 images" in drawn and "none" not in drawn


def test_robustness_skips_what_is_undefined() -> None:
    points = [
        {"strength": s, "scores": {"balanced_accuracy": number(0.8 - s), "dice": number(None)}} for s in (0.0, 0.2)
    ]
    drawn = robustness_chart("noise", {"unit": "grey", "points": points}, 0.5)
    assert drawn.count('class="mark c0"') == 2 and 'class="mark c1"' not in drawn
    assert "balanced accuracy from 0.800 [0.780, 0.820] to 0.600" in drawn
    assert "lung dice from not measured" in drawn


@pytest.mark.parametrize(
    "drawn",
    [
        roc_chart({}, {}),
        precision_recall_chart({}, {}, {}),
        reliability_chart([], [], {}),
        distribution_chart([0.5], {}, "a < b & c", 0.0, 0.2),
        interval_chart({"<x>": number(0.5), "y": number(None)}, "score", None),
        dilation_chart([], [], 0.5),
        robustness_chart("noise", {}, None),
    ],
)
def test_every_chart_is_xml_with_a_text_beside_even_if_empty(drawn: str) -> None:
    root = ET.fromstring(drawn)
    assert root.attrib["role"] == "img"
    assert len(root.attrib["aria-label"]) > 10


def test_a_line_of_one_place_is_none_and_a_bar_is_never_negative() -> None:
    assert line([(1, 1), (1.01, 1)], "x") == ""
    assert 'width="0.0"' in bar(0, 0, -3, 2, "x")


def _luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, by WCAG 2."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_series_stand_out_from_the_paper_and_differ_in_more_than_colour() -> None:
    style = (resources.files("lungseg.reporting.report") / "style.css").read_text(encoding="utf-8")
    short = {"#000": "#000000"}
    series = [(short.get(colour, colour), dash) for colour, dash in re.findall(r"\{ --c: (#\w+);(.*?)\}", style)]
    assert tuple(colour for colour, _ in series) == COLOURS
    assert all(1.05 / (_luminance(colour) + 0.05) >= 3 for colour, _ in series)  # WCAG 2.1, 1.4.11
    assert len({dash for _, dash in series}) == len(series) == 7
