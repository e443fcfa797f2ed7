from __future__ import annotations

from pathlib import Path

import pytest

from lungseg.config.loading import load_config
from lungseg.evaluation.shortcut_study import measure_shortcuts, verdict
from lungseg.evaluation.target import load_target
from lungseg.fit import fit

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_network_trained_on_the_planted_shortcut_is_flagged_and_one_trained_without_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = {}
    for planted in ("train", "none"):
        words = [f"data.phantom.shortcut={planted}", f"data.phantom.dir={tmp_path / planted}", "model.pooling=average"]
        words += ["wandb.mode=disabled", "run.report=false", f"run.name={planted}"]
        folder = fit(load_config(REPOSITORY / "configs" / "demo.yaml", words))
        found[planted] = verdict(measure_shortcuts(load_target(folder, [], "val"))[1])
    assert found["train"].flag == "shortcut", found["train"].reasons
    assert found["none"].flag == "no sign", found["none"].reasons
