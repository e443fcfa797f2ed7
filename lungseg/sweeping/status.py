"""How a sweep that runs here stands: table, best run, importance of the parameters, and a page of plots."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import optuna
from markupsafe import Markup
from optuna import Study, visualization
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from lungseg.reporting.formatting import align
from lungseg.reporting.pages import render
from lungseg.runs.whole_files import write_text
from lungseg.sweeping.local import short
from lungseg.sweeping.parameter import Parameter
from lungseg.sweeping.spec import Sweep
from lungseg.sweeping.trials import best_run, folder_of, open_study, run_name, runs_of

_STATES = {"COMPLETE": "finished", "PRUNED": "stopped", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
_IMPORTANCE = PedAnovaImportanceEvaluator(target_quantile=0.25)
"""What sets the best quarter of the runs apart from all: PED-ANOVA (Watanabe et al., IJCAI 2023)."""
_FEWEST = 6  # runs below which importance would be a guess


def show_status(sweep: Sweep, page: Path | None = None) -> None:
    """Print how a sweep stands and write the page; None: into the sweep's folder."""
    study = open_study(sweep, create=False)
    optuna.storages.fail_stale_trials(study)
    runs = runs_of(study.get_trials(deepcopy=False))
    table, facts, ended = _table(sweep, runs), _facts(sweep, runs), ended_study(sweep, runs)
    shares = importance(ended)
    listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    facts.append(f"importance  {listed or 'too few runs to say'}")
    for number, trial in runs.items():
        if "error" in trial.user_attrs:
            facts.append(f"run {number} failed: {trial.user_attrs['error']}")
        elif trial.state.name == "WAITING":
            facts.append(f"run {number} was cut short; the next `sweep run` continues it")
    page = page or folder_of(sweep) / "sweep.html"
    metric = f"{sweep.method}; {sweep.metric.name}, {sweep.metric.goal}"
    plots = _plots(study, ended, sweep.metric.name, bool(shares))
    contents = [*((id_, name) for id_, name, _ in plots), ("runs", "Runs")]
    values = {"title": f"Sweep {sweep.name}", "contents": contents, "metric": metric, "facts": facts}
    write_text(page, render("sweep.html.jinja", **values, plots=plots, table=table))
    print("\n".join([*align(table, left=0), "", *facts, f"page        {page}"]), flush=True)


def saved(sweep: Sweep, runs: Iterable[FrozenTrial]) -> float:
    """Share of the epochs of all finished and stopped runs that stopping saved, in [0, 1]."""
    done = full = 0
    for trial in runs:
        if trial.state.name in ("COMPLETE", "PRUNED"):
            epochs = sweep.epochs(trial.user_attrs["values"])
            full += epochs
            done += len(trial.intermediate_values) if trial.state.name == "PRUNED" else epochs
    return 1 - done / full if full else 0.0


def ended_study(sweep: Sweep, runs: Mapping[int, FrozenTrial]) -> Study:
    """Copy the finished and stopped runs into a study of their own, all as finished, with the values they ran with.

    Optuna leaves stopped runs out of its plots and of importance, and without them there would be no bad runs to tell
    the good ones from. They count with their last value.
    """
    copy = optuna.create_study(direction=sweep.metric.goal)
    trials = [trial for trial in runs.values() if trial.state.is_finished() and trial.value is not None]
    names = sweep.varying() if trials else []
    values = {name: [trial.user_attrs["values"][name] for trial in trials] for name in names}
    kinds = {name: _kind(sweep.parameters[name], drawn, sweep.method == "grid") for name, drawn in values.items()}
    for index, trial in enumerate(trials):
        drawn = {
            name: str(values[name][index]) if isinstance(kind, CategoricalDistribution) else values[name][index]
            for name, kind in kinds.items()
        }
        copy.add_trial(create_trial(params=drawn, distributions=kinds, value=trial.value))
    return copy


def importance(ended: Study) -> dict[str, float]:
    """Share of each parameter in what sets the best runs apart; sum 1, largest first; empty for too few runs."""
    trials = ended.get_trials(deepcopy=False)
    names = [name for name, kind in trials[0].distributions.items() if not kind.single()] if trials else []
    enough = len(trials) >= _FEWEST and names
    return get_param_importances(ended, evaluator=_IMPORTANCE, params=names) if enough else {}


def _plots(study: Study, ended: Study, metric: str, with_importance: bool) -> list[tuple[str, str, Markup]]:
    """Draw Optuna's plots: id, heading and a piece of HTML each; the first one brings plotly's script for all."""
    figures = {
        "History": visualization.plot_optimization_history(study, target_name=metric),
        "Epochs": visualization.plot_intermediate_values(study),
    }
    if ended.get_trials(deepcopy=False):
        figures["Parallel coordinates"] = visualization.plot_parallel_coordinate(ended, target_name=metric)
    if with_importance:
        figures["Importance"] = visualization.plot_param_importances(ended, evaluator=_IMPORTANCE, target_name=metric)
    return [
        (f"plot{index}", name, Markup(figure.to_html(full_html=False, include_plotlyjs=index == 0)))
        for index, (name, figure) in enumerate(figures.items())
    ]


def _kind(parameter: Parameter, drawn: list[object], grid: bool) -> BaseDistribution:
    """A scale for what was drawn: choices, or a stretch of numbers."""
    if grid or parameter.kind == "values":
        return CategoricalDistribution(sorted({str(value) for value in drawn}))
    # Not the distribution that Optuna drew from: for some kinds that is a share in [0, 1], which says nobody anything.
    numbers = [float(str(value)) for value in drawn]
    return FloatDistribution(min(numbers), max(numbers), log="log" in parameter.kind and min(numbers) > 0)


def _facts(sweep: Sweep, runs: Mapping[int, FrozenTrial]) -> list[str]:
    counts, best = Counter(_STATES[trial.state.name] for trial in runs.values()), best_run(runs, sweep)
    lines = [f"runs        {len(runs)}: " + ", ".join(f"{count} {state}" for state, count in counts.items())]
    if counts["stopped"]:
        lines.append(f"stopping    saved {saved(sweep, runs.values()):.0%} of the epochs")
    if best is not None:
        words = " ".join(f"{name}={short(value)}" for name, value in runs[best].user_attrs["values"].items())
        lines.append(f"best        run {best}, {sweep.metric.name} {runs[best].value:.4f}: {words}")
        lines.append(f"run folder  {folder_of(sweep) / run_name(best)}")
    return lines


def _table(sweep: Sweep, runs: Mapping[int, FrozenTrial]) -> list[list[str]]:
    """One row a run below a head, the best marked; the value of a stopped run is the one it was stopped with."""
    names, best = sweep.varying(), best_run(runs, sweep)
    rows = [["", "run", "state", sweep.metric.name, "epochs", "minutes", *names]]
    for number, trial in runs.items():
        known = trial.intermediate_values
        value = known[max(known)] if trial.value is None and known else trial.value
        minutes = "-" if trial.duration is None else f"{trial.duration.total_seconds() / 60:.1f}"
        values = trial.user_attrs.get("values", {})
        row = ["*" if number == best else "", str(number), _STATES[trial.state.name]]
        row += ["-" if value is None else f"{value:.4f}", str(len(known)), minutes]
        rows.append(row + [short(values.get(name, "-")) for name in names])
    return rows
