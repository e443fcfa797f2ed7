"""What `sweep check` says of a good file: what will be tried, how many runs, and when one is stopped early."""

from __future__ import annotations

from lungseg.sweeping.against_config import least_epochs
from lungseg.sweeping.agent_command import missing_variables
from lungseg.sweeping.spec import Sweep


def check_report(sweep: Sweep) -> list[str]:
    """Give the lines to print."""
    rows = {"method": f"{sweep.method}, {_runs(sweep)}", "metric": _metric(sweep)}
    rows["base"] = " ".join([str(sweep.base), *sweep.words])
    rows |= {name: parameter.describe() for name, parameter in sweep.parameters.items()}
    width = max(map(len, rows))
    lines = [f"{sweep.path}: good", *(f"  {name:<{width}}  {text}" for name, text in rows.items())]
    return [*lines, *_brackets(sweep), *(f"  note: {note}" for note in _notes(sweep))]


def _runs(sweep: Sweep) -> str:
    if sweep.method == "grid":
        size = sweep.grid_size()
        return f"{size} runs" if sweep.run_cap is None else f"{min(size, sweep.run_cap)} of {size} runs (run_cap)"
    return (
        f"at most {sweep.run_cap} runs"
        if sweep.run_cap
        else "without end: no run_cap; stop it, or start it with --count"
    )


def _metric(sweep: Sweep) -> str:
    metric = sweep.metric
    target = "" if metric.target is None else f", until a run reaches {metric.target:g}"
    return f"{metric.name}, {metric.goal}{target}" + (" (run.monitor of the base config)" if metric.from_base else "")


def _brackets(sweep: Sweep) -> list[str]:
    """Explain hyperband in the terms of this sweep."""
    early = sweep.early_terminate
    if early is None:
        return []
    epochs = least_epochs(sweep)
    stands = ", ".join(map(str, early.brackets(epochs)))
    by = "its value at the bracket (strict)" if early.strict else "its best value so far (not strict)"
    return [
        f"  hyperband: brackets after epochs {stands} of {epochs}. A bracket counts how often {sweep.metric.name} was",
        "    logged, which is once an epoch; steps and batches do not count. At a bracket a run goes on if",
        f"    {by} is among the best 1/{early.eta:g} of all runs that came this far.",
    ]


def _notes(sweep: Sweep) -> list[str]:
    """What is no mistake in the file, and would still stop the runs."""
    notes = [f"{name} is not set here; set it where the runs start" for name in missing_variables(sweep.command)]
    if sweep.program is None:
        notes.append("no 'program:'; W&B's documentation requires one, though command says what runs: lungseg/fit.py")
    return notes
