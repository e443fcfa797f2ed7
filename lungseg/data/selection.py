"""Choosing a few samples of many, always the same ones."""

from __future__ import annotations

from collections.abc import Sequence

from lungseg.data.sample import Sample


def spread_over_classes(samples: Sequence[Sample], count: int) -> list[int]:
    """Positions of `count` samples, class after class in turn, evenly spaced within each class; always the same."""
    by_class: dict[int | None, list[int]] = {}
    for index, sample in enumerate(samples):
        by_class.setdefault(sample.label, []).append(index)
    queues = [by_class[label] for label in sorted(by_class, key=lambda label: (label is None, label))]
    share = -(-count // len(queues)) if queues else 0
    picks = [[queue[i * len(queue) // share] for i in range(min(share, len(queue)))] for queue in queues]
    spare = [[index for index in queue if index not in pick] for queue, pick in zip(queues, picks, strict=True)]
    turns = [*_in_turn(picks), *_in_turn(spare)][:count]
    return sorted(turns, key=lambda index: (samples[index].label is None, samples[index].label, index))


def _in_turn(queues: list[list[int]]) -> list[int]:
    longest = max(map(len, queues), default=0)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]
