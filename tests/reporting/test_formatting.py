"""Numbers as text and as tables of a paper."""

from __future__ import annotations

import dataclasses

import pytest
from synthetic import number

from lungseg.evaluation.results import EvaluationResults
from lungseg.reporting.evaluation_files import Content
from lungseg.reporting.formatting import (
    MOST_CLASSES,
    confusion_names,
    count_words,
    digits_of,
    escape_latex,
    format_images,
    format_interval,
    headlines,
    of_main_classes,
    results_latex,
)


@pytest.fixture
def results(content: Content) -> EvaluationResults:
    return content.results


def test_an_interval_stands_in_brackets_and_what_is_undefined_is_named() -> None:
    assert format_interval(number(0.951)) == "0.951 [0.931, 0.971]"
    assert format_interval(dataclasses.replace(number(0.951), low=None, high=None), 4) == "0.9510"
    assert format_interval(number(None)) == format_interval(None) == "not measured"
    assert format_interval(None, missing="-") == "-"
    assert (digits_of("infection_hd95_px"), digits_of("dice")) == (2, 3)
    assert (format_images(1), format_images(1200)) == ("1 image", "1,200 images")


def test_headlines_are_those_that_are_defined_with_the_images_behind_them(results: EvaluationResults) -> None:
    found = {headline.name: headline.images for headline in headlines(results)}
    assert list(found)[:4] == ["dice", "iou", "hd95_px", "accuracy"] and set(found.values()) == {12}
    fewer = dataclasses.replace(results, segmentation={"dice": number(0.9, images=7)})
    assert headlines(fewer)[0].images == 7


def test_latex_table_holds_the_headline_numbers(results: EvaluationResults) -> None:
    table = results_latex(results)
    assert r"Lung dice, mean over images & 0.951 & [0.931, 0.971] & 12 \\" in table
    assert r"95 \% Hausdorff distance, pixels & 3.20 & [3.18, 3.22] & 12 \\" in table
    assert "mm" not in table  # undefined there
    rows = table.split(r"\hline")[2].strip().splitlines()
    assert all(row.count("&") == 3 and row.endswith(r"\\") for row in rows)
    assert "test of made up, 12 images (COVID-19 4, Non-COVID 4, Normal 4)" in table


def test_latex_escapes_all_it_would_take_for_commands() -> None:
    assert escape_latex("a_b & 95 % {x}\\") == r"a\_b \& 95 \% \{x\}\textbackslash{}"


def test_latex_table_of_nothing_is_still_a_table(results: EvaluationResults) -> None:
    assert r"nothing was measured &  &  &  \\" in results_latex(EvaluationResults(results.setup))


def test_of_many_classes_those_with_the_most_images_are_shown_and_no_image_is_lost(results: EvaluationResults) -> None:
    assert of_main_classes(results) is results
    names = [f"class_{index}" for index in range(300)]
    counts = {name: index + 1 for index, name in enumerate(names)}
    results = dataclasses.replace(
        results,
        setup=dataclasses.replace(results.setup, classes=names, class_images=counts),
        classification={"accuracy": number(0.5)} | {f"f1_{name}": number(0.5) for name in names},
        confusion=[[counts[a] * (a == b) for b in names] for a in names],
    )
    shown = of_main_classes(results)
    assert shown.setup.classes == names[-MOST_CLASSES:] and "300 classes those 20" in shown.caveats[0]
    assert list(shown.classification) == ["accuracy", *(f"f1_{name}" for name in names[-MOST_CLASSES:])]
    assert [row[i] for i, row in enumerate(shown.confusion)] == [*range(281, 301), sum(range(281))]
    assert sum(map(sum, shown.confusion)) == sum(counts.values())
    assert confusion_names(shown) == [*names[-MOST_CLASSES:], "other classes"]
    assert count_words(shown).endswith("class_299 300, 280 more classes")
