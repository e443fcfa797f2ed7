"""What is said of a sweep: table, best run, importance, and a page that needs nothing but itself."""

from __future__ import annotations

import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from optuna.trial import TrialState

from lungseg.sweeping.page import draw_page
from lungseg.sweeping.plots import history, importance_bars, parallel_coordinates
from lungseg.sweeping.queue import Queue
from lungseg.sweeping.spec import Sweep, load_sweep
from lungseg.sweeping.status import saved, show_status
from lungseg.sweeping.storage import SweepFolder
from lungseg.sweeping.table import Row, best_of, importance, rows_of

SWEEP = """
name: planted <b>
program: lungseg/fit.py
method: random
metric: {name: val/score, goal: maximize}
early_terminate: {type: hyperband, min_iter: 1, strict: true}
parameters:
  optim.lr: {distribution: log_uniform_values, min: 0.000001, max: 1.0}
  augment.flip: {distribution: uniform, min: 0.0, max: 0.5}
  data.batch_size: {values: [4, 8]}
  run.seed: {value: 3}
command: ['${env}', '${interpreter}', -m, lungseg.fit, --config, base.yaml, '${args_no_hyphens}']
"""


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("trainer: {max_epochs: 10}\n")
    Path("sweep.yaml").write_text(SWEEP)
    return load_sweep(Path("sweep.yaml"))


@pytest.fixture
def played(sweep: Sweep) -> Queue:
    """Sixteen runs: good around a learning rate of 1e-3, else stopped after an epoch; the last one failed."""
    trials = Queue(sweep, SweepFolder.of(sweep), 16)
    for _ in range(16):
        trial = trials.next()
        assert trial is not None
        off = abs(math.log10(trial.user_attrs["values"]["optim.lr"]) + 3)
        trials.note(trial.number, "epochs", 10 if off < 1 else 1)
        if trial.number == 15:
            trials.note(15, "error", "error: <script>alert(1)</script>")
            trials.study.tell(15, state=TrialState.FAIL)
        elif off < 1:
            trials.study.tell(trial.number, 1 - off / 10)
        else:
            trials.study._storage.set_trial_intermediate_value(trial._trial_id, 1, 0.5 - off / 10)
            trials.study.tell(trial.number, state=TrialState.PRUNED)
    return trials


class _References(HTMLParser):
    """Collects every attribute through which a page could load or link to something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "xlink:href")]


def _row(number: int, state: str, value: float | None, epochs: int = 10, lr: float = 0.1) -> Row:
    values = {"optim.lr": lr, "augment.flip": 0.1, "data.batch_size": 4, "run.seed": 3}
    return Row(number, state, value, epochs, 1.0, values)  # type: ignore[arg-type]  # one of the states


def test_the_best_run_is_a_finished_one_by_the_goal() -> None:
    rows = [_row(0, "stopped", 0.9), _row(1, "finished", 0.5), _row(2, "finished", 0.4), _row(3, "failed", None)]
    assert best_of(rows, 1) is rows[1] and best_of(rows, -1) is rows[2]
    assert best_of(rows[:1], 1) is None


def test_what_stopping_saved_is_counted_in_epochs_of_full_runs() -> None:
    rows = [_row(0, "finished", 0.5), _row(1, "stopped", 0.1, epochs=1), _row(2, "failed", None, epochs=0)]
    assert saved(rows, dict.fromkeys(range(3), 10)) == pytest.approx(9 / 20)
    assert saved([], {}) == 0


def test_a_run_that_its_own_patience_ended_was_not_stopped_by_the_sweep() -> None:
    assert saved([_row(0, "finished", 0.5, epochs=3)], {0: 10}) == 0


def test_rows_say_what_came_of_each_run(played: Queue) -> None:
    rows = rows_of(played.study)
    assert [row.number for row in rows] == list(range(16))
    assert {row.state for row in rows} == {"finished", "stopped", "failed"}
    for row in rows[:15]:
        off = abs(math.log10(row.values["optim.lr"]) + 3)
        assert row.value == pytest.approx(1 - off / 10 if off < 1 else 0.5 - off / 10)
    assert rows[15].error.startswith("error: <script>") and rows[0].values["run.seed"] == 3


def test_importance_finds_the_parameter_that_matters(played: Queue) -> None:
    shares = importance(played.study)
    assert next(iter(shares)) == "optim.lr" and shares["optim.lr"] > 0.6
    assert set(shares) == {"optim.lr", "augment.flip", "data.batch_size"}
    assert sum(shares.values()) == pytest.approx(1)


def test_importance_of_too_few_runs_is_not_told(sweep: Sweep) -> None:
    trials = Queue(sweep, SweepFolder.of(sweep), 3)
    trials.next()
    assert importance(trials.study) == {}


def test_status_prints_table_best_and_importance_and_writes_the_page(
    played: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    show_status(played.sweep)
    lines = capsys.readouterr().out.splitlines()
    names = ["optim.lr", "augment.flip", "data.batch_size"]
    assert lines[0].split() == ["run", "state", "val/score", "epochs", "minutes", *names]
    best = played.study.best_trial
    assert [line.split()[1] for line in lines if line.startswith("*")] == [str(best.number)]
    text = "\n".join(lines)
    assert f"best        run {best.number}, val/score {best.value:.4f}: optim.lr=" in text
    assert f"runs/planted-b/trial-{best.number:04d}" in text and "importance  optim.lr " in text
    assert re.search(r"stopping    saved \d\d% of the epochs", text)
    assert lines[-1] == "page        runs/planted-b/sweep.html" and Path("runs/planted-b/sweep.html").is_file()


def test_a_run_without_a_sign_of_life_is_named(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    trials = Queue(sweep, SweepFolder.of(sweep), 3)
    trials.next()
    show_status(sweep, Path("page.html"))
    assert "no sign of life" not in capsys.readouterr().out
    os.utime(trials.folder.path / "beats" / "trial-0000", (1, 1))
    show_status(sweep, Path("page.html"))
    assert "run 0 has given no sign of life for" in capsys.readouterr().out


def test_status_of_a_sweep_that_never_ran_is_one_line(sweep: Sweep) -> None:
    with pytest.raises(FileNotFoundError, match=r"sweep.yaml: nothing has run here yet: no 'runs/planted-b/journal"):
        show_status(sweep)


def test_the_page_refers_to_nothing_outside_itself_and_runs_nothing(played: Queue) -> None:
    page = draw_page(played.sweep, rows_of(played.study), ["runs"], importance(played.study))
    found = _References()
    found.feed(page)
    assert found.references == []
    assert not found.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "image", "use"}
    assert not re.search(r"https?:|//\w|url\(|@import|javascript:", page)
    assert "default-src 'none'" in page and "width=device-width" in page
    assert len(page) < 60_000


def test_what_a_user_wrote_is_text_on_the_page(played: Queue) -> None:
    page = draw_page(played.sweep, rows_of(played.study), ["runs"], {})
    assert "<script>" not in page and "&lt;script&gt;alert(1)" in page and "Sweep planted &lt;b&gt;" in page


def test_parallel_coordinates_draw_one_line_a_run_through_all_axes(sweep: Sweep) -> None:
    rows = [_row(0, "finished", 0.5, lr=1e-6), _row(1, "finished", 0.9, lr=1.0), _row(2, "stopped", 0.1, lr=1e-3)]
    svg = parallel_coordinates([*rows, _row(3, "failed", None)], sweep.parameters, "val/score", 1)
    paths = dict(re.findall(r'<path class="run ([\w ]+)" d="([^"]+)"', svg))
    assert set(paths) == {"finished q2", "finished best", "stopped q0"}
    assert paths["finished best"].startswith("M366.0 30 ") and paths["finished best"].endswith(" L366.0 186")
    assert paths["stopped q0"].startswith("M190.0 30 L") and paths["stopped q0"].endswith(" L14.0 186")
    assert "run.seed" not in svg and svg.count('class="name"') == 4


def test_history_marks_failed_runs_and_the_best_so_far() -> None:
    rows = [_row(0, "finished", 0.5), _row(1, "failed", None), _row(2, "finished", 0.4), _row(3, "finished", 0.8)]
    svg = history(rows, "val/score", 1)
    assert svg.count('class="dot finished"') == 2 and svg.count('class="dot best"') == 1
    assert svg.count('class="failed"') == 1 and len(re.findall(r'class="step" d="M[^H]+H[\d.]+V[\d.]+H366"', svg)) == 1


def test_plots_of_a_sweep_without_results_are_empty_and_not_broken(sweep: Sweep) -> None:
    for rows in ([], [_row(0, "running", None, epochs=0)]):
        assert 'class="run' not in parallel_coordinates(rows, sweep.parameters, "val/score", 1)
        assert "nan" not in history(rows, "val/score", 1)
    assert importance_bars({}).startswith("<svg")
