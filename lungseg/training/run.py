"""One training from config to run folder: what `python -m lungseg.fit` does, for use from Python too."""

from __future__ import annotations

import logging
import math
import time
import uuid
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lungseg.callbacks.averaging import AveragedWeights
from lungseg.callbacks.loggers import WandbMode, build_loggers, wandb_mode
from lungseg.callbacks.overlays import OverlayCallback
from lungseg.callbacks.progress import Bar, EpochLines, progress_callbacks
from lungseg.config import Config
from lungseg.configuration import config_dict, dump_config
from lungseg.data.datamodule import LungDataModule
from lungseg.data.sample import CLASSES
from lungseg.models.checkpoint import check_same_model, read_checkpoint
from lungseg.models.metrics import score_names
from lungseg.reporting.metrics_csv import MetricsCsv
from lungseg.reporting.run_folder import environment, is_rank_zero, run_folder
from lungseg.reporting.summary import final_numbers, summary_lines
from lungseg.reporting.whole_files import write_json, write_text
from lungseg.training.module import LungModule

log = logging.getLogger(__name__)


@dataclass
class Training:
    """A prepared training."""

    config: Config
    data: LungDataModule
    module: LungModule
    folder: Path
    trainer: Trainer
    lines: EpochLines
    mode: WandbMode
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def prepare(cls, config: Config, stem: str) -> Training:
        """Check everything that can be checked, and only then make the run folder."""
        started = time.perf_counter()
        _quiet_libraries()
        seed_everything(config.run.seed, workers=True, verbose=False)
        data = LungDataModule(config.data, config.augment, config.run.seed)
        data.prepare_data()
        data.find_samples()
        _say_what_data(config, data)
        data.setup()
        weights = data.balanced_class_weights() if config.loss.class_weights == "balanced" else [1.0] * len(CLASSES)
        module = LungModule(config.model, config.loss, config.optim, list(CLASSES), weights)
        monitor, mode = _monitor(config, has_val=bool(data.samples["val"]))
        folder = run_folder(Path(config.run.dir), config.run.name, stem, config.run.resume)
        if config.run.resume:
            check_same_model(folder / "checkpoints" / "last.ckpt", config.model)
        lines = EpochLines()
        callbacks = _callbacks(config, folder, lines, monitor, mode)
        where = wandb_mode(config.wandb)
        loggers = build_loggers(config, config_dict(config), folder, where, _wandb_id(folder))
        trainer = _trainer(config, callbacks, loggers)
        if is_rank_zero():
            write_text(folder / "config.yaml", dump_config(config))
            write_json(
                folder / "environment.json",
                environment(data.fingerprint) | {"excluded_training_copies": data.excluded},
            )
        return cls(config, data, module, folder, trainer, lines, where, started)

    def run(self) -> None:
        """Fit, test the best checkpoint, write `metrics.json`, print where everything lies."""
        last = self.folder / "checkpoints" / "last.ckpt"
        if self.config.run.resume:
            self.data.first_epoch = int(read_checkpoint(last)["epoch"]) + 1
            self._table().forget_from(self.data.first_epoch)
        self.trainer.fit(
            self.module,
            datamodule=self.data,
            ckpt_path=str(last) if self.config.run.resume else None,
            weights_only=True,
        )
        if self.trainer.interrupted:
            raise KeyboardInterrupt
        best = self.folder / "checkpoints" / "best.ckpt"
        test: dict[str, float] = {}
        if self.data.samples["test"]:
            result = self.trainer.test(
                self.module, datamodule=self.data, ckpt_path=str(best), verbose=False, weights_only=True
            )
            test = {name: float(value) for name, value in result[0].items()}
        if self.trainer.is_global_zero:
            self._conclude(best, test)

    def _conclude(self, best: Path, test: dict[str, float]) -> None:
        epoch = int(read_checkpoint(best)["epoch"])
        minutes = (time.perf_counter() - self.started) / 60
        rate = self.lines.images / self.lines.seconds if self.lines.seconds else math.nan
        numbers = final_numbers(self._table().rows(), epoch, test, minutes, rate)
        write_json(self.folder / "metrics.json", numbers)
        offline = sorted(self.folder.glob("wandb/offline-run-*"))
        for line in summary_lines(numbers, self.folder, offline[-1] if offline and self.mode == "offline" else None):
            print(line, flush=True)

    def _table(self) -> MetricsCsv:
        return next(logger for logger in self.trainer.loggers if isinstance(logger, MetricsCsv))


class SeedEachEpoch(Callback):
    """Seeds what dropout draws by (seed, epoch, rank), so that a resumed run draws what the unbroken one would have."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(  # type: ignore[no-untyped-def]
        self, trainer: Trainer, pl_module: LightningModule, batch, batch_idx: int
    ) -> None:
        """Seed torch's generators before the first batch; Lightning skips the epoch's own hook after a resume."""
        if batch_idx == 0:
            torch.manual_seed(hash((self.seed, trainer.current_epoch, trainer.global_rank)) % 2**63)


class StopOnNonFinite(Callback):
    """Ends a run whose training loss is no longer a number, with one line that says so."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the epoch's mean loss, the same on every process."""
        loss = float(trainer.callback_metrics.get("train/loss", 0.0))
        if not math.isfinite(loss):
            raise ValueError(
                f"train/loss is {loss} in epoch {trainer.current_epoch}; lower optim.lr "
                f"lengthen optim.warmup_epochs, or use trainer.precision=32-true"
            )


def _trainer(config: Config, callbacks: list[Callback], loggers: list[Any]) -> Trainer:
    section = config.trainer
    options: dict[str, Any] = {
        name: getattr(section, name)
        for name in (
            *("max_epochs", "accelerator", "devices", "num_nodes", "strategy", "precision", "limit_train_batches"),
            *("gradient_clip_val", "accumulate_grad_batches", "sync_batchnorm", "log_every_n_steps"),
        )
    }
    try:
        return Trainer(
            **options,
            callbacks=callbacks,
            logger=loggers,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(callback, Bar) for callback in callbacks),
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ValueError(f"trainer: {' '.join(str(error).split())}") from error


def _callbacks(config: Config, folder: Path, lines: EpochLines, monitor: str, mode: str) -> list[Callback]:
    """Overlays before the lines, so that a printed epoch is complete; checkpoints are Lightning's to put last."""
    callbacks: list[Callback] = [
        SeedEachEpoch(config.run.seed),
        StopOnNonFinite(),
        OverlayCallback(config.cam, folder / "overlays", config.wandb.images),
        *progress_callbacks(lines),
        ModelCheckpoint(
            folder / "checkpoints",
            filename="best",
            monitor=monitor,
            mode=mode,
            save_last=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        ),
    ]
    if config.optim.average is not None:
        callbacks.append(AveragedWeights(config.optim.average))  # after the overlays, which draw the averaged weights
    if config.run.patience is not None:
        callbacks.append(EarlyStopping(monitor, patience=config.run.patience, mode=mode))
    return callbacks


def _monitor(config: Config, has_val: bool) -> tuple[str, str]:
    """The metric that picks the best checkpoint; without a Val split only the training loss is left."""
    if not has_val:
        log.warning("no Val split: the best checkpoint is the one of the lowest train/loss, which favours overfitting")
        return "train/loss", "min"
    known = ["train/loss"] + [f"val/{name}" for name in score_names(CLASSES, config.model.infection)]
    if config.run.monitor not in known:
        import difflib

        near = difflib.get_close_matches(config.run.monitor, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "for example 'val/score', 'val/dice', 'val/accuracy'"
        raise ValueError(f"run.monitor: no run logs {config.run.monitor!r}; {hint}")
    return config.run.monitor, config.run.mode


def _say_what_data(config: Config, data: LungDataModule) -> None:
    if not is_rank_zero():
        return
    counts = ", ".join(f"{len(samples)} {split}" for split, samples in data.samples.items())
    source = config.data.root if config.data.root is not None else f"phantoms in {config.data.phantom.dir}"
    left_out = f"; left out {data.excluded} training copies of Val or Test images" if config.data.exclude_leaks else ""
    print(f"data: {source}: {counts}{left_out}", flush=True)


def _wandb_id(folder: Path) -> str:
    """W&B's id of this run: made once, kept in the run folder, so that resuming continues the same run."""
    path = folder / "wandb_id"
    if path.is_file():
        return path.read_text().strip()
    run_id = uuid.uuid4().hex[:8]
    if is_rank_zero():
        write_text(path, run_id + "\n")
    return run_id


def _quiet_libraries() -> None:
    """Drop library notes that tell a user of lungseg nothing they can act on; errors and our own warnings stay."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*number of training batches.*smaller than the logging interval.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*GPU available but not used.*",
        ".*To use the `sync_dist`.*",
        ".*recommended to use `self.log.*sync_dist=True`.*",
        ".*Experiment logs directory .* exists.*",
    ):
        warnings.filterwarnings("ignore", message=message)
