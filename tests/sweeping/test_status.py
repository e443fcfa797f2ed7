"""What is said of a sweep: table, best run, importance, and a page that needs nothing but itself."""

from __future__ import annotations

import math
import re
from contextlib import redirect_stdout
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import optuna
import pytest
from optuna import Study
from optuna.trial import FrozenTrial, Trial, create_trial

from lungseg.sweeping.checking import load_sweep
from lungseg.sweeping.spec import Sweep
from lungseg.sweeping.status import ended_study, importance, saved, show_status
from lungseg.sweeping.trials import best_run, draw, open_study, requeue, runs_of, sampler

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
    return _load()


def _load() -> Sweep:
    Path("base.yaml").write_text("trainer: {max_epochs: 10}\n")
    Path("sweep.yaml").write_text(SWEEP)
    return load_sweep(Path("sweep.yaml"))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Study, str, Path]:
    """Sixteen runs: good around a learning rate of 1e-3, else stopped after an epoch; the last one failed.

    With what `status` prints of them, and the folder where they lie.
    """
    folder = tmp_path_factory.mktemp("played")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        patch.chdir(folder)
        sweep = _load()
        study = open_study(sweep, create=True)

        def run(trial: Trial) -> float:
            values = {name: draw(trial, one, grid=False) for name, one in sweep.parameters.items()}
            trial.set_user_attr("values", values)
            off = abs(math.log10(values["optim.lr"]) + 3)
            if trial.number == 15:
                trial.set_user_attr("error", "error: <script>alert(1)</script>")
                return math.nan
            trial.report(0.5 - off / 10, 1)
            if off >= 1:
                raise optuna.TrialPruned
            return 1 - off / 10

        for number in range(16):
            study.sampler = sampler(sweep, seed=number)
            study.optimize(run, n_trials=1)
        show_status(sweep)
    return sweep, study, out.getvalue(), folder


class _Parts(HTMLParser):
    """Collects every attribute through which a page could load something, and the text outside scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def _trial(state: str, value: float | None, epochs: int = 10) -> FrozenTrial:
    return create_trial(
        state=optuna.trial.TrialState[state],
        value=value,
        user_attrs={"values": {"optim.lr": 0.1}},
        intermediate_values=dict.fromkeys(range(1, epochs + 1), 0.5),
    )


def test_the_best_run_is_a_finished_one_by_the_goal(sweep: Sweep) -> None:
    runs = {0: _trial("PRUNED", 0.9), 1: _trial("COMPLETE", 0.5), 4: _trial("COMPLETE", 0.4), 5: _trial("FAIL", None)}
    assert best_run(runs, sweep) == 1
    assert best_run(runs, replace(sweep, metric=replace(sweep.metric, goal="minimize"))) == 4
    assert best_run({0: runs[0]}, sweep) is None


def test_what_stopping_saved_is_counted_in_epochs_of_full_runs(sweep: Sweep) -> None:
    runs = [_trial("COMPLETE", 0.5), _trial("PRUNED", 0.1, epochs=1), _trial("FAIL", None, epochs=0)]
    assert saved(sweep, runs) == pytest.approx(9 / 20)
    assert saved(sweep, []) == 0


def test_a_run_that_its_own_patience_ended_was_not_stopped_by_the_sweep(sweep: Sweep) -> None:
    assert saved(sweep, [_trial("COMPLETE", 0.5, epochs=3)]) == 0


def test_importance_finds_the_parameter_that_matters(played: tuple[Sweep, Study, str, Path]) -> None:
    sweep, study, _, _ = played
    shares = importance(ended_study(sweep, runs_of(study.trials)))
    assert next(iter(shares)) == "optim.lr" and shares["optim.lr"] > 0.6
    assert set(shares) == {"optim.lr", "augment.flip", "data.batch_size"}
    assert sum(shares.values()) == pytest.approx(1)


def test_importance_of_too_few_runs_is_not_told(sweep: Sweep) -> None:
    assert importance(ended_study(sweep, {})) == {}


def test_status_prints_table_best_and_importance_and_writes_the_page(played: tuple[Sweep, Study, str, Path]) -> None:
    _, study, text, folder = played
    lines = text.splitlines()
    names = ["optim.lr", "augment.flip", "data.batch_size"]
    assert lines[0].split() == ["run", "state", "val/score", "epochs", "minutes", *names]
    best = study.best_trial
    assert [line.split()[1] for line in lines if line.startswith("*")] == [str(best.number)]
    assert f"best        run {best.number}, val/score {best.value:.4f}: optim.lr=" in text
    assert f"runs/planted-b/trial-{best.number:04d}" in text and "importance  optim.lr " in text
    assert re.search(r"stopping    saved \d\d% of the epochs", text)
    assert "run 15 failed: error: <script>" in text
    assert lines[-1] == "page        runs/planted-b/sweep.html" and (folder / "runs/planted-b/sweep.html").is_file()


def test_a_run_that_was_cut_short_is_named(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    study = open_study(sweep, create=True)
    study.optimize(lambda trial: math.nan, n_trials=1)
    requeue(study, study.trials[0])
    show_status(sweep, Path("page.html"))
    assert "run 0 was cut short; the next `sweep run` continues it" in capsys.readouterr().out


def test_status_of_a_sweep_that_never_ran_is_one_line(sweep: Sweep) -> None:
    with pytest.raises(FileNotFoundError, match=r"sweep.yaml: nothing has run here yet: no 'runs/planted-b/sweep.db'"):
        show_status(sweep)


def test_the_page_holds_all_plots_and_loads_nothing(played: tuple[Sweep, Study, str, Path]) -> None:
    page = (played[3] / "runs/planted-b/sweep.html").read_text()
    parts = _Parts()
    parts.feed(page)
    assert {reference[:1] for reference in parts.references} <= {"#", "d"} and not parts.tags & {"iframe", "object"}
    assert "default-src 'none'" in page and "connect-src" not in page
    assert page.count("Plotly.newPlot(") >= 4 and 'class="plotly-graph-div"' in page
    assert ".js-plotly-plot .main-svg { width: 100%; height: 100%" in page  # the frame's style would cut the plots off
    for heading in ("History", "Epochs", "Parallel coordinates", "Importance", "Runs"):
        assert f"<h2>{heading}</h2>" in page


def test_what_a_user_wrote_is_text_on_the_page(played: tuple[Sweep, Study, str, Path]) -> None:
    page = (played[3] / "runs/planted-b/sweep.html").read_text()
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page and "Sweep planted &lt;b&gt;" in page
