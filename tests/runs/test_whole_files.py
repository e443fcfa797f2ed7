"""Files are whole or absent, and JSON has no NaN."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lungseg.runs.whole_files import (
    digest,
    plain_cell,
    safe_cell,
    to_csv,
    without_nan,
    write_json,
    write_text,
    write_whole,
)


def test_no_half_written_file_stands_under_a_final_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="object"):
        write_json(tmp_path / "metrics.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_many_writers_of_one_file_leave_a_whole_one(tmp_path: Path) -> None:
    """Each under a name of its own: with one for all, one writer renames what another has only begun."""
    path, contents = tmp_path / ("n" * 251 + ".txt"), [bytes([number]) * 100_000 for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_whole(path, content), contents * 4))
    assert path.read_bytes() in contents and list(tmp_path.iterdir()) == [path]


def test_what_is_not_finite_becomes_none_at_any_depth() -> None:
    assert without_nan({"a": [1.5, math.nan, (math.inf,)], "b": "nan", "c": 2}) == {
        "a": [1.5, None, [None]],
        "b": "nan",
        "c": 2,
    }


def test_digest_is_of_the_bytes_alone(tmp_path: Path) -> None:
    for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
        write_text(tmp_path / name, text)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_a_cell_is_no_formula_and_no_command_to_a_terminal() -> None:
    names = ["=1+1", "+1", "-a", "@x", "a\rb", "\x1b[31m", "plain ü"]
    lines = to_csv([names, [-1.5, -2, None, math.nan, True]]).splitlines()
    assert lines == ["'=1+1,'+1,'-a,'@x,a\\rb,\\x1b[31m,plain ü", "-1.5,-2,,,1"]


@pytest.mark.parametrize("text", ["=1+1", "-", "@x", "+ve", "'quoted'", "plain", ""])
def test_what_no_spreadsheet_may_compute_is_read_back_as_it_was(text: str) -> None:
    assert plain_cell(safe_cell(text)) == text
