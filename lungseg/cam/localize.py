"""How well maps point at what masks show, the infection or the lungs: scores of each image and their means by group.

Protocol of Saporta et al., "Benchmarking saliency methods for chest X-ray interpretation", Nat. Mach. Intell. 2022
(CheXlocalize), but a map without evidence scores 0 instead of being left out. Only evidence above zero counts.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lungseg.cam.lung import evidence_in_lungs
from lungseg.errors import UserError

THRESHOLDS = tuple(step / 20 for step in range(1, 20))
"""Grid on which the threshold is tuned, as shares of each map's maximum."""
LESION_SIZES = ("small", "medium", "large")
SMALL_BELOW = 0.1  # A lesion is small if it takes less than this share of the lungs.
LARGE_ABOVE = 0.3  # A lesion is large if it takes more than this share of the lungs.
_LEVELS = 256


def measure_localisation(
    cam: Tensor, target: Tensor, lung: Tensor | None = None, thresholds: Sequence[float] = ()
) -> dict[str, Tensor]:
    """Score each map against its mask.

    - `hit`: 1 if the maximum lies in the mask (pointing game; Zhang et al., ECCV 2016); of several maxima, the share of
      them that does, so a uniform map scores by chance.
    - `iou_otsu`: IoU of the mask and the pixels above Otsu's threshold (`otsu_level`).
    - `ious` (B, T): IoU of the mask and the pixels at each threshold x maximum or more; only if there are thresholds.
    - `energy`: share of the evidence that lies in the mask (Wang et al., "Score-CAM", CVPR Workshops 2020).
    - `average_precision`: of the pixels, ranked by evidence; pixels of equal evidence share one rank.
    - `undefined` (bool): the mask is empty; every score is NaN.
    - `no_evidence` (bool): there is a mask, but no evidence; hit, IoU and energy are 0, average precision is the
      mask's share of the pixels.

    Args:
        cam: (B, H, W) float32 raw map at image size, any sign.
        target: (B, H, W) bool.
        lung: (B, H, W) bool to which the maps are cropped first; None measures them as they are.
        thresholds: T ascending shares of the maximum, in (0, 1]; `best_threshold` chooses among them.

    Returns:
        (B,) float32 in [0, 1], (B,) bool and (B, T) float64, by name.

    Raises:
        UserError: A map holds NaN or infinity.
    """
    positive = _positive(cam, lung)
    relative = _relative(positive)
    scores = {
        "hit": _hit(positive, target),
        "iou_otsu": _iou_otsu(relative, target),
        "energy": evidence_in_lungs(positive, target).nan_to_num(0),
        "average_precision": _average_precision(positive, target),
    }
    undefined = ~target.any(dim=2).any(dim=1)
    no_evidence = ~undefined & (positive.amax(dim=(1, 2)) == 0)
    known = {name: value.float().masked_fill(undefined, torch.nan) for name, value in scores.items()}
    if thresholds:
        known["ious"] = _iou_at(relative, target, thresholds).masked_fill(undefined[:, None], torch.nan)
    return known | {"undefined": undefined, "no_evidence": no_evidence}


def otsu_level(histogram: Tensor) -> Tensor:
    """Otsu's threshold: the level t that parts levels <= t from those above with the largest variance between them.

    `sigma^2(t) = w0(t) w1(t) (mean0(t) - mean1(t))^2`. Otsu, IEEE Trans. Syst. Man Cybern. 1979. For maps the levels
    are `floor(255 map / max(map))`, as CheXlocalize has them.

    Args:
        histogram: (B, L) int64 pixels at each level.

    Returns:
        (B,) int64; the lowest of equals, 0 where all pixels have one level.
    """
    below, moment = (
        histogram.cumsum(1),
        (histogram * torch.arange(histogram.shape[1], device=histogram.device)).cumsum(1),
    )
    above = below[:, -1:] - below
    gap = (moment[:, -1:] * below - below[:, -1:] * moment).double()  # of integers, so that equals are equal
    return (gap.square() / (below * above).clamp_min(1)).argmax(1)


def best_threshold(ious: Tensor, thresholds: Sequence[float] = THRESHOLDS) -> float | None:
    """The one threshold that gives the best mean IoU over images, the lowest of equals; None without any image.

    Args:
        ious: (N, T) float64 of `measure_localisation`; images without a mask (NaN) do not count.
        thresholds: T ascending shares of each map's maximum, in (0, 1], of which these are the IoUs.
    """
    defined = ious[~ious.isnan().any(dim=1)]
    return thresholds[int(defined.mean(dim=0).argmax())] if len(defined) else None


def are_finite(cam: Tensor) -> Tensor:
    """(B,) bool: no NaN or infinity in maps (B, H, W)."""
    return cam.flatten(1).abs().amax(dim=1).isfinite()  # a tenth of the time that each pixel's `isfinite` takes


def infected_share(infection: Tensor, lung: Tensor) -> Tensor:
    """Share of the lungs that is infected: (B,) float32 in [0, 1] from masks (B, H, W) bool; NaN if either is empty."""
    share = (infection & lung).sum(dim=(1, 2)) / lung.sum(dim=(1, 2))
    return share.masked_fill(~infection.any(dim=2).any(dim=1), torch.nan)


class LocalisationScores:
    """Values of all images of a split, and their means over all, by class, and by the size of the lesion.

    Args:
        classes: Class names in label order.
    """

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)
        self._batches: list[dict[str, Tensor]] = []

    def update(self, scores: dict[str, Tensor], label: Tensor, share: Tensor) -> None:
        """Add the images of a batch.

        Args:
            scores: What `measure_localisation` gave, the same names each time.
            label: (B,) int64; one that is no class (-1: unknown) counts in `all` and by size only.
            share: (B,) float32, `infected_share`; NaN counts in `all` and by class only.
        """
        if self._batches and scores.keys() != self._batches[0].keys() - {"label", "infected_share"}:
            raise UserError(f"scores must have the names of the first batch, got {sorted(scores)}")
        batch = {**scores, "label": label, "infected_share": share}
        # Copies: what a thread made among its large maps would keep their memory from being given back.
        self._batches.append({name: value.detach().cpu().clone() for name, value in batch.items()})

    def per_image(self) -> dict[str, Tensor]:
        """Every value added, (N,) each by name, in the order added; with `label` and `infected_share`."""
        names = self._batches[0] if self._batches else ()
        return {name: torch.cat([batch[name] for batch in self._batches]) for name in names}

    def compute(self) -> dict[str, dict[str, float]]:
        """Means and counts of each group: `all`, each class, `lesion_small`, `lesion_medium`, `lesion_large`.

        Returns:
            For each group the mean of each score over its `n` images that have a mask (NaN if there are none),
            `undefined`, its images without one, and `no_evidence`, those of the `n` whose map had nothing to show.
            Empty before the first update.
        """
        images = self.per_image()
        if not images:
            return {}
        label, share = images.pop("label"), images.pop("infected_share")
        size = (share >= SMALL_BELOW).int() + (share > LARGE_ABOVE).int()
        groups = {"all": torch.ones_like(label, dtype=torch.bool)}
        groups |= {name: label == index for index, name in enumerate(self.classes)}
        groups |= {f"lesion_{name}": (size == i) & ~share.isnan() for i, name in enumerate(LESION_SIZES)}
        return {group: _summary(images, members) for group, members in groups.items()}


def _summary(images: dict[str, Tensor], members: Tensor) -> dict[str, float]:
    """Means over the members of a group that have a mask, and counts."""
    defined = members & ~images["undefined"]
    means = {name: float(v[defined].double().mean()) for name, v in images.items() if v.is_floating_point()}
    counts = {
        "n": defined,
        "undefined": members & images["undefined"],
        "no_evidence": members & images["no_evidence"],
    }
    return means | {name: int(flags.sum()) for name, flags in counts.items()}


def _positive(cam: Tensor, lung: Tensor | None) -> Tensor:
    """Evidence above zero, inside the lungs if they are given: (B, H, W) float32."""
    finite = are_finite(cam)
    if not finite.all():
        raise UserError(f"map {int((~finite).int().argmax())} of the batch holds NaN or infinity; check the network")
    positive = cam.float().clamp_min(0).abs()  # abs: no -0.0, whose bits would not sort as zero
    return positive if lung is None else positive * lung


def _relative(positive: Tensor) -> Tensor:
    """Evidence as a share of each map's maximum, [0, 1]; 0 without any."""
    peak = positive.amax(dim=(1, 2), keepdim=True)
    return positive / torch.where(peak > 0, peak, torch.ones_like(peak))


def _hit(positive: Tensor, target: Tensor) -> Tensor:
    """Share (B,) of the pixels at the maximum that lie in the mask; 0 without evidence."""
    maxima = (positive == positive.amax(dim=(1, 2), keepdim=True)) & (positive > 0)
    return (maxima & target).sum(dim=(1, 2)) / maxima.sum(dim=(1, 2)).clamp_min(1)


def _iou_otsu(relative: Tensor, target: Tensor) -> Tensor:
    """IoU (B,) float64 of the mask and the pixels above Otsu's threshold."""
    counts = _counts((relative * (_LEVELS - 1)).long(), target, _LEVELS)
    level = otsu_level(counts.sum(2))
    return _ious(counts).gather(1, level[:, None] + 1)[:, 0]


def _iou_at(relative: Tensor, target: Tensor, thresholds: Sequence[float]) -> Tensor:
    """IoU (B, T) float64 of the mask and the pixels at each threshold x maximum or more."""
    limits = torch.tensor(thresholds, device=relative.device)
    levels = torch.bucketize(relative, limits, right=True)  # thresholds reached
    return _ious(_counts(levels, target, len(limits) + 1))[:, 1:]


def _counts(levels: Tensor, target: Tensor, bins: int) -> Tensor:
    """Pixels at each level outside and inside the mask: (B, bins, 2) int64."""
    rows = torch.arange(len(levels), device=levels.device).view(-1, 1, 1)
    index = (rows * bins + levels) * 2 + target
    return torch.bincount(index.flatten(), minlength=len(levels) * bins * 2).view(-1, bins, 2)


def _ious(counts: Tensor) -> Tensor:
    """IoU (B, bins) float64 of the mask and the pixels at each level or above."""
    chosen = counts.flip(1).cumsum(1).flip(1)
    union = chosen[..., 0] + counts[..., 1].sum(1, keepdim=True)
    return chosen[..., 1].double() / union


def _average_precision(positive: Tensor, target: Tensor) -> Tensor:
    """`sum_k (R_k - R_(k-1)) P_k` over the distinct values, (B,) float64; NaN without a mask.

    The bits of floats above zero sort like the floats; shifted, they leave room for the mask's bit in the same integer,
    so that one sort of plain integers carries both.
    """
    bits = positive.flatten(1).view(torch.int32)
    key = _falling((bits - 2**30) * 2 + target.flatten(1))
    value, inside = key >> 1, key & 1
    last = torch.ones_like(inside, dtype=torch.bool)  # last pixel of each distinct value
    last[:, :-1] = value[:, :-1] != value[:, 1:]
    row, column = last.nonzero(as_tuple=True)
    found = inside.flatten().cumsum(0)[last.flatten()]  # over all rows: each row ends in its own last value
    true = inside.sum(1)
    precision = (found - (true.cumsum(0) - true)[row]).double() / (column + 1)
    gain = found.diff(prepend=found.new_zeros(1))
    return torch.bincount(row, weights=gain * precision, minlength=len(key)) / true


def _falling(key: Tensor) -> Tensor:
    """Each row (B, P) of int32 from the highest on."""
    if key.device.type != "cpu":
        return key.sort(dim=1, descending=True).values
    # NumPy sorts plain integers by vector instructions; torch also finds where each came from, which nobody asks for.
    return torch.from_numpy(np.sort(key.numpy(), axis=1)[:, ::-1].copy())
