"""The shortcut probe finds what was planted, and nothing in noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lungseg.auditing import class_probes
from lungseg.auditing.class_probes import Probe, probe_shortcuts
from lungseg.data.sample import Sample, Split

Pictures = npt.NDArray[np.uint8]
INSIDE = (slice(8, 24), slice(8, 24))


def make(count: int, seed: int = 0, val: bool = True) -> tuple[list[Sample], Pictures, Pictures]:
    """Noise, three classes in turn, every third image in val, lungs in a square in the middle."""
    rng = np.random.default_rng(seed)
    samples = [
        Sample(f"{at}.png", Path(f"{at}.png"), None, None, at % 3, _split(at) if val else "train")
        for at in range(count)
    ]
    covers = np.zeros((count, 32, 32), np.uint8)
    covers[:, *INSIDE] = 255
    return samples, rng.integers(90, 110, (count, 32, 32)).astype(np.uint8), covers


def _split(at: int) -> Split:
    return "val" if at // 3 % 3 == 0 else "train"


def verdicts(probes: list[Probe]) -> dict[str, bool]:
    return {probe.view: probe.is_shortcut for probe in probes}


@pytest.mark.parametrize("seed", range(5))
def test_noise_tells_nothing(seed: int) -> None:
    samples, thumbnails, covers = make(180, seed)
    probes = probe_shortcuts(samples, thumbnails, covers)
    assert verdicts(probes) == {"thumbnail": False, "border": False, "lungs blanked": False}
    assert all(abs(probe.accuracy - 1 / 3) < 4 * probe.deviation for probe in probes)
    assert {(probe.fitted, probe.tested, probe.chance) for probe in probes} == {(120, 60, 1 / 3)}


def test_disease_inside_the_lungs_is_no_shortcut() -> None:
    samples, thumbnails, covers = make(180)
    for at, picture in enumerate(thumbnails):
        picture[10 + 4 * (at % 3), 10:20] = 250
    probes = probe_shortcuts(samples, thumbnails, covers)
    assert verdicts(probes) == {"thumbnail": False, "border": False, "lungs blanked": False}
    assert probes[0].accuracy == 1


def test_mark_in_the_corner_is_found_by_border_and_blanked_view() -> None:
    samples, thumbnails, covers = make(180)
    for at, picture in enumerate(thumbnails):
        picture[1, at % 3] = 250
    assert verdicts(probe_shortcuts(samples, thumbnails, covers)) == {
        "thumbnail": False,
        "border": True,
        "lungs blanked": True,
    }


def test_mark_beside_the_lungs_is_no_border() -> None:
    samples, thumbnails, covers = make(180)
    for at, picture in enumerate(thumbnails):
        picture[5, 10 + at % 3] = 250
    assert verdicts(probe_shortcuts(samples, thumbnails, covers))["border"] is False
    assert verdicts(probe_shortcuts(samples, thumbnails, covers))["lungs blanked"] is True


def test_lungs_are_blanked_with_a_pixel_around_them() -> None:
    samples, thumbnails, covers = make(180)
    for at, picture in enumerate(thumbnails):
        picture[7, 10 + at % 3] = 250  # the row just above the lungs
    assert verdicts(probe_shortcuts(samples, thumbnails, covers))["lungs blanked"] is False


def test_rare_classes_count_as_much_as_the_others() -> None:
    samples, thumbnails, covers = make(300)
    for at, picture in enumerate(thumbnails):
        picture[1, at % 3] = 250
    kept = [at for at in range(300) if at % 3 == 0 or at < 60]
    rare = probe_shortcuts([samples[at] for at in kept], thumbnails[kept], covers[kept])[1]
    even = probe_shortcuts(samples, thumbnails, covers)[1]
    assert (rare.accuracy, even.accuracy) == (1, 1)
    assert rare.deviation > 1.2 * even.deviation


def test_deviation_is_that_of_guesses_with_the_same_frequencies() -> None:
    """Three classes of 20 to test, each guessed 20 times: sqrt(3 * (1/3 * 2/3) / 20) / 3."""
    samples, thumbnails, covers = make(180)
    for at, picture in enumerate(thumbnails):
        picture[1, at % 3] = 250
    assert probe_shortcuts(samples, thumbnails, covers)[1].deviation == pytest.approx((3 * 2 / 9 / 20) ** 0.5 / 3)


def test_without_splits_each_image_is_tested_once_in_five_folds() -> None:
    samples, thumbnails, covers = make(180, val=False)
    for at, picture in enumerate(thumbnails):
        picture[1, at % 3] = 250
    probes = probe_shortcuts(samples, thumbnails, covers)
    assert verdicts(probes)["border"] is True
    assert {(probe.fitted, probe.tested) for probe in probes} == {(180, 180)}


def test_patient_stays_in_one_fold() -> None:
    """Every image of a patient bears the patient's own pattern, which tells the class only if it was fitted."""
    samples, thumbnails, covers = make(180, val=False)
    rng = np.random.default_rng(1)
    patterns = rng.integers(0, 120, (30, 32, 32)).astype(np.uint8)
    labels = rng.permutation(30) % 3
    thumbnails = thumbnails + patterns[np.arange(180) % 30]
    plain = [replace(sample, label=int(labels[at % 30])) for at, sample in enumerate(samples)]
    grouped = [replace(sample, group=f"p{at % 30}") for at, sample in enumerate(plain)]
    assert probe_shortcuts(plain, thumbnails, covers)[1].accuracy > 0.95
    assert probe_shortcuts(grouped, thumbnails, covers)[1].accuracy < 0.6


def test_view_that_is_the_same_in_all_images_tells_nothing() -> None:
    samples, thumbnails, covers = make(180)
    thumbnails[:, :3], thumbnails[:, -3:], thumbnails[:, :, :3], thumbnails[:, :, -3:] = 0, 0, 0, 0
    probe = probe_shortcuts(samples, thumbnails, covers)[1]
    assert (probe.view, probe.accuracy, probe.is_shortcut) == ("border", 1 / 3, False)


def test_test_split_stands_in_where_there_is_no_val() -> None:
    samples, thumbnails, covers = make(180)
    moved = [replace(sample, split="test" if sample.split == "val" else "train") for sample in samples]
    assert probe_shortcuts(moved, thumbnails, covers) == probe_shortcuts(samples, thumbnails, covers)


@pytest.mark.parametrize(
    "change",
    [{"label": None}, {"label": 1}, {"split": "val"}],
    ids=["no labels", "one class", "few in folds"],
)
def test_probe_is_left_out_where_it_can_say_nothing(change: dict[str, Any]) -> None:
    samples, thumbnails, covers = make(9)
    assert probe_shortcuts([replace(sample, **change) for sample in samples], thumbnails, covers) == []


def test_of_many_images_some_are_used_of_every_class_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_probes, "MOST_IMAGES", 120)
    samples, thumbnails, covers = make(900)
    for at, picture in enumerate(thumbnails):
        picture[1, at % 3] = 250
    probe = probe_shortcuts(samples, thumbnails, covers)[1]
    assert probe.fitted + probe.tested == 120 and 30 <= probe.tested <= 50
    assert (probe.accuracy, probe.chance) == (1, 1 / 3)


def test_images_without_lungs_are_left_out_of_the_blanked_view() -> None:
    samples, thumbnails, covers = make(180)
    covers[:90] = 0
    counts = {probe.view: probe.fitted + probe.tested for probe in probe_shortcuts(samples, thumbnails, covers)}
    assert counts == {"thumbnail": 180, "border": 180, "lungs blanked": 90}
    covers[:] = 0
    assert [probe.view for probe in probe_shortcuts(samples, thumbnails, covers)] == ["thumbnail", "border"]


def test_no_samples_give_no_probe() -> None:
    assert probe_shortcuts([], np.zeros((0, 32, 32), np.uint8), np.zeros((0, 32, 32), np.uint8)) == []
