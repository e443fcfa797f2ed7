"""Learn `orientation.npz` of the input checks from a Train split: `python -m lungseg.benchmarks.fit_orientation ROOT`.

Two thirds of Train and 200 phantoms are learned from; the limits in `inference.input_checks` are read off the
last third. Only numbers averaged over thousands of images are stored; no mask and no network takes part.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from lungseg.benchmarks.input_checks import Image, crop
from lungseg.command import run_command
from lungseg.data.images import read_image
from lungseg.data.index import load_index
from lungseg.data.phantom.generator import draw_phantom
from lungseg.inference.input_checks import orientation
from lungseg.inference.input_checks.orientation import FEATURES, Known, compare, features, spread
from lungseg.runs.whole_files import write_whole

PHANTOMS, MOVED, CROPS, AXES = 200, 3, 2, 80
_CROPPED_TO = (0.3, 0.55)
_DECAY = 1e-5
Rows = NDArray[np.float32]


def main(arguments: argparse.Namespace) -> int:
    """Learn, write, and print what the last third of Train gives."""
    train = [sample.image for sample in load_index(arguments.root) if sample.split == "train"]
    # Some phantoms among them: what is drawn for tests and demonstrations should pass the checks too.
    learned = [read_image(path) for number, path in enumerate(train) if number % 3]
    learned += [draw_phantom(10_000 + number, number % 3, 128).image for number in range(PHANTOMS)]
    known = fit(learned, np.random.default_rng(0))
    file = io.BytesIO()
    # The axes in half precision: 120 of 160 kB less.
    np.savez_compressed(file, **{**known._asdict(), "axes": known.axes.astype(np.float16)})
    write_whole(orientation.FILE, file.getvalue())
    orientation.load_known.cache_clear()
    held = [read_image(path) for path in train[::3]]
    print(
        f"{orientation.FILE}: {orientation.FILE.stat().st_size} bytes, from {len(learned)} images; "
        f"quantiles of {len(held)} others:"
    )
    found = [compare(image) for image in held]
    for name in ("turned", "inverted", "mirrored", "cropped", "distance"):
        values = np.quantile([getattr(each, name) for each in found], (0.5, 0.95, 0.99, 0.995, 0.998, 1))
        print(f"  {name:<9} 50 / 95 / 99 / 99.5 / 99.8 / 100 %: {', '.join(f'{value:.3f}' for value in values)}")
    return 0


def fit(images: list[Image], rng: np.random.Generator) -> Known:
    """Learn from upright frontal chest X-rays (H, W)."""
    whole = np.stack([features(image) for image in images])
    # Shifted, turned a little and scaled, an X-ray is still upright and whole.
    moved = np.stack([features(move(image, rng)) for image in images for _ in range(MOVED)])
    crops = np.stack([features(crop(image, rng, rng.uniform(*_CROPPED_TO))) for image in images for _ in range(CROPS)])
    good = np.concatenate([whole, moved])
    mean = good.mean(axis=0)
    _, _, axes = np.linalg.svd(good - mean, full_matrices=False)
    axes = axes[:AXES]
    away = whole - mean
    left = np.square(away).sum(axis=1) - np.square(away @ axes.T).sum(axis=1)
    usual = np.array([np.sqrt(left.mean())], np.float32)
    return Known(_fit_upright(good), _fit_cropped(good, crops), mean, axes, usual)


def move(image: Image, rng: np.random.Generator) -> Image:
    """Shift by up to 8 %, turn by up to 12 degrees and scale by 0.85 to 1.2 what is outside black or continued."""
    height, width = image.shape
    degrees, zoom = rng.uniform(-12, 12), rng.uniform(0.85, 1.2)
    matrix = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), degrees, zoom), np.float64)
    matrix[:, 2] += rng.uniform(-0.08, 0.08, 2) * np.array([width, height])
    border = (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE)[int(rng.integers(2))]
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), borderMode=border), np.uint8)


def _fit_upright(good: Rows) -> Rows:
    """Softmax over the 16 orientations, of which the first is right."""
    places = torch.from_numpy(spread(np.arange(1, FEATURES + 1)))  # where each of them has each weight, with its sign
    index, sign = places.abs().long() - 1, places.sign()
    rows, right = torch.from_numpy(good).double(), torch.zeros(len(good), dtype=torch.int64)
    return _minimum(lambda weights: F.cross_entropy(rows @ (weights[index] * sign), right), FEATURES)


def _fit_cropped(good: Rows, crops: Rows) -> Rows:
    """Logistic regression, both kinds weighing as many rows as they have."""
    rows = torch.from_numpy(np.concatenate([good, crops])).double()
    is_crop = (torch.arange(len(rows)) >= len(good)).double()

    def loss(weights: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(rows @ weights[:-1] + weights[-1], is_crop)

    return _minimum(loss, FEATURES + 1)


def _minimum(loss: Callable[[Tensor], Tensor], size: int) -> Rows:
    def with_slope(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = torch.from_numpy(values).requires_grad_()
        value = loss(weights) + _DECAY * weights @ weights
        return value.item(), torch.autograd.grad(value, weights)[0].numpy()

    found = minimize(with_slope, np.zeros(size), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return np.asarray(found.x, np.float32)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungseg.benchmarks.fit_orientation", description=__doc__)
    parser.add_argument("root", type=Path, help="data set with a split Train, all images upright")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, _parser()))
