from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from torch.utils.data import default_collate

from lungseg.bench import BENCHMARKS, _parser, main
from lungseg.benchmarks import cam, data, evaluate, input_checks, predict
from lungseg.benchmarks.input_checks import CHANGES
from lungseg.cam.lung import resize_map
from lungseg.cam.methods import METHODS
from lungseg.command import run_command
from lungseg.config import AugmentConfig, ModelConfig
from lungseg.config.loading import load_config
from lungseg.data.batch import unpack
from lungseg.data.cache import ImageCache
from lungseg.data.dataset import LungDataset
from lungseg.data.index import load_index
from lungseg.models.network import LungNetwork
from lungseg.predict import _parser as predict_parser
from lungseg.predict import main as predict_main
from lungseg.runs.progress import cores


def _run(*arguments: str) -> int:
    return run_command(main, _parser(), arguments)


def test_data_prints_rates_and_ratios_and_leaves_threads_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads(), cv2.getNumThreads()
    assert _run("data", "--quick") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"data: {BENCHMARKS['data']}"
    rows = [re.fullmatch(r"  64 px  (\S.*\S) +(\d+) +(\d+\.\d) x", line) for line in lines[2:]]
    assert len(rows) == 4 and all(rows)
    rates, ratios = ([float(row[group]) for row in rows if row] for group in (2, 3))
    assert ratios[0] == 1 and ratios[1] == pytest.approx(rates[1] / rates[0], abs=0.06)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == threads


def test_cam_prints_every_method_with_its_ratio_and_the_overlays_share(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)  # as if it were not installed
    assert _run("cam", "--quick") == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"  {cam.PACKAGE}: not measured: pip install grad-cam" in lines
    rows = [re.fullmatch(r"  (\S.*\S) +(\d+\.\d) ms +(\d+\.\d{3}) x", line) for line in lines]
    found = [(row[1], float(row[2]), float(row[3])) for row in rows if row]
    ways = list(METHODS)[:-1]
    assert [name for name, _, _ in found[2:]] == [*ways, "cam", "score_cam"]
    for first, last in ((0, 2), (2, 2 + len(ways)), (2 + len(ways), len(found))):
        for _, spent_ms, ratio in found[first:last]:
            assert ratio == pytest.approx(spent_ms / found[first][1], rel=0.05)
    place = next(index for index, line in enumerate(lines) if line.startswith("  training"))
    epoch_s, *shares = (float(number) for line in lines[place:] for number in re.findall(r"\d+\.\d+", line))
    assert "handed to W&B" in lines[place + 2] and len(shares) >= 4
    for seconds, share in zip(shares[::2], shares[1::2], strict=True):
        assert share == pytest.approx(100 * seconds / epoch_s, rel=0.1, abs=0.02)


def test_cam_measures_the_model_and_the_training_of_the_shipped_config() -> None:
    config = load_config(Path(__file__).parents[1] / "configs/covidqu_cpu.yaml", ["model.encoder_weights=null"])
    assert (config.model, config.loss, config.optim) == (cam.MODEL, cam.LOSS, cam.OPTIM)
    assert (config.data.image_size, config.data.batch_size) == (cam.TRAIN_SIZE_PX, cam.TRAIN_BATCH)


def test_what_is_measured_of_grad_cam_is_the_same_map_as_ours(tiny_model: ModelConfig) -> None:
    """Else it would not be compared fairly."""
    pytest.importorskip("pytorch_grad_cam")
    torch.manual_seed(0)
    network, images = LungNetwork(tiny_model, 3).eval(), torch.rand(2, 1, 64, 64)
    theirs = cam._package_maps(network, images)()
    ours = resize_map(METHODS["grad_cam"](network, images, 0), network.stride, (64, 64))
    ours = ours - ours.amin((1, 2), keepdim=True)
    ours = ours / ours.amax((1, 2), keepdim=True)
    torch.testing.assert_close(torch.from_numpy(theirs), ours, atol=1e-3, rtol=0)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_cam_measures_the_package_where_it_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("cam", "--quick") == 0
    measured = re.search(rf"{cam.PACKAGE} +\d+\.\d ms +\d+\.\d{{3}} x\n", capsys.readouterr().out)
    assert bool(measured) == (find_spec("pytorch_grad_cam") is not None)


def test_all_run_where_none_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(name: str) -> SimpleNamespace:
        return SimpleNamespace(run=lambda quick: [f"{name} ran, quick: {quick}"])

    monkeypatch.setattr("lungseg.bench.import_module", planted)
    assert _run("--quick") == 0
    lines = capsys.readouterr().out.splitlines()
    expected = [
        [f"{name}: {what}", f"  lungseg.benchmarks.{name} ran, quick: True"] for name, what in BENCHMARKS.items()
    ]
    assert lines == [line for pair in expected for line in pair]


def test_predict_prints_every_method_and_its_ratio_and_the_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, exported: Path
) -> None:
    def time_here(command: list[str]) -> tuple[float, float]:
        """In this process, for each start of another takes seconds."""
        assert command[:3] == [sys.executable, "-m", "lungseg.predict"]
        assert run_command(predict_main, predict_parser(), command[3:]) == 0
        return 2.0, 1.0

    monkeypatch.setattr(predict, "_time", time_here)
    monkeypatch.setattr(predict, "export", lambda _, output: [shutil.copy(exported, output)])  # done by a fixture
    monkeypatch.setattr(predict, "to_int8", lambda model, images: model)  # tested with the export
    monkeypatch.setattr(predict, "find_spec", lambda name: None if name == "pytorch_grad_cam" else find_spec(name))
    assert _run("predict", "--quick") == 0
    lines = capsys.readouterr().out.splitlines()
    passes = [re.fullmatch(r"  (batch +\d+)  (\S.*\S) +(\d+\.\d) ms +(\d+\.\d\d) x", line) for line in lines]
    found = [row.groups() for row in passes if row]
    ways = 3 + (find_spec("openvino") is not None)
    rounds = 1 + (cores() > 1)  # on one core, and on all
    assert [batch for batch, *_ in found] == (["batch  1"] * ways + ["batch  2"] * ways) * rounds
    assert all(float(row[3]) == 1 for row in found[::ways])
    commands = [re.fullmatch(r"  (\S.*\S) +(\d+\.\d\d) s \((\d+\.\d\d) s\)( +\d+\.\d\d x)?", line) for line in lines]
    named = {row[1]: float(row[2]) for row in commands if row}
    assert named == {"predict": 2.0, "predict, one image": 2.0}


def test_fit_compares_the_loop_of_the_command_with_a_bare_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("fit", "--quick") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [re.fullmatch(r"    (\S.*\S) +(\d+\.\d) +(\d+\.\d\d) x", line) for line in lines]
    found = {row[1]: float(row[3]) for row in rows if row}
    assert list(found) == ["bare torch loop, batches in memory", "training loop of fit", "its loader alone"]
    assert found["bare torch loop, batches in memory"] == 1 and min(found.values()) > 0
    assert re.fullmatch(r"    waiting for data \d+\.\d% of the time: the (network|loader) limits it.*", lines[-1])


def test_a_command_is_timed_in_a_process_of_its_own_and_must_not_fail() -> None:
    wall, spent = predict._time([sys.executable, "-c", "sum(range(10**6))"])
    assert wall > 0 and spent > 0
    with pytest.raises(RuntimeError, match=r"(?s)-c 1/0: .*ZeroDivisionError"):
        predict._time([sys.executable, "-c", "1/0"])


def test_the_plain_script_says_a_line_an_image(
    untrained: Path, phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pytorch_grad_cam")
    from lungseg.benchmarks import plain_predict

    for image in sorted(phantoms.rglob("images/*.png"))[:2]:
        shutil.copy(image, tmp_path)
    plain_predict.main(untrained, tmp_path, 64)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.name for path in tmp_path.iterdir())
    assert all(0 <= float(line.split()[-1]) <= 1 for line in lines)


def test_input_checks_prints_a_row_for_every_kind_of_image(
    capsys: pytest.CaptureFixture[str], untrained: Path, phantoms: Path
) -> None:
    assert _run("input_checks", "--quick", "--checkpoint", str(untrained), "--data", str(phantoms)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"  3 images of Val in {phantoms.name}, a network of 64 px:"
    rows = [re.fullmatch(r"  (\S.*\S) +(\d+) +(\d+\.\d) % +(\d+\.\d) % +(\d+\.\d) %   .+", line) for line in lines[3:]]
    assert [row[1] for row in rows if row] == list(CHANGES)
    by_image = {row[1]: float(row[4]) for row in rows if row}  # the network has learned nothing, masks tell nothing
    assert all(row and float(row[3]) >= max(float(row[4]), float(row[5])) for row in rows)
    assert by_image["good"] == 0
    assert all(by_image[name] == 100 for name in ("inverted", "turned by 90 degrees", "turned by 180 degrees", "blank"))


def test_input_checks_says_that_it_has_no_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_checks, "BOXED", Path("nowhere"))
    assert _run("input_checks", "--quick") == 0
    assert "not measured: this installation comes without a model" in capsys.readouterr().out


def test_an_option_of_input_checks_is_not_ignored_by_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("data", "--quick", "--data", "x") == 2
    assert capsys.readouterr().err == "error: --data is for input_checks only, got 'data'; name it too\n"


def test_an_unknown_benchmark_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("dta") == 2
    assert capsys.readouterr().err == f"error: no benchmark 'dta'; there are: {', '.join(BENCHMARKS)}\n"


def test_both_ways_give_the_same_batch_where_nothing_is_augmented(phantoms: Path, tmp_path: Path) -> None:
    """Else they would not be compared fairly."""
    off = AugmentConfig(shift=0, scale=0, rotate=0, flip=0, brightness=0, contrast=0, gamma=0, noise=0)
    samples = [replace(sample, infection=None) for sample in load_index(phantoms)[:4]]
    plain = default_collate(list(map(data.PlainDataset(samples, 64, off).__getitem__, range(4))))
    cached = LungDataset(samples, 64, off, 0, cache=ImageCache.open_or_build(samples, 64, folder=tmp_path))
    batch = unpack(default_collate([cached[0, i] for i in range(4)]))
    assert torch.equal(plain["lung"], batch["lung"]) and torch.equal(plain["label"], batch["label"])
    assert (plain["image"] - batch["image"]).abs().max() < 1.01 / 255  # albumentations' gamma of 1 truncates


def test_evaluate_tells_the_network_from_the_rest_and_adds_it_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[Path] = []
    monkeypatch.setattr(evaluate, "write_report", pages.append)  # tested where it is, and slow at any size
    assert _run("evaluate", "--quick") == 0
    assert [page.name for page in pages] == ["evaluation"]
    lines = capsys.readouterr().out.splitlines()
    rows = [re.fullmatch(r"  (\S.*\S) +(-?\d+\.\d) s +(\d+\.\d) s in the network", line) for line in lines]
    parts = {row[1]: (float(row[2]), float(row[3])) for row in rows if row}
    assert len(parts) == 9 and parts["page and figures"][1] == 0
    assert any(name.startswith("hide-and-seek on 6 images") for name in parts)
    (whole,) = [float(line.split()[4]) for line in lines if line.strip().startswith("all but the network")]
    assert whole == pytest.approx(sum(rest for rest, _ in parts.values()), abs=0.5)
