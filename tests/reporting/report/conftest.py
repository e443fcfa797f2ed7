"""A made-up evaluation for the tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import make_evaluation


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a made-up evaluation of 12 images. Not to be changed by a test."""
    return make_evaluation(tmp_path_factory.mktemp("evaluation"))
