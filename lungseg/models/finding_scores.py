"""Scores of several findings an image, from probabilities; what is unknown of an image counts for nothing."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.classification import MultilabelAUROC, MultilabelAveragePrecision, MultilabelStatScores


class FindingScores(nn.Module):
    """`auroc`, `average_precision` and `f1`, means and by finding, and each finding's `sensitivity` and `specificity`.

    Called from a probability of one half on. What is undefined, because no image has a finding or all have it, is left
    out.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        options: dict[str, Any] = {"average": "none", "ignore_index": -1, "validate_args": False}
        size = max(1, len(classes))
        self.counts = MultilabelStatScores(size, **options)
        self.auroc = MultilabelAUROC(size, **options)
        self.average_precision = MultilabelAveragePrecision(size, **options)

    def update(self, probs: Tensor, findings: Tensor) -> None:
        """Add images: probs (N, C) float32 in [0, 1]; findings (N, C) int8, 1 there, 0 not there, -1 unknown."""
        for metric in (self.counts, self.auroc, self.average_precision):
            metric.update(probs, findings.long())

    def compute(self) -> dict[str, Tensor]:
        """Scores by name over everything added, float32."""
        hits, false, rest, missed, _ = self.counts.compute().view(-1, 5).unbind(1)
        there, absent = hits + missed, false + rest
        ranked = (there > 0) & (absent > 0)
        f1 = torch.where(there > 0, 2 * hits / (2 * hits + false + missed), torch.nan)
        found = {"sensitivity": hits / there, "specificity": rest / absent, "f1": f1}
        for name in ("auroc", "average_precision") if ranked.any() else ():
            values = getattr(self, name).compute().view(-1)
            found[name] = torch.where(ranked.to(values.device), values, torch.nan)
        means = {name: found[name].nanmean() for name in ("f1", "auroc", "average_precision") if name in found}
        return means | {f"{s}_{name}": v[i] for s, v in found.items() for i, name in enumerate(self.classes)}
