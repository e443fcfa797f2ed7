"""A sweep against the config it sweeps: every parameter a key of its type and range, the metric one that a run logs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Any

from lungseg.config import Config, LossConfig, ModelConfig
from lungseg.config.loading import COMMAND_LINE
from lungseg.errors import ConfigError, SweepError, did_you_mean

if TYPE_CHECKING:
    from lungseg.sweeping.spec import Sweep

_NOT_SWEPT = {
    "run.name": "every run has a folder of its own",
    "run.resume": "every run starts anew",
    "run.dir": "all runs of a sweep lie in one folder; set it in the command",
    "wandb.mode": "set it in the command, or WANDB_MODE",
    "wandb.project": "inside a sweep W&B takes the sweep's, 'project:' of this file",
    "wandb.entity": "inside a sweep W&B takes the sweep's, 'entity:' of this file",
}
_TERMS = {
    "dice_loss": "loss.dice",
    "bce_loss": "loss.bce",
    "cross_entropy": "loss.cross_entropy",
    "evidence_loss": "loss.evidence_weight",
}
"""Losses that a run logs where their weight is above 0."""
_ALL_TERMS = LossConfig(dice=1, bce=1, cross_entropy=1, evidence_weight=1)
_SCORES = ("score", "dice", "dice_global", "iou", "pixel_accuracy", "accuracy", "balanced_accuracy", "f1", "auroc")
_MOST_GRID_RUNS = 200  # tried together, spread over the grid; each costs some 20 ms
_MOST_NETWORKS_BUILT = 32


def check_against_config(sweep: Sweep) -> None:
    """Raise a SweepError, without the file, at the first thing that a run would refuse or that would mislead."""
    base = _resolve(sweep, {}, "command: ")
    _check_names(sweep)
    configs = [_resolve(sweep, values) for values in _runs(sweep)] or [base]
    _check_metric(sweep, configs)
    _check_early(sweep)
    if any(name.startswith("model.") for name in sweep.parameters):
        _check_networks(config.model for config in configs)


def logged_metrics(config: Config) -> list[str]:
    """Every metric that a run of this config logs once an epoch and that a sweep may go by; none of Test's."""
    from lungseg.data.sample import CLASSES
    from lungseg.models.metrics import score_names

    unused = {name for name, key in _TERMS.items() if getattr(config.loss, key.removeprefix("loss.")) == 0}
    names = [n for n in score_names(CLASSES, config.model.infection) if n.removeprefix("infection_") not in unused]
    losses = [name for name in names if name.removeprefix("infection_") in ("loss", *_TERMS)]
    return [f"val/{name}" for name in names] + [f"train/{name}" for name in losses]


def least_epochs(sweep: Sweep) -> int:
    """Epochs of the sweep's shortest run."""
    key = "trainer.max_epochs"
    tried = [{key: value} for value in sweep.parameters[key].samples()] if key in sweep.parameters else [{}]
    return min(sweep.config(values).trainer.max_epochs for values in tried)


def _check_names(sweep: Sweep) -> None:
    fixed = {word.partition("=")[0] for word in sweep.words}
    for name in sweep.parameters:
        if name in _NOT_SWEPT:
            raise SweepError(f"{name}: cannot be swept: {_NOT_SWEPT[name]}")
        if name in fixed:
            raise SweepError(f"{name}: is swept, and set in the command too; remove one")
    for name in ("run.name", "run.resume"):
        if name in fixed:
            raise SweepError(f"command: {name} cannot be set for all runs: {_NOT_SWEPT[name]}")


def _runs(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Values of runs that stand for all: one parameter after the other, beside what is constant, and a grid's own."""
    samples = {name: parameter.samples() for name, parameter in sweep.parameters.items()}
    constant = {name: values[0] for name, values in samples.items() if len(values) == 1}
    changing = {name: values for name, values in samples.items() if name not in constant}
    yield from [constant] if constant else []
    yield from (constant | {name: value} for name, values in changing.items() for value in values)
    if sweep.method == "grid" and len(changing) > 1:
        yield from islice(sweep.grid(), 0, None, 1 + sweep.grid_size() // _MOST_GRID_RUNS)


def _resolve(sweep: Sweep, values: Mapping[str, Any], where: str = "") -> Config:
    try:
        return sweep.config(values)
    except ConfigError as error:
        raise SweepError(where + str(error).removeprefix(f"{COMMAND_LINE}: ")) from error


def _check_metric(sweep: Sweep, configs: list[Config]) -> None:
    """The metric exists in every run, means the same in all of them, and is wanted in the right direction."""
    name, goal = sweep.metric.name, sweep.metric.goal
    where = "command: run.monitor:" if sweep.metric.from_base else "metric: name:"
    if name.startswith("test/"):
        raise SweepError(f"{where} {name!r} would choose by Test, which must stay unseen; take {'val' + name[4:]!r}")
    for config in {repr((config.loss, config.model.infection)): config for config in configs}.values():
        logged = logged_metrics(config)
        if name not in logged:
            every = logged_metrics(replace(config, loss=_ALL_TERMS, model=replace(config.model, infection=True)))
            if name in every:
                raise SweepError(f"{where} {name!r} is not logged by a run with {_missing(name, config)}")
            near = did_you_mean(get_close_matches(name, logged, 1)) or "; for example 'val/score'"
            raise SweepError(f"{where} no run logs {name!r}{near}")
    score = name.partition("/")[2].removeprefix("infection_")
    wanted = "minimize" if score in ("loss", *_TERMS) else "maximize" if score in _SCORES else goal
    if goal != wanted:
        raise SweepError(f"metric: goal: {goal!r} of {name!r} would look for the worst; say {wanted!r}")
    _check_comparable(sweep, where, score)


def _missing(name: str, config: Config) -> str:
    stage_free = name.partition("/")[2]
    if stage_free.startswith("infection_") and not config.model.infection:
        return "model.infection=false"
    return f"{_TERMS[stage_free.removeprefix('infection_')]}=0"


def _check_comparable(sweep: Sweep, where: str, score: str) -> None:
    """A loss cannot judge runs that each weigh it differently: the smallest weights would win."""
    changing = [name for name, parameter in sweep.parameters.items() if len(parameter.samples()) > 1]
    of_classes = ("loss.label_smoothing", "loss.class_weights", "loss.class_costs")
    weights = {"loss": (*_TERMS.values(), *of_classes), "cross_entropy": of_classes}
    for name in changing:
        if name in weights.get(score, ()):
            raise SweepError(f"{where} {sweep.metric.name!r} changes with {name}, which is swept; take 'val/score'")


def _check_early(sweep: Sweep) -> None:
    early = sweep.early_terminate
    if early is not None and not early.brackets(epochs := least_epochs(sweep)):
        given = f"min_iter {early.min_iter}" if early.min_iter else f"max_iter {early.max_iter} and s {early.s}"
        raise SweepError(
            f"early_terminate: {given} with eta {early.eta:g} puts no bracket before the last of {epochs} epochs, so "
            f"no run would be stopped; try min_iter: {max(1, epochs // 9)}"
        )


def _check_networks(models: Iterable[ModelConfig]) -> None:
    """Build each network without memory and weights; the encoders and options of smp are known to smp alone."""
    import torch

    from lungseg.models.encoders import check_lite, smp_weights
    from lungseg.models.network import LungNetwork

    different = {repr(model): model for model in models}
    for model in islice(different.values(), _MOST_NETWORKS_BUILT):
        try:
            with torch.device("meta"):
                LungNetwork(replace(model, encoder_weights=None), 3)
            smp_weights(model.encoder, model.encoder_weights)
            check_lite(model.encoder, model.encoder_weights)
        except ValueError as error:
            raise SweepError(str(error)) from error
