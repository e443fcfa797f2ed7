"""What share of good and of unsuitable images the input checks flag, with one model on one data set or on phantoms.

The good images are those of Val. The others are made of them, or drawn in their place; see `planted`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lungseg.benchmarks.planted import CHANGES, EVERY_IMAGE, MOST_PLANTED, Change, Image
from lungseg.data.images import read_image
from lungseg.data.index import load_index
from lungseg.data.phantom.generator import draw_phantom
from lungseg.errors import UserError
from lungseg.inference.input_checks.checks import IMAGE_FLAGS
from lungseg.inference.predictor import Predictor
from lungseg.runs.run import BOXED

_PHANTOMS, _PHANTOM_PX, _FIRST_SEED = 300, 256, 50_000
_QUICK, _QUICK_PX = 4, 64
_BATCH = 32
_WANTED = {"good": "at most 3 %"} | dict.fromkeys(list(CHANGES)[1:5], "at least 95 %")
Source = Callable[[], Image]


def run(quick: bool = False, checkpoint: Path | None = None, data: Path | None = None) -> Iterator[str]:
    """Give the lines of the table.

    Args:
        quick: A few images only.
        checkpoint: A model of any kind; None takes the one that comes with the package.
        data: A data set with a split Val; None draws phantoms.

    Raises:
        FileNotFoundError: No such model or data set.
        ValueError: The data set has no Val.
    """
    if checkpoint is None and not BOXED.is_file():
        yield "not measured: this installation comes without a model; give one with --checkpoint RUN"
        return
    predictor = Predictor.load(checkpoint, batch_size=_BATCH)
    sources = _phantoms(quick) if data is None else _val(data)
    sources = sources[:: -(-len(sources) // _QUICK)] if quick else sources
    place = "phantoms" if data is None else f"images of Val in {data.name}"
    yield f"{len(sources)} {place}, a network of {predictor.info.image_size} px:"
    yield f"{'':<28}{'images':>8}{'flagged':>10}{'by image':>10}{'by mask':>10}   commonest flags"
    for number, (name, change) in enumerate(CHANGES.items()):
        step = 1 if number < EVERY_IMAGE else -(-len(sources) // MOST_PLANTED)
        yield _row(name, list(_flags(predictor, sources[::step], change)))


def _row(name: str, found: Sequence[frozenset[str]]) -> str:
    """One line of the table from the names of each image's flags."""
    by_image = [bool(names & set(IMAGE_FLAGS)) for names in found]
    by_mask = [bool(names - set(IMAGE_FLAGS)) for names in found]
    shares = "".join(
        f"{100 * float(np.mean(flagged)):8.1f} %" for flagged in (list(map(bool, found)), by_image, by_mask)
    )
    common = Counter(flag for names in found for flag in sorted(names)).most_common(3)
    told = ", ".join(f"{flag} {100 * count / len(found):.1f} %" for flag, count in common)
    wanted = f"   (wanted: {_WANTED[name]})" if name in _WANTED else ""
    return f"{name:<28}{len(found):>8}{shares}   {told or '-'}{wanted}"


def _flags(predictor: Predictor, sources: Sequence[Source], change: Change) -> Iterator[frozenset[str]]:
    """Names of the flags of each image, changed; the same whatever else is measured."""
    rng = np.random.default_rng(0)
    for start in range(0, len(sources), _BATCH):
        changed = [change(source(), rng) for source in sources[start : start + _BATCH]]
        yield from (frozenset(flag.name for flag in each.flags) for each in predictor(changed))


def _phantoms(quick: bool) -> list[Source]:
    """Others than `fit_orientation` takes."""
    count, side_px = (_QUICK, _QUICK_PX) if quick else (_PHANTOMS, _PHANTOM_PX)
    return [partial(_draw, _FIRST_SEED + number, number % 3, side_px) for number in range(count)]


def _draw(seed: int, label: int, side_px: int) -> Image:
    return draw_phantom(seed, label, side_px).image


def _val(root: Path) -> list[Source]:
    paths = [sample.image for sample in load_index(root) if sample.split == "val"]
    if not paths:
        raise UserError(f"{root}: no image in Val")
    return [partial(read_image, path) for path in paths]
