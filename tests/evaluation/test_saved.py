from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lungseg.evaluation.intervals import Number
from lungseg.evaluation.results import CalibrationResults, EvaluationResults, EvaluationSetup, ReliabilityBin
from lungseg.evaluation.saved import from_plain, to_plain

SETUP = EvaluationSetup(
    checkpoint="best.ckpt",
    checkpoint_digest="0",
    split="test",
    images=2,
    data_name="phantoms",
    data_origin="own",
    data={"after": None, "images": None},  # plain already: its keys are no fields
    data_fingerprint=None,
    classes=["a", "b"],
    class_images={"a": 2},
    network={},
    map_class="predicted",
    bootstraps=10,
    versions={"python": None},
    devices=[],
    git_revision=None,
    lungseg="0",
    date="",
)
BINS = [ReliabilityBin(0.0, 0, None, None), ReliabilityBin(0.5, 2, 0.9, 1.0)]
CALIBRATION = CalibrationResults(None, [None, 2.0], "", {"ece": Number(0.0, 0.0, 0.0, 0)}, BINS)


def test_metrics_json_has_its_own_keys_and_words_for_none() -> None:
    plain = to_plain(EvaluationResults(SETUP, {"dice": Number(None, None, None, 0, 3)}))
    assert [*plain][:2] == ["what", "segmentation"] and [*plain][-1] == "notes"
    assert plain["what"]["origin"] == "own" and plain["what"]["target"] == "predicted"
    assert plain["what"]["data"] == {"after": None, "images": None}
    assert plain["calibration"] == plain["operating_points"] == {} and plain["shortcuts"] is None
    assert plain["segmentation"] == {"dice": {"value": None, "low": None, "high": None, "undefined": 0, "images": 3}}
    plain = to_plain(EvaluationResults(SETUP, calibration=CALIBRATION))["calibration"]
    assert not plain.keys() & {"after", "reliability_after"} and "images" not in plain["before"]["ece"]


@pytest.mark.parametrize(
    "results",
    [
        EvaluationResults(SETUP),
        EvaluationResults(SETUP, {"dice": Number(None, None, None, 2)}, calibration=CALIBRATION, caveats=["a"]),
        EvaluationResults(SETUP, calibration=replace(CALIBRATION, after={}, reliability_after=BINS)),
    ],
)
def test_plain_values_are_read_back_as_they_were(results: EvaluationResults) -> None:
    assert from_plain(to_plain(results)) == results


def test_a_lacking_key_is_told_with_the_file_and_an_unknown_one_is_passed_over() -> None:
    plain: dict[str, Any] = to_plain(EvaluationResults(SETUP))
    assert from_plain({"what": plain["what"], "new": 1}) == EvaluationResults(SETUP)
    with pytest.raises(ValueError, match=r"^m.json: 'what' is lacking, .*another version of lungseg; evaluate again"):
        from_plain({"segmentation": {}}, "m.json")
    with pytest.raises(ValueError, match="must hold an object, got 'list'"):
        from_plain([], "m.json")
