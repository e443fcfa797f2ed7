"""How well images of each class are ranked above the others, over all processes; read once an epoch, not in a step."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

_SCORES: dict[str, Callable[..., Tensor]] = {"auroc": binary_auroc, "average_precision": binary_average_precision}


class Rankings(Metric):
    """Keeps probabilities and truth of all images added.

    torchmetrics' own metrics of rankings look at every batch whether it holds probabilities or logits, and by that make
    a GPU wait.
    """

    full_state_update = False
    probs: list[Tensor]
    truth: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("probs", [], dist_reduce_fx="cat")
        self.add_state("truth", [], dist_reduce_fx="cat")

    def update(self, probs: Tensor, truth: Tensor) -> None:
        """Add images: probs (N, C) float32 in [0, 1]; truth (N, C) int8, 1 of the class, 0 not of it, -1 unknown."""
        self.probs.append(probs)
        self.truth.append(truth)

    def compute(self) -> dict[str, Tensor]:
        """`auroc` and `average_precision`, (C,) each; NaN of a class that all known images are of, or none."""
        if not len(self.probs):
            return {}
        probs, truth = (torch.cat(parts) if isinstance(parts, list) else parts for parts in (self.probs, self.truth))
        pairs = list(zip(probs.T, truth.T, strict=True))
        return {name: torch.stack([_ranked(score, *pair) for pair in pairs]) for name, score in _SCORES.items()}


def _ranked(score: Callable[..., Tensor], probs: Tensor, truth: Tensor) -> Tensor:
    known = truth >= 0
    if not bool((truth == 0).any() and (truth == 1).any()):
        return probs.new_tensor(torch.nan)
    return score(probs[known], truth[known].long(), validate_args=False)
