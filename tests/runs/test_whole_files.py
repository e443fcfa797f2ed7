"""Files are whole or absent, and JSON has no NaN."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from lungseg.runs.whole_files import digest, without_nan, write_json, write_text


def test_no_half_written_file_stands_under_a_final_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="object"):
        write_json(tmp_path / "metrics.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


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
