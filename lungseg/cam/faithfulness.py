"""Whether a class activation map says what the network looks at: deletion and insertion, and randomised weights.

Both ask the network itself and need no masks. A map can lie wholly inside the lungs and still fail both.
"""

import zlib
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungseg.cam.layers import encoder_outputs
from lungseg.cam.state import eager, evaluating, with_gradients
from lungseg.errors import UserError
from lungseg.models.ensemble import members_of
from lungseg.models.network import LungNetwork

BLUR_SHARE = 1 / 16  # Standard deviation of the insertion's blur as a share of the image's shorter side.

MapFunction = Callable[[Any, Tensor, Tensor], Tensor]
"""`(network, images, target) -> (B, h, w)`, such as a value of `lungseg.cam.methods.METHODS`."""


class Faithfulness(NamedTuple):
    """Class probability while pixels leave or enter in the order of a map, and in that of a misplaced one.

    Curves are (B, steps + 1) float32 over the shares 0, 1 / steps, ..., 1 of the pixels; areas are (B,) float32 in
    [0, 1], by the trapezium rule. An area alone says little, as it depends on how sure the network is.
    """

    deletion: Tensor
    insertion: Tensor
    random_deletion: Tensor
    random_insertion: Tensor
    deletion_area: Tensor  # The smaller, the better.
    insertion_area: Tensor  # The larger, the better.
    random_deletion_area: Tensor
    random_insertion_area: Tensor


def faithfulness(
    network: nn.Module,
    images: Tensor,
    cam: Tensor,
    target: Tensor,
    steps: int = 20,
    batch_size: int = 32,
    seed: int = 0,
) -> Faithfulness:
    """Delete and insert pixels, those of the highest evidence first, and follow the probability of a class.

    Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018. Deleted
    pixels take the mean grey of their own image; insertion starts from the image under a Gaussian blur (`BLUR_SHARE`).
    Equal values keep the reading order: row by row, from the left. The random order to compare with is that of the
    same map rolled around both edges by an offset drawn for each image: as smooth and as large, but misplaced, so a
    map that is the same everywhere gains exactly 0. Nothing of an image's result depends on the rest of its batch.

    Args:
        network: A `LungNetwork`, compiled or not.
        images: (B, 1, H, W) float32 in [0, 1].
        cam: (B, H, W) float32 raw map at the images' size, any sign.
        target: (B,) int64 class whose probability is followed.
        steps: Equal shares in which the pixels go.
        batch_size: Most images in one pass; an image takes 4 * (steps + 1) passes.
        seed: Of the offsets, together with each image's content.

    Raises:
        UserError: The map is not at the images' size, or holds NaN or infinity.
    """
    if cam.shape != (len(images), *images.shape[-2:]):
        raise UserError(
            f"cam must be (B, H, W) of the images {tuple(images.shape)}, got {tuple(cam.shape)}; see resize_map"
        )
    if not cam.isfinite().all():
        raise UserError("cam holds NaN or infinity, so its pixels have no order; check the network")
    grey, blurred = images.mean(dim=(1, 2, 3), keepdim=True).expand_as(images), _blur(images)
    curves, plain = [], eager(network)
    with evaluating(plain), torch.no_grad():
        for ranks in (_ranks(cam), _ranks(_roll(cam, images, seed))):
            for start, end in ((images, grey), (blurred, images)):
                curves.append(_curve(plain, start, end, ranks, target, steps, batch_size))
    return Faithfulness(*curves, *(torch.trapezoid(curve, dx=1 / steps, dim=1) for curve in curves))


def _curve(
    network: LungNetwork, start: Tensor, end: Tensor, ranks: Tensor, target: Tensor, steps: int, batch_size: int
) -> Tensor:
    """(B, steps + 1) float32 probability of `target` while `start` (B, 1, H, W) turns into `end` by `ranks`."""
    counts = torch.arange(steps + 1, device=ranks.device) * ranks[0].numel() // steps
    states = torch.arange(len(start) * (steps + 1), device=ranks.device)
    found = []
    for part in torch.split(states, batch_size):
        image, step = part // (steps + 1), part % (steps + 1)
        changed = ranks[image] < counts[step].view(-1, 1, 1)
        mixed = torch.where(changed[:, None], end[image], start[image])
        class_probs = network.probabilities(network.classify(mixed).float())
        found.append(class_probs.gather(1, target[image, None])[:, 0])
    return torch.cat(found).view(-1, steps + 1)


def _ranks(cam: Tensor) -> Tensor:
    """(B, H, W) int64: 0 for the pixel of the highest evidence, ties in reading order."""
    order = cam.flatten(1).sort(dim=1, descending=True, stable=True).indices
    places = torch.arange(order.shape[1], device=cam.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view_as(cam)


def _roll(cam: Tensor, images: Tensor, seed: int) -> Tensor:
    """Each map rolled around both edges by an offset drawn from the seed and its own image."""
    rolled = []
    for one, image in zip(cam, images.cpu(), strict=True):
        generator = torch.Generator().manual_seed(zlib.crc32(image.numpy().tobytes(), seed))
        offset = (torch.rand(2, generator=generator) * torch.tensor(one.shape)).long().tolist()
        rolled.append(one.roll(offset, dims=(0, 1)))
    return torch.stack(rolled)


def _blur(images: Tensor) -> Tensor:
    """(B, 1, H, W) under a Gaussian of `BLUR_SHARE` of the shorter side, mirrored at the edges."""
    sigma = BLUR_SHARE * min(images.shape[-2:])
    radius = min(int(3 * sigma + 1), min(images.shape[-2:]) - 1)
    places = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    bell = torch.exp(-(places**2) / (2 * sigma**2))
    bell = bell / bell.sum()
    padded = F.pad(images, (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, bell.view(1, 1, 1, -1)), bell.view(1, 1, -1, 1))


class Randomisation(NamedTuple):
    """How much of a map is left when the network is unlearned from the classifier down."""

    stages: tuple[str, ...]
    """`classifier`, `merge` if there is one, `encoder.5`, ..., `encoder.1`: what lost its weights after all before."""
    correlation: Tensor
    """(len(stages), B) float32 in [-1, 1]; NaN where a map is the same everywhere and so has no order."""


def randomisation_check(
    network: nn.Module, images: Tensor, method: MapFunction, target: Tensor | None = None, seed: int = 0
) -> Randomisation:
    """Compare maps of a network with those of copies whose weights are drawn anew, cascading from the classifier down.

    Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018. The likeness is Spearman's rank correlation of the
    raw, signed maps. A method that explains what was learned shows it falling towards 0; one whose maps stay as they
    were shows the image's own edges. New weights are normal with variance 2 / fan-in (He et al., ICCV 2015), biases 0,
    scales 1, BatchNorm as new. The network handed in is never changed, only a copy of it.

    Images are (B, 1, H, W) float32 in [0, 1]. The maps are those of `target` (B,) int64, the same for all copies; None
    takes the classes that the network itself predicts. The seed is that of the new weights.
    """
    with torch.inference_mode(False), torch.no_grad():
        copy = deepcopy(eager(network)).eval().requires_grad_(True)
        images = images.clone()
        target = copy(images).class_logits.argmax(dim=1) if target is None else target.clone()
        generator = torch.Generator().manual_seed(seed)
        learned = method(copy, images, target)
        stages: dict[str, list[nn.Module]] = {}
        for member in members_of(copy):
            for name, modules in _stages(member, images[:1]).items():
                stages.setdefault(name, []).extend(modules)
        correlation = []
        for modules in stages.values():
            for module in modules:
                _renew(module, generator)
            correlation.append(rank_correlation(learned, method(copy, images, target)))
    return Randomisation(tuple(stages), torch.stack(correlation))


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation (B,) float32 of maps (B, h, w) float32, equal values sharing their mean rank.

    In [-1, 1]; NaN where a map is the same everywhere.
    """
    from scipy.stats import rankdata

    ranks = [torch.from_numpy(rankdata(maps.flatten(1).cpu().numpy(), axis=1)) for maps in (first, second)]
    a, b = (one - one.mean(dim=1, keepdim=True) for one in ranks)
    spread = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(spread > 0, (a * b).sum(dim=1) / spread, torch.nan).float()


def _stages(network: LungNetwork, image: Tensor) -> dict[str, list[nn.Module]]:
    """Modules of a network by stage, from the classifier down."""
    assert network.classifier is not None  # without classes there is no method that could be called
    stages = {"classifier": list(network.classifier.modules())}
    if network.merge is not None:
        stages["merge"] = list(network.merge.modules())
    return stages | _encoder_stages(network, image)


def _encoder_stages(network: LungNetwork, image: Tensor) -> dict[str, list[nn.Module]]:
    """Modules of each encoder stage, deepest first: those that its output depends on and no shallower one does."""
    encoder: nn.Module = network.segmenter.encoder
    with with_gradients():
        left = list(encoder.parameters())
        stages: dict[str, list[nn.Module]] = {}
        for name, output in encoder_outputs(network, image).items():
            if not output.requires_grad or not left:
                continue  # a stage without channels or weights
            slopes = torch.autograd.grad(output.sum(), left, retain_graph=True, allow_unused=True)
            reached = {id(weight) for weight, slope in zip(left, slopes, strict=True) if slope is not None}
            left = [weight for weight in left if id(weight) not in reached]
            owners = [m for m in encoder.modules() if any(id(w) in reached for w in m.parameters(recurse=False))]
            stages[name] = owners
    return dict(reversed(stages.items()))


def _renew(module: nn.Module, generator: torch.Generator) -> None:
    """Draw a module's own weights anew, on the CPU so that every device gets the same ones."""
    for name, value in module.named_parameters(recurse=False):
        if value.dim() > 1:
            drawn = torch.randn(value.shape, generator=generator) * (2 * len(value) / value.numel()) ** 0.5
            value.copy_(drawn)
        else:
            value.fill_(0.0 if "bias" in name else 1.0)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm):
        module.reset_running_stats()
