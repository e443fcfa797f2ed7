"""What is asked for, as a list of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungseg.errors import UserError
from lungseg.inference import inputs


def test_pictures_of_a_kind_that_is_not_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "more").mkdir()
    for name in ("a.png", "more/b.webp", "more/.c.gif", "notes.txt"):
        (tmp_path / name).touch()
    _, files = inputs.find_inputs([str(tmp_path)], tmp_path / "out")
    assert [file.id for file in files] == ["a.png"]
    assert f"{tmp_path}: left out, of a kind that is not read: 1 ('more/b.webp'; save as PNG)" in caplog.text


def test_inputs_on_two_drives_end_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_two_drives(paths: list[Path]) -> str:
        raise ValueError("Paths don't have the same drive")

    (tmp_path / "a.png").touch()
    monkeypatch.setattr(inputs.os.path, "commonpath", of_two_drives)
    with pytest.raises(UserError, match=r"inputs have no folder in common: .+"):
        inputs.find_inputs([str(tmp_path)], tmp_path / "out")
