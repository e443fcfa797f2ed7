"""The page of a sweep: one HTML file with plots and table that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from lungseg.sweeping.outcome import short
from lungseg.sweeping.plots import history, importance_bars, parallel_coordinates
from lungseg.sweeping.spec import Sweep
from lungseg.sweeping.table import BEST_SHARE, Row, best_of

_STYLE = """
:root { --paper: #fff; --ink: #1b1f24; --soft: #59636e; --rule: #d1d9e0; --best: #c2410c;
  --q0: #a5b4c6; --q1: #8299b6; --q2: #5f83ad; --q3: #3f6ea3; --q4: #153e75; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e6edf3; --soft: #9aa7b4; --rule: #3a434d;
  --best: #ff9d5c; --q0: #34414f; --q1: #46617d; --q2: #5b86b3; --q3: #83afdd; --q4: #c3defa; } }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 1.6rem 0 .3rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); font-size: .9rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; margin: .5rem 0; }
svg { display: block; width: 100%; max-width: 36rem; }
text { fill: var(--ink); font: 10px system-ui, sans-serif;
  stroke: var(--paper); stroke-width: 3px; paint-order: stroke; stroke-linejoin: round; } .name { font-weight: 600; }
.tick { fill: var(--soft); } .end { text-anchor: end; } .middle { text-anchor: middle; }
.axis { stroke: var(--ink); } .grid { stroke: var(--rule); } .bar { fill: var(--q3); }
.step { fill: none; stroke: var(--best); stroke-width: 1.2; }
.dot { stroke-width: 1.5; stroke: var(--q3); fill: var(--q3); } .dot.stopped, .dot.running { fill: var(--paper); }
.dot.best { stroke: var(--best); fill: var(--best); } .failed { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.run { fill: none; stroke-width: 1.4; } .run.stopped, .run.running { stroke-dasharray: 4 3; }
.run:hover { stroke: var(--best); stroke-width: 3; }
.q0 { stroke: var(--q0); } .q1 { stroke: var(--q1); } .q2 { stroke: var(--q2); } .q3 { stroke: var(--q3); }
.q4 { stroke: var(--q4); } .run.best { stroke: var(--best); stroke-width: 3; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
tr.best td { color: var(--best); font-weight: 600; }
"""


def draw_page(sweep: Sweep, rows: Sequence[Row], facts: Sequence[str], shares: Mapping[str, float]) -> str:
    """Draw the whole page.

    Args:
        sweep: The checked file.
        rows: All runs.
        facts: Lines that say how the sweep stands.
        shares: Importance by parameter; empty: not known yet.
    """
    metric, sign = sweep.metric.name, 1 if sweep.metric.goal == "maximize" else -1
    better = "larger" if sign > 0 else "smaller"
    best_share = f"{BEST_SHARE:.0%}"
    lines = [
        f"<h1>Sweep {escape(sweep.name)}</h1>",
        f'<p class="soft">{escape(sweep.method)}; {escape(metric)}, {better} is better</p>',
        f"<pre>{escape(chr(10).join(facts))}</pre>",
        "<h2>History</h2>",
        history(rows, metric, sign),
        '<p class="soft">Filled: finished. Open: stopped early or running, value where it stands. Cross: failed. '
        "Line: the best finished run so far.</p>",
        "<h2>Parallel coordinates</h2>",
        parallel_coordinates(rows, sweep.parameters, metric, sign),
        '<p class="soft">One line a run; the stronger the colour, the better; orange is the best. '
        "Dashed: stopped early or running.</p>",
        "<h2>Importance</h2>",
        importance_bars(shares) if shares else '<p class="soft">Too few runs to say.</p>',
        f'<p class="soft">What sets the best {best_share} of the runs apart from all (PED-ANOVA), stopped ones '
        "included. Of few runs it is a hint, no proof.</p>",
        "<h2>Runs</h2>",
        f'<div class="wide" tabindex="0" role="region" aria-label="table of runs">{_table(sweep, rows, sign)}</div>',
        *(f'<p class="soft">Run {row.number} failed: {escape(row.error)}</p>' for row in rows if row.error),
    ]
    body = "\n".join(lines)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>Sweep {escape(sweep.name)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _table(sweep: Sweep, rows: Sequence[Row], sign: int) -> str:
    names = [name for name, parameter in sweep.parameters.items() if parameter.kind != "value"]
    head = "".join(
        f'<th scope="col">{escape(title)}</th>'
        for title in ("run", "state", sweep.metric.name, "epochs", "minutes", *names)
    )
    best = best_of(rows, sign)
    lines = []
    for row in rows:
        cells = [str(row.number), row.state, "" if row.value is None else f"{row.value:.4f}", str(row.epochs)]
        cells += ["" if row.minutes is None else f"{row.minutes:.1f}"]
        cells += [short(row.values.get(name, "")) for name in names]
        text = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr class="best">{text}</tr>' if row is best else f"<tr>{text}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(lines) + "\n</tbody></table>"
