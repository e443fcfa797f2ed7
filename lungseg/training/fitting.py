"""One training from config to run folder: what `python -m lungseg.fit` does, for use from Python too."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer, seed_everything

from lungseg.config import Config, LossConfig, ModelConfig
from lungseg.config.loading import dump_config, without_places
from lungseg.data.datamodule import LungDataModule
from lungseg.errors import DataError, UserError, check, did_you_mean
from lungseg.models.checkpoint import read_checkpoint
from lungseg.models.metrics import score_names
from lungseg.reporting.report_run import AFTER_TRAINING, report_run
from lungseg.reporting.summary import final_numbers, summary_lines
from lungseg.runs.environment import environment
from lungseg.runs.memory import keep_freed_memory
from lungseg.runs.metrics_csv import MetricsCsv
from lungseg.runs.rank import PARENT_PID, Rank, detect_rank
from lungseg.runs.run import Run
from lungseg.runs.whole_files import remove_parts, write_json, write_text
from lungseg.training.callbacks import EpochLines, run_callbacks
from lungseg.training.compiling import compile_network
from lungseg.training.data_summary import say_what_data
from lungseg.training.distillation import Teacher, load_teacher
from lungseg.training.fine_tuning import start_from
from lungseg.training.loggers import build_loggers
from lungseg.training.model_folder import send_model
from lungseg.training.module import LungModule
from lungseg.training.resuming import check_continues, keep_config, last_row, seconds_before
from lungseg.training.signals import SignalHandler
from lungseg.training.trackers.tracker import Tracker
from lungseg.training.trackers.wandb_tracker import unsent_folder
from lungseg.training.trainer import build_trainer, rank_zero_first

log = logging.getLogger(__name__)


@dataclass
class Training:
    """A prepared training: all that can be checked has been checked, and nothing is trained yet."""

    config: Config
    data: LungDataModule
    module: LungModule
    run: Run
    """Rank zero has made its folder; elsewhere a stand-in, to which nothing is written, until `fit` learns its name."""
    trainer: Trainer
    lines: EpochLines
    last_row: dict[str, Any]  # Of the run that is resumed, see `resuming.last_row`; else empty.

    @classmethod
    def prepare(cls, config: Config, stem: str, signals: SignalHandler) -> Training:
        """Check everything that can be checked, and only then make the run folder.

        Args:
            config: The whole config.
            stem: Names the run folder where `run.name` is null.
            signals: Entered.

        Raises:
            UserError, OSError: A mistake in config or data; no run folder is made.
        """
        started = time.perf_counter()
        if config.run.resume and config.trainer.fast_dev_run:
            raise UserError("trainer.fast_dev_run: leaves nothing behind, and so cannot go on with a run (run.resume)")
        rank = detect_rank()
        _quiet_libraries(rank)
        probe = build_trainer(config.trainer, config.loss, rank)  # knows how many processes there will be
        if probe.strategy.root_device.type == "cpu":
            keep_freed_memory()
        with rank_zero_first(probe, rank):
            seed_everything(config.run.seed, workers=True, verbose=False)  # all ranks draw the same first weights
            data = _find_data(config, probe.world_size, rank)
            teacher = load_teacher(config.loss, config.model, data)
            # Which now names the classes.
            config = replace(config, data=data.config, model=_outputs(config.model, data, rank, teacher))
            _check_loss(config)
            weights, several = class_weights(config.loss, data), config.data.multi_label
            module = LungModule(config.model, config.loss, config.optim, data.classes, weights, several)
            module.teacher = teacher
            if config.trainer.compile:
                module.compiled = compile_network(module.network)
            if rank.is_zero:
                module.network.check_takes(config.data.image_size, config.data.batch_size)
            resumed = Run.resume(Path(config.run.dir), config.run.name) if config.run.resume else None
            row = last_row(resumed) if resumed else {}
            done = row["epoch"] + 1 if row else 0
            data.always_the_same = config.trainer.overfit_batches is not None
            if resumed:
                check_continues(resumed, config, data, done)
            if config.run.init is not None and not done:
                start_from(module.network, data, Path(config.run.init))
            monitor, mode = _monitor(config, has_val=bool(data.samples["val"]))
            run = resumed or _new_run(config, stem, rank)
            lines = EpochLines(started, seconds_before(resumed) if row and resumed else 0.0)
            callbacks = [signals, *run_callbacks(config, run, lines, monitor, mode)]
            loggers = build_loggers(config, run) if rank.is_zero and not config.trainer.fast_dev_run else False
            trainer = build_trainer(config.trainer, config.loss, rank, callbacks, loggers)
            if rank.is_zero:
                remove_parts(run.folder)
                keep_config(run, config, done)
                write_text(run.config_file, dump_config(config))
                details: dict[str, Any] = {"excluded_training_copies": data.excluded, "precision": trainer.precision}
                details["processes"] = trainer.world_size
                if config.trainer.precision == "auto" and trainer.precision != "32-true":
                    print(f"trainer.precision: {trainer.precision} on this GPU", flush=True)
                write_json(run.environment_file, environment(data.fingerprint) | details)
        os.environ[PARENT_PID] = str(os.getpid())  # for the children that Lightning's launcher may start from now on
        return cls(config, data, module, run, trainer, lines, row)

    def fit(self) -> Path:
        """Fit, test the best checkpoint, write `metrics.json`, print where everything lies; give the run folder."""
        self.data.first_epoch = self.last_row["epoch"] + 1 if self.last_row else 0
        if self.config.run.resume and self.trainer.is_global_zero:
            self._metrics_csv().forget_from(self.data.first_epoch)
            if self.last_row:
                self._metrics_csv().complete(self.last_row)
        last = self.run.last_checkpoint if self.last_row else None
        self.trainer.fit(self.module, datamodule=self.data, ckpt_path=last, weights_only=True)
        # A collective call: whatever has started the ranks, by now they are connected. The checkpoint callbacks have
        # learned the folder in the same way, inside of Lightning.
        self.run = Run(Path(self.trainer.strategy.broadcast(str(self.run.folder))))
        if self.config.trainer.fast_dev_run:
            return self._leave_nothing()
        # Where the run ended before the first validation, nothing is known to be best.
        best = next(path for path in (self.run.best_checkpoint, self.run.last_checkpoint) if path.is_file())
        test: dict[str, float] = {}
        if self.data.samples["test"]:
            test |= self.trainer.test(
                self.module, datamodule=self.data, ckpt_path=best, verbose=False, weights_only=True
            )[0]
        if self.trainer.is_global_zero:  # the last collective call is over: what follows may take its time
            self._conclude(test, best)
        return self.run.folder

    def _leave_nothing(self) -> Path:
        """End a run of a few batches, which Lightning keeps from writing anything; its folder goes at exit."""
        if self.data.samples["test"]:
            self.trainer.test(self.module, datamodule=self.data, verbose=False)
        if self.trainer.is_global_zero:
            print(f"trainer.fast_dev_run: {int(self.config.trainer.fast_dev_run)} batch(es) of each split went through")
        return self.run.folder

    def _conclude(self, test: dict[str, float], best: Path) -> None:
        kept = read_checkpoint(best)
        epoch = int(kept["epoch"])
        minutes = self.lines.total_s / 60
        rows, step = self._metrics_csv().rows(), int(kept["global_step"]) - 1
        numbers = final_numbers(rows, epoch, test, minutes, self.lines.speed, step)
        write_json(self.run.metrics_json, numbers)
        for tracker in self._trackers():
            tracker.log_result(numbers)
        for line in summary_lines(numbers, self.run.folder, unsent_folder(self.run.folder)):
            print(line, flush=True)
        split = next((split for split in ("test", "val") if self.data.samples[split]), None)
        if self.config.run.report and split is not None:
            self._report(split)
        if self.config.wandb.artifacts:  # after the report, which calibrates it
            about = {"config": without_places(self.config), "scores": numbers}
            send_model(self.run, self._trackers(), about | {"data_fingerprint": self.data.fingerprint})

    def _report(self, split: str) -> None:
        """Evaluate the best checkpoint and hand it to the trackers; a fault in it loses nothing of the run."""
        print("report", flush=True)
        try:
            reported = report_run(self.run.folder, (), split, AFTER_TRAINING)
        except (ValueError, OSError) as error:
            log.warning("no report: %s", error)
            return
        for tracker in self._trackers():
            tracker.log_evaluation(reported)
        print(f"report      {reported.page}", flush=True)

    def _trackers(self) -> list[Tracker]:
        return [logger for logger in self.trainer.loggers if isinstance(logger, Tracker)]

    def _metrics_csv(self) -> MetricsCsv:
        return next(logger for logger in self.trainer.loggers if isinstance(logger, MetricsCsv))


def class_weights(loss: LossConfig, data: LungDataModule) -> list[float]:
    """Weights of the classes in the cross-entropy, in label order.

    Raises:
        UserError: `loss.class_costs` names a class that is not there.
    """
    costs = loss.costs()
    if unknown := sorted(costs.keys() - set(data.classes)):
        raise UserError(f"loss.class_costs: no class {unknown[0]!r}; choose from {', '.join(data.classes)}")
    shares = data.balanced_class_weights() if loss.class_weights == "balanced" else [1.0] * len(data.classes)
    return [share * costs.get(name, 1.0) for share, name in zip(shares, data.classes, strict=True)]


def _find_data(config: Config, world_size: int, rank: Rank) -> LungDataModule:
    """Index and check the data set, say on rank zero what it is, and build the caches."""
    data = LungDataModule(config.data, config.augment, config.run.seed)
    # What Lightning would call in its own time, when children have been started and a run folder stands.
    data.prepare_data()
    data.find_samples()
    for split, samples in data.samples.items():
        if 0 < len(samples) < world_size:  # a rank without an image would miss the collective calls of the scores
            raise DataError(
                f"data: {split} has {len(samples)} image(s) for {world_size} processes; lower trainer.devices"
            )
    if rank.is_zero:
        say_what_data(config, data, world_size)
    data.setup()
    return data


def _outputs(model: ModelConfig, data: LungDataModule, rank: Rank, teacher: Teacher | None) -> ModelConfig:
    """The section `model` without an output that neither a training image nor a teacher has a target for."""
    if not model.lung or any(sample.lung is not None for sample in data.samples["train"]):
        return model
    if teacher is not None and teacher.has_lung:
        return model
    if rank.is_zero:
        words = "no training image has a lung mask: classes alone are learned, as with model.lung=false"
        log.warning(words + " model.pooling=average" * (model.pooling == "lung"))
    return replace(model, lung=False, infection=False, pooling="average")


def _check_loss(config: Config) -> None:
    """Something must be learned of what is left."""
    loss, classes = config.loss, bool(config.data.classes)
    left = (loss.dice + loss.bce) * config.model.lung + loss.cross_entropy * classes
    views, size = config.augment.views, config.data.batch_size
    whole = size % views == 0 and size > views  # all views of an image, and others to tell it from
    check(
        whole or not loss.contrastive_weight,
        "data.batch_size",
        f"twice {views} (augment.views) or another multiple of it",
        size,
    )
    check(left > 0, "loss", "above 0 in sum for what is predicted (masks: dice, bce; classes: cross_entropy)", left)


def _monitor(config: Config, has_val: bool) -> tuple[str, str]:
    """The metric that picks the best checkpoint; without a Val split only the training loss is left."""
    if not has_val:
        log.warning("no Val split: the best checkpoint is the one of the lowest train/loss, which favours overfitting")
        return "train/loss", "min"
    model, data = config.model, config.data
    names = score_names(data.classes or (), model.infection, data.multi_label, model.lung)
    known = ["train/loss", *(f"val/{name}" for name in names)]
    if config.run.monitor not in known:
        near = did_you_mean(get_close_matches(config.run.monitor, known, 1))
        hint = near or "; for example 'val/score', 'val/dice', 'val/accuracy'"
        raise UserError(f"run.monitor: no run logs {config.run.monitor!r}{hint}")
    return config.run.monitor, config.run.mode


def _new_run(config: Config, stem: str, rank: Rank) -> Run:
    parent, name = Path(config.run.dir), config.run.name
    if config.trainer.fast_dev_run and rank.is_zero:
        parent = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, parent, ignore_errors=True)  # also of a run that breaks off
        return Run.create(parent, name, stem)
    return Run.create(parent, name, stem) if rank.is_zero else Run(parent / (name or stem))


def _quiet_libraries(rank: Rank) -> None:
    """Drop library notes that tell a user of lungseg nothing they can act on; errors and our own warnings stay."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING if rank.is_zero else logging.ERROR)
    if not rank.is_zero:  # it would only repeat what rank zero has said
        warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # The one note of Lightning's launcher: which child has died, before it kills the others and this process.
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").setLevel(logging.INFO)
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
