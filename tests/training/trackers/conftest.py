from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from lungseg.reporting.report_run import AFTER_TRAINING, Reported, report_run


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture(scope="module")
def reported(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """An evaluation as `fit` hands it to the trackers, without the page."""
    folder = tmp_path_factory.mktemp("evaluated")
    run = Path(shutil.copytree(untrained, folder / "run"))
    options = dataclasses.replace(AFTER_TRAINING, faithfulness=0, robustness=3, bootstraps=20, shortcuts=3)
    return report_run(run, (), "test", options, page=False)
