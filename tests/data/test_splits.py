"""Splits by hash: the same for any order and company of the samples, groups whole, shares met on average."""

from __future__ import annotations

import logging
import random
from collections import Counter
from pathlib import Path

import pytest

from lungseg.data.sample import Sample, Split
from lungseg.data.splits import assign_folds, assign_splits, carve_test
from lungseg.errors import DataError

TAKES_LONE, LEAVES_LONE = 0, 3
"""Seeds that put `lone.png` into a test half and leave it out."""


def make(count: int, *, prefix: str = "", split: Split = "train", group_size: int = 0, labels: int = 3) -> list[Sample]:
    """Samples of all classes; `group_size` of them in a row make a group of mixed classes."""
    return [
        Sample(
            id=f"{prefix}{number}.png",
            image=Path(f"{prefix}{number}.png"),
            lung=None,
            infection=None,
            label=number % labels,
            split=split,
            group=f"p{number // group_size}" if group_size else None,
        )
        for number in range(count)
    ]


def split_of(samples: list[Sample]) -> dict[str, str]:
    return {sample.id: sample.split for sample in samples}


def test_a_division_once_made_stays_the_same_on_every_machine() -> None:
    splits = [sample.split for sample in assign_splits(make(12), seed=7)]
    assert " ".join(splits) == "val train train train train val train train train train test train"


def test_each_class_gets_its_shares_on_average() -> None:
    counts = Counter((s.label, s.split) for s in assign_splits(make(9000), (0.6, 0.1, 0.3), seed=1))
    shares: dict[Split, float] = {"train": 0.6, "val": 0.1, "test": 0.3}
    for label in range(3):
        for split, share in shares.items():
            deviation = (3000 * share * (1 - share)) ** 0.5
            assert abs(counts[label, split] - 3000 * share) < 4 * deviation


def test_assignment_does_not_depend_on_order_or_on_files_added_later() -> None:
    samples = make(300)
    before = split_of(assign_splits(samples, seed=2))
    more = samples + make(500, prefix="new")
    random.Random(0).shuffle(more)
    divided = assign_splits(more, seed=2)
    assert [s.id for s in divided] == [s.id for s in more]
    assert before.items() <= split_of(divided).items()


def test_another_seed_gives_another_division() -> None:
    samples = make(300)
    assert assign_splits(samples, seed=0) == assign_splits(samples, seed=0)
    assert assign_splits(samples, seed=0) != assign_splits(samples, seed=1)


@pytest.mark.parametrize("fold", [None, 0, 3])
def test_a_group_is_never_in_two_splits(fold: int | None) -> None:
    divided = assign_splits(make(900, group_size=4), seed=3, fold=fold)
    splits_of_group: dict[str | None, set[str]] = {}
    for sample in divided:
        splits_of_group.setdefault(sample.group, set()).add(sample.split)
    assert len(splits_of_group) == 225
    assert all(len(splits) == 1 for splits in splits_of_group.values())
    assert {s.split for s in divided} == {"train", "val", "test"}


def test_folds_share_the_test_split_and_their_vals_partition_the_rest() -> None:
    samples = make(600)
    whole = assign_splits(samples, seed=4)
    folds = [assign_splits(samples, seed=4, fold=fold, folds=4) for fold in range(4)]
    tests = [{s.id for s in divided if s.split == "test"} for divided in [whole, *folds]]
    assert all(test == tests[0] for test in tests) and tests[0]
    vals = [s.id for divided in folds for s in divided if s.split == "val"]
    assert Counter(vals) == Counter({s.id for s in samples} - tests[0])
    assert all(abs(sum(s.split == "val" for s in divided) - 127.5) < 4 * 9.8 for divided in folds)


def test_assign_folds_pools_train_and_val_and_leaves_test() -> None:
    samples = make(100) + make(100, prefix="v", split="val") + make(30, prefix="t", split="test")
    divided = assign_folds(samples, 1, 2)
    assert [s.id for s in divided if s.split == "test"] == [s.id for s in samples if s.split == "test"]
    moved = Counter((before.split, after.split) for before, after in zip(samples, divided, strict=True))
    assert all(moved[pair] > 30 for pair in (("train", "val"), ("val", "train"), ("train", "train"), ("val", "val")))


def test_carved_test_comes_from_train_only_and_grows_with_its_share() -> None:
    samples = make(400) + make(100, prefix="v", split="val")
    tests = []
    for share in (0.0, 0.1, 0.3):
        carved = carve_test(samples, share, seed=5)
        assert [s for s in carved if s.split == "val"] == samples[400:]
        tests.append({s.id for s in carved if s.split == "test"})
    assert tests[0] == set()
    assert tests[0] < tests[1] < tests[2]


def test_division_that_takes_a_class_out_of_train_is_refused() -> None:
    lone = Sample("lone.png", Path("lone.png"), None, None, 2, "train", class_name="Normal")
    with pytest.raises(DataError, match=r"^no image of 'Normal' is left in train after test was taken from it"):
        carve_test([*make(30, labels=2), lone], 0.5, seed=TAKES_LONE)
    unlabelled = Sample("lone.png", Path("lone.png"), None, None, None, "train")
    with pytest.raises(DataError, match=r"^no image of 'no class' is left in train"):
        carve_test([*make(30, labels=2), unlabelled], 0.5, seed=TAKES_LONE)


def test_division_that_leaves_a_class_to_train_alone_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    lone = Sample("lone.png", Path("lone.png"), None, None, 2, "train", class_name="Normal")
    carved = carve_test([*make(30, labels=2), lone], 0.5, seed=LEAVES_LONE)
    assert carved[-1].split == "train"
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert caplog.records[0].getMessage().startswith("test got no image of 'Normal', too few")


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (0.0, 0.5, 0.5), (1.1, -0.1, 0.0)])
def test_fractions_that_are_no_shares_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"fractions: must be >= 0 and sum to 1, with train above 0, got \("):
        assign_splits(make(3), fractions)


def test_fold_fraction_and_count_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^fold: must be in 0\.\.4, got 5"):
        assign_splits(make(60), fold=5)
    with pytest.raises(ValueError, match="folds: must be >= 2, got 1"):
        assign_folds(make(60), 0, 1)
    with pytest.raises(ValueError, match=r"test_fraction: must be in \[0, 1\), got 1\.5"):
        carve_test(make(3), 1.5)
