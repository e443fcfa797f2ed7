"""The shortcut probe: how well a linear model tells the class from pixels that hold no disease, or hardly any image.

A data set whose border predicts the class will teach a network the border. Three views of each image at 32x32: all
of it, its border alone, and all of it with the lungs blanked.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from lungseg.auditing.integrity import THUMBNAIL_PX
from lungseg.data.sample import Sample

VIEWS = ("thumbnail", "border", "lungs blanked")
BORDER_PX = 3  # Width of the border, of 32 pixels.
FOLDS = 5
MOST_IMAGES = 12_000  # Of more, as many are used, spread evenly over the list: enough to tell chance from a shortcut.
DEVIATIONS = 3.0
LEAST_ABOVE = 0.1
"""A view is a shortcut if its balanced accuracy is above chance by more than this and by more than `DEVIATIONS`
standard deviations of what guessing would give."""

Features = npt.NDArray[np.float32]  # (n, d) float32 in [0, 1].
Flags = npt.NDArray[np.bool_]


class Probe(NamedTuple):
    """How well one view tells the class on images that were not fitted."""

    view: str  # One of `VIEWS`.
    accuracy: float  # Mean over the classes of the share recognised, in [0, 1].
    chance: float
    deviation: float  # Standard deviation of the accuracy of guesses with the same frequencies.
    fitted: int  # Images the model was fitted on; with folds, all.
    tested: int

    @property
    def is_shortcut(self) -> bool:
        """Whether the view holds no disease and still tells the class; the whole thumbnail may show the disease."""
        above = self.accuracy - self.chance
        return self.view != "thumbnail" and above > max(LEAST_ABOVE, DEVIATIONS * self.deviation)


def probe_shortcuts(
    samples: Sequence[Sample], thumbnails: npt.NDArray[np.uint8], covers: npt.NDArray[np.uint8]
) -> list[Probe]:
    """Fit on train and test on val (without val on test; without either in five folds, by patient where known).

    Args:
        samples: Those with a label are used.
        thumbnails: (n, 32, 32) uint8.
        covers: (n, 32, 32) uint8: share of each pixel that is lung, of 255; all 0 where unknown. Lungs are blanked
            with a margin of one pixel; images without lungs are left out of that view.

    Returns:
        A probe a view; none for a view with fewer than two classes to fit, or to test, or ten images to test.
    """
    if len(samples) > MOST_IMAGES:
        used = np.linspace(0, len(samples) - 1, MOST_IMAGES).astype(int)
        samples, thumbnails, covers = [samples[at] for at in used], thumbnails[used], covers[used]
    labels = np.array([-1 if sample.label is None else sample.label for sample in samples])
    has_lungs = covers.any(axis=(1, 2))
    held_out = _held_out(samples)
    probes = []
    for view in VIEWS:
        used = np.flatnonzero((labels >= 0) & has_lungs if view == "lungs blanked" else labels >= 0)
        features = _features(view, thumbnails[used], covers[used]).astype(np.float32) / np.float32(255)
        probe = _probe(view, features, labels[used], [(fit[used], test[used]) for fit, test in held_out])
        probes += [probe] if probe else []
    return probes


def _held_out(samples: Sequence[Sample]) -> list[tuple[Flags, Flags]]:
    """Which samples are fitted and which are tested, once or once a fold."""
    splits = np.array([sample.split for sample in samples])
    for tested in ("val", "test"):
        if (splits == tested).any() and (splits == "train").any():
            return [(splits == "train", splits == tested)]
    names = (sample.group or sample.id for sample in samples)
    folds = np.array([hashlib.blake2b(name.encode("utf-8", "surrogateescape")).digest()[0] % FOLDS for name in names])
    return [(folds != fold, folds == fold) for fold in range(FOLDS)]


def _features(view: str, thumbnails: npt.NDArray[np.uint8], covers: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(n, 32, 32) -> (n, d): the pixels of a view."""
    if view == "border":
        border = np.ones((THUMBNAIL_PX, THUMBNAIL_PX), np.bool_)
        border[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = False
        return thumbnails[:, border]
    pictures = thumbnails.copy()
    if view == "lungs blanked":
        for picture, cover in zip(pictures, covers, strict=True):
            picture[cv2.dilate(cover, np.ones((3, 3), np.uint8)) > 0] = 128
    return pictures.reshape(len(pictures), THUMBNAIL_PX**2)


def _probe(
    view: str, features: Features, labels: npt.NDArray[np.int64], held_out: Sequence[tuple[Flags, Flags]]
) -> Probe | None:
    guesses = np.full(len(labels), -1)
    fitted = 0
    for fit, test in held_out:
        if len(np.unique(labels[fit])) > 1 and test.any():
            guesses[test] = _ridge(features[fit], labels[fit], features[test])
            fitted += int(np.count_nonzero(fit if len(held_out) == 1 else test))
    tested = guesses >= 0
    guesses, truth = guesses[tested], labels[tested]
    classes, counts = np.unique(truth, return_counts=True)
    if len(classes) < 2 or len(truth) < 10:
        return None
    recalls = [float((guesses[truth == label] == label).mean()) for label in classes]
    rates = np.array([(guesses == label).mean() for label in classes])
    # Guesses with these rates are right by chance: each recall is then binomial, and the accuracy is their mean.
    deviation = math.sqrt(float((rates * (1 - rates) / counts).sum())) / len(classes)
    return Probe(view, float(np.mean(recalls)), 1 / len(classes), deviation, fitted, len(truth))


def _ridge(fit: Features, labels: npt.NDArray[np.int64], test: Features) -> npt.NDArray[np.int64]:
    """Fit ridge regression on one-hot classes, each class with equal weight, and give the class of the test rows.

    The penalty is the one of least generalised cross-validation error (Golub, Heath and Wahba 1979).
    """
    classes, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights = (len(labels) / (len(classes) * counts))[which].astype(np.float32)
    weights /= weights.sum()
    centre = weights @ fit
    targets = np.eye(len(classes), dtype=np.float32)[which]
    middle = weights @ targets
    root = np.sqrt(weights)[:, None]
    y = (targets - middle) * root
    axes, strength, along = _decompose((fit - centre) * root, y)
    if not len(strength):  # all pictures are the same
        return np.full(len(test), classes[0])
    # In the basis of principal axes every penalty costs a few products, so all are tried.
    power, penalties, errors = float((y**2).sum()), strength.mean() * np.logspace(-5, 3, 17), []
    for penalty in penalties:
        kept = strength / (strength + penalty)
        rest = power - float((along**2 / (strength + penalty)[:, None] * (2 - kept)[:, None]).sum())
        errors.append(rest / max(1e-9, 1 - (1 + kept.sum()) / len(fit)) ** 2)
    slopes = axes @ (along / (strength + penalties[int(np.argmin(errors))])[:, None])
    return np.asarray(classes[np.argmax((test - centre) @ slopes + middle, axis=1)])


def _decompose(x: Features, y: Features) -> tuple[npt.NDArray[np.float64], ...]:
    """Principal axes (d, k) of x (n, d), sums of squares (k,) along them, and their products (k, c) with y (n, c)."""
    few = len(x) < x.shape[1]  # then the products of images with images are the smaller matrix, of the same strength
    strength, vectors = np.linalg.eigh((x @ x.T if few else x.T @ x).astype(np.float64))
    used = strength > 1e-7 * strength[-1]
    strength, vectors = strength[used], vectors[:, used]
    if few:
        root = np.sqrt(strength)
        return x.T.astype(np.float64) @ vectors / root, strength, root[:, None] * (vectors.T @ y)
    return vectors, strength, vectors.T @ (x.T @ y)
