"""The pieces in a script of one's own, as the page shows them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import lungseg
from lungseg.errors import UserError

TINY = {"encoder": "tu-test_efficientnet", "encoder_depth": 4, "decoder_channels": [16, 16, 8, 8]}
PAGE = Path(lungseg.__file__).with_name("training") / "README.md"
SMALL = {
    '"/path/to/data", image_size=256, batch_size=16': "str(PHANTOMS), image_size=64, batch_size=4, workers=0",
    '{"encoder": "resnet34"}': "TINY",
    "max_epochs=20": "max_epochs=1, accelerator='cpu', logger=False, enable_progress_bar=False",
}


def _blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> tuple[Path, dict[str, Any]]:
    """Folder and names of the page's script, made small and run."""
    code, *_ = _blocks()
    assert len(code.splitlines()) <= 16
    for large, small in SMALL.items():
        assert large in code
        code = code.replace(large, small)
    folder, names = tmp_path_factory.mktemp("script"), {"PHANTOMS": phantoms, "TINY": TINY}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.set_num_threads(1)
        exec(code, names)
    return folder, names


def test_the_script_trains_draws_and_keeps_the_network(script: tuple[Path, dict[str, Any]]) -> None:
    folder, names = script
    assert (folder / "overlays" / "epoch_000.png").is_file() and (folder / "mine.ckpt").is_file()
    assert names["output"].class_logits.shape == (1, 3) and names["output"].mask_logits.shape[-2:] == (64, 64)
    torch.load(folder / "mine.ckpt", weights_only=True)
    with pytest.raises(UserError, match="weights_only: must be true"):
        lungseg.LungModule.load_from_checkpoint(folder / "mine.ckpt", weights_only=False)
    assert names["module"].classes == ["COVID-19", "Non-COVID", "Normal"]


def test_a_loss_of_ones_own_is_added_and_scored(script: tuple[Path, dict[str, Any]]) -> None:
    from lightning.pytorch import Trainer

    _, names = script
    own: dict[str, Any] = {}
    exec(_blocks()[1], own)
    before = names["module"]
    module = own["SparseMaps"](before.plain["model"], {}, {}, before.classes)
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(module, names["data"])
    scores = trainer.callback_metrics
    assert float(scores["train/sparsity_loss"]) > 0 and float(scores["val/sparsity_loss"]) > 0
    parts = [
        scores["val/dice_loss"],
        scores["val/bce_loss"],
        scores["val/cross_entropy"],
        0.1 * scores["val/sparsity_loss"],
    ]
    assert float(scores["val/loss"]) == pytest.approx(float(sum(parts)), rel=1e-5)


def test_a_head_of_ones_own_keeps_exact_maps_and_is_loaded_by_its_own_module_alone(
    script: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    from lightning.pytorch import Trainer

    from lungseg.models.checkpoint import load_network

    _, names = script
    own: dict[str, Any] = {}
    exec(_blocks()[2], own)
    before = names["module"]
    module = own["PeakModule"](before.plain["model"], {}, {}, before.classes)
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(module, names["data"])
    trainer.save_checkpoint(tmp_path / "peak.ckpt")
    network = own["PeakModule"].load_from_checkpoint(tmp_path / "peak.ckpt").eval().network
    output = network(torch.rand(2, 1, 64, 64))
    weights = output.class_maps.flatten(2).softmax(dim=2)
    pooled = (output.class_maps.flatten(2) * weights).sum(dim=2) + network.classifier.bias
    assert torch.allclose(pooled, output.class_logits, atol=1e-6)
    for load in (lungseg.LungModule.load_from_checkpoint, load_network):
        with pytest.raises(UserError, match=r"peak\.ckpt: .*PeakHead"):
            load(tmp_path / "peak.ckpt")


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, lungseg; print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'lightning', 'numpy'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert set(lungseg.__all__) == {name for name in lungseg.__all__ if getattr(lungseg, name).__name__ == name}
    with pytest.raises(AttributeError, match="no attribute 'LungNet'"):
        lungseg.LungNet  # noqa: B018


def test_a_tracker_of_ones_own_gets_scalars_and_pictures(
    script: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lightning.pytorch import Trainer

    _, names = script
    own: dict[str, Any] = {}
    exec(_blocks()[3], own)
    before = names["module"]
    module = lungseg.LungModule(before.plain["model"], {}, {}, before.classes)
    Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=[own["PrintingTracker"]()],
        callbacks=[lungseg.OverlayCallback(folder=tmp_path)],
        enable_checkpointing=False,
        enable_progress_bar=False,
    ).fit(module, names["data"])
    said = capsys.readouterr().out
    assert "0 overlays ['#1 " in said and "'val/dice'" in said
