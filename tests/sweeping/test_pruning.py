"""When a run of a sweep is stopped early: W&B's rule for hyperband."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest

from lungseg.sweeping.pruning import Hyperband


@dataclass(frozen=True)
class _Rule(Hyperband):
    at: tuple[int, ...] = (2, 4)

    def brackets(self, epochs: int) -> list[int]:
        return list(self.at)


RULE = _Rule(strict=True)


def _after(*values: float) -> dict[int, float]:
    return dict(enumerate(values, 1))


def _is_behind(histories: list[dict[int, float]], own: int, rule: _Rule = RULE, goal: str = "maximize") -> bool:
    others = [history for index, history in enumerate(histories) if index != own]
    return rule.is_behind(histories[own], others, 6, goal)


def test_the_first_run_is_never_stopped() -> None:
    assert not _is_behind([_after(0.1, 0.1)], 0)


def test_nobody_is_judged_before_the_first_bracket() -> None:
    assert not _is_behind([_after(0.9, 0.9), _after(0.1)], 1)


@pytest.mark.parametrize(("value", "behind"), [(0.75, False), (0.65, False), (0.55, True)])
def test_of_four_runs_at_a_bracket_the_best_two_go_on_as_w_and_b_counts(value: float, behind: bool) -> None:
    others = [_after(0.0, high) for high in (0.7, 0.6, 0.5)]  # int(4 / 3) + 1 = 2
    assert _is_behind([*others, _after(0.9, value)], 3) is behind


def test_runs_that_have_not_come_so_far_do_not_count() -> None:
    histories = [_after(0.9), _after(0.1, 0.2), _after(0.1, 0.3)]
    assert not _is_behind(histories, 2) and _is_behind(histories, 1)


def test_smaller_is_better_where_the_goal_is_to_minimise() -> None:
    histories = [_after(1.0, 0.5), _after(1.0, 0.9)]
    assert _is_behind(histories, 1, goal="minimize") and not _is_behind(histories, 0, goal="minimize")


def test_strict_judges_by_the_value_at_the_bracket_else_by_the_best_so_far() -> None:
    histories = [_after(0.1, 0.5), _after(0.8, 0.4)]
    assert _is_behind(histories, 1)
    assert not _is_behind(histories, 1, replace(RULE, strict=False))


def test_a_run_is_judged_by_the_last_bracket_it_has_reached() -> None:
    histories = [_after(0.1, 0.5, 0.5, 0.5), _after(0.1, 0.4, 0.6, 0.6)]
    assert not _is_behind(histories, 1)
    assert _is_behind(histories, 1, replace(RULE, at=(2,)))


def test_a_run_that_is_no_number_is_stopped_even_if_it_is_alone() -> None:
    assert _is_behind([_after(0.1, math.nan)], 0)
