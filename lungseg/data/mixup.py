"""Mixup: half of the images of a training batch are laid over others of it, and their targets with them.

Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. Pairs are drawn on the host before a batch goes to
the device, so that nothing waits for it there; `LungModule` mixes the losses (`losses.mixed_terms`).
"""

import hashlib

import numpy as np
import torch

from lungseg.data.batch import Batch


def draw_pairs(batch: Batch, alpha: float, key: str) -> Batch:
    """Add who is mixed with whom, and how much, to a batch of B images; the same key and batch give the same.

    A random half of the images (B // 2) is mixed, and the others are left as they are: not all loss terms make sense
    of a mixed image, and so they have images in every step.

    Args:
        batch: As the loader gives it; what is drawn depends on its ids, too.
        alpha: Of the distribution Beta(alpha, alpha) of the shares, above 0; up to 1 most shares are near 0 or 1.
        key: Of seed and epoch.

    Returns:
        The batch with `partner (B,) int64`, the place of the other image, never the same one, and `share (B,) float32`
        in [0, 1], what an image keeps of itself: 1 if it is not mixed.
    """
    digest = hashlib.blake2b("/".join([key, *batch["id"]]).encode("utf-8", "surrogateescape")).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "big"))
    count = len(batch["id"])
    order = generator.permutation(count)
    partner, share = np.empty(count, np.int64), np.ones(count, np.float32)
    partner[order] = np.roll(order, 1)
    share[order[: count // 2]] = generator.beta(alpha, alpha, count // 2)
    return {**batch, "partner": torch.from_numpy(partner), "share": torch.from_numpy(share)}


def mix(batch: Batch) -> Batch:
    """Lay the partners of a batch from `draw_pairs` over its images, `share * image + (1 - share) * image[partner]`.

    Only where both have a label, or neither, or the same findings known: half a label is none, and the one that is
    there would be lost. The `share` of others becomes 1. Targets stay as they are, each with its own image.
    """
    partner, image = batch["partner"], batch["image"]
    known = batch["findings"] >= 0 if "findings" in batch else batch["has_label"].view(-1, 1)
    share = batch["share"].where((known == known[partner]).all(dim=1), 1.0)
    return {**batch, "image": torch.lerp(image[partner], image, share.view(-1, 1, 1, 1)), "share": share}


def partner_targets(batch: Batch) -> Batch:
    """A mixed batch with the targets of its partners in place of its own."""
    partner, kept = batch["partner"], ("image", "partner", "share")
    moved = {name: value[partner] for name, value in batch.items() if torch.is_tensor(value) and name not in kept}
    return {**batch, **moved}
