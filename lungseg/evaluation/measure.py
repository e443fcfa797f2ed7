"""Everything measured of each image of a split, before any statistic: masks, classes, and class maps.

One pass of the network over the split and one over Val (for what is tuned there); all else is done on what they leave.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.config import DataConfig
from lungseg.data.dicom import read_dicom
from lungseg.data.dicom_file import is_dicom
from lungseg.data.geometry import Letterbox
from lungseg.data.sample import Sample
from lungseg.evaluation.class_maps import MapMeasurements, measure_baselines, measure_maps
from lungseg.evaluation.class_sets import class_sets
from lungseg.evaluation.infection_scores import measure_severity
from lungseg.evaluation.outputs import (
    CLOSED_FORM,
    BatchOutputs,
    CamMethod,
    MapClass,
    Picture,
    check_cam_methods,
    collect_outputs,
)
from lungseg.evaluation.segmentation import measure_masks
from lungseg.evaluation.statistics import Flags, Floats, Integers
from lungseg.evaluation.target import EvaluationTarget
from lungseg.evaluation.temperature import Tuned, to_probabilities
from lungseg.runs.progress import cores, no_word
from lungseg.runs.whole_files import digest


@dataclass(frozen=True)
class MaskResults:
    """Scores of one kind of mask."""

    index: Integers  # (K,) images of the split that have a true mask.
    scores: dict[str, NDArray[Any]]  # (K,) each: what `measure_masks` gives, of infections also `measure_severity`.


@dataclass(frozen=True)
class Measured:
    """All that is known of the N images of a split."""

    classes: tuple[str, ...]
    samples: list[Sample]
    logits: Floats  # (N, C).
    label: Integers
    """(N,), -1 where unknown; (N, C) 1 there, 0 not there, -1 unknown where an image may have several classes."""
    masks: dict[str, MaskResults]
    """`lung`, and `infection` if the network predicts it; only kinds of which there is a true mask."""
    infection_known: Flags  # (N,) whether an infection mask, empty or not, says what there is.
    broken_masks: int  # Images whose mask logits are not all finite.
    maps: dict[CamMethod, MapMeasurements]
    baselines: dict[str, dict[str, Floats]]  # What `measure_baselines` gives.
    val_logits: Floats | None
    """(M, C) of Val; None if that is the split itself, is not there, or belongs to another data set."""
    val_label: Integers | None  # (M,) or (M, C).
    halves: Integers  # (N,) `EvaluationTarget.halves`.
    disagreement: Floats | None = None  # (N, 2) of an ensemble: classes, lungs; as `LungOutput.disagreement`.

    @property
    def probs(self) -> Floats:
        """(N, C) in [0, 1], as the network gives them; NaN where it does not."""
        return to_probabilities(self.logits, self.multi_label)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes, or none."""
        return self.label.ndim == 2

    @property
    def groups(self) -> list[str | None]:
        """(N,) patient or study."""
        return [sample.group for sample in self.samples]


def measure(
    target: EvaluationTarget,
    cam_methods: Sequence[CamMethod] = (CLOSED_FORM,),
    map_class: MapClass = "predicted",
    show: Callable[[Picture], None] | None = None,
    say: Callable[[str], None] = no_word,
) -> Measured:
    """Measure every image of the split of a target.

    The first CAM method gives the maps for `show`, which gets every image (as of `collect_outputs`) while the network
    passes over them; `say` gets what is being done, in words.

    Raises:
        UserError: Unknown method or layer.
    """
    outputs, tuning = run_network(target, cam_methods, map_class, show, say)
    halves, maps = target.halves(), {}
    say("masks")
    masks = _measure_masks(target, outputs)
    for method in cam_methods:
        say(f"class maps of {method.method} at {method.layer}")
        maps[method] = measure_maps(target, method, outputs, tuning, halves)
    # Val of another data set must not choose a temperature: the one kept with the model is what a user gets.
    val = tuning if target.data_origin != "other" else None
    return Measured(
        classes=target.classes,
        samples=target.samples,
        logits=np.concatenate([batch.logits for batch in outputs]),
        label=np.concatenate([batch.label for batch in outputs]),
        masks=masks,
        infection_known=np.concatenate([batch.known["infection"] for batch in outputs]),
        broken_masks=sum(int(np.count_nonzero(~batch.finite_masks)) for batch in outputs),
        maps=maps,
        baselines=measure_baselines(target, outputs, tuning, halves) if maps else {},
        val_logits=np.concatenate([batch.logits for batch in val]) if val else None,
        val_label=np.concatenate([batch.label for batch in val]) if val else None,
        halves=halves,
        disagreement=_joined([batch.disagreement for batch in outputs]),
    )


def _joined(parts: Sequence[Floats | None]) -> Floats | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if known else None


def run_network(
    target: EvaluationTarget,
    cam_methods: Sequence[CamMethod],
    map_class: MapClass,
    show: Callable[[Picture], None] | None = None,
    say: Callable[[str], None] = no_word,
) -> tuple[list[BatchOutputs], list[BatchOutputs] | None]:
    """The forward passes of `measure`, shared by all processes: over the split, and over Val if it is another."""
    check_cam_methods(target, cam_methods)
    say(f"network on {len(target.samples)} images of {target.split_name}")
    outputs = collect_outputs(target, cam_methods, map_class, show=show)
    if target.split == "val" or target.all_images or target.val_is_learned or not target.data.samples["val"]:
        return outputs, None
    say(f"network on {len(target.data.samples['val'])} images of val, to tune what is tuned")
    return outputs, collect_outputs(target, cam_methods, map_class, "val")


def _measure_masks(target: EvaluationTarget, outputs: Sequence[BatchOutputs]) -> dict[str, MaskResults]:
    """Score the predicted masks of all images that have a true one."""
    spacing = read_spacings(target.samples, target.config.data)
    ends = np.cumsum([len(batch.label) for batch in outputs])

    def of_batch(batch: BatchOutputs, end: int) -> dict[str, dict[str, NDArray[Any]]]:
        scores = {}
        for kind in ("lung", "infection"):
            known = np.flatnonzero(batch.known[kind])
            if len(known) and f"predicted_{kind}" in batch.packed:
                predicted, true = (batch.mask(name).numpy()[known] for name in (f"predicted_{kind}", kind))
                index = end - len(batch.label) + known
                scores[kind] = {"index": index} | measure_masks(predicted, true, spacing[index], kind == "lung")
                scores[kind] |= measure_severity(batch, known) if kind == "infection" else {}
        return scores

    # Threads suffice: OpenCV and the search for nearest pixels, which take the time, let go of the interpreter.
    with ThreadPoolExecutor(cores()) as pool:
        parts = list(target.track(pool.map(of_batch, outputs, ends), len(outputs)))
    results = {}
    for kind in ("lung", "infection"):
        if of_kind := [part[kind] for part in parts if kind in part]:
            joined = {name: np.concatenate([part[name] for part in of_kind]) for name in of_kind[0]}
            results[kind] = MaskResults(joined.pop("index"), joined)
    return results


def read_spacings(samples: Sequence[Sample], config: DataConfig) -> Floats:
    """Height and width in mm of a pixel as the network sees the image: (N, 2), NaN where it is not known.

    Where only the spacing at the detector is stored, distances are magnified (`dicom.DicomImage.spacing_mm`).
    """
    spacings = np.full((len(samples), 2), np.nan)
    for index, sample in enumerate(samples):
        if not is_dicom(sample.image):
            continue
        image = read_dicom(sample.image)
        if image.spacing_mm is not None:
            shape = image.pixels.shape[0], image.pixels.shape[1]
            content = Letterbox.of(shape, config.image_size, config.keep_aspect).content
            # a letterboxed image has fewer or more pixels than the file, so each of them is larger or smaller
            spacings[index] = [mm * n / m for mm, n, m in zip(image.spacing_mm, shape, content, strict=True)]
    return spacings


def image_columns(measured: Measured, method: CamMethod | None, tuned: Tuned) -> dict[str, list[Any]]:
    """The columns of per_image.csv, a value an image, in the order of the split.

    `id`, `digest` (of the image's file: runs are compared on the same images), `group`, `label`, `predicted` (both
    empty where unknown), `class_set` (names with `|` between them), `correct`, `confidence` (probability of the
    class predicted) and `confidence_scaled` (after temperature scaling), `prob_CLASS`; of an ensemble
    `disagreement_classes` and `disagreement_lungs`; scores of the lung mask under
    their own names (`dice`, ...) and of the infection mask as `infection_...`; then those of one CAM method. NaN marks
    what is not known or undefined. Where an image may have several classes, `label` and `predicted` (those from their
    operating points on) are names with `|` between them or `none`, `true_CLASS` is 1, 0 or empty, and there is neither
    a set nor a confidence.
    """
    probs, samples = measured.probs, measured.samples
    words, columns = (_finding_columns if measured.multi_label else _class_columns)(measured, tuned)
    columns |= {f"prob_{name}": probs[:, index] for index, name in enumerate(measured.classes)}
    if (apart := measured.disagreement) is not None:
        columns |= {"disagreement_classes": apart[:, 0], "disagreement_lungs": apart[:, 1]}
    for kind, result in measured.masks.items():
        for name, values in result.scores.items():
            column = columns[name if kind == "lung" else f"{kind}_{name}"] = np.full(len(samples), np.nan)
            column[result.index] = values
    columns["has_infection_mask"] = measured.infection_known
    about: dict[str, list[Any]] = {
        "id": [sample.id for sample in samples],
        "digest": [digest(sample.image) for sample in samples],
        "group": [sample.group for sample in samples],
    }
    columns |= {} if method is None else measured.maps[method].per_image
    return about | words | {name: values.tolist() for name, values in columns.items()}


Columns = tuple[dict[str, list[Any]], dict[str, NDArray[Any]]]  # Words and numbers.


def _class_columns(measured: Measured, tuned: Tuned) -> Columns:
    """What is known and predicted of one class an image."""
    probs, label = measured.probs, measured.label
    scaled = to_probabilities(measured.logits / tuned.temperature[:, None], False)
    known, names = ~np.isnan(probs).any(axis=1) & bool(measured.classes), [*measured.classes, ""]
    predicted, most = np.full(len(label), -1), [np.full(len(label), np.nan)] * 2
    if measured.classes:
        predicted = np.where(known, np.nan_to_num(probs).argmax(axis=1), -1)
        most = [probs.max(axis=1), scaled.max(axis=1)]
    words = {"label": [names[index] for index in label], "predicted": [names[index] for index in predicted]}
    if measured.classes:
        there = np.asarray(known & ~np.isnan(tuned.least).any(axis=1), np.bool_)
        sets = [np.flatnonzero(row) for row in class_sets(scaled, tuned.least) & there[:, None]]
        words["class_set"] = ["|".join(names[index] for index in row) for row in sets]
    correct = np.where(known & (label >= 0), predicted == label, np.nan)
    return words, {"correct": correct, "confidence": most[0], "confidence_scaled": most[1]}


def _finding_columns(measured: Measured, tuned: Tuned) -> Columns:
    """What is known and called of several findings an image; without an operating point from one half on."""
    probs, label = measured.probs, measured.label
    called = probs >= np.nan_to_num(tuned.thresholds, nan=0.5)
    broken, known = np.isnan(probs).any(axis=1), label >= 0

    def named(flags: Flags, unknown: Flags) -> list[str]:
        rows = [[name for name, flag in zip(measured.classes, row, strict=True) if flag] for row in flags]
        return ["" if lacking else "|".join(row) or "none" for row, lacking in zip(rows, unknown, strict=True)]

    words = {"label": named(label == 1, np.asarray(~known.any(axis=1))), "predicted": named(called, np.asarray(broken))}
    right = np.where(known, called == (label == 1), True).all(axis=1)
    marks = np.where(known, label, np.nan)
    columns = {f"true_{name}": marks[:, index] for index, name in enumerate(measured.classes)}
    return words, {"correct": np.where(known.any(axis=1) & ~broken, right, np.nan)} | columns
