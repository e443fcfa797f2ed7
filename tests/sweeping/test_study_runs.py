"""A study file, and its runs: each once, whatever is killed in between, by as many processes as there are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from processes import is_gone, wait_until

from lungseg.config.loading import load_config
from lungseg.errors import SweepError
from lungseg.sweeping import study_runs
from lungseg.sweeping.study import Study, load_study
from lungseg.sweeping.study_runs import is_done, run_study

REPOSITORY = Path(__file__).parents[2]
PYTHON = sys.executable
BASE = "data: {image_size: 64}\ntrainer: {max_epochs: 3, accelerator: cpu}\n"
STUDY = """name: tiny
config: base.yaml
words: [data.batch_size=4]
variants:
  plain:
  lung: [model.pooling=lung]
seeds: [0, 2]
folds: 2
"""
FEW = STUDY.replace("seeds: [0, 2]", "seeds: [0]")
FAKE = """#!{python} -S
import json, os, sys, time
words = dict(word.lstrip("-").split("=", 1) for word in sys.argv if "=" in word)
with open("calls.jsonl", "a") as calls:
    calls.write(json.dumps(words | {{"module": sys.argv[2]}}) + "\\n")
if "evaluate" in sys.argv[2]:
    folder = os.path.join(words["checkpoint"], "evaluation", words["data.split"])
    os.makedirs(folder)
    open(os.path.join(folder, "metrics.json"), "w").close()
    sys.exit(0)
run = os.path.join(words["run.dir"], words["run.name"])
os.makedirs(run, exist_ok="run.resume" in words)
if os.path.exists("fail") and "lung" in words["run.name"]:
    print("error: train/loss is nan")
    sys.exit(2)
if os.path.exists("hold"):
    with open("pids.part", "w") as pids:
        pids.write(str(os.getpid()))
    os.rename("pids.part", "pids")
    time.sleep(600)
with open(os.path.join(run, "metrics.json"), "w") as file:
    json.dump({{"fit/minutes": 1.0}}, file)
"""
DRIVER = """import sys
from pathlib import Path
sys.executable = {fake!r}
from lungseg.sweeping import study, study_runs
study_runs._POLL_S = 0.02
study.check_networks = lambda models: None  # it would import torch
sys.exit(study_runs.run_study(study.load_study(Path("study.yaml"))))
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a base config, and a stand-in for Python that writes what a fit and an evaluation would."""
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    fake = tmp_path / "fake_python"
    fake.write_text(FAKE.format(python=PYTHON))
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.setattr(study_runs, "_POLL_S", 0.02)


def _load(text: str = STUDY) -> Study:
    Path("study.yaml").write_text(text)
    return load_study(Path("study.yaml"))


def _calls() -> list[dict[str, str]]:
    return [json.loads(line) for line in Path("calls.jsonl").read_text().splitlines()]


def _start() -> subprocess.Popen[str]:
    Path("study.yaml").write_text(FEW)
    code = DRIVER.format(fake=str(Path("fake_python").resolve()))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([PYTHON, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)


def test_runs_are_variants_by_folds_by_seeds_each_with_a_seed_of_its_own() -> None:
    study = _load()
    assert [run.name for run in study.runs] == [
        *("plain-seed0-fold0", "lung-seed0-fold0", "plain-seed0-fold1", "lung-seed0-fold1"),
        *("plain-seed2-fold0", "lung-seed2-fold0", "plain-seed2-fold1", "lung-seed2-fold1"),
    ]
    configs = [load_config(study.config, study.run_words(run)) for run in study.runs]
    assert [config.data.fold for config in configs] == [0, 0, 1, 1] * 2
    assert [config.run.seed for config in configs] == [0, 0, 1, 1, 4, 4, 5, 5]
    assert {config.data.split_seed for config in configs} == {0} and {config.data.batch_size for config in configs} == {
        4
    }
    assert [config.model.pooling for config in configs] == ["average", "lung"] * 4
    assert study.split == "val" and _load(STUDY.replace("folds: 2", "")).split == "test"


def test_every_run_is_trained_and_evaluated_once_and_the_same_command_repeats_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    study = _load()
    assert run_study(study, workers=3) == 0 and all(is_done(study, run) for run in study.runs)
    assert Counter(call["module"] for call in _calls()) == {"lungseg.fit": 8, "lungseg.evaluate": 8}
    assert {call["data.split"] for call in _calls() if call["module"] == "lungseg.evaluate"} == {"val"}
    assert run_study(study) == 0 and len(_calls()) == 16
    assert "study tiny: 8 runs, 8 done, in runs/tiny" in capfd.readouterr().out.splitlines()[-1]


def test_two_processes_share_the_runs() -> None:
    both = [_start(), _start()]
    assert [process.wait(100) for process in both] == [0, 0]
    names = [call["run.name"] for call in _calls() if call["module"] == "lungseg.fit"]
    assert sorted(names) == sorted(run.name for run in _load(FEW).runs)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_cut_short_goes_on_in_its_folder(number: signal.Signals) -> None:
    Path("hold").touch()
    process = _start()
    wait_until(Path("pids").exists, "the first run")
    process.send_signal(number)
    assert process.wait(100) == (128 + number if number == signal.SIGTERM else -number)
    wait_until(lambda: is_gone(int(Path("pids").read_text())), "the end of the run")
    Path("hold").unlink()
    assert run_study(_load(FEW)) == 0
    first, again, evaluated, *_ = _calls()
    assert again == first | {"run.resume": "true"} and evaluated["module"] == "lungseg.evaluate"
    assert all("run.resume" not in call for call in _calls()[2:])


def test_a_run_that_ended_before_its_evaluation_is_only_evaluated() -> None:
    study = _load()
    folder = study.run(study.runs[0]).folder
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text('{"fit/minutes": 1.0}')
    assert run_study(study) == 0
    assert [call for call in _calls() if call.get("run.name") == study.runs[0].name] == []


def test_a_failing_run_is_told_and_the_others_go_on(capfd: pytest.CaptureFixture[str]) -> None:
    Path("fail").touch()
    study = _load()
    assert run_study(study) == 1
    assert [is_done(study, run) for run in study.runs] == [True, False] * 4
    assert capfd.readouterr().out.count("failed: error: train/loss is nan\n") == 4
    Path("fail").unlink()
    assert run_study(study) == 0


def test_runs_made_with_another_definition_are_refused_and_more_variants_are_not() -> None:
    assert run_study(_load()) == 0
    Path("base.yaml").write_text(BASE + "optim: {lr: 0.5}\n")
    with pytest.raises(
        SweepError, match=r"variants: \w+: optim.lr: the runs in 'runs/tiny' were made with 0.001, got 0.5"
    ):
        run_study(_load())
    Path("base.yaml").write_text(BASE)
    with pytest.raises(SweepError, match=r"folds: the runs in 'runs/tiny' were made with 2, got 3"):
        run_study(_load(STUDY.replace("folds: 2", "folds: 3")))
    more = STUDY.replace("seeds: [0, 2]", "seeds: [0, 2, 3]").replace(
        "  plain:\n", "  plain:\n  conv: [model.head=conv]\n"
    )
    assert run_study(_load(more)) == 0 and len(_calls()) == 2 * 18


def test_a_variable_of_the_environment_is_filled_in_and_must_be_set_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    text = STUDY.replace("data.batch_size=4", "'data.root=${envvar:LUNGSEG_SOMEWHERE}'")
    monkeypatch.delenv("LUNGSEG_SOMEWHERE", raising=False)
    with pytest.raises(SweepError, match=r"study.yaml: \$\{envvar:LUNGSEG_SOMEWHERE\}: .* is not set; export"):
        run_study(_load(text))
    monkeypatch.setenv("LUNGSEG_SOMEWHERE", "/some/where")
    assert _load(text).words == ("data.root=/some/where",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds: [0, 2]", "seeds: [0, 0]"), r"seeds: must list different numbers >= 0, got \[0, 0\]"),
        (("folds: 2", "folds: 1"), "folds: must be a whole number >= 2, got 1"),
        (("folds: 2", "fold: 2"), "fold: unknown key; did you mean 'folds'"),
        (("folds: 2", "folds: 2\nsplit: test"), "split: 'test' does not go with folds"),
        (("folds: 2", "split: all"), "split: must be 'val' or 'test', got 'all'"),
        (
            ("lung: [model.pooling=lung]", "lung: [model.poling=lung]"),
            "variants: lung: model.poling: unknown key; did you",
        ),
        (
            ("lung: [model.pooling=lung]", "lung: [pooling]"),
            r"variants: lung: must list words such as .*, got 'pooling'",
        ),
        (("lung: [model.pooling=lung]", "a/b: []"), "variants: a name must be letters, digits and .*, got 'a/b'"),
        (
            ("lung: [model.pooling=lung]", "lung: [run.dir=x]"),
            "variants: lung: run.dir: cannot be set: all runs of a study",
        ),
        (("lung: [model.pooling=lung]", "lung: [model.encoder=resnet1]"), "model.encoder: unknown encoder 'resnet1'"),
        (("data.batch_size=4", "run.seed=4"), "words: run.seed: cannot be set: seeds: lists them"),
        (("data.batch_size=4", "data.batch_size=0"), "data.batch_size: must be >= 1, got 0"),
        (("config: base.yaml", "config: bse.yaml"), "bse.yaml: no such file; did you mean 'base.yaml'"),
        (("config: base.yaml", ""), "config: must be a config file such as configs/demo.yaml, got None"),
        (("variants:\n  plain:\n  lung: [model.pooling=lung]", "variants: {}"), "variants: must hold keys of its own"),
    ],
)
def test_a_mistake_is_one_line(change: tuple[str, str], message: str) -> None:
    with pytest.raises(SweepError, match=rf"^study.yaml: .*{message}") as caught:
        _load(STUDY.replace(*change))
    assert "\n" not in str(caught.value)
