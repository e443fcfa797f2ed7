"""How the network stands up to worse films: every perturbation at rising strengths, image by image.

A perturbation is a function `(images, lung, strength, ids) -> (images, lung)`, (B, 1, H, W) float32 in [0, 1] and
(B, H, W) bool, for strengths above 0. What is drawn at random is drawn from an image's id alone, so that neither the
batch nor the order matters, and the same draw serves all strengths of a curve.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lungseg.data.batch import Batch
from lungseg.data.sample import Sample
from lungseg.evaluation.classification import class_scores, ranking_scores
from lungseg.evaluation.intervals import Numbers, bootstrap, numbers_of
from lungseg.evaluation.outputs import evidence_shares, labels_of, lungs_of
from lungseg.evaluation.results import RobustnessCurve, RobustnessPoint, RobustnessResults
from lungseg.evaluation.statistics import Flags, Integers, means
from lungseg.evaluation.target import EvaluationTarget, show_images
from lungseg.models.metrics import mask_dice
from lungseg.models.network import LungNetwork, LungOutput
from lungseg.runs.progress import cores, no_word

SCORES = ("accuracy", "balanced_accuracy", "auroc", "dice", "evidence_in_lungs", "flipped")
Rows = dict[tuple[str, float, str], NDArray[Any]]
"""By perturbation, strength and what is measured of N images: `class_probs` (N, C) in [0, 1], `dice` (N,) of the
predicted lungs with the true ones, rotated with the image, NaN where these are not known, and `evidence_in_lungs` (N,),
the share of the evidence for the class now predicted that lies in the lungs (true ones, else those predicted at
strength 0), NaN where there is none."""
_MEASURED = ("class_probs", "dice", "evidence_in_lungs")
_UNCHANGED = ("", 0.0)
REPLICATES = 2_000
Pictures = tuple[Tensor, Tensor]
Plane = NDArray[np.float32]
_LETTER = ((1, 1, 1, 1), (1, 0, 0, 0), (1, 1, 1, 0), (1, 0, 0, 0), (1, 0, 0, 0))
"""The marker, an F: no class's mark of the phantoms' planted shortcut, and no R or L."""
_INSET = 0.03  # Distance of the marker from both edges, a share of the side.


def add_noise(images: Tensor, lung: Tensor, strength: float, ids: Sequence[str]) -> Pictures:
    """Add independent normal noise; strength: its standard deviation, of the grey range. Clipped to [0, 1]."""
    white = [_generator(name, "noise").standard_normal(images.shape[1:], dtype=np.float32) for name in ids]
    return (images + strength * torch.from_numpy(np.stack(white)).to(images.device)).clamp(0, 1), lung


def lower_contrast(images: Tensor, lung: Tensor, strength: float, ids: Sequence[str]) -> Pictures:
    """Draw every grey towards the image's mean; strength: the share of the contrast that is lost, in [0, 1]."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (1 - strength) * (images - mean)).clamp(0, 1), lung


def blur(images: Tensor, lung: Tensor, strength: float, ids: Sequence[str]) -> Pictures:
    """Blur by a Gaussian, mirrored at the edges; strength: its standard deviation, a share of the shorter side."""
    sigma_px = strength * min(images.shape[-2:])
    return _each(images, lambda plane: np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma_px), np.float32)), lung


def rotate(images: Tensor, lung: Tensor, strength: float, ids: Sequence[str]) -> Pictures:
    """Rotate image (bilinear) and lungs (nearest) about the centre; strength: degrees, to a side drawn for each image.

    What comes in from outside is black and no lung, as in training.
    """
    height, width = images.shape[-2:]
    turned: list[Plane] = []
    masks = []
    for plane, mask, name in zip(images[:, 0].cpu().numpy(), lung.cpu().numpy(), ids, strict=True):
        angle = strength if _generator(name, "rotate").random() < 0.5 else -strength
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
        turned.append(np.asarray(cv2.warpAffine(plane, matrix, (width, height), flags=cv2.INTER_LINEAR), np.float32))
        nearest = cv2.warpAffine(mask.astype(np.uint8), matrix, (width, height), flags=cv2.INTER_NEAREST)
        masks.append(nearest > 0)
    return _images(turned, images), torch.from_numpy(np.stack(masks)).to(lung.device)


def compress(images: Tensor, lung: Tensor, strength: float, ids: Sequence[str]) -> Pictures:
    """Store as JPEG and read again; strength: 100 minus the quality, in (0, 100)."""

    def through_jpeg(plane: Plane) -> Plane:
        grey, quality = np.rint(plane * 255).astype(np.uint8), round(100 - strength)
        _, stored = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(stored, cv2.IMREAD_GRAYSCALE), np.float32) / np.float32(255)

    return _each(images, through_jpeg), lung


def paste_marker(images: Tensor, lung: Tensor, strength: float, ids: Sequence[str]) -> Pictures:
    """Paste a white letter into a corner; strength: the letter's height, a share of the shorter side.

    The corner is the one with the fewest lung pixels under the letter, among equals one drawn for each image: the class
    has no say in it. Pixels of the lungs are never touched.
    """
    marked = images.clone()
    for image, mask, name in zip(marked, lung, ids, strict=True):
        places = _corner_letters(image.shape[-2], image.shape[-1], strength)
        covered = [int((place & mask.cpu().numpy()).sum()) for place in places]
        free = np.flatnonzero(np.array(covered) == min(covered))
        letter = torch.from_numpy(places[int(_generator(name, "marker").choice(free))]).to(mask.device)
        image[0, letter & ~mask] = 1.0
    return marked, lung


class Perturbation(NamedTuple):
    """One way to make an image worse."""

    change: Callable[[Tensor, Tensor, float, Sequence[str]], Pictures]
    strengths: tuple[float, ...]  # Above 0, rising; 0, the image as it is, is measured once for all.
    unit: str  # What a strength means.


PERTURBATIONS: dict[str, Perturbation] = {
    "noise": Perturbation(add_noise, (0.02, 0.05, 0.1, 0.2), "standard deviation, share of the grey range"),
    "contrast": Perturbation(lower_contrast, (0.25, 0.5, 0.75, 0.9), "share of the contrast lost"),
    "blur": Perturbation(blur, (0.005, 0.01, 0.02, 0.04), "standard deviation, share of the side"),
    "rotation": Perturbation(rotate, (5.0, 10.0, 20.0, 30.0), "degrees, to either side"),
    "jpeg": Perturbation(compress, (50.0, 80.0, 90.0, 95.0), "100 - quality"),
    "marker": Perturbation(paste_marker, (0.05, 0.08, 0.12, 0.16), "height of the letter, share of the side"),
}
PASSES = 1 + sum(len(perturbation.strengths) for perturbation in PERTURBATIONS.values())  # Forward passes an image.


def measure_robustness(
    target: EvaluationTarget, say: Callable[[str], None] = no_word, images: int | None = None
) -> RobustnessResults:
    """Run the network on every perturbation of every image.

    Images whose class probabilities are not finite at some strength are left out and counted. Accuracies are over the
    images with a label. Every curve starts with the same point at strength 0.
    """
    samples, rows = show_perturbed(target, say, images)
    # One set of images for all points: a curve must not change because other images are behind its next point.
    finite = np.all([np.isfinite(v).all(axis=1) for (*_, what), v in rows.items() if what == "class_probs"], axis=0)
    samples = [sample for sample, use in zip(samples, finite, strict=True) if use]
    before = _predicted(rows[*_UNCHANGED, "class_probs"][finite])

    def point(name: str, strength: float) -> RobustnessPoint:
        measured = {what: rows[name, strength, what][finite] for what in _MEASURED}
        return _point(strength, measured, samples, before, target.classes)

    # In threads, for their intervals take seconds, and NumPy lets others run.
    keys = [_UNCHANGED, *((name, s) for name, perturbation in PERTURBATIONS.items() for s in perturbation.strengths)]
    with ThreadPoolExecutor(cores()) as pool:
        points = dict(zip(keys, pool.map(lambda key: point(*key), keys), strict=True))
    curves = {
        name: RobustnessCurve(
            perturbation.unit, [points[_UNCHANGED], *(points[name, s] for s in perturbation.strengths)]
        )
        for name, perturbation in PERTURBATIONS.items()
    }
    return RobustnessResults(len(samples), int(np.count_nonzero(~finite)), curves)


def show_perturbed(
    target: EvaluationTarget, say: Callable[[str], None] = no_word, images: int | None = None
) -> tuple[list[Sample], Rows]:
    """The `PASSES` forward passes an image; arguments and result as of `show_images`."""
    study = f"robustness on {{}}, {PASSES} passes each"
    return show_images(target, lambda batch: _measure(target, batch), study, say, images)


def _measure(target: EvaluationTarget, batch: Batch) -> dict[tuple[str, float, str], Tensor]:
    images, known, network = batch["image"], batch["has_lung"], target.network
    with torch.no_grad():
        output = network(images)
        # Lungs predicted on a changed image would hide that the map has left them: those of strength 0 hold for all.
        lung = lungs_of(batch, output)
        rows = _rows(_UNCHANGED, network, output, lung, known)
        for name, perturbation in PERTURBATIONS.items():
            for strength in perturbation.strengths:
                changed, moved = perturbation.change(images, lung, strength, batch["id"])
                rows |= _rows((name, strength), network, network(changed), moved, known)
    return rows


def _rows(
    key: tuple[str, float], network: LungNetwork, output: LungOutput, lung: Tensor, known: Tensor
) -> dict[tuple[str, float, str], Tensor]:
    """Of one pass; lung (B, H, W) bool is the mask to hold it against, the true one where known (B,) bool."""
    predicted = output.mask_logits.shape[1] > 0
    dice = mask_dice(output.lung(), lung).where(known & predicted, torch.nan)
    evidence = evidence_shares(output, lung, network.stride).where(known | predicted, torch.nan)
    class_probs = network.probabilities(output.class_logits.double())
    values = class_probs, dice, evidence
    return {(*key, what): value for what, value in zip(_MEASURED, values, strict=True)}


def _point(
    strength: float,
    rows: dict[str, NDArray[Any]],
    samples: Sequence[Sample],
    before: Integers,
    classes: tuple[str, ...],
) -> RobustnessPoint:
    """A point of a curve from the rows of all images; before (N,) is the class predicted at strength 0."""
    now = _predicted(rows["class_probs"])
    flipped = now != before
    counts = np.bincount(now[flipped], minlength=len(classes))
    scores: Numbers = {}
    if samples:
        label = labels_of(samples)
        values = {"dice": rows["dice"]}
        values |= {"evidence_in_lungs": rows["evidence_in_lungs"], "flipped": flipped} if classes else {}
        of_classes = class_scores if label.ndim == 1 else ranking_scores
        statistics = [of_classes(rows["class_probs"], label, classes)] if classes else []
        groups = [sample.group for sample in samples]
        intervals = bootstrap([*statistics, means(values)], len(samples), groups, REPLICATES)
        scores = numbers_of({name: intervals[name] for name in SCORES if name in intervals})
    return RobustnessPoint(strength, scores, dict(zip(classes, counts.tolist(), strict=True)))


def _predicted(class_probs: NDArray[Any]) -> Integers:
    """(N,) class of the highest probability; 0 without classes."""
    return class_probs.argmax(axis=1) if class_probs.shape[1] else np.zeros(len(class_probs), np.int64)


def _generator(name: str, purpose: str) -> np.random.Generator:
    """The random stream of an image's id for one perturbation."""
    digest = hashlib.blake2b(f"{purpose}\0{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _images(planes: Sequence[Plane], like: Tensor) -> Tensor:
    """(B, 1, H, W) float32 where `like` is, within [0, 1]."""
    return torch.from_numpy(np.stack(planes)[:, None]).clamp(0, 1).to(like.device)


def _each(images: Tensor, change: Callable[[Plane], Plane]) -> Tensor:
    """Apply a function of (H, W) float32 to each image."""
    return _images([change(plane) for plane in images[:, 0].cpu().numpy()], images)


def _corner_letters(height: int, width: int, share: float) -> list[Flags]:
    """The marker in each corner, four masks (H, W)."""
    side = min(height, width)
    tall = max(5, round(share * side))
    wide, inset = max(4, round(tall * 0.8)), round(_INSET * side)
    letter = cv2.resize(np.array(_LETTER, np.uint8), (wide, tall), interpolation=cv2.INTER_NEAREST) > 0
    found = []
    for top in (inset, height - inset - tall):
        for left in (inset, width - inset - wide):
            mask = np.zeros((height, width), np.bool_)
            mask[top : top + tall, left : left + wide] = letter
            found.append(mask)
    return found
