"""A sweep file loaded and checked: every parameter a key of the config, of its type and range, the metric one it logs.

The other modules work from the `Sweep` that `load_sweep` returns and check nothing again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from lungseg.config import Config, LossConfig, ModelConfig
from lungseg.config.loading import COMMAND_LINE
from lungseg.errors import SweepError, UserError
from lungseg.sweeping.schema import nearest, require
from lungseg.sweeping.spec import Sweep, read_sweep

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
    "localization_loss": "loss.localization_weight",
}
"""Losses that a run logs where their weight is above 0."""
_OF_TRAINING = {"distillation_loss": "loss.teacher_weight", "contrastive_loss": "loss.contrastive_weight"}
"""Those that Val is measured without."""
_WEIGH_TRAINING = ("loss.teacher", *_OF_TRAINING.values())
"""Of `train/loss` alone."""
_ALL_TERMS = LossConfig(dice=1, bce=1, cross_entropy=1, evidence_weight=1, localization_weight=1)
_OF_CLASSES = ("loss.label_smoothing", "loss.class_weights", "loss.class_costs")
_WEIGHED_BY = {"loss": (*_TERMS.values(), *_OF_CLASSES), "cross_entropy": _OF_CLASSES}
"""A loss cannot judge runs that each weigh it differently: the smallest weights would win."""
_SCORES = ("score", "dice", "dice_global", "iou", "pixel_accuracy", "accuracy", "balanced_accuracy", "f1", "auroc")
_MOST_GRID_RUNS = 200  # tried together, spread over the grid; each costs some 20 ms
_MOST_NETWORKS_BUILT = 32


def load_sweep(path: Path) -> Sweep:
    """Read a sweep file and check all that can be known before a run.

    Raises:
        SweepError: One line, `FILE: key: rule, value, nearest right name`.
    """
    try:
        sweep = read_sweep(path)
        _check_against_config(sweep)
    except UserError as error:  # the reader of YAML names the file, the reader of configs the command line
        message = str(error).removeprefix(f"{path}: ").removeprefix(f"{COMMAND_LINE}: ")
        raise SweepError(f"{path}: {message}") from error
    return sweep


def _check_against_config(sweep: Sweep) -> None:
    """Refuse what a run would refuse, or what would mislead."""
    # Of two words for one key the later wins, so the place of the values in the command would decide in silence.
    fixed = {word.partition("=")[0] for word in sweep.words}
    for name in sweep.parameters:
        require(name not in _NOT_SWEPT, f"{name}: cannot be swept: {_NOT_SWEPT.get(name)}")
        require(name not in fixed, f"{name}: is swept, and set in the command too; remove one")
    for name in ("run.name", "run.resume"):
        require(name not in fixed, f"command: {name} cannot be set for all runs: {_NOT_SWEPT[name]}")
    configs = [sweep.config(values) for values in _runs(sweep)]
    _check_metric(sweep, configs)
    if (early := sweep.early_terminate) is not None:
        epochs = least_epochs(sweep)
        given = f"min_iter {early.min_iter}" if early.min_iter else f"max_iter {early.max_iter} and s {early.s}"
        require(
            early.brackets(epochs),
            f"early_terminate: {given} with eta {early.eta:g} puts no bracket before the last of {epochs} epochs, so "
            f"no run would be stopped; try min_iter: {max(1, epochs // 9)}",
        )
    if any(name.startswith("model.") for name in sweep.parameters):
        check_networks(config.model for config in configs)


def logged_metrics(config: Config) -> list[str]:
    """Every metric that a run of this config logs once an epoch and that a sweep may go by; none of Test's."""
    from lungseg.data.covidqu import CLASSES
    from lungseg.models.metrics import score_names

    unused = {name for name, key in _TERMS.items() if getattr(config.loss, key.removeprefix("loss.")) == 0}
    data, model = config.data, config.model
    classes = CLASSES if data.classes is None else data.classes
    scores = score_names(classes, model.infection, data.multi_label, model.lung)
    names = [name for name in scores if name.removeprefix("infection_") not in unused]
    losses = [name for name in names if name.removeprefix("infection_") in ("loss", *_TERMS)]
    losses += ["distillation_loss"] * (config.loss.teacher is not None and config.loss.teacher_weight > 0)
    losses += ["contrastive_loss"] * (config.loss.contrastive_weight > 0)
    return [f"val/{name}" for name in names] + [f"train/{name}" for name in losses]


def least_epochs(sweep: Sweep) -> int:
    """Epochs of the sweep's shortest run."""
    key = "trainer.max_epochs"
    tried = [{key: value} for value in sweep.parameters[key].samples()] if key in sweep.parameters else [{}]
    return min(sweep.config(values).trainer.max_epochs for values in tried)


def check_report(sweep: Sweep) -> list[str]:
    """Say of a good file what will be tried, how many runs there are, and when one is stopped early."""
    metric = sweep.metric
    target = "" if metric.target is None else f", until a run reaches {metric.target:g}"
    origin = " (run.monitor of the base config)" if metric.from_base else ""
    rows = {"method": f"{sweep.method}, {_size(sweep)}", "metric": f"{metric.name}, {metric.goal}{target}{origin}"}
    rows["base"] = " ".join([str(sweep.base), *sweep.words])
    rows |= {name: parameter.describe() for name, parameter in sweep.parameters.items()}
    width = max(map(len, rows))
    lines = [f"{sweep.path}: good", *(f"  {name:<{width}}  {text}" for name, text in rows.items())]
    if (early := sweep.early_terminate) is not None:
        epochs = least_epochs(sweep)
        brackets = ", ".join(map(str, early.brackets(epochs)))
        by = "its value at the bracket (strict)" if early.strict else "its best value so far (not strict)"
        lines += [
            f"  hyperband: brackets after epochs {brackets} of {epochs}. A bracket counts how often {metric.name} was",
            "    logged, which is once an epoch; steps and batches do not count. At a bracket a run goes on if",
            f"    {by} is among the best 1/{early.eta:g} of all runs that came this far.",
        ]
    lines += [f"  note: {name} is not set here; set it where the runs start" for name in sweep.missing_variables()]
    if sweep.program is None:
        wanted = "W&B's documentation requires one, though command says what runs: lungseg/fit.py"
        lines.append(f"  note: no 'program:'; {wanted}")
    return lines


def check_networks(models: Iterable[ModelConfig]) -> None:
    """Build each network without memory and weights: the encoders and options of smp are known to smp alone.

    Raises:
        UserError: One that cannot be built.
    """
    import torch

    from lungseg.models.encoders import check_lite, smp_weights
    from lungseg.models.network import LungNetwork

    different = {repr(model): model for model in models}
    for model in islice(different.values(), _MOST_NETWORKS_BUILT):
        # Pretrained weights would be downloaded; that they exist is asked below.
        without = replace(model, encoder_weights=None)
        try:
            with torch.device("meta"):
                LungNetwork(without, 3)
        except (RuntimeError, NotImplementedError):  # an encoder that reads its own weights while it is built
            LungNetwork(without, 3)
        smp_weights(model.encoder, model.encoder_weights)
        check_lite(model.encoder, model.encoder_weights)


def _size(sweep: Sweep) -> str:
    cap = sweep.run_cap
    if sweep.method == "grid":
        size = sweep.grid_size()
        return f"{size} runs" if cap is None else f"{min(size, cap)} of {size} runs (run_cap)"
    return f"at most {cap} runs" if cap else "without end: no run_cap; stop it, or start it with --count"


def _runs(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Values of runs that stand for all: one parameter after the other, beside what is constant, and a grid's own."""
    samples = {name: parameter.samples() for name, parameter in sweep.parameters.items()}
    constant = {name: values[0] for name, values in samples.items() if len(values) == 1}
    changing = {name: values for name, values in samples.items() if name not in constant}
    # Nearly all rules concern one key, and all combinations would be too many; a grid's clashes show in a selection.
    yield from [constant] if constant else []
    yield from (constant | {name: value} for name, values in changing.items() for value in values)
    if sweep.method == "grid" and len(changing) > 1:
        yield from islice(sweep.grid(), 0, None, 1 + sweep.grid_size() // _MOST_GRID_RUNS)


def _check_metric(sweep: Sweep, configs: list[Config]) -> None:
    """The metric exists in every run, means the same in all of them, and is wanted in the right direction."""
    name, goal = sweep.metric.name, sweep.metric.goal
    where = "command: run.monitor:" if sweep.metric.from_base else "metric: name:"
    unseen = f"{where} {name!r} would choose by Test, which must stay unseen; take {'val' + name[4:]!r}"
    require(not name.startswith("test/"), unseen)
    # What is logged depends on these alone, so that of a grid's many configs each kind is asked once.
    for config in {
        repr((config.loss, config.model.infection, config.model.lung)): config for config in configs
    }.values():
        if name in logged_metrics(config):
            continue
        own = _with_classes_of_data(config)  # looked for only now: a tree of files is listed for it
        if name not in logged_metrics(own):
            raise SweepError(f"{where} {_why_not_logged(name, own)}")
    score = name.partition("/")[2].removeprefix("infection_")
    wanted = "minimize" if score in ("loss", *_TERMS, *_OF_TRAINING) else "maximize" if score in _SCORES else goal
    require(goal == wanted, f"metric: goal: {goal!r} of {name!r} would look for the worst; say {wanted!r}")
    for key, parameter in sweep.parameters.items():
        weighing = (*_WEIGHED_BY.get(score, ()), *(_WEIGH_TRAINING if name == "train/loss" else ()))
        weighs = key in weighing and len(parameter.samples()) > 1
        require(not weighs, f"{where} {name!r} changes with {key}, which is swept; take 'val/score'")


def _with_classes_of_data(config: Config) -> Config:
    """The config with the classes that its data have; as it is where it names them, or the data are not here."""
    from lungseg.data.index import read_index

    data = config.data
    if data.root is None or data.classes is not None or not Path(data.root).expanduser().exists():
        return config
    label_map = dict(pair.split("=") for pair in data.label_map)
    found = read_index(Path(data.root), label_map, multi_label=data.multi_label).classes
    return replace(config, data=replace(data, classes=list(found))) if len(found) > 1 else config


def _why_not_logged(name: str, config: Config) -> str:
    if name.removeprefix("train/") in _OF_TRAINING:
        without = " or without loss.teacher" if name == "train/distillation_loss" else ""
        return f"{name!r} is not logged by a run with {_OF_TRAINING[name.removeprefix('train/')]}=0{without}"
    if name not in logged_metrics(replace(config, loss=_ALL_TERMS, model=replace(config.model, infection=True))):
        near = nearest(name, logged_metrics(config)) or "; for example 'val/score'"
        return f"no run logs {name!r}{near}"
    score = name.partition("/")[2]
    lacks_infection = score.startswith("infection_") and not config.model.infection
    missing = "model.infection=false" if lacks_infection else f"{_TERMS[score.removeprefix('infection_')]}=0"
    return f"{name!r} is not logged by a run with {missing}"
