from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lungseg.evaluation.classification import class_caveats, class_scores, confusion_matrix, usable
from lungseg.evaluation.statistics import score_set
from lungseg.models.metrics import confusion_scores

CLASSES = ("a", "b", "c")
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def draw(images: int = 60, seed: int = 0) -> tuple[Floats, Labels]:
    """Probabilities (N, 3), right more often than not, and labels (N,)."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, images)
    logits = generator.normal(size=(images, 3)) + 1.5 * np.eye(3)[label]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), label


def sure(predicted: list[int]) -> Floats:
    """Probabilities of a classifier that is certain."""
    return np.eye(3)[predicted]


def test_scores_equal_scikit_learns() -> None:
    from sklearn import metrics

    probs, label = draw()
    predicted, found = probs.argmax(axis=1), score_set(class_scores(probs, label, CLASSES), 60)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(label, predicted)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(label, predicted))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(label, predicted))
    assert found["f1"] == pytest.approx(f1.mean())
    for index, name in enumerate(CLASSES):
        assert found[f"precision_{name}"] == pytest.approx(precision[index])
        assert found[f"sensitivity_{name}"] == pytest.approx(recall[index])
        assert found[f"f1_{name}"] == pytest.approx(f1[index])
        specificity = metrics.recall_score(label != index, predicted != index)
        assert found[f"specificity_{name}"] == pytest.approx(specificity)
    assert np.array_equal(confusion_matrix(probs, label), metrics.confusion_matrix(label, predicted))


@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1, 2], [0, 0, 1, 1, 1, 0], [2] * 6])
def test_scores_equal_those_logged_in_training(labels: list[int]) -> None:
    probs, label = sure([0, 1, 1, 1, 2, 0]), np.array(labels)
    found = score_set(class_scores(probs, label, CLASSES), 6)
    logged = confusion_scores(torch.from_numpy(confusion_matrix(probs, label)), CLASSES)
    assert {name: found[name] for name in logged} == pytest.approx({n: float(value) for n, value in logged.items()})


def test_a_weight_counts_an_image_that_often() -> None:
    probs, label = draw()
    weights = np.random.default_rng(1).integers(0, 4, (5, 60))
    found = class_scores(probs, label, CLASSES)(weights.astype(float))
    for row, counts in enumerate(weights):
        repeated = np.repeat(np.arange(60), counts)
        expected = score_set(class_scores(probs[repeated], label[repeated], CLASSES), len(repeated))
        assert {name: values[row] for name, values in found.items()} == pytest.approx(expected)


@pytest.mark.filterwarnings("error")
def test_what_has_no_denominator_is_undefined_and_told() -> None:
    probs, label = sure([0, 0, 2, 0]), np.array([0, 1, 1, 1])  # no image of c; b never predicted
    found = score_set(class_scores(probs, label, CLASSES), 4)
    assert [name for name, value in found.items() if np.isnan(value)] == ["sensitivity_c", "precision_b", "f1_c"]
    assert found["balanced_accuracy"] == 0.5 and found["precision_c"] == 0 and found["f1"] == 0.25
    assert class_caveats(probs, label, CLASSES) == [
        "b: never predicted; precision is undefined",
        "c: no image is of this class; sensitivity, F1, AUROC, average precision are undefined",
    ]


def test_classes_that_are_never_predicted_are_told_together_where_they_are_many() -> None:
    said = class_caveats(sure([0] * 3), np.array([0, 1, 2]), CLASSES)
    assert said == [f"{name}: never predicted; precision is undefined" for name in "bc"]
    many = class_caveats(np.eye(9)[[0] * 9], np.arange(9), list("abcdefghi"))
    assert many == ["b, c, d and 5 more classes: never predicted; precision is undefined"]


@pytest.mark.filterwarnings("error")
def test_images_all_of_one_class() -> None:
    probs, label = sure([0, 0, 1]), np.array([0, 0, 0])
    found = score_set(class_scores(probs, label, CLASSES), 3)
    assert found["accuracy"] == found["balanced_accuracy"] == pytest.approx(2 / 3)
    assert np.isnan(found["specificity_a"]) and found["specificity_b"] == pytest.approx(2 / 3)
    assert class_caveats(probs, label, CLASSES)[0] == (
        "a: every image is of this class; specificity, AUROC, average precision are undefined"
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_unlabelled_images_and_broken_probabilities_are_left_out_and_told(broken: float) -> None:
    probs, label = draw(9)
    label[3], probs[5, 1] = -1, broken
    kept = np.delete(np.arange(9), [3, 5])
    assert np.array_equal(np.flatnonzero(usable(probs, label)), kept)
    found, expected = (
        score_set(class_scores(probs[part], label[part], CLASSES), len(part)) for part in (np.arange(9), kept)
    )
    assert found == pytest.approx(expected, nan_ok=True)
    assert confusion_matrix(probs, label).sum() == 7
    notes = class_caveats(probs, label, CLASSES)
    assert notes[0] == "1 of 9 images have no label: left out of every classification score"
    assert notes[1].startswith("1 of 9 images have class probabilities that are not finite: left out")


@pytest.mark.filterwarnings("error")
def test_without_a_usable_image_all_is_undefined() -> None:
    probs, label = np.full((2, 3), np.nan), np.array([0, -1])
    assert all(np.isnan(value) for value in score_set(class_scores(probs, label, CLASSES), 2).values())
    assert class_caveats(probs, label, CLASSES)[-1] == (
        "no image has both a label and finite probabilities: classification is not measured"
    )


def test_of_equal_probabilities_the_first_class_is_predicted() -> None:
    assert confusion_matrix(np.full((1, 3), 1 / 3), np.array([2])).tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_a_sound_set_has_no_notes() -> None:
    assert class_caveats(*draw(), CLASSES) == []
