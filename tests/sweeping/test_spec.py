"""Every mistake in a sweep file is one line; what is accepted means here what it means to W&B."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from lungseg.errors import SweepError
from lungseg.sweeping.checking import check_report, load_sweep
from lungseg.sweeping.parameter import DISTRIBUTIONS, read_parameter
from lungseg.sweeping.pruning import Hyperband
from lungseg.sweeping.spec import Sweep

BASE = "trainer: {max_epochs: 27, accelerator: cpu}\nmodel: {encoder: tu-test_efficientnet, encoder_depth: 4}\n"
COMMAND = ["${env}", "${interpreter}", "-m", "lungseg.fit", "--config", "base.yaml", "${args_no_hyphens}"]
GOOD: dict[str, Any] = {
    "name": "try",
    "program": "lungseg/fit.py",
    "method": "bayes",
    "metric": {"name": "val/score", "goal": "maximize"},
    "parameters": {"optim.lr": {"distribution": "log_uniform_values", "min": 0.0001, "max": 0.1}},
    "early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 3, "strict": True},
    "command": COMMAND,
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs start in a folder that holds the base config."""
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)


def _load(changes: dict[str, Any] | None = None, **tree: Any) -> Sweep:
    """Load the good file with keys replaced; None takes a key away, a dotted key reaches inside."""
    whole = copy.deepcopy(GOOD) | tree
    for key, value in (changes or {}).items():
        section, _, leaf = key.partition(".")
        whole[section] = {**whole.get(section, {}), leaf: value} if leaf else value
        if leaf and value is None:
            del whole[section][leaf]
    Path("s.yaml").write_text(yaml.safe_dump({k: v for k, v in whole.items() if v is not None}, sort_keys=False))
    return load_sweep(Path("s.yaml"))


def _mistake(changes: dict[str, Any] | None = None, **tree: Any) -> str:
    with pytest.raises(SweepError, match=r"^s\.yaml: [^\n]+$") as caught:
        _load(changes, **tree)
    return str(caught.value).removeprefix("s.yaml: ")


def test_good_file_says_what_it_will_try() -> None:
    sweep = _load(command=[*COMMAND, "optim.weight_decay=0.1"])
    assert (sweep.name, sweep.method, sweep.run_cap) == ("try", "bayes", None)
    assert sweep.base == Path("base.yaml") and sweep.words == ("optim.weight_decay=0.1",)
    assert sweep.parameters["optim.lr"].numbers == {"min": 0.0001, "max": 0.1}
    assert sweep.config({"optim.lr": 0.02}).optim.lr == 0.02
    assert sweep.config({}).optim.weight_decay == 0.1


def test_name_defaults_to_the_stem_and_metric_to_what_the_base_config_calls_best() -> None:
    sweep = _load(name=None, metric=None, early_terminate=None, method="random")
    assert sweep.name == "s" and sweep.metric.from_base
    assert (sweep.metric.name, sweep.metric.goal) == ("val/score", "maximize")


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        ({"methd": "grid"}, "methd: unknown key; did you mean 'method'?"),
        ({"method": "byes"}, "method: must be one of grid, random, bayes, got 'byes'; did you mean 'bayes'?"),
        ({"method": "custom"}, "method: must be one of grid, random, bayes, got 'custom'"),
        ({"scheduler": {"engine": "optuna"}}, "scheduler: W&B knows it, sweeps of lungseg do not use it; leave it out"),
        ({"run_cap": 0}, "run_cap: must be a whole number of runs >= 1, got 0"),
        ({"run_cap": True}, "run_cap: must be a whole number of runs >= 1, got True"),
        ({"project": 3}, "project: must be text, got 3"),
        ({"parameters": {}}, "parameters: must hold keys of its own, got {}"),
        ({"metric": None}, "metric: missing; bayes needs it: 'name: val/score' and 'goal: maximize'"),
        (
            {"method": "random", "metric": None},
            "metric: missing; early_terminate needs it: 'name: val/score' and 'goal: maximize'",
        ),
        ({"metric": "val/score"}, "metric: must hold keys of its own, got 'val/score'"),
        ({"early_terminate": "hyperband"}, "early_terminate: must hold keys of its own, got 'hyperband'"),
    ],
)
def test_mistake_at_the_top_level(tree: dict[str, Any], line: str) -> None:
    assert _mistake(**tree) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("method: [grid", "broken YAML at line 1, column 14: expected ',' or ']', but got '<stream end>'"),
        ("- a\n", "expected keys such as 'method:' at the top level, got ['a']"),
        ("", "expected keys such as 'method:' at the top level, got None"),
        (
            "method: grid\nparameters:\n  optim.lr: {value: 1}\n  optim.lr: {value: 2}\n",
            "broken YAML at line 4, column 3: 'optim.lr' stands twice; keep one",
        ),
    ],
)
def test_mistake_in_the_yaml_itself(text: str, line: str) -> None:
    Path("s.yaml").write_text(text)
    with pytest.raises(SweepError) as caught:
        load_sweep(Path("s.yaml"))
    assert str(caught.value) == f"s.yaml: {line}"


def test_missing_file_names_the_nearest() -> None:
    Path("grid.yaml").touch()
    with pytest.raises(SweepError, match=r"gird\.yaml: no such file; did you mean 'grid\.yaml'\?"):
        load_sweep(Path("gird.yaml"))


@pytest.mark.parametrize(
    ("name", "section", "line"),
    [
        ("optim.lrr", {"value": 1}, "optim.lrr: unknown key; did you mean 'optim.lr'?"),
        ("lr", {"value": 1}, "lr: unknown key; did you mean 'optim.lr'?"),
        ("optim.lr", 0.1, "optim.lr: must hold 'value:', 'values:' or 'min:' and 'max:', got 0.1"),
        ("optim.lr", {"value": "fast"}, "optim.lr: expected a number (float), got 'fast'"),
        ("optim.lr", {"values": [0.1, 2.0]}, "optim.lr: must be in (0, 1], got 2.0"),
        ("optim.lr", {"min": 0.0, "max": 0.5}, "optim.lr: must be in (0, 1], got 0.0"),
        ("optim.lr", {"values": []}, "optim.lr: values must be a list with something in it, got []"),
        ("optim.lr", {"values": [0.1, 0.1]}, "optim.lr: values hold 0.1 twice"),
        ("optim.lr", {"min": "1e-5", "max": 0.1}, "optim.lr: min must be a number, got '1e-5'; YAML reads it as text, "
         "write 1.0e-05"),
        ("optim.lr", {"min": 0.1, "max": 0.1}, "optim.lr: min must be below max, got 0.1 and 0.1"),
        ("optim.lr", {"min": 0.1}, "optim.lr: uniform needs 'max:'"),
        ("optim.lr", {"mn": 0.1, "max": 0.2}, "optim.lr: mn: unknown key; did you mean 'min'?"),
        ("optim.lr", {"min": 0.1, "max": 0.2, "q": 0.1}, "optim.lr: q: unknown key; known here: distribution, min"),
        ("optim.lr", {"valeus": [1]}, "optim.lr: valeus: unknown key; did you mean 'values'?"),
        ("optim.lr", {"distribution": "unifrm", "min": 0, "max": 1}, "did you mean 'uniform'?"),
        ("optim.lr", {"distribution": "log_uniform_values", "min": 0.0, "max": 1},
         "optim.lr: min of log_uniform_values must be above 0, got 0.0"),
        ("optim.lr", {"distribution": "log_uniform", "min": 0.0001, "max": 0.1},
         "optim.lr: log_uniform is deprecated by W&B, its ends are exponents of e; write log_uniform_values with "
         "the ends themselves, exp(min) and exp(max)"),
        ("optim.lr", {"distribution": "normal", "mu": 0.1, "sigma": 0.05}, "optim.lr: must be in (0, 1], got "),
        ("optim.lr", {"distribution": "normal", "sigma": -1}, "optim.lr: sigma must be >= 0, got -1"),
        ("optim.lr", {"distribution": "q_uniform", "min": 0.1, "max": 1, "q": 0},
         "optim.lr: q of q_uniform must be above 0, got 0"),
        ("optim.lr", {"distribution": "q_uniform", "min": 0.1, "max": 1, "q": 0.3},
         "optim.lr: must be in (0, 1], got 0.0"),
        ("data.batch_size", {"min": 4.0, "max": 32.0}, "data.batch_size: expected a whole number (int), got '14.6"),
        ("data.batch_size", {"distribution": "int_uniform", "min": 4, "max": 32.0},
         "data.batch_size: int_uniform needs whole numbers, got 4 and 32.0"),
        ("model.head", {"values": ["linear", "cnov"]},
         "model.head: must be one of 'linear', 'conv', got 'cnov'; did you mean 'conv'?"),
        ("model.head", {"values": ["linear", "conv"], "probabilities": [0.5, 0.6]},
         "model.head: probabilities must be 2 numbers >= 0 of sum 1, got [0.5, 0.6]"),
        ("model.head", {"distribution": "categorical"}, "model.head: categorical needs 'values:'"),
        ("model.encoder", {"values": ["resnet18", "resnet81"]}, "model.encoder: unknown encoder 'resnet81'"),
        ("model.encoder_weights", {"values": [None, "lite0"]}, "model.encoder_weights: 'lite0' holds weights of "),
        ("model.decoder_channels", {"values": [[64, 32, 16]]}, "model: Unet with 'tu-test_efficientnet' cannot"),
        ("optim", {"parameters": {"lr": {"value": 1}}}, "optim: nested parameters reach the run as one word optim={...}"
         "; write them with dots, optim.KEY:"),
        ("run.name", {"values": ["a", "b"]}, "run.name: cannot be swept: every run has a folder of its own"),
        ("run.resume", {"value": True}, "run.resume: cannot be swept: every run starts anew"),
        ("run.dir", {"value": "x"}, "run.dir: cannot be swept: all runs of a sweep lie in one folder"),
        ("wandb.project", {"value": "x"}, "wandb.project: cannot be swept: inside a sweep W&B takes the sweep's"),
        ("data.fold", {"distribution": "int_uniform", "min": 0, "max": 5}, "data.fold: must be in 0..4, got 5"),
    ],
)  # fmt: skip
def test_mistake_in_a_parameter(name: str, section: Any, line: str) -> None:
    assert line in _mistake(parameters={name: section}, method="random")


def test_values_that_only_clash_together_are_found_in_a_grid() -> None:
    values = {f"loss.{name}": {"values": [0, 1]} for name in ("dice", "bce", "cross_entropy")}
    assert _mistake(parameters=values, method="grid", early_terminate=None) == "loss: must be above 0 in sum, got 0"


def test_a_constant_beside_a_range_is_part_of_every_run() -> None:
    parameters = {"data.fold": {"distribution": "int_uniform", "min": 0, "max": 9}, "data.folds": {"value": 10}}
    assert _load(parameters=parameters, method="random").parameters["data.folds"].values == (10,)


def test_a_score_of_a_class_is_one_of_the_data(tmp_path: Path) -> None:
    for name in ("train/TB/a.png", "train/ok/b.png"):
        (tmp_path / "own" / name).parent.mkdir(parents=True)
        (tmp_path / "own" / name).touch()
    command = [*COMMAND, f"data.root={tmp_path / 'own'}"]
    good = {"name": "val/auroc_TB", "goal": "maximize"}
    assert _load(command=command, metric=good).metric.name == "val/auroc_TB"
    line = _mistake(command=command, metric={"name": "val/auroc_TBC", "goal": "maximize"})
    assert line == "metric: name: no run logs 'val/auroc_TBC'; did you mean 'val/auroc_TB'?"
    assert "no run logs 'val/auroc_TB'" in _mistake(metric=good)  # of phantoms, which have other classes


@pytest.mark.parametrize(
    ("metric", "line"),
    [
        ({"goal": "maximize"}, "metric: name: must be a logged metric such as 'val/score', got None"),
        ({"name": "val/dicee", "goal": "maximize"}, "metric: name: no run logs 'val/dicee'; did you mean 'val/dice'?"),
        ({"name": "zzz", "goal": "maximize"}, "metric: name: no run logs 'zzz'; for example 'val/score'"),
        ({"name": "test/dice", "goal": "maximize"}, "would choose by Test, which must stay unseen; take 'val/dice'"),
        ({"name": "train/lr", "goal": "maximize"}, "metric: name: no run logs 'train/lr'; did you mean"),
        ({"name": "val/infection_dice", "goal": "maximize"}, "is not logged by a run with model.infection=false"),
        ({"name": "val/evidence_loss", "goal": "minimize"}, "is not logged by a run with loss.evidence_weight=0"),
        ({"name": "train/contrastive_loss", "goal": "minimize"}, "by a run with loss.contrastive_weight=0"),
        (
            {"name": "train/distillation_loss", "goal": "minimize"},
            "a run with loss.teacher_weight=0 or without loss.te",
        ),
        ({"name": "val/dice"}, "metric: goal: missing, and W&B would minimize; say 'maximize' or 'minimize'"),
        ({"name": "val/dice", "goal": "maximise"}, "must be 'minimize' or 'maximize', got 'maximise'; did you mean"),
        ({"name": "val/dice", "goal": "minimize"}, "'minimize' of 'val/dice' would look for the worst; say 'maximize'"),
        ({"name": "val/loss", "goal": "maximize"}, "'maximize' of 'val/loss' would look for the worst; say 'minimize'"),
        ({"name": "val/dice", "goal": "maximize", "target": "x"}, "metric: target must be a number, got 'x'"),
        ({"name": "val/dice", "goal": "maximize", "impute": "worst"}, "metric: impute: W&B knows it, sweeps of"),
        ({"name": "val/dice", "goals": "maximize"}, "metric: goals: unknown key; did you mean 'goal'?"),
    ],
)
def test_mistake_in_the_metric(metric: dict[str, Any], line: str) -> None:
    assert line in _mistake(metric=metric)


def test_a_loss_is_no_judge_of_its_own_weights() -> None:
    parameters = {"loss.dice": {"min": 0.1, "max": 2.0}}
    metric = {"name": "val/loss", "goal": "minimize"}
    assert "'val/loss' changes with loss.dice, which is swept; take 'val/score'" in _mistake(
        parameters=parameters, metric=metric
    )
    assert _load(metric=metric).metric.name == "val/loss"
    taught = {"loss.teacher_weight": {"values": [0.5, 1.0]}}
    assert _load(parameters=taught, metric=metric).metric.name == "val/loss", "Val is measured without the teacher"
    metric = {"name": "train/loss", "goal": "minimize"}
    assert "'train/loss' changes with loss.teacher_weight" in _mistake(parameters=taught, metric=metric)


def test_metric_must_be_logged_by_every_run_of_the_sweep() -> None:
    metric = {"name": "val/dice_loss", "goal": "minimize"}
    line = _mistake(parameters={"loss.dice": {"values": [0.0, 1.0]}}, metric=metric)
    assert line == "metric: name: 'val/dice_loss' is not logged by a run with loss.dice=0"


@pytest.mark.parametrize(
    ("early", "line"),
    [
        ({"type": "hyperbnd"}, "early_terminate: type: must be 'hyperband', all that W&B has, got 'hyperbnd'"),
        ({"strict": None}, "early_terminate: strict: missing, and W&B's schema and program disagree on its default;"),
        ({"strict": "yes"}, "early_terminate: strict: got 'yes'; say true to judge a run by its value at the bracket"),
        ({"eta": 1}, "early_terminate: eta: must be above 1, got 1"),
        ({"min_iter": 2.5}, "early_terminate: min_iter: must be a whole number >= 1, got 2.5"),
        ({"max_iter": 27}, "early_terminate: give either 'min_iter:'"),
        ({"min_iter": None, "max_iter": 27}, "early_terminate: give either 'min_iter:'"),
        ({"min_iter": None}, "early_terminate: give either 'min_iter:'"),
        ({"min_itre": 3}, "early_terminate: min_itre: unknown key; did you mean 'min_iter'?"),
        ({"min_iter": 27}, "early_terminate: min_iter 27 with eta 3 puts no bracket before the last of 27 epochs, so "
         "no run would be stopped; try min_iter: 3"),
        ({"min_iter": None, "max_iter": 2, "s": 1}, "max_iter 2 and s 1 with eta 3 puts no bracket"),
    ],
)  # fmt: skip
def test_mistake_in_early_terminate(early: dict[str, Any], line: str) -> None:
    assert line in _mistake({f"early_terminate.{key}": value for key, value in early.items()})


def test_brackets_are_epochs_as_wandb_counts_them() -> None:
    assert Hyperband(strict=True, min_iter=3).brackets(27) == [3, 9]
    assert Hyperband(strict=True, min_iter=3).brackets(28) == [3, 9, 27]
    assert Hyperband(strict=True, min_iter=1, eta=1.5).brackets(6) == [1, 2, 3, 5]  # 1, 1.5, 2.25, 3.375, 5.06
    assert Hyperband(strict=True, max_iter=27, s=2).brackets(27) == [3, 9]
    assert Hyperband(strict=True, max_iter=27, s=9).brackets(27) == [1, 3, 9]
    assert Hyperband(strict=True, max_iter=81, s=2).brackets(20) == [9]


def test_brackets_count_in_the_shortest_run() -> None:
    parameters = {"trainer.max_epochs": {"values": [3, 27]}}
    assert "puts no bracket before the last of 3 epochs" in _mistake(parameters=parameters)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (None, "command: must be a list such as '${env} ${interpreter} -m lungseg.fit --config configs/demo.yaml"),
        ("python x", "command: must be a list such as"),
        ([*COMMAND[:-1], "${args}"], "${args} does not give key=value words; did you mean '${args_no_hyphens}'?"),
        (COMMAND[:-1], "command: must hold ${args_no_hyphens} once, which passes the values as key=value words"),
        ([*COMMAND, "${args_no_hyphens}"], "command: must hold ${args_no_hyphens} once"),
        ([*COMMAND, "${interpeter}"], "knows no '${interpeter}' and would drop it; did you mean '${interpreter}'?"),
        ([*COMMAND, "a=${env}"], "command: 'a=${env}': a macro must be an item of its own"),
        (["${env}", "python", "fit.py", "${args_no_hyphens}"], "command: must start '-m lungseg.fit', such as"),
        (["python", "-m", "lungseg.fit", "${args_no_hyphens}"], "command: names no base config; add '--config'"),
        ([*COMMAND, "--print-config"], "expected --config FILE or key=value after lungseg.fit, got '--print-config'"),
        ([*COMMAND[:5], "bse.yaml", "${args_no_hyphens}"], "bse.yaml: no such file; did you mean 'base.yaml'?"),
        ([*COMMAND, "optim.lrr=1"], "command: optim.lrr: unknown key; did you mean 'optim.lr'?"),
        ([*COMMAND, "optim.lr=1"], "optim.lr: is swept, and set in the command too; remove one"),
        ([*COMMAND, "run.name=x"], "command: run.name cannot be set for all runs: every run has a folder of its own"),
    ],
)  # fmt: skip
def test_mistake_in_the_command(command: Any, line: str) -> None:
    assert line in _mistake(command=command)


def test_run_gets_the_arguments_that_the_agent_of_wandb_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args  # takes seconds

    monkeypatch.setenv("LUNGSEG_DATA", "/some where")
    monkeypatch.delenv("UNSET_NAME", raising=False)
    parameters = {
        "optim.lr": {"values": [1e-5, 0.001]},
        "model.decoder_channels": {"values": [[64, 32, 16, 8], None]},
        "data.balanced": {"value": True},
        "model.head": {"value": "conv"},
    }
    command = [*COMMAND[:-1], "data.root=${envvar:LUNGSEG_DATA}", "wandb.group=${envvar:UNSET_NAME}", COMMAND[-1]]
    sweep = _load(parameters=parameters, command=command, method="grid", early_terminate=None)
    for values in sweep.grid():
        theirs = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
        macros = {"${env}": ["/usr/bin/env"], "${interpreter}": ["python"], COMMAND[-1]: theirs["args_no_hyphens"]}
        expected = [word for part in create_sweep_command(list(command)) for word in macros.get(part, [part])]
        assert sweep.run_arguments(values) == expected
        assert "data.root=/some where" in expected and "wandb.group=UNSET_NAME" in expected
        config = sweep.config(values)
        assert (config.optim.lr, config.model.decoder_channels) == tuple(values.values())[:2] and config.data.balanced
    assert sweep.grid_size() == 4 == len(list(sweep.grid()))


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ({"values": [3, 1]}, [3, 1]),
        ({"value": None}, [None]),
        ({"min": 2, "max": 4}, [2, 3, 4]),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}, [0, 0.25, 0.5, 0.75]),  # W&B stops before max
        ({"min": 0.0, "max": 4}, None),
        ({"values": [1, 2], "probabilities": [0.5, 0.5]}, None),
        ({"distribution": "normal"}, None),
    ],
)
def test_grid_takes_what_can_be_counted(section: dict[str, Any], values: list[Any] | None) -> None:
    assert read_parameter("x", section).grid_values() == values


def test_grid_refuses_a_range_and_bayes_wants_one_parameter_that_varies() -> None:
    parameters: dict[str, Any] = {"optim.lr": {"min": 0.1, "max": 0.2}}
    line = "optim.lr: a grid cannot count 'uniform'; list 'values:', or use method random or bayes"
    assert _mistake(parameters=parameters, method="grid") == line
    parameters = {"optim.lr": {"values": [0.1]}, "run.seed": {"value": 1}}
    assert _mistake(parameters=parameters) == "parameters: bayes needs one that varies; all are constant"


def test_samples_reach_both_ends_of_every_distribution() -> None:
    numbers = {"min": 0.1, "max": 0.9, "q": 0.1, "mu": 0.0, "sigma": 2.0}
    for kind, known in DISTRIBUTIONS.items():
        section = {"distribution": kind} | {key: value for key, value in numbers.items() if key in known}
        samples = read_parameter("x", section | ({"min": 1, "max": 9} if kind == "int_uniform" else {})).samples()
        low, high = samples[0], samples[-1]
        ends = (0.1, 0.9) if "min" in known else (0, 1) if "a" in known else (-6, 6)
        ends = (1, 9) if kind == "int_uniform" else ends
        if "mu" in known and "log" in kind:
            ends = (0.0 if "q" in known else math.exp(-6), math.exp(6))
        assert (low, high) == pytest.approx(ends, abs=0.05), kind
        assert len(samples) == 3 and low <= samples[1] <= high


def test_report_names_method_runs_parameters_and_brackets() -> None:
    text = "\n".join(check_report(_load(run_cap=9, command=[*COMMAND, "data.root=${envvar:NOT_SET_HERE}"])))
    assert text.startswith("s.yaml: good\n  method    bayes, at most 9 runs\n  metric    val/score, maximize\n")
    assert "\n  optim.lr  log_uniform_values, min 0.0001, max 0.1\n" in text
    assert "hyperband: brackets after epochs 3, 9 of 27. A bracket counts how often val/score was" in text
    assert "its value at the bracket (strict) is among the best 1/3 of all runs" in text
    assert text.endswith("note: NOT_SET_HERE is not set here; set it where the runs start")


def test_report_counts_the_grid_and_notes_what_is_missing() -> None:
    parameters = {"run.seed": {"values": [0, 1, 2]}, "model.head": {"values": ["linear", "conv"]}}
    tree: dict[str, Any] = {
        "parameters": parameters,
        "method": "grid",
        "early_terminate": None,
        "metric": None,
        "program": None,
    }
    text = "\n".join(check_report(_load(**tree)))
    assert "  method      grid, 6 runs\n" in text and "\n  run.seed    0, 1, 2\n" in text
    assert "val/score, maximize (run.monitor of the base config)" in text and "hyperband" not in text
    assert "note: no 'program:'" in text
    assert "grid, 4 of 6 runs (run_cap)" in "\n".join(check_report(_load(**tree, run_cap=4)))
