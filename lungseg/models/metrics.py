"""Scores of one stage, from probabilities and hard masks, never logits; they add up exactly over batches and processes.

Adding a batch reads nothing on the host: images that do not count have a weight of 0, they are not picked out.

Rules for empty masks: both empty scores 1, one empty scores 0; `empty_truth` and `empty_prediction` count the cases.
`infection_dice_infected` and `infection_iou_infected` are means over the images with infection alone.
"""

import warnings
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lungseg.models.losses import Term
from lungseg.models.rankings import Rankings


def mask_dice(predicted: Tensor, true: Tensor) -> Tensor:
    """Dice (N,) float64 of hard masks (N, H, W) bool: `2 |A & B| / (|A| + |B|)`, 1 where both are empty."""
    overlap = (predicted & true).sum(dim=(1, 2))
    return _ratio_or_one(2 * overlap, predicted.sum(dim=(1, 2)) + true.sum(dim=(1, 2)))


class Sums(Metric):
    """Float64 sums over images, in which counts are exact; torchmetrics adds them up over processes."""

    full_state_update = False
    sums: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")


class Counts(Sums):
    """A table of counts that batches add to."""

    def update(self, counts: Tensor) -> None:
        """Add counts of the shape of the table."""
        self.sums = self.sums + counts

    def compute(self) -> Tensor:
        """The table."""
        return self.sums


class MaskScores(Sums):
    """Dice and IoU an image and global, pixel accuracy, and counts of empty masks."""

    def __init__(self) -> None:
        super().__init__(10)

    def update(self, predicted: Tensor, true: Tensor, known: Tensor | None = None) -> None:
        """Add images: predicted and true (N, H, W) bool; those that are not `known` (N,) bool do not count."""
        overlap, equal = (predicted & true).sum(dim=(1, 2)), (predicted == true).sum(dim=(1, 2))
        sizes = predicted.sum(dim=(1, 2)), true.sum(dim=(1, 2))
        iou = _ratio_or_one(overlap, sizes[0] + sizes[1] - overlap)
        images = torch.ones_like(iou)
        columns = mask_dice(predicted, true), iou, overlap, *sizes, equal, images * true.shape[1:].numel(), images
        table = torch.stack([*columns, sizes[1] == 0, sizes[0] == 0])
        self.sums = self.sums + (table if known is None else table * known).sum(dim=1)

    def compute(self) -> dict[str, Tensor]:
        """Scores by name, float64; empty dict if no image had a mask."""
        dice, iou, overlap, predicted, true, equal, pixels, images, empty_truth, empty_prediction = self.sums
        if not images:
            return {}
        return {
            "dice": dice / images,
            "dice_global": _ratio_or_one(2 * overlap, predicted + true),
            "iou": iou / images,
            "pixel_accuracy": equal / pixels,
            "empty_truth": empty_truth,
            "empty_prediction": empty_prediction,
        }


class TermMean(Sums):
    """Weighted mean of a loss term over all images added; torchmetrics' own mean hides NaN or drops the weights."""

    def __init__(self) -> None:
        super().__init__(2)

    def update(self, term: Term) -> None:
        """Add the images of a batch."""
        total = torch.where(term.weights > 0, term.values.detach() * term.weights, 0).sum()
        self.sums = self.sums + torch.stack([total, term.weights.sum()])

    def compute(self) -> Tensor:
        """Scalar float64; NaN if no image had the target, or if a loss is."""
        return self.sums[0] / self.sums[1]


class EvidenceShares(Sums):
    """Mean share of evidence inside the lungs, over all images and over each class; counts of the undefined."""

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(3, len(classes) + 1)  # by label, the unknown one last
        self.classes = tuple(classes)

    def update(self, share: Tensor, label: Tensor) -> None:
        """Add images: share (B,) float32, NaN where a map holds no positive evidence; label (B,) int64, -1 unknown."""
        of_label = one_hot(label.where(label >= 0, len(self.classes)), len(self.classes) + 1).double()
        undefined = share.isnan()
        self.sums = self.sums + torch.stack([share.where(~undefined, 0).double(), ~undefined, undefined]) @ of_label

    def compute(self) -> dict[str, Tensor]:
        """`evidence_in_lungs`, the same for each class, and `evidence_undefined`; without any image, {}."""
        total, count, undefined = self.sums
        if not (count + undefined).any():
            return {}
        named = {f"evidence_in_lungs_{name}": total[i] / count[i] for i, name in enumerate(self.classes)}
        whole = {"evidence_in_lungs": total.sum() / count.sum()}
        return whole | named | {"evidence_undefined": undefined.sum()}


class Localization(Sums):
    """How often the peak of a class map lies on the infection, and how much of its evidence does; infected images."""

    def __init__(self) -> None:
        super().__init__(3)

    def update(self, cam: Tensor, infection: Tensor, known: Tensor) -> None:
        """Add images: raw maps (N, H, W) float32 at image size, any sign; infection (N, H, W) bool, if `known` (N,)."""
        positive = cam.clamp_min(0).flatten(1)
        inside, total = infection.flatten(1), positive.sum(1)
        hit = inside.gather(1, positive.argmax(1, keepdim=True))[:, 0] & (total > 0)
        share = (positive * inside).sum(1) / total.clamp_min(1e-12)
        counted = known & inside.any(1)
        table = torch.stack([hit, share, torch.ones_like(share)]).double()
        self.sums = self.sums + torch.where(counted, table, 0).sum(1)

    def compute(self) -> dict[str, Tensor]:
        """`hit` and `evidence_on_infection` in [0, 1]; without any infected image, {}."""
        hits, shares, count = self.sums
        return {"hit": hits / count, "evidence_on_infection": shares / count} if count else {}


def one_hot(label: Tensor, classes: int) -> Tensor:
    """(N,) int64 -> (N, C) bool, no class where the label is none of them; torch's own looks at the labels first."""
    return label[:, None] == torch.arange(classes, device=label.device)


def _ratio_or_one(part: Tensor, whole: Tensor) -> Tensor:
    """Part / whole in float64, 1 where both masks are empty."""
    return torch.where(
        whole > 0, part.double() / whole.clamp_min(1), torch.ones((), dtype=torch.float64, device=whole.device)
    )


def confusion_scores(matrix: Tensor, classes: Sequence[str]) -> dict[str, Tensor]:
    """Scores from a confusion matrix (C, C) of counts, rows true, columns predicted.

    `accuracy`, `balanced_accuracy` (mean sensitivity of the classes present), `f1` (mean over them), and for each
    class `sensitivity_X`, `specificity_X`, `f1_X`; what is undefined (a class without images) is left out.
    """
    counts = matrix.double()
    hits, truth, guesses, total = counts.diag(), counts.sum(1), counts.sum(0), counts.sum()
    sensitivity, f1 = hits / truth, 2 * hits / (truth + guesses)
    specificity = (total - truth - guesses + hits) / (total - truth)
    present = truth > 0
    scores = {"accuracy": hits.sum() / total}
    scores["balanced_accuracy"], scores["f1"] = sensitivity[present].mean(), f1[present].mean()
    for index, name in enumerate(classes):
        for score, values in (("sensitivity", sensitivity), ("specificity", specificity), ("f1", f1)):
            if present[index] and values[index].isfinite():
                scores[f"{score}_{name}"] = values[index]
    return scores


def call_scores(counts: Tensor, classes: Sequence[str]) -> dict[str, Tensor]:
    """Scores of findings called, from counts (4, C): called rightly and wrongly, missed, rightly not called.

    `sensitivity_X`, `specificity_X` and `f1_X` of each finding, NaN where undefined, and `f1`, the mean.
    """
    hits, false, missed, rest = counts.double()
    f1 = torch.where(hits + missed > 0, 2 * hits / (2 * hits + false + missed), torch.nan)
    of_class = {"sensitivity": hits / (hits + missed), "specificity": rest / (rest + false), "f1": f1}
    named = {f"{s}_{name}": values[i] for s, values in of_class.items() for i, name in enumerate(classes)}
    return {"f1": f1.nanmean()} | named


def score_names(classes: Sequence[str], infection: bool, multi_label: bool = False, lung: bool = True) -> list[str]:
    """Every name that a stage may log, without the stage: what can be monitored and swept for."""
    mask = ["dice", "dice_global", "iou", "pixel_accuracy", "empty_truth", "empty_prediction", "dice_loss", "bce_loss"]
    of_infection = [f"infection_{name}" for name in (*mask, "dice_infected", "iou_infected")]
    names = ["loss", "score"] + (mask if lung else []) + (of_infection if infection else [])
    if not classes:
        return names
    of_class = ["sensitivity", "specificity", "f1", "auroc"]
    of_class += ["average_precision"] if multi_label else ["evidence_in_lungs"] * lung
    names += ["average_precision"] if multi_label else ["accuracy", "balanced_accuracy", "localization_loss"]
    names += ["cross_entropy", "evidence_loss", "f1", "auroc"]
    names += ["evidence_in_lungs", "evidence_undefined"] * lung + ["hit", "evidence_on_infection"]
    return names + [f"{score}_{name}" for score in of_class for name in classes]


class StageScores(nn.Module):
    """Everything logged for one stage, val or test, by name without the stage; of infection masks if there are any."""

    def __init__(self, classes: Sequence[str], infection: bool, multi_label: bool = False):
        super().__init__()
        self.classes, self.multi_label = tuple(classes), multi_label
        self.lung = MaskScores()
        self.infection = MaskScores() if infection else None
        self.infected = MaskScores()  # Of infection masks that are not empty.
        self.confusion = Counts(len(classes), len(classes))  # rows true, columns predicted
        self.calls = Counts(4, len(classes))  # of findings: right and wrong ones, missed, rightly none
        self.rankings = Rankings()
        self.evidence = EvidenceShares(classes)
        self.localization = Localization()
        self.terms = nn.ModuleDict()

    def add_terms(self, terms: dict[str, Term]) -> None:
        """Add the loss terms of a batch, each weighted by its own images."""
        for name, term in terms.items():
            if name not in self.terms:
                self.terms[name] = TermMean().to(term.values.device)
            cast(TermMean, self.terms[name]).update(term)

    def add_masks(self, predicted: Tensor, true: Tensor, known: Tensor, infection: bool = False) -> None:
        """Add masks (B, H, W) bool of the images where `known` (B,)."""
        scores = self.infection if infection else self.lung
        if scores is not None:
            scores.update(predicted, true, known)
        if scores is not None and infection:
            self.infected.update(predicted, true, known & true.flatten(1).any(1))

    def add_classes(self, class_probs: Tensor, label: Tensor, known: Tensor) -> None:
        """Add class probabilities (B, C) float32 and labels (B,) int64 of the images where `known`."""
        of_label = one_hot(label.where(known, -1), len(self.classes))
        self.confusion.update(of_label.double().T @ one_hot(class_probs.argmax(1), len(self.classes)).double())
        self.rankings.update(class_probs, torch.where(known[:, None], of_label, -1).to(torch.int8))

    def add_findings(self, probs: Tensor, findings: Tensor) -> None:
        """Add probabilities (B, C) float32 and findings (B, C) int8: 1 there, 0 not there, -1 unknown."""
        called, there, absent = probs >= 0.5, findings == 1, findings == 0
        self.calls.update(torch.stack([called & there, called & absent, ~called & there, ~called & absent]).sum(dim=1))
        self.rankings.update(probs, findings)

    def add_evidence(self, share: Tensor, label: Tensor) -> None:
        """Add shares of evidence inside the lungs (B,), NaN where there is none, and labels (B,), -1 where unknown."""
        self.evidence.update(share, label)

    def add_localization(self, cam: Tensor, infection: Tensor, known: Tensor) -> None:
        """Add class maps and infection masks of the images whose mask is `known` (B,); see `Localization`."""
        self.localization.update(cam, infection, known)

    def compute(self) -> dict[str, float]:
        """All scores over everything added, on every process the same; a loss that is not finite stays so."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torchmetrics' notes on what is left out below by rule
            scores = {name: cast(TermMean, term).compute() for name, term in self.terms.items()}
            scores |= self.lung.compute()
            if self.infection is not None:
                scores |= {f"infection_{name}": value for name, value in self.infection.compute().items()}
                infected = self.infected.compute()
                scores |= {f"infection_{name}_infected": infected[name] for name in ("dice", "iou") if infected}
            matrix, calls = self.confusion.compute(), self.calls.compute()
            if matrix.sum() > 0:
                scores |= confusion_scores(matrix, self.classes)
            if calls.sum() > 0:
                scores |= call_scores(calls, self.classes)
            scores |= self._ranking_scores()
            scores |= self.evidence.compute() | self.localization.compute()
        # A loss of images that have its target must be seen even where it is not finite.
        losses = {name for name, term in self.terms.items() if cast(TermMean, term).sums[1] > 0}
        return {name: float(value) for name, value in scores.items() if value.isfinite() or name in losses}

    def _ranking_scores(self) -> dict[str, Tensor]:
        """Scores of the rankings of each class that there are both kinds of image of, and their means."""
        scores: dict[str, Tensor] = {}
        for name, found in self.rankings.compute().items():
            values = found.view(-1)  # torchmetrics makes a number of one finding's
            if name == "auroc" or self.multi_label:
                scores |= {name: values.nanmean()}
                scores |= {f"{name}_{of_class}": value for of_class, value in zip(self.classes, values, strict=True)}
        return scores

    def reset(self) -> None:
        """Forget everything added."""
        for metric in self.modules():
            if isinstance(metric, Metric):
                metric.reset()
