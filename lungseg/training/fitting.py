"""One training from config to run folder: what `python -m lungseg.fit` does, for use from Python too."""

from __future__ import annotations

import logging
import math
import os
import time
import uuid
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger

from lungseg.config import Config, LossConfig
from lungseg.config.loading import config_dict, dump_config
from lungseg.data.datamodule import LungDataModule
from lungseg.data.sample import CLASSES
from lungseg.errors import DataError, UserError
from lungseg.models.checkpoint import check_same_model, read_checkpoint
from lungseg.models.metrics import score_names
from lungseg.reporting.summary import final_numbers, summary_lines
from lungseg.runs.environment import environment
from lungseg.runs.metrics_csv import MetricsCsv
from lungseg.runs.run import Run
from lungseg.runs.whole_files import write_json, write_text
from lungseg.training.averaging import AveragedWeights
from lungseg.training.epoch_guards import SeedEachEpoch, StopOnNonFinite
from lungseg.training.epoch_lines import EpochLines, progress_callbacks
from lungseg.training.evaluation_log import report_training
from lungseg.training.fine_tuning import start_from
from lungseg.training.loggers import WandbMode, build_loggers, wandb_mode
from lungseg.training.module import LungModule
from lungseg.training.overlays import OverlayCallback
from lungseg.training.processes import FollowProcesses, Processes
from lungseg.training.pruning import trial_callbacks
from lungseg.training.trainer import build_trainer

log = logging.getLogger(__name__)


@dataclass
class Training:
    """A prepared training."""

    config: Config
    data: LungDataModule
    module: LungModule
    run: Run
    trainer: Trainer
    lines: EpochLines
    mode: WandbMode
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def prepare(cls, config: Config, stem: str, processes: Processes) -> Training:
        """Check everything that can be checked, and only then make the run folder and let the other ranks begin.

        Args:
            config: The whole config.
            stem: Names the run folder where `run.name` is null.
            processes: Entered.
        """
        started = time.perf_counter()
        rank = processes.rank
        _quiet_libraries(aloud=rank.is_zero)
        given = None if rank.is_zero else processes.folder_of_rank_zero()
        total = build_trainer(config.trainer, config.loss, rank).world_size
        seed_everything(config.run.seed, workers=True, verbose=False)
        data = LungDataModule(config.data, config.augment, config.run.seed)
        data.prepare_data()
        data.find_samples()
        _check_shares(data, total)
        if rank.is_zero:
            _say_what_data(config, data, total)
        data.setup()
        module = LungModule(config.model, config.loss, config.optim, list(CLASSES), class_weights(config.loss, data))
        if config.run.init is not None and not config.run.resume:
            start_from(module.network, data, Path(config.run.init))
        monitor, mode = _monitor(config, has_val=bool(data.samples["val"]))
        run = Run(given) if given else _find_run(config, stem)
        if config.run.resume:
            check_same_model(run.last_checkpoint, config.model)
        lines = EpochLines()
        callbacks = [FollowProcesses(processes), *_callbacks(config, run, lines, monitor, mode)]
        where = wandb_mode(config.wandb)
        loggers: list[Logger] = [MetricsCsv(run.metrics_csv)]
        if rank.is_zero:
            loggers = build_loggers(config, config_dict(config), run, where, _wandb_id(run))
        trainer = build_trainer(config.trainer, config.loss, rank, callbacks, loggers)
        if rank.is_zero:
            write_text(run.config_file, dump_config(config))
            write_json(
                run.environment_file,
                environment(data.fingerprint) | {"excluded_training_copies": data.excluded, "processes": total},
            )
            processes.begin(run.folder, trainer)
        return cls(config, data, module, run, trainer, lines, where, started)

    def fit(self) -> None:
        """Fit, test the best checkpoint, write `metrics.json`, print where everything lies."""
        last = self.run.last_checkpoint
        if self.config.run.resume:
            self.data.first_epoch = int(read_checkpoint(last)["epoch"]) + 1
            self._table().forget_from(self.data.first_epoch)
        self.trainer.fit(
            self.module,
            datamodule=self.data,
            ckpt_path=str(last) if self.config.run.resume else None,
            weights_only=True,
        )
        best = self.run.best_checkpoint
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
        write_json(self.run.metrics_json, numbers)
        offline = sorted(self.run.folder.glob("wandb/offline-run-*"))
        for line in summary_lines(
            numbers, self.run.folder, offline[-1] if offline and self.mode == "offline" else None
        ):
            print(line, flush=True)
        if self.config.run.report:
            self._report()

    def _report(self) -> None:
        """The trained run's own report; a fault in it loses nothing of the run."""
        has_test = bool(self.data.samples["test"])
        if not has_test and not self.data.samples["val"]:
            return
        print("report", flush=True)
        try:
            reported = report_training(self.run.folder, has_test, self.trainer.loggers)
        except (ValueError, OSError) as error:
            log.warning("no report: %s", error)
            return
        print(f"report      {reported.page}", flush=True)

    def _table(self) -> MetricsCsv:
        return next(logger for logger in self.trainer.loggers if isinstance(logger, MetricsCsv))


def _callbacks(config: Config, run: Run, lines: EpochLines, monitor: str, mode: str) -> list[Callback]:
    """Overlays before the lines, so that a printed epoch is complete; checkpoints are Lightning's to put last."""
    callbacks: list[Callback] = [
        SeedEachEpoch(config.run.seed),
        StopOnNonFinite(),
        OverlayCallback(config.overlays, run.overlays, config.wandb.images),
        *progress_callbacks(lines),
        *trial_callbacks(),
        _checkpoint(run.best_checkpoint, monitor, mode),
        _checkpoint(run.last_checkpoint),  # its own file: `save_last` waits for a new best one
    ]
    if config.optim.average is not None:
        callbacks.append(AveragedWeights(config.optim.average))  # after the overlays, which draw the averaged weights
    if config.run.patience is not None:
        callbacks.append(EarlyStopping(monitor, patience=config.run.patience, mode=mode))
    return callbacks


def _checkpoint(path: Path, monitor: str | None = None, mode: str = "min") -> ModelCheckpoint:
    """Keep one file: of the best epoch by `monitor`, or, without it, of the last one."""
    return ModelCheckpoint(
        path.parent,
        filename=path.stem,
        monitor=monitor,
        mode=mode,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )


def _find_run(config: Config, stem: str) -> Run:
    parent, name = Path(config.run.dir), config.run.name
    return Run.resume(parent, name) if config.run.resume else Run.create(parent, name, stem)


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
        raise UserError(f"run.monitor: no run logs {config.run.monitor!r}; {hint}")
    return config.run.monitor, config.run.mode


def class_weights(loss: LossConfig, data: LungDataModule) -> list[float]:
    """Weights of the classes in the cross-entropy, in label order.

    Raises:
        ValueError: `loss.class_costs` names a class that is not there.
    """
    costs = loss.costs()
    if unknown := sorted(costs.keys() - set(CLASSES)):
        raise UserError(f"loss.class_costs: no class {unknown[0]!r}; choose from {', '.join(CLASSES)}")
    shares = data.balanced_class_weights() if loss.class_weights == "balanced" else [1.0] * len(CLASSES)
    return [share * costs.get(name, 1.0) for share, name in zip(shares, CLASSES, strict=True)]


def _check_shares(data: LungDataModule, processes: int) -> None:
    """Each process needs an image of every split, or it would not take part in the scores and the others wait."""
    for split, samples in data.samples.items():
        if 0 < len(samples) < processes:
            raise DataError(
                f"data: {split} has {len(samples)} image(s) for {processes} processes; lower trainer.devices"
            )


def _say_what_data(config: Config, data: LungDataModule, processes: int) -> None:
    counts = ", ".join(f"{len(samples)} {split}" for split, samples in data.samples.items())
    source = config.data.root if config.data.root is not None else f"phantoms in {config.data.phantom.dir}"
    left_out = f"; left out {data.excluded} training copies of Val or Test images" if config.data.exclude_leaks else ""
    print(f"data: {source}: {counts}{left_out}", flush=True)
    if processes > 1:
        batch, steps = config.data.batch_size, config.trainer.accumulate_grad_batches
        micro = f" x {steps} accumulated" if steps > 1 else ""
        print(
            f"{processes} processes x batch {batch}{micro} = {processes * batch * steps} images an optimiser step; "
            f"optim.lr={config.optim.lr:g} is used as it is",
            flush=True,
        )


def _wandb_id(run: Run) -> str:
    """W&B's id of this run: made once, kept in the run folder, so that resuming continues the same run.

    A new folder takes `WANDB_RUN_ID` where it is set: a job queued again before its first checkpoint stays one run.
    """
    path = run.wandb_id_file
    if path.is_file():
        return path.read_text().strip()
    run_id = os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:8]
    write_text(path, run_id + "\n")
    return run_id


def _quiet_libraries(aloud: bool) -> None:
    """Drop library notes that tell a user of lungseg nothing they can act on; errors and our own warnings stay.

    Args:
        aloud: False on the processes that would only say what rank zero has said.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING if aloud else logging.ERROR)
    if not aloud:
        warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*number of training batches.*smaller than the logging interval.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*GPU available but not used.*",
        ".*recommended to use `self.log.*sync_dist=True.*",
        ".*find_unused_parameters=True was specified in DDP constructor.*",
        ".*Experiment logs directory .* exists.*",
    ):
        warnings.filterwarnings("ignore", message=message)
