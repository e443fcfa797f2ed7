"""What is asked for, as a list of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungseg.errors import UserError
from lungseg.inference import inputs


def test_inputs_on_two_drives_end_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_two_drives(paths: list[Path]) -> str:
        raise ValueError("Paths don't have the same drive")

    (tmp_path / "a.png").touch()
    monkeypatch.setattr(inputs.os.path, "commonpath", of_two_drives)
    with pytest.raises(UserError, match=r"inputs have no folder in common: .+"):
        inputs.find_inputs([str(tmp_path)], tmp_path / "out")
