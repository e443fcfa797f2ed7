"""Split samples by hash. Comes after the layouts, for data that brings no split of its own.

Each sample is placed by a number in [0, 1) hashed from the seed and its group (its id where it has none) alone. So the
order of the files does not matter, files added later move no other sample, a group stays whole and every class gets the
same share. The price: a share is met on average only; of n images it is off by sqrt(n * share * (1 - share)) (one
standard deviation; 21 +- 4 of 140 at a share of 0.15).
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lungseg.data.sample import Sample, Split
from lungseg.errors import DataError, UserError

FRACTIONS = (0.7, 0.15, 0.15)  # Shares of train, val and test where the data has no split.

_log = logging.getLogger(__name__)


def assign_splits(
    samples: Sequence[Sample],
    fractions: tuple[float, float, float] = FRACTIONS,
    *,
    seed: int = 0,
    fold: int | None = None,
    folds: int = 5,
) -> list[Sample]:
    """Divide samples that have no split into train, val and test, in their order; splits they have are overwritten.

    The `fractions` are shares of train (above 0), val and test and sum to 1. With a `fold`, what is not test is divided
    by `assign_folds` and the shares of train and val are unused.
    """
    train, val, test = fractions
    if min(val, test) < 0 or train <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise UserError(f"fractions: must be >= 0 and sum to 1, with train above 0, got {fractions!r}")
    carved = carve_test([_move(sample, "train") for sample in samples], test, seed=seed)
    if fold is not None:
        return assign_folds(carved, fold, folds, seed=seed)
    return _carve(carved, "val", val / (train + val), seed)


def carve_test(samples: Sequence[Sample], fraction: float, *, seed: int = 0) -> list[Sample]:
    """Move about `fraction`, in [0, 1), of the train samples to test; val is left alone."""
    if not 0 <= fraction < 1:
        raise UserError(f"test_fraction: must be in [0, 1), got {fraction!r}")
    return _carve(samples, "test", fraction, seed)


def assign_folds(samples: Sequence[Sample], fold: int, folds: int = 5, *, seed: int = 0) -> list[Sample]:
    """Cut all that is not test into `folds` folds: the one numbered `fold` (from 0) becomes val, the others train."""
    if folds < 2:
        raise UserError(f"folds: must be >= 2, got {folds!r}")
    if not 0 <= fold < folds:
        raise UserError(f"fold: must be in 0..{folds - 1}, got {fold!r}")
    divided = [
        sample
        if sample.split == "test"
        else _move(sample, "val" if int(_position(sample, "val", seed) * folds) == fold else "train")
        for sample in samples
    ]
    _check_classes(samples, divided, "val")
    return divided


def _carve(samples: Sequence[Sample], split: Split, share: float, seed: int) -> list[Sample]:
    """Move about `share` of the train samples to `split`."""
    if share == 0:
        return list(samples)
    carved = [
        _move(sample, split) if sample.split == "train" and _position(sample, split, seed) < share else sample
        for sample in samples
    ]
    _check_classes(samples, carved, split)
    return carved


def _move(sample: Sample, split: Split) -> Sample:
    return sample if sample.split == split else replace(sample, split=split)


def _position(sample: Sample, purpose: Split, seed: int) -> float:
    """Give a number in [0, 1): uniform, the same on every machine, independent between purposes."""
    # The purpose is part of the key: one number for both would take Val from what has just missed Test.
    key = f"{seed}\0{purpose}\0{sample.group or sample.id}".encode("utf-8", "surrogateescape")
    bits = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
    return (bits >> 11) / 2**53  # as many bits as a float holds: never rounded up to 1


def _check_classes(before: Sequence[Sample], after: Sequence[Sample], filled: Split) -> None:
    """Raise where a class has left train altogether, warn where `filled` got none of a class that train has."""
    left = _missing(_classes(before, "train"), _classes(after, "train"))
    if left:
        raise DataError(f"no image of {left} is left in train after {filled} was taken from it; take another seed")
    lacking = _missing(_classes(after, "train"), _classes(after, filled))
    if lacking:
        _log.warning("%s got no image of %s, too few for its share; another seed may help", filled, lacking)


def _classes(samples: Sequence[Sample], split: Split) -> dict[int | None, str]:
    """Labels, or findings, of a split, each with a name that it has there."""
    found: dict[int | None, str] = {}
    for sample in (sample for sample in samples if sample.split == split):
        if sample.findings is None:
            name = "no class" if sample.label is None else sample.class_name or str(sample.label)
            found.setdefault(sample.label, name)
            continue
        there = [place for place, mark in enumerate(sample.findings) if mark == 1]
        found |= dict(zip(there, (sample.class_name or "").split("|"), strict=False))
    return found


def _missing(wanted: Mapping[int | None, str], there: Mapping[int | None, str]) -> str:
    return ", ".join(map(repr, sorted(name for label, name in wanted.items() if label not in there)))
