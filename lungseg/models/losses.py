"""Loss terms, one value an image with its weight, so that sums over batches and processes are exact.

A missing target has weight 0: it is masked out, never invented.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lungseg.models.network import LungOutput

MAP_TERMS = ("evidence_loss", "localization_loss")
"""Of class maps, by name."""
CONTRAST_TEMPERATURE = 0.1
"""Of cosines, in `contrastive_term`."""


class Term(NamedTuple):
    """One named loss term of a batch."""

    values: Tensor  # (B,) float32 loss of each image.
    weights: Tensor  # (B,) float32, 0 where the target is missing.

    def mean(self) -> Tensor:
        """Weighted mean, scalar; 0 (with a gradient of 0) if no image has the target."""
        return (self.values * self.weights).sum() / self.weights.sum().clamp_min(1e-8)


def dice_term(mask_logits: Tensor, mask: Tensor, known: Tensor) -> Term:
    """Soft dice loss of each image, `1 - (2 sum(p m) + 1) / (sum(p) + sum(m) + 1)`.

    Milletari et al., "V-Net", 3DV 2016, with a smoothing term so that two empty masks agree.

    Args:
        mask_logits: (B, H, W) float32.
        mask: (B, H, W) float32 in {0, 1}.
        known: (B,) bool.
    """
    probs = mask_logits.sigmoid()
    overlap = (probs * mask).sum(dim=(1, 2))
    total = probs.sum(dim=(1, 2)) + mask.sum(dim=(1, 2))
    return Term(1 - (2 * overlap + 1) / (total + 1), known.float())


def bce_term(mask_logits: Tensor, mask: Tensor, known: Tensor) -> Term:
    """Binary cross-entropy of each image, mean over its pixels. Arguments as in `dice_term`."""
    loss = F.binary_cross_entropy_with_logits(mask_logits, mask, reduction="none")
    return Term(loss.mean(dim=(1, 2)), known.float())


def cross_entropy_term(
    class_logits: Tensor, label: Tensor, known: Tensor, class_weights: Tensor, label_smoothing: float
) -> Term:
    """Cross-entropy of each image; its weight is that of its class.

    Args:
        class_logits: (B, C) float32.
        label: (B,) int64 in [0, C); anything where not known.
        known: (B,) bool.
        class_weights: (C,) float32, positive; only their ratios matter to `Term.mean`.
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1).
    """
    # An unknown label may be any number, and cross_entropy raises on one that is no class.
    label = label.where(known, label.new_zeros(()))
    loss = F.cross_entropy(class_logits, label, reduction="none", label_smoothing=label_smoothing)
    return Term(loss, class_weights[label] * known.float())


def binary_cross_entropy_term(
    class_logits: Tensor, findings: Tensor, class_weights: Tensor, label_smoothing: float
) -> Term:
    """Binary cross-entropy of each image, mean over its known findings; its weight is their number.

    So `Term.mean` is the mean over all that is known. `-w y log p - (1 - y) log(1 - p)`: the weight w is with those
    that are there alone.

    Args:
        class_logits: (B, C) float32.
        findings: (B, C) int8: 1 there, 0 not there, -1 unknown, which counts for nothing.
        class_weights: (C,) float32, positive.
        label_smoothing: Share of the target that is moved to one half, in [0, 1).
    """
    known = findings >= 0
    target = findings.clamp_min(0).float() * (1 - label_smoothing) + label_smoothing / 2
    losses = F.binary_cross_entropy_with_logits(class_logits, target, reduction="none", pos_weight=class_weights)
    count = known.float().sum(dim=1)
    return Term((losses * known).sum(dim=1) / count.clamp_min(1), count)


def evidence_term(class_maps: Tensor, lung: Tensor, stride: int) -> Term:
    """Share of the positive evidence, over all classes, that lies outside the lungs, of each image.

    `1 - sum_c sum_xy max(M_c, 0) a / sum_c sum_xy max(M_c, 0)`, with a(x, y) the share of lung in the map's pixel. All
    classes count: the maps are centred, so evidence against one class is evidence for another. It asks that the maps
    be small outside the lungs; features inside still see what lies outside.

    Args:
        class_maps: (B, C, h, w) float32, any sign.
        lung: (B, H, W) float32 in [0, 1]; an image without any has weight 0.
        stride: Image pixels per map pixel; what a map covers beyond the image is outside.
    """
    area = _area(class_maps, lung, stride)[:, None]
    positive = class_maps.clamp_min(0)
    total = positive.sum(dim=(1, 2, 3))
    share = (positive * area).sum(dim=(1, 2, 3)) / total.clamp_min(1e-6)
    return Term(1 - share, torch.logical_and(total > 1e-6, area.amax(dim=(1, 2, 3)) > 0).float())


def localization_term(class_maps: Tensor, label: Tensor, infection: Tensor, known: Tensor, stride: int) -> Term:
    """How little the true class's positive evidence lies on the infection, of each image that has some.

    `[1 - sum(P b) / sum(P)] + [1 - (2 sum(Q a) + 1) / (sum(Q) + sum(a) + 1)]`, with P the positive part of the true
    class's map, Q = P / max(P), a the share of infection in the map's pixel and b = a / max(a): the first part leaves
    nothing beside the infection, the second covers all of it. Through b an infection smaller than a map pixel can be
    met exactly. An image counts like any other, whatever the size of its infection, so small ones are not drowned.

    The first part is the energy loss of Rao et al., "Studying How to Efficiently and Effectively Guide Models with
    Explanations", ICCV 2023, on an exact map instead of an attribution; the second a soft dice (see `dice_term`).

    Args:
        class_maps: (B, C, h, w) float32, any sign.
        label: (B,) int64 in [0, C); anything where the class is not known.
        infection: (B, H, W) float32 in {0, 1}; an image without any has weight 0.
        known: (B,) bool: class and infection mask are known.
        stride: Image pixels per map pixel.
    """
    area = _area(class_maps, infection, stride)
    peak_area = area.amax(dim=(1, 2))
    known = known & (peak_area > 0)
    rows = torch.arange(len(label), device=label.device)
    positive = class_maps[rows, label.where(known, label.new_zeros(()))].clamp_min(0)
    total, peak = positive.sum(dim=(1, 2)), positive.amax(dim=(1, 2))
    on_infection = (positive * area).sum(dim=(1, 2))
    share = on_infection / peak_area.clamp_min(1e-6) / total.clamp_min(1e-6)
    relative = positive / peak.clamp_min(1e-6).view(-1, 1, 1)
    overlap, size = (relative * area).sum(dim=(1, 2)), relative.sum(dim=(1, 2)) + area.sum(dim=(1, 2))
    return Term(2 - share - (2 * overlap + 1) / (size + 1), known.float())


def distillation_term(student: LungOutput, teacher: LungOutput, multi_label: bool) -> Term:
    """Divergence of a student's probabilities from a teacher's, KL(teacher || student), of each image; 0 if they agree.

    Of the classes `sum_c p_c log(p_c / q_c)`, with p of the teacher and q of the student; of several findings an image
    the mean of their binary divergences. Each mask that both predict adds the mean of the binary divergences of its
    pixels, which is the cross-entropy against the teacher's probabilities less the teacher's own entropy.

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, at temperature 1. The teacher's
    calibrated temperature is not applied: it was chosen by the labels of Val, which nothing may learn from; the student
    is calibrated for itself; and what it learns must not depend on whether the teacher has been evaluated.

    Args:
        student: Outputs of B images.
        teacher: Of the same images; one without masks or without classes teaches what it has.
        multi_label: Classes do not exclude each other.

    Returns:
        Every image with weight 1: none needs a label or a mask of its own.
    """
    values = student.class_logits.new_zeros(len(student.class_logits))
    own, others = student.class_logits, teacher.class_logits
    if own.shape[1] and others.shape[1]:
        if multi_label:
            values = values + _binary_divergence(own, others).mean(dim=1)
        else:
            log_probs, wanted = own.log_softmax(dim=1), others.log_softmax(dim=1)
            values = values + F.kl_div(log_probs, wanted, reduction="none", log_target=True).sum(dim=1)
    shared = min(student.mask_logits.shape[1], teacher.mask_logits.shape[1])
    if shared:
        masks = _binary_divergence(student.mask_logits[:, :shared], teacher.mask_logits[:, :shared])
        values = values + masks.mean(dim=(2, 3)).sum(dim=1)
    return Term(values, torch.ones_like(values))


def contrastive_term(embeddings: Tensor, view_of: Tensor, whole: Tensor) -> Term:
    """How badly the views of an image are told from other images, of each item of a batch (NT-Xent).

    `-mean_j log(exp(s_ij / t) / sum_k exp(s_ik / t))` over the other views j of the image, with k these and all of
    other images, s the cosine and t = 0.1. Chen et al., "A Simple Framework for Contrastive Learning of Visual
    Representations", ICML 2020; in multi-task training on X-rays: Li et al., Pattern Recognition 114 (2021).

    Args:
        embeddings: (B, D) float32.
        view_of: (B,) int64, the same number for the views of one image.
        whole: (B,) bool, false where an image is mixed with another: neither item has views then.

    Returns:
        An item without another view of its image in the batch has weight 0. The other images are those of this batch,
        and so of this process.
    """
    same = view_of[:, None] == view_of
    unit = F.normalize(embeddings.float(), dim=1)
    cosines = (unit[:, None] * unit).sum(dim=2)  # not by a matrix product, which autocast would take in half precision
    views = same & whole[:, None] & whole
    views.fill_diagonal_(False)
    log_shares = (cosines / CONTRAST_TEMPERATURE).masked_fill(same & ~views, -1e4).log_softmax(dim=1)
    count = views.sum(dim=1)
    return Term(-log_shares.where(views, 0.0).sum(dim=1) / count.clamp_min(1), (count > 0).float())


def mixed_terms(own: Mapping[str, Term], others: Mapping[str, Term], share: Tensor) -> dict[str, Term]:
    """Terms of images that `data.mixup` has mixed: the losses with both targets, each by its share of the image.

    Of a cross-entropy this is exactly that with mixed labels, as it is linear in them; of masks it is the same pixel by
    pixel (Eaton-Rosen et al., "Improving Data Augmentation for Medical Image Segmentation", MIDL 2018), and the like of
    it for dice, which is not linear. A mixed image of which only one target is known has none. Terms of class maps
    leave mixed images out: where the evidence should lie in two chests at once cannot be told from the masks of each.

    Args:
        own: Terms of B images with their own targets, by name.
        others: Of the same images with the targets of those that they are mixed with.
        share: (B,) float32 in [0, 1], what an image keeps of itself; where it is 1 the other counts for nothing.

    Returns:
        Terms of 2 B values, the own ones first; those of class maps as they were, with weight 0 for mixed images.
    """
    terms, unmixed = {}, share == 1
    for name, (values, weights) in own.items():
        if name in MAP_TERMS:
            terms[name] = Term(values, weights * unmixed)
            continue
        other = others[name]
        weights = weights * (unmixed | (other.weights > 0))
        both = torch.cat([share * weights, (1 - share) * other.weights * (weights > 0)])
        terms[name] = Term(torch.cat([values, other.values]), both)
    return terms


def _binary_divergence(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(teacher || student) of the probability behind each logit."""
    probs = teacher_logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, probs, reduction="none")
    return cross_entropy - F.binary_cross_entropy_with_logits(teacher_logits, probs, reduction="none")


def _area(class_maps: Tensor, mask: Tensor, stride: int) -> Tensor:
    """Share (B, h, w) of each map pixel that a mask (B, H, W) covers; what lies beyond the image is not in the mask."""
    height, width = class_maps.shape[-2] * stride, class_maps.shape[-1] * stride
    padded = F.pad(mask, (0, width - mask.shape[-1], 0, height - mask.shape[-2]))
    return F.avg_pool2d(padded[:, None], stride)[:, 0]
