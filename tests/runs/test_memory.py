"""What a process keeps of the memory that it has freed, seen from the system."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lungseg.config import Config, DataConfig, ModelConfig, RunConfig, TrainerConfig, WandbConfig
from lungseg.runs.memory import keep_freed_memory
from lungseg.training.signals import SignalHandler

_STEPS = """
import resource, sys
import torch
from lungseg.runs.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for step in range(12):  # the first ones find their place
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(32, 1024, 1024)  # 128 MB, above every threshold that glibc chooses itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults_of_the_last_step(how: str) -> int:
    ended = subprocess.run([sys.executable, "-c", _STEPS, how], capture_output=True, text=True, check=True)
    return int(ended.stdout)


def _has_glibc() -> bool:
    return (sys.platform == "linux" and any(Path("/").glob("lib*/*/libc.so.6"))) or Path("/lib64/libc.so.6").exists()


@pytest.mark.skipif(not _has_glibc(), reason="another C library")
def test_memory_of_a_freed_tensor_is_not_mapped_anew() -> None:
    # A page that is mapped is a fault when it is first written: 32,768 of them for 128 MB, or 64 of huge ones.
    assert _faults_of_the_last_step("given back") > 60
    assert _faults_of_the_last_step("kept") <= 5


def test_another_system_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()


def test_training_and_evaluation_on_the_cpu_keep_it(
    untrained: Path, phantoms: Path, tiny_model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lungseg.evaluation import target
    from lungseg.training import fitting

    told: list[str] = []
    monkeypatch.setattr(fitting, "keep_freed_memory", lambda: told.append("training"))
    monkeypatch.setattr(target, "keep_freed_memory", lambda: told.append("evaluation"))
    target.load_target(untrained, [], "val")
    config = Config(
        run=RunConfig(dir=str(tmp_path)),
        data=DataConfig(root=str(phantoms), image_size=64, batch_size=4, workers=0),
        model=tiny_model,
        trainer=TrainerConfig(accelerator="cpu"),
        wandb=WandbConfig(mode="disabled"),
    )
    with SignalHandler() as signals:
        fitting.Training.prepare(config, "memory", signals)
    assert told == [*["evaluation"] * (not torch.cuda.is_available()), "training"]
