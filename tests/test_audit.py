"""The command `python -m lungseg.audit`: exit codes, what it prints, what it writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lungseg.audit import _parser, main
from lungseg.command import run_command

LUNG = "Lung Segmentation Data/Lung Segmentation Data"


def run(*words: str | Path) -> int:
    return run_command(main, _parser(), [str(word) for word in words])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def leaking(phantoms: Path, tmp_path: Path) -> Path:
    """A phantom set with a Val image in Train too."""
    root = Path(shutil.copytree(phantoms / LUNG, tmp_path / "my.set"))
    for part in ("images", "lung masks"):
        image = min((root / f"Val/Normal/{part}").iterdir())
        shutil.copyfile(image, root / f"Train/Normal/{part}/again.png")
    return root


def test_clean_set_exits_0_and_leaves_empty_tables(phantoms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(phantoms) == 0
    captured = capsys.readouterr()
    folder = Path(f"audit-{phantoms.name}")
    assert captured.out.endswith(f"no findings\nwritten: {folder}/faults.csv, {folder}/leaks.csv\n")
    assert captured.err == ""
    assert [(folder / name).read_text().count("\n") for name in ("faults.csv", "leaks.csv")] == [1, 1]


def test_findings_exit_1_and_are_written(leaking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(leaking, "--json", "deep/all.json", "--output", "out") == 1
    out = capsys.readouterr().out
    assert "  - leaks, pairs of one image in two splits: 1\n" in out
    assert out.splitlines()[-1] == "written: out/faults.csv, out/leaks.csv, out/pairs.png, deep/all.json"
    values = json.loads(Path("deep/all.json").read_text())
    assert values["training_copies"] == ["Train/Normal/images/again.png"]
    assert "Train/Normal/images/again.png" in Path("out/leaks.csv").read_text()
    assert Path("out/pairs.png").read_bytes().startswith(b"\x89PNG")


def test_classes_whose_empty_infection_masks_are_no_fault_are_named(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(phantoms, tmp_path / "drawn"))
    drawn, empty = (min(root.glob(f"Inf*/*/Train/{name}/infection masks/*.png")) for name in ("COVID-19", "Normal"))
    shutil.copyfile(empty, drawn)
    assert run(root) == 1 and "empty infection mask of a class that has infection" in capsys.readouterr().out
    assert run(root, "data.infection_unknown=[COVID-19]") == 0
    capsys.readouterr()
    for word, told in (
        ("data.fold=1", "only data.infection_unknown and data.multi_label mean"),
        ("data.infection_unknown=[x]", "no class 'x'"),
    ):
        assert run(root, word) == 2 and told in capsys.readouterr().err


def test_augmented_samples_are_drawn_for_a_config(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("augment:\n  rotate: 90\n")
    pictures = []
    for words in (["data.image_size=64"], ["data.image_size=64", "augment.rotate=0"]):
        assert run(leaking, *words, "--augment", config, "--output", "out") == 1
        assert capsys.readouterr().out.splitlines()[-1].endswith("out/pairs.png, out/augmented.png")
        pictures.append(Path("out/augmented.png").read_bytes())
    assert pictures[0] != pictures[1]
    config.write_text("augment:\n  rotated: 90\n")
    assert run(leaking, "--augment", config, "--output", "out") == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "augment.rotated: unknown key" in captured.err


def test_output_is_named_after_the_root_whatever_is_in_its_name(leaking: Path) -> None:
    run(leaking)
    manifest = leaking / "list.v1.csv"
    image = min((leaking / "Train/Normal/images").iterdir()).relative_to(leaking)
    manifest.write_text(f"image\n{image}\n")
    run(manifest)
    assert sorted(path.name for path in Path().glob("audit-*")) == ["audit-list.v1", "audit-my.set"]


def test_folder_that_cannot_be_audited_exits_2_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for root, told in (("nowhere", "nowhere does not exist"), ("empty", "empty: no data set found")):
        assert run(root) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.startswith(f"error: {told}") and captured.err.count("\n") == 1
    assert not list(tmp_path.glob("audit-*"))


def test_output_in_the_way_exits_2_before_anything_is_read(
    leaking: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lungseg.auditing.audit.audit", lambda root: pytest.fail("it was read"))
    monkeypatch.chdir(leaking)
    assert run(".") == 2
    assert "lies inside the data set; name a folder elsewhere" in capsys.readouterr().err
    Path("../leaks.csv").write_text("mine")
    assert run(".", "--output", "..") == 2
    assert "was not written by an audit" in capsys.readouterr().err
    assert Path("../leaks.csv").read_text() == "mine"


def test_command_runs_as_a_module_and_says_nothing_but_its_result(leaking: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lungseg.audit", str(leaking), "--output", str(tmp_path / "out")]
    package = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(f"audit of {leaking}: COVID-QU-Ex, 25 images (64x64)\n")
