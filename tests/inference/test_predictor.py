"""`Predictor`: the same numbers as the network's, at the image's own size, from any kind of input."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lungseg.cam.lung import evidence_in_lungs, resize_map
from lungseg.data.images import read_image
from lungseg.data.phantom.generator import draw_phantom
from lungseg.data.severity import Severity
from lungseg.inference.backend import Outputs
from lungseg.inference.prediction import Prediction
from lungseg.inference.predictor import Predictor, load_backend
from lungseg.inference.preprocess import enlarge_map, to_picture
from lungseg.models.checkpoint import load_network
from lungseg.reporting.drawing import INFECTION_COLOUR
from lungseg.runs.model_info import ModelInfo
from lungseg.runs.run import BOXED, BOXED_ONNX, Run


class Planted:
    """A backend that finds what a test planted, and the mirror image of it in a mirror image."""

    concurrent = False

    def __init__(
        self,
        mask_probs: NDArray[np.float32],
        maps: NDArray[np.float32],
        probs: list[float],
        infection_probs: NDArray[np.float32] | None = None,
    ):
        self.mask_probs, self.maps, self.probs = mask_probs, maps, np.array(probs, np.float32)
        side, self.infection_probs = mask_probs.shape[0], infection_probs
        unseen = {"training": {"infection_unknown": ["b"]}}
        self.info = ModelInfo(("a", "b"), side, True, side // maps.shape[-1], description=unseen)
        self.seen: list[NDArray[np.uint8]] = []

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        self.seen.append(images)
        count = len(images)
        arrays = [self.mask_probs, self.probs, self.maps]
        arrays += [] if self.infection_probs is None else [self.infection_probs]
        return Outputs(*(np.stack([array] * count) for array in arrays))


@pytest.fixture(scope="module")
def predictor(untrained: Path) -> Predictor:
    return Predictor.load(untrained, "cpu", batch_size=2)


@pytest.fixture(scope="module")
def xray(phantoms: Path) -> Path:
    return sorted(phantoms.rglob("images/*.png"))[0]


def _planted() -> Planted:
    mask = np.zeros((64, 64), np.float32)
    mask[16:48, 8:24], mask[16:48, 40:52] = 0.9, 0.7
    maps = np.zeros((2, 8, 8), np.float32)
    maps[1, 4, 2], maps[1, 0, 0] = 3.0, 1.0
    return Planted(mask, maps, [0.25, 0.75])


def _same(one: Prediction, other: Prediction) -> bool:
    arrays = ("probabilities", "image", "mask", "class_map")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)


def test_a_prediction_is_what_the_network_says(untrained: Path, predictor: Predictor, xray: Path) -> None:
    network, classes = load_network(untrained / "checkpoints" / "best.ckpt")
    image = read_image(xray)
    with torch.no_grad():
        output = network(torch.from_numpy(image)[None, None].float() / 255)
    prediction = predictor(xray)
    probs = output.class_logits.softmax(1)[0].numpy()
    assert prediction.classes == tuple(classes)
    assert prediction.name == classes[int(probs.argmax())]
    np.testing.assert_allclose(prediction.probabilities, probs, atol=1e-6)
    lung = output.mask_logits[0, 0] > 0
    assert np.array_equal(prediction.mask, lung.numpy())
    cam = resize_map(output.class_maps[:, prediction.label], network.stride, (64, 64))
    np.testing.assert_allclose(prediction.class_map, cam[0].numpy(), atol=1e-5)
    assert prediction.evidence_in_lungs == pytest.approx(float(evidence_in_lungs(cam, lung[None])), abs=1e-5)


@pytest.mark.parametrize("side", [64, 60])
def test_enlarged_map_equals_torchs(side: int) -> None:
    cam = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    wanted = resize_map(torch.from_numpy(cam)[None], 8, (side, side))[0].numpy()
    np.testing.assert_allclose(enlarge_map(cam, ModelInfo(("a",), side, True, 8)), wanted, atol=1e-5)


def test_kinds_of_input_give_the_same(predictor: Predictor, xray: Path) -> None:
    from PIL import Image

    array, one = read_image(xray), predictor(xray)
    for image in (array, str(xray), np.repeat(array[..., None], 3, axis=2), Image.fromarray(array)):
        found = predictor(image)
        assert isinstance(found, Prediction)
        assert _same(found, one)
    many = predictor([xray, array, str(xray)])
    assert len(many) == 3
    np.testing.assert_allclose([each.probabilities for each in many], [one.probabilities] * 3, atol=1e-5)
    stack = predictor(np.stack([array, array[::-1]]))
    assert isinstance(stack, list)
    assert np.array_equal(stack[1].image, array[::-1])


def test_sixteen_bit_array_equals_the_same_as_a_file(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 4000, (40, 50)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    assert np.array_equal(to_picture(deep).pixels, read_image(tmp_path / "deep.png"))


def test_colour_is_red_green_blue() -> None:
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    assert (to_picture(red).pixels == 76).all()  # 0.299 * 255


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4), np.float32), "uint8, or uint16 grey, got float32"),
        (np.zeros((4, 4, 3), np.uint16), "uint8, or uint16 grey, got uint16"),
        (np.zeros(4, np.uint8), r"got shape \(4,\)"),
        (np.zeros((0, 4), np.uint8), r"got shape \(0, 4\)"),
    ],
)
def test_what_is_no_image_is_an_error(array: NDArray[np.generic], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_picture(array)


def test_everything_comes_back_at_the_images_own_size() -> None:
    planted = _planted()
    image = np.full((128, 64), 9, np.uint8)  # twice as tall as wide: 16 columns of bars on each side
    found = Predictor(planted)(image)
    assert isinstance(found, Prediction)
    assert found.mask.shape == found.class_map.shape == found.image.shape == (128, 64)
    square = planted.seen[0][0]
    assert (square[:, :16] == 0).all() and (square[:, 16:48] == 9).all() and (square[:, 48:] == 0).all()
    assert found.mask[40:88, 4:12].all() and not found.mask[40:88, 20:44].any() and not found.mask[:28].any()


def test_areas_evidence_and_class_by_hand() -> None:
    planted = _planted()
    found = Predictor(planted)(np.zeros((64, 64), np.uint8))
    assert isinstance(found, Prediction)
    assert (found.name, found.label) == ("b", 1)
    assert (found.lung_area_px.left, found.lung_area_px.right) == (32 * 12, 32 * 16)  # patient's left: image's right
    assert found.lung_area_cm2 is None
    assert found.class_map.max() > 2.5
    assert found.evidence_in_lungs is not None and 0.5 < found.evidence_in_lungs < 0.8
    nothing = Planted(planted.mask_probs, -planted.maps, [0.25, 0.75])
    without = Predictor(nothing)(np.zeros((64, 64), np.uint8))
    assert isinstance(without, Prediction)
    assert without.evidence_in_lungs is None


def _infected(probs: list[float]) -> Planted:
    """The upper quarter of the image's left lung is infected, and as much beside the lungs."""
    planted, infection = _planted(), np.zeros((64, 64), np.float32)
    infection[16:24, 8:24], infection[56:, 8:24] = 0.9, 0.9
    return Planted(planted.mask_probs, planted.maps, probs, infection)


def test_severity_is_the_infected_share_of_the_patients_lungs_and_said_in_words() -> None:
    found = Predictor(_infected([0.75, 0.25]))(np.zeros((64, 64), np.uint8))
    assert isinstance(found, Prediction) and found.infection is not None and found.severity is not None
    assert found.infection.sum() == 2 * 8 * 16  # what is beside the lungs is in the mask, and not in the shares
    assert (found.severity.left, found.severity.right) == (0, 0.25)  # the image's left is the patient's right
    assert found.severity.lungs == 8 * 16 / (32 * 28) and found.severity.lower == 0
    assert found.severity_words == "infected: 14% of the lungs (patient's left 0%, right 25%)"
    row = found.row()
    assert (row["infected_right"], row["infected_lungs"], row["infection_extrapolated"]) == (0.25, 0.142857, False)
    extrapolated = Predictor(_infected([0.25, 0.75]))(np.zeros((64, 64), np.uint8))
    assert isinstance(extrapolated, Prediction) and extrapolated.is_extrapolated
    assert extrapolated.severity_words.endswith("\nextrapolated: no infection masks of b in training")


def test_without_an_infection_output_nothing_is_said_of_it() -> None:
    found = Predictor(_planted())(np.zeros((64, 64), np.uint8))
    assert isinstance(found, Prediction)
    assert (found.infection, found.severity, found.is_extrapolated, found.severity_words) == (None, None, False, "")
    assert {name: value for name, value in found.row().items() if name.startswith("infect")} == dict.fromkeys(
        [*(f"infected_{part}" for part in Severity._fields), "infection_extrapolated"]
    )


def test_an_overlay_outlines_the_infection_and_says_its_share(tmp_path: Path) -> None:
    image = np.full((256, 256), 90, np.uint8)
    plain, found = (Predictor(planted)(image) for planted in (_planted(), _infected([0.25, 0.75])))
    assert isinstance(plain, Prediction) and isinstance(found, Prediction) and found.infection is not None
    overlay, differs = found.overlay(), (found.overlay() != plain.overlay()).any(axis=2)
    edge = found.infection & ~(cv2.erode(found.infection.astype(np.uint8), np.ones((3, 3))) > 0)
    assert (overlay[edge][:40] == INFECTION_COLOUR).all(), "of the upper piece: the lower one is under the words"
    assert (overlay[-3:, -3:] == 90 // 3).all() and not differs[100:220].any(), "a strip for words at the lower edge"
    found.save(tmp_path, "one")
    mask = cv2.imread(str(tmp_path / "one_infection_mask.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask, found.infection * np.uint8(255))


def test_infection_is_what_the_network_says_and_its_mirror_image_that_of_the_mirror_image(
    untrained_infection: Path, xray: Path
) -> None:
    network, _ = load_network(untrained_infection / "checkpoints" / "best.ckpt")
    image = read_image(xray)
    with torch.no_grad():
        logits = network(torch.from_numpy(image)[None, None].float() / 255).mask_logits[0, 1]
    found = Predictor.load(untrained_infection, "cpu")(xray)
    assert found.infection is not None and 0 < found.infection.mean() < 1
    assert np.array_equal(found.infection, logits.numpy() > 0)
    one, other = Predictor.load(untrained_infection, "cpu", tta=True)([image, image[:, ::-1]])
    assert one.infection is not None and other.infection is not None and one.infection.any()
    assert np.mean(one.infection != other.infection[:, ::-1]) < 0.01
    assert not np.array_equal(one.infection, found.infection)


def test_threshold_is_of_lung_probability() -> None:
    found = Predictor(_planted(), threshold=0.8)(np.zeros((64, 64), np.uint8))
    assert isinstance(found, Prediction)
    assert found.mask.sum() == 32 * 16
    assert [flag.name for flag in found.flags] == ["blank", "one_lung"]
    with pytest.raises(ValueError, match=r"threshold: must be in \(0, 1\), got 1"):
        Predictor(_planted(), threshold=1)
    with pytest.raises(ValueError, match="batch_size: must be >= 1, got 0"):
        Predictor(_planted(), batch_size=0)


def test_tta_of_a_mirror_image_is_the_mirror_image(untrained: Path, xray: Path) -> None:
    both, image = Predictor.load(untrained, "cpu", tta=True), read_image(xray)
    one, other = both([image, image[:, ::-1]])
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    np.testing.assert_allclose(one.class_map, other.class_map[:, ::-1], atol=1e-4)
    plain = Predictor.load(untrained, "cpu")([image, image[:, ::-1]])
    mean = (plain[0].probabilities + plain[1].probabilities) / 2
    np.testing.assert_allclose(one.probabilities, mean, atol=1e-5)


def test_threads_share_a_predictor(predictor: Predictor, phantoms: Path) -> None:
    paths = sorted(phantoms.rglob("images/*.png"))[:8]
    alone = [predictor(path) for path in paths]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda path: predictor(path), paths * 3))
    assert all(_same(found, alone[i % 8]) for i, found in enumerate(together))


def test_pixel_size_of_a_dicom_file_gives_square_centimetres(tmp_path: Path) -> None:
    found = Predictor(_planted())
    picture, square = found.prepare(np.zeros((64, 64), np.uint8))
    prediction = found.finish(picture._replace(spacing_mm=(2.0, 5.0)), found.run(square[None])[0])
    assert prediction.lung_area_cm2 is not None
    assert prediction.lung_area_cm2.left == pytest.approx(32 * 12 * 0.1)


def test_overlay_is_the_image_where_there_is_no_lung_and_can_be_smaller() -> None:
    image = np.random.default_rng(0).integers(0, 256, (128, 96), dtype=np.uint8)
    found = Predictor(_planted())(image)
    assert isinstance(found, Prediction)
    overlay = found.overlay()
    far = cv2.dilate(found.mask.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    assert overlay.shape == (128, 96, 3)
    assert np.array_equal(overlay[far], np.repeat(image[..., None], 3, axis=2)[far])
    assert not np.array_equal(overlay[found.mask], np.repeat(image[..., None], 3, axis=2)[found.mask])
    assert found.overlay(longest_px=64).shape == (64, 48, 3)


def test_save_writes_mask_overlay_and_numbers(tmp_path: Path, predictor: Predictor, xray: Path) -> None:
    prediction = predictor(xray)
    prediction.save(tmp_path / "new", "one")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["one.json", "one_mask.png", "one_overlay.png"]
    mask = cv2.imread(str(tmp_path / "new" / "one_mask.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask, prediction.mask * np.uint8(255))
    overlay = cv2.imread(str(tmp_path / "new" / "one_overlay.png"))
    assert np.array_equal(overlay[..., ::-1], prediction.overlay())


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model at '.*gone'; give a run folder"):
        Run.open(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"neither checkpoints/best.ckpt \(a run folder\) nor model.safeten"):
        Run.open(tmp_path)
    (tmp_path / "model.pkl").touch()
    with pytest.raises(ValueError, match=r"model.pkl: not a model"):
        Run.open(tmp_path / "model.pkl")
    monkeypatch.setattr("lungseg.runs.run.BOXED", tmp_path / "boxed.safetensors")
    with pytest.raises(FileNotFoundError, match="without a model; give one with --checkpoint RUN"):
        Run.open()


def test_the_model_that_comes_along_finds_the_lungs_of_a_phantom_and_states_its_licence() -> None:
    assert BOXED.stat().st_size + BOXED_ONNX.stat().st_size < 17e6
    predict, by_torch = Predictor.load(), Predictor.load(device="cpu", backend="torch")
    phantom = draw_phantom(3, 0, 256)
    prediction, expected = predict(phantom.image), by_torch(phantom.image)
    assert isinstance(prediction, Prediction) and isinstance(expected, Prediction)
    # The ONNX file was made of the other one, and not of the one before it: float16 rounds folded weights otherwise.
    assert predict.info == by_torch.info and hasattr(by_torch.backend, "network")
    np.testing.assert_allclose(prediction.probabilities, expected.probabilities, atol=0.05)
    assert np.mean(prediction.mask != expected.mask) < 1e-3
    both = np.logical_and(prediction.mask, phantom.lung).sum()
    assert 2 * both / (prediction.mask.sum() + np.count_nonzero(phantom.lung)) > 0.8
    assert predict.info.description["licence"].startswith("CC-BY-SA-4.0")
    assert "root" not in predict.info.description["config"]["data"]
    card = BOXED.with_name("README.md").read_text()
    assert "CC BY-SA 4.0" in card and "not a medical device" in card


def test_a_device_or_backend_that_is_asked_for_is_not_ignored(untrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'cuda:99' is not there; this machine has"):  # as PyTorch's backend says it
        load_backend(device="cuda:99")
    with pytest.raises(ValueError, match="'cuda:99' is not one that onnxruntime has here"):
        load_backend(device="cuda:99", backend="onnx")
    with pytest.raises(ValueError, match=r"best.ckpt: backend 'onnx' takes an .onnx file"):
        load_backend(untrained, backend="onnx")
    with pytest.raises(ValueError, match=r"lungseg.onnx: not for backend 'torch'; give the run"):
        load_backend(BOXED_ONNX, backend="torch")
    with pytest.raises(ValueError, match="backend: must be one of auto, onnx, torch, got 'tensorflow'"):
        load_backend(backend="tensorflow")


@pytest.mark.parametrize(
    ("device", "message"), [("gpu", "no such device 'gpu'"), ("cuda:99", "'cuda:99' is not there; this machine has")]
)
def test_a_device_that_is_not_there_is_one_line(untrained: Path, device: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predictor.load(untrained, device)


def test_temperature_is_that_of_the_runs_evaluation(untrained: Path, predictor: Predictor, tmp_path: Path) -> None:
    import json
    import shutil

    from lungseg.runs.run import Run
    from lungseg.runs.whole_files import digest

    assert predictor.info.temperature == 1
    assert predictor.info.description["calibration"].startswith("none: the run has no calibration.json yet")
    run = tmp_path / "run"
    shutil.copytree(untrained, run)
    checkpoint = run / "checkpoints" / "best.ckpt"
    kept = {"temperature": 2.0, "thresholds": {}, "split": "val", "checkpoint_digest": digest(checkpoint)}
    Run(run).calibration_file.write_text(json.dumps(kept))
    image = np.full((64, 64), 99, np.uint8)
    plain, cooled = predictor([image])[0].probabilities, Predictor.load(run, "cpu")([image])[0].probabilities
    np.testing.assert_allclose(cooled, np.sqrt(plain) / np.sqrt(plain).sum(), atol=1e-5)


def test_prediction_takes_the_packages_listed_for_it_no_network_access_and_of_a_run_no_lightning_or_wandb(
    untrained: Path, xray: Path, tmp_path: Path
) -> None:
    root = Path(__file__).parents[2]
    listed = [line for line in (root / "requirements-predict.txt").read_text().splitlines() if line[0] != "#"]
    assert set(listed) <= set(tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"])
    code = (
        "import sys, socket\ndef refuse(*a): raise SystemExit('network')\nsocket.socket.connect = refuse\n"
        "from pathlib import Path\nfrom lungseg.inference.job import Options, Predictor, predict\n"
        f"predict(Options(({str(xray)!r},), Path({str(tmp_path)!r})))\n"
        "from importlib.metadata import packages_distributions\n"
        "loaded = {name for name in sys.modules if name[0] != '_'}\n"  # without what a .pth file of pip's imports
        "packages = {each for name, of in packages_distributions().items() if name in loaded for each in of}\n"
        "packages = {each.lower().replace('_', '-') for each in packages} - {'lungseg'}\n"
        f"assert packages == {{line.partition('>')[0] for line in {listed!r}}}, packages\n"
        f"Predictor.load({str(untrained)!r}, 'cpu')({str(xray)!r})\n"
        "sys.exit(str({'lightning', 'wandb', 'torchmetrics', 'albumentations'} & set(sys.modules) or '') or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("broken", ["mask_probs", "class_probs", "class_maps", "infection_probs"])
def test_outputs_that_are_not_finite_give_a_flag_and_no_class(broken: str) -> None:
    planted = Planted(np.full((64, 64), 0.9, np.float32), np.ones((2, 8, 8), np.float32), [0.7, 0.3])
    planted.infection_probs = np.zeros((64, 64), np.float32)
    array = {"mask_probs": planted.mask_probs, "class_probs": planted.probs, "class_maps": planted.maps}.get(broken)
    (planted.infection_probs if array is None else array).reshape(-1)[0] = np.nan
    found = Predictor(planted)(np.zeros((64, 64), np.uint8))
    row = found.row()
    assert [flag.name for flag in found.flags] == ["not_finite"] and found.label == -1 and row["predicted"] is None
    assert not found.mask.any() and row["prob_a"] is None and json.dumps(row, allow_nan=False)
    assert found.overlay().shape == (64, 64, 3)


def test_the_set_holds_what_the_probabilities_do_not_exclude() -> None:
    backend, image = _planted(), np.zeros((64, 64), np.uint8)
    assert Predictor(backend)(image).row()["class_set"] is None, "none was chosen"
    for least, expected in (([0.2, 0.5], "b|a"), ([0.3, 0.5], "b"), ([0.3, 0.9], "b"), ([0.0, 0.0], "b|a")):
        sets = {"class_sets": {"coverage": 0.9, "least_probability": least}}
        backend.info = dataclasses.replace(backend.info, description=sets)
        assert Predictor(backend)(image).row()["class_set"] == expected


@pytest.mark.parametrize("least", [[0.2], [0.2, 1.5], "much", None])
def test_sets_that_are_none_are_refused(least: object) -> None:
    with pytest.raises(ValueError, match="class_sets: must be a mapping whose least_probability is a number in"):
        dataclasses.replace(_planted().info, description={"class_sets": {"least_probability": least}})
