from __future__ import annotations

import copy
import csv
import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from lungseg.evaluation.evaluator import Options, evaluate
from lungseg.evaluation.outputs import CamMethod
from lungseg.evaluation.saved import from_plain, read_results, to_plain
from lungseg.evaluation.target import EvaluationTarget, load_target
from lungseg.models.network import LungNetwork
from lungseg.reporting.summary import evaluation_lines

QUICK = Options(faithfulness=0, bootstraps=50, shortcuts=0, robustness=0)


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} is no JSON")

    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)
    with (folder / "per_image.csv").open(newline="") as file:
        return content, list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(evaluated_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of its own, into which calibration.json may be written; that of Val is there."""
    folder = tmp_path_factory.mktemp("results") / "run"
    return Path(shutil.copytree(evaluated_run, folder, ignore=shutil.ignore_patterns("evaluation")))


@pytest.fixture(scope="module")
def evaluated(evaluated_run: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """metrics.json and per_image.csv of the Test split, everything measured."""
    return read(evaluated_run / "evaluation" / "test")


def test_metrics_hold_every_section_of_the_contract(evaluated) -> None:
    content, rows = evaluated
    assert list(content) == [
        *("what", "segmentation", "mask_counts", "classification", "calibration", "confusion", "curves"),
        *("operating_points", "abstention", "class_maps", "map_baselines", "shortcuts", "robustness", "verdict"),
        *("scoreboard", "notes"),
    ]
    assert content["what"]["images"] == len(rows) == 6 and content["what"]["split"] == "test"
    assert content["shortcuts"]["images"] == 6 and content["verdict"]["flag"] == "unclear"
    assert content["robustness"]["images"] == 3
    noise = content["robustness"]["curves"]["noise"]["points"]
    assert noise[0]["strength"] == 0 and noise[0]["scores"]["flipped"]["value"] == 0
    assert content["class_maps"]["cam"]["faithfulness"]["images"] == 2


def test_means_and_their_intervals_follow_from_the_rows(evaluated) -> None:
    content, rows = evaluated
    for name in ("dice", "hd95_px", "components", "dice_image_left"):
        values = np.array([float(row[name]) for row in rows])
        number = content["segmentation"][name]
        assert number["value"] == pytest.approx(values.mean(), rel=1e-4) and number["images"] == 6
        assert number["low"] <= number["value"] <= number["high"]
    of_normal = [float(row["dice"]) for row in rows if row["label"] == "Normal"]
    assert content["segmentation"]["dice_Normal"]["value"] == pytest.approx(np.mean(of_normal), rel=1e-4)
    pixels = {name: sum(int(row[f"pixels_{name}"]) for row in rows) for name in ("overlap", "predicted", "true")}
    assert content["segmentation"]["dice_global"]["value"] == pytest.approx(
        2 * pixels["overlap"] / (pixels["predicted"] + pixels["true"])
    )
    right = [row["label"] == row["predicted"] for row in rows]
    assert content["classification"]["accuracy"]["value"] == pytest.approx(np.mean(right))
    assert sum(map(sum, content["confusion"])) == 6
    shares = [float(row["evidence_in_lungs"]) for row in rows if row["evidence_in_lungs"]]
    numbers = content["class_maps"]["cam"]["intervals"]
    assert numbers["evidence_in_lungs"]["value"] == pytest.approx(np.mean(shares), rel=1e-4)


def test_every_number_with_an_interval_is_a_line_of_scores_csv(run: Path, tmp_path: Path) -> None:
    results = evaluate(load_target(run, []), QUICK, tmp_path)
    content = to_plain(results)
    assert read_results(tmp_path) == results and content == read(tmp_path)[0]
    with (tmp_path / "scores.csv").open(newline="") as file:
        lines = {(row["section"], row["name"]): row for row in csv.DictReader(file)}
    number = content["segmentation"]["dice"]
    assert float(lines["segmentation", "dice"]["value"]) == pytest.approx(number["value"], rel=1e-4)
    assert lines["segmentation", "dice"]["images"] == "6"
    assert ("classification", "accuracy") in lines and ("calibration/before", "ece") in lines
    assert ("class_maps/cam/intervals", "lungs_hit_Normal") in lines


def test_the_temperature_of_val_is_kept_with_the_model_and_used(run: Path, evaluated) -> None:
    kept = json.loads((run / "calibration.json").read_text())
    calibration = evaluated[0]["calibration"]
    assert kept["temperature"] == calibration["temperature"] == calibration["used"][0]
    assert (kept["split"], kept["images"], calibration["fitted_on"]) == ("val", 6, "val")
    assert evaluated[0]["operating_points"]["thresholds"]["Normal"] == [kept["thresholds"]["Normal"]]
    for row in evaluated[1]:
        logs = torch.tensor([float(row[f"prob_{name}"]) for name in evaluated[0]["what"]["classes"]]).log()
        scaled = (logs / kept["temperature"]).softmax(0).max()
        assert float(row["confidence_scaled"]) == pytest.approx(float(scaled), abs=1e-4)
        assert row["predicted"] in row["class_set"].split("|")
    sets = evaluated[0]["abstention"]["sets"]
    sizes = [len(row["class_set"].split("|")) for row in evaluated[1]]
    assert sets["set_size"]["value"] == pytest.approx(sum(sizes) / 6)
    assert kept["class_sets"]["coverage"] == 0.9 and evaluated[0]["abstention"]["chosen_on"] == "val"


def test_val_is_measured_by_halves_and_keeps_the_same_temperature(run: Path, tmp_path: Path, evaluated) -> None:
    content = to_plain(evaluate(load_target(run, [], "val"), QUICK, tmp_path))
    assert len(content["calibration"]["used"]) == 2
    assert content["calibration"]["temperature"] == evaluated[0]["calibration"]["temperature"]
    assert json.loads((run / "calibration.json").read_text())["temperature"] == content["calibration"]["temperature"]
    assert any("each half of the images for the other" in note for note in content["notes"])
    assert content["shortcuts"] is content["robustness"] is content["verdict"] is None


def test_the_summary_tells_headlines_maps_verdict_and_notes(evaluated) -> None:
    content, _ = evaluated
    dice = content["segmentation"]["dice"]
    printed = _printed(content)
    for words in (
        f"{'Lung dice, mean over images':<50}{dice['value']:.4f} [{dice['low']:.4f}, {dice['high']:.4f}]",
        "a uniform map would have",
        "mostly outside the lungs",
        "rank correlation once unlearned",
        "shortcuts: UNCLEAR",
        "balanced accuracy as images get worse (3 images; intervals: metrics.json)",
        f"  - {content['notes'][0]}",
    ):
        assert words in printed


def _printed(content: dict[str, Any]) -> str:
    return "\n".join(evaluation_lines(from_plain(content)))


@pytest.fixture
def set_of(tmp_path: Path, phantoms: Path):
    """Writes a data set of some images of the phantoms' Test split, in class folders, and gives its word."""

    def write(classes: dict[str, int], masks: bool = True) -> str:
        root = tmp_path / "other"
        for name, count in classes.items():
            source = phantoms / "Lung Segmentation Data" / "Lung Segmentation Data" / "Test" / (name or "Normal")
            for image in sorted(source.glob("images/*.png"))[:count]:
                for kind, part in (("images", "images"), ("masks", "lung masks")):
                    if masks or kind == "images":
                        (root / name / kind).mkdir(parents=True, exist_ok=True)
                        shutil.copy(source / part / image.name, root / name / kind)
        return f"data.root={root}"

    return write


FULL = dataclasses.replace(QUICK, faithfulness=2, shortcuts=1000, robustness=2)


@pytest.mark.filterwarnings("error")
def test_one_image_is_enough(run: Path, tmp_path: Path, set_of, evaluated) -> None:
    content = to_plain(evaluate(load_target(run, [set_of({"Normal": 1})]), FULL, tmp_path / "out"))
    dice = content["segmentation"]["dice"]
    assert dice["low"] == dice["value"] == dice["high"] and content["what"]["images"] == 1
    assert content["classification"]["auroc"]["value"] is None and content["curves"]["roc"] == {}
    assert "1 images are few: intervals of so few are too narrow" in content["notes"]
    assert _printed(content)


@pytest.mark.filterwarnings("error")
def test_images_of_one_class_leave_undefined_what_compares_classes(
    run: Path, tmp_path: Path, set_of, evaluated
) -> None:
    content = to_plain(evaluate(load_target(run, [set_of({"Normal": 2})]), FULL, tmp_path / "out"))
    assert content["classification"]["sensitivity_Normal"]["value"] is not None
    assert content["classification"]["specificity_Normal"]["value"] is None
    assert "dice_Normal" in content["segmentation"] and "dice_COVID-19" not in content["segmentation"]
    assert any(note.startswith("Normal: every image is of this class") for note in content["notes"])
    assert content["verdict"]["flag"] == "unclear" and _printed(content)


@pytest.mark.filterwarnings("error")
def test_without_labels_masks_and_maps_are_still_measured(run: Path, tmp_path: Path, set_of) -> None:
    content = to_plain(evaluate(load_target(run, [set_of({"": 2})]), FULL, tmp_path / "out"))
    assert content["classification"] == content["calibration"] == content["operating_points"] == {}
    assert content["segmentation"]["dice"]["images"] == 2
    assert content["class_maps"]["cam"]["evidence"]["all"]["n"] == 2
    assert any("2 of 2 images have no label" in note for note in content["notes"]) and _printed(content)
    accuracy = next(row for row in content["scoreboard"] if row["what"] == "image accuracy of the class")
    assert accuracy["value"] is None and accuracy["data"] == "not measured: no image has a class label"


@pytest.mark.filterwarnings("error")
def test_without_masks_classes_are_still_measured(run: Path, tmp_path: Path, set_of) -> None:
    content = to_plain(
        evaluate(load_target(run, [set_of({"Normal": 1, "COVID-19": 1}, masks=False)]), FULL, tmp_path / "out")
    )
    assert content["segmentation"] == {} and content["classification"]["accuracy"]["value"] is not None
    assert "lung masks are not measured: no image has a lung mask" in content["notes"] and _printed(content)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("images", [2, 6])
def test_a_network_that_gives_nan_is_told_and_never_scored(run: Path, tmp_path: Path, images: int) -> None:
    target = load_target(run, [])
    target = dataclasses.replace(target, network=copy.deepcopy(target.network), data_origin="changed")
    _break(target, first=images)
    content = to_plain(evaluate(target, FULL, tmp_path))
    _, rows = read(tmp_path)
    assert sum(row["predicted"] == "" for row in rows) == images
    assert any(f"{images} of 6 images have class probabilities that are not finite" in n for n in content["notes"])
    assert any(f"{images} of 6 images have a class map that is not finite" in n for n in content["notes"])
    assert bool(content["classification"]) is (images < 6)
    assert content["class_maps"]["cam"]["faithfulness"] is None and _printed(content)


def _break(target: EvaluationTarget, first: int) -> None:
    """Make the network give NaN for the first images of the split, whatever they are changed to."""
    ids = [sample.id for sample in target.samples[:first]]
    seen: list[bool] = []
    batches = target.data.test_dataloader

    def spied() -> Any:
        for batch in batches():
            seen[:] = [name in ids for name in batch["id"]]
            yield batch

    target.data.test_dataloader = spied  # type: ignore[method-assign]

    def hook(_: Any, __: Any, output: Any) -> Any:
        broken = torch.tensor([*seen, *[bool(first)] * len(output.class_logits)][: len(output.class_logits)])
        values = [torch.where(broken.view(-1, *[1] * (v.ndim - 1)), torch.nan, v) for v in output[:4]]
        return type(output)(*values)

    target.network.register_forward_hook(hook)


def test_another_set_is_measured_with_the_temperature_kept_with_the_model(run: Path, tmp_path: Path, set_of) -> None:
    fresh = tmp_path / "fresh"
    shutil.copytree(run, fresh, ignore=shutil.ignore_patterns("calibration.json"))
    word = set_of({"Normal": 2, "COVID-19": 2})
    without = to_plain(evaluate(load_target(fresh, [word]), QUICK, tmp_path / "out"))
    assert "after" not in without["calibration"] and without["operating_points"] == {}
    assert any("no temperature" in note and "evaluate it on its own data first" in note for note in without["notes"])
    evaluate(load_target(fresh, []), QUICK, tmp_path / "own")
    kept = (fresh / "calibration.json").read_text()
    content = to_plain(evaluate(load_target(fresh, [word]), QUICK, tmp_path / "out"))
    assert content["calibration"]["used"] == [json.loads(kept)["temperature"]]
    assert content["calibration"]["fitted_on"] == "val of the data of the training"
    assert (fresh / "calibration.json").read_text() == kept


def predicting_infection(run: Path, *words: str) -> EvaluationTarget:
    target = load_target(run, words)
    model = dataclasses.replace(target.config.model, infection=True)
    torch.manual_seed(1)
    network = LungNetwork(model, 3).eval()
    config = dataclasses.replace(target.config, model=model)
    return dataclasses.replace(target, network=network, config=config, data_origin="changed")


def test_a_network_that_predicts_infections_is_scored_on_them(run: Path, tmp_path: Path) -> None:
    content = to_plain(evaluate(predicting_infection(run), QUICK, tmp_path))
    _, rows = read(tmp_path)
    infected = [float(row["infection_dice"]) for row in rows if int(row["infection_pixels_true"])]
    number = content["segmentation"]["infection_dice_infected"]
    assert 0 < len(infected) < 6 and number["images"] == len(infected)
    assert number["value"] == pytest.approx(np.mean(infected), rel=1e-4)
    assert content["mask_counts"]["infection"]["empty_truth"] == 6 - len(infected)
    board = {row["what"]: row["value"] for row in content["scoreboard"] if not row["published"]}
    assert board["infection dice, mean over images with infection"] == number["value"]
    assert any(note.startswith("empty infection masks: empty truth 2") for note in content["notes"])
    segmentation = content["segmentation"]
    errors = [abs(float(row["infection_severity"]) - float(row["infection_severity_true"])) for row in rows]
    assert segmentation["infection_severity_error"]["value"] == pytest.approx(np.mean(errors), rel=1e-3)
    false = [float(row["infection_false_positive"]) for row in rows if not int(row["infection_pixels_true"])]
    assert segmentation["infection_false_positive"]["value"] == np.mean(false)
    assert (
        segmentation["infection_false_positive"]["images"] == 2
        and "infection_false_positive_infected" not in segmentation
    )
    assert {"infection_severity_pearson", "infection_severity_spearman_infected"} <= segmentation.keys()
    by_size = [segmentation.get(f"infection_dice_lesion_{size}") for size in ("small", "medium", "large")]
    assert sum(number["images"] for number in by_size if number) == len(infected)
    assert content["map_baselines"].keys() == {"lungs", "predicted_infection"}
    printed = _printed(content)
    assert "predicted infection as the map" in printed and "by size of lesion" in printed
    assert "Infection dice, two empty masks count as 1" in printed


def test_an_empty_mask_that_says_nothing_is_in_no_score_and_said_to_be_so(run: Path, tmp_path: Path) -> None:
    target = predicting_infection(run, "data.cache=false")
    samples = target.data.samples["test"]
    empty = next(sample.infection for sample in samples if sample.label == 2)
    changed = [dataclasses.replace(s, infection=empty) if s.label == 1 else s for s in samples]
    target.data.samples["test"] = changed
    content = to_plain(evaluate(target, QUICK, tmp_path / "out"))
    _, rows = read(tmp_path / "out")
    assert [row["has_infection_mask"] for row in rows] == [str(int(sample.label != 1)) for sample in changed]
    assert content["mask_counts"]["infection"]["images"] == content["segmentation"]["infection_dice"]["images"] == 4
    assert content["segmentation"]["infection_false_positive"]["images"] == 2
    assert any("2 have an empty one that says nothing" in note for note in content["notes"])
    known = dataclasses.replace(target.config.data, infection_unknown=[])
    target.data.config = known
    content = to_plain(evaluate(target, QUICK, tmp_path / "known"))
    assert content["segmentation"]["infection_false_positive"]["images"] == 4


def test_images_of_one_patient_are_drawn_together(run: Path, tmp_path: Path) -> None:
    target = load_target(run, ["data.cache=false"])
    one = [dataclasses.replace(sample, group="the same") for sample in target.samples]
    target.data.samples["test"] = one
    content = to_plain(evaluate(target, QUICK, tmp_path))
    for number in (content["segmentation"]["dice"], content["class_maps"]["cam"]["intervals"]["lungs_hit"]):
        assert number["low"] == pytest.approx(number["value"]) == number["high"]
    assert any("over groups (1 known)" in note for note in content["notes"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"faithfulness": -1}, "--faithfulness: must be 0 or more, got -1"),
        ({"bootstraps": 0}, "--bootstraps: must be 1 or more, got 0"),
        ({"sensitivity": 0.0}, r"--sensitivity: must be in \(0, 1\], got 0.0"),
        ({"sensitivity": math.nan}, "--sensitivity"),
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**change)


def test_cam_methods_are_named_as_they_are_asked_for() -> None:
    for text in ("cam", "layer_cam@encoder.3"):
        assert CamMethod.parse(text).name == text
