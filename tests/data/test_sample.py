from __future__ import annotations

from pathlib import Path

from lungseg.data.sample import Sample, spread_over_classes


def _sample(number: int, label: int | None) -> Sample:
    return Sample(f"{number}.png", Path("x"), None, None, label, "val")


def test_samples_are_spread_over_the_classes_and_always_the_same() -> None:
    samples = [_sample(i, label) for i, label in enumerate([0] * 10 + [1] * 3 + [2] * 2)]
    chosen = spread_over_classes(samples, 6)
    assert [samples[i].label for i in chosen] == [0, 0, 1, 1, 2, 2]
    assert chosen == spread_over_classes(samples, 6) and len(set(chosen)) == 6


def test_other_classes_fill_up_for_a_class_that_is_short() -> None:
    samples = [_sample(i, label) for i, label in enumerate([0] * 10 + [1])]
    assert len(set(spread_over_classes(samples, 6))) == 6
    assert spread_over_classes(samples[:1], 6) == [0]
    assert spread_over_classes([_sample(0, None), _sample(1, 0)], 2) == [1, 0]
