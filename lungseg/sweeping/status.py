"""How a local sweep stands: table, best run, importance of the parameters, and a page of plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from lungseg.runs.whole_files import write_text
from lungseg.sweeping.outcome import short
from lungseg.sweeping.page import draw_page
from lungseg.sweeping.spec import Sweep
from lungseg.sweeping.storage import STALE_S, SweepFolder, open_study, run_name
from lungseg.sweeping.table import Row, best_of, importance, rows_of


def show_status(sweep: Sweep, page: Path | None = None) -> None:
    """Print how a sweep stands and write the page; None: into the sweep's folder."""
    folder = SweepFolder.of(sweep)
    study = open_study(sweep, folder, make=False)
    rows, shares = rows_of(study), importance(study)
    epochs = {row.number: _epochs(sweep, row) for row in rows}
    lines = [*_table(sweep, rows), "", *_facts(sweep, folder, rows, epochs), *_importance(shares)]
    lines += [
        f"run {row.number} has given no sign of life for {silent / 60:.0f} minutes; the next `sweep run` continues it"
        for row in rows
        if row.state == "running" and (silent := folder.silent_s(row.number)) > STALE_S
    ]
    page = page or folder.path / "sweep.html"
    write_text(page, draw_page(sweep, rows, _facts(sweep, folder, rows, epochs), shares))
    print("\n".join([*lines, f"page        {page}"]), flush=True)


def saved(rows: Sequence[Row], epochs: Mapping[int, int]) -> float:
    """Share of the epochs of all finished and stopped runs that stopping saved, in [0, 1]; `epochs`: of full runs."""
    ended = [row for row in rows if row.state in ("finished", "stopped")]
    whole = sum(epochs[row.number] for row in ended)
    return (
        1 - sum(row.epochs if row.state == "stopped" else epochs[row.number] for row in ended) / whole if whole else 0.0
    )


def _epochs(sweep: Sweep, row: Row) -> int:
    """Epochs of the run if nothing stops it; a config that does not load has none."""
    try:
        return sweep.config(row.values).trainer.max_epochs
    except ValueError:
        return 0


def _facts(sweep: Sweep, folder: SweepFolder, rows: Sequence[Row], epochs: Mapping[int, int]) -> list[str]:
    counts = Counter(row.state for row in rows)
    lines = [f"runs        {len(rows)}: " + ", ".join(f"{count} {state}" for state, count in counts.items())]
    if counts["stopped"]:
        lines.append(f"stopping    saved {saved(rows, epochs):.0%} of the epochs")
    best = best_of(rows, 1 if sweep.metric.goal == "maximize" else -1)
    if best is not None:
        words = " ".join(f"{name}={short(value)}" for name, value in best.values.items())
        lines.append(f"best        run {best.number}, {sweep.metric.name} {best.value:.4f}: {words}")
        lines.append(f"run folder  {folder.path / run_name(best.number)}")
    return lines


def _importance(shares: Mapping[str, float]) -> list[str]:
    if not shares:
        return ["importance  too few runs to say"]
    return [f"importance  {', '.join(f'{name} {share:.0%}' for name, share in shares.items())}"]


def _table(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    """One line a run, the best marked."""
    names = [name for name, parameter in sweep.parameters.items() if parameter.kind != "value"]
    best = best_of(rows, 1 if sweep.metric.goal == "maximize" else -1)
    table = [["", "run", "state", sweep.metric.name, "epochs", "minutes", *names]]
    for row in rows:
        table.append(
            [
                "*" if row is best else "",
                str(row.number),
                row.state,
                "-" if row.value is None else f"{row.value:.4f}",
                str(row.epochs),
                "-" if row.minutes is None else f"{row.minutes:.1f}",
                *(short(row.values.get(name, "-")) for name in names),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in table]
    failed = {row.number: row.error for row in rows if row.error}
    return lines + [f"run {number} failed: {error}" for number, error in failed.items()]
