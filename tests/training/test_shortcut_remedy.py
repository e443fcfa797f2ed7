"""A network that reads a planted marker, and one that is kept inside the lungs, tested where there is no marker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lungseg.config.loading import load_config
from lungseg.fit import fit

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_lung_pooling_and_the_penalty_keep_a_network_off_the_planted_shortcut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = {}
    for name, words in {
        "plain": ["model.pooling=average"],
        "kept inside": ["model.pooling=lung", "loss.evidence_weight=1.0"],
    }.items():
        words += ["data.phantom.shortcut=train", "wandb.mode=disabled", "run.report=false", f"run.name={name}"]
        folder = fit(load_config(REPOSITORY / "configs" / "demo.yaml", words))
        found[name] = json.loads((folder / "metrics.json").read_text())
    plain, kept = found["plain"], found["kept inside"]
    assert plain["val/accuracy"] > 0.95 > 0.7 > plain["test/accuracy"]  # Val has the marker, Test has not
    assert plain["val/evidence_in_lungs"] < 0.35
    assert kept["val/evidence_in_lungs"] > plain["val/evidence_in_lungs"] + 0.2
    assert kept["test/accuracy"] > plain["test/accuracy"] + 0.1
