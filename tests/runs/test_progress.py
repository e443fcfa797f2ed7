"""Work on all cores: order, errors, and what is put back afterwards."""

from __future__ import annotations

import sys
import threading
import time

import cv2
import pytest

from lungseg.runs import progress
from lungseg.runs.progress import Progress, in_threads


def test_results_come_in_the_order_of_the_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "cores", lambda: 4)

    def slow_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return 2 * item

    assert list(in_threads(slow_first, range(100), "x", quiet=True)) == list(range(0, 200, 2))


def test_items_are_computed_on_several_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "cores", lambda: 2)
    both = threading.Barrier(2, timeout=5)
    assert len(list(in_threads(lambda _: both.wait(), range(2), "x", quiet=True))) == 2


def test_error_of_an_item_ends_the_work_and_opencv_is_as_before() -> None:
    before = cv2.getNumThreads(), cv2.utils.logging.getLogLevel()

    def fail(item: int) -> int:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        if item == 3:
            raise ValueError(f"item {item}")
        return item

    with pytest.raises(ValueError, match="item 3"):
        list(in_threads(fail, range(1000), "x", quiet=True))
    assert (cv2.getNumThreads(), cv2.utils.logging.getLogLevel()) == before


def test_lines_say_how_far_it_is_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    assert list(in_threads(str, [1, 2], "reading")) == ["1", "2"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in lines] == ["reading: 1 of 2", "reading: 2 of 2"]


def test_bar_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(in_threads(str, [1, 2], "reading")) == ["1", "2"]
    assert "reading" in capsys.readouterr().err


def test_what_is_being_done_is_said_once_and_how_far_it_is_beside_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Progress()
    shown.say("network")
    assert list(shown.track(iter("abc"), 3)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("network\n", "")
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    assert list(shown.track("ab")) == ["a", "b"]
    assert "network: 2 of 2 (" in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(shown.track(iter("abc"), 3)) == ["a", "b", "c"]
    assert "0/3" in capsys.readouterr().err
