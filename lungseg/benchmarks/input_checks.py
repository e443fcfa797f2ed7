"""What share of good and of unsuitable images the input checks flag, with one model on one data set or on phantoms.

The good images are those of Val. The others are made of them, or drawn in their place: photographs by the dead leaves
model, whose statistics of edges and sizes are those of photographs (Lee, Mumford and Huang, International Journal of
Computer Vision 41, 2001); lateral views by a drawing.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.data.images import read_image
from lungseg.data.index import load_index
from lungseg.data.phantom.generator import draw_phantom
from lungseg.errors import UserError
from lungseg.inference.input_checks.checks import IMAGE_FLAGS
from lungseg.inference.input_checks.orientation import Orientation, reorient
from lungseg.inference.predictor import Predictor
from lungseg.runs.run import BOXED

Image = NDArray[np.uint8]
Source = Callable[[], Image]
Change = Callable[[Image, np.random.Generator], Image]
_PHANTOMS, _PHANTOM_PX, _FIRST_SEED = 300, 256, 50_000  # other phantoms than `fit_orientation` learns from
_QUICK, _QUICK_PX = 4, 64
_BATCH = 32
_WORDS = "the of patient report and 12 page with findings in 2021 was chest no left right seen for"


def run(quick: bool = False, checkpoint: Path | None = None, data: Path | None = None) -> Iterator[str]:
    """Give the lines of the table: for Val of a data set, else phantoms; by a model, else that of the package."""
    if checkpoint is None and not BOXED.is_file():
        yield "not measured: this installation comes without a model; give one with --checkpoint RUN"
        return
    predictor = Predictor.load(checkpoint, batch_size=_BATCH)
    if data is None:
        count, side_px = (_QUICK, _QUICK_PX) if quick else (_PHANTOMS, _PHANTOM_PX)
        sources: list[Source] = [partial(_draw, number, side_px) for number in range(count)]
    else:
        sources = [partial(read_image, sample.image) for sample in load_index(data) if sample.split == "val"]
        if not sources:
            raise UserError(f"{data}: no image in Val")
    sources = sources[:: -(-len(sources) // _QUICK)] if quick else sources
    kind = "phantoms" if data is None else f"images of Val in {data.name}"
    yield f"{len(sources)} {kind}, a network of {predictor.info.image_size} px:"
    yield f"{'':<28}{'images':>8}{'flagged':>10}{'by image':>10}{'by mask':>10}   commonest flags"
    for number, (name, change) in enumerate(CHANGES.items()):
        step = 1 if number < EVERY_IMAGE else -(-len(sources) // MOST_PLANTED)
        yield _row(name, list(_flags(predictor, sources[::step], change)))


def crop(image: Image, rng: np.random.Generator, share: float) -> Image:
    """A crop of an image (H, W) from anywhere, `share` of its height and width."""
    height, width = (max(1, round(side * share)) for side in image.shape)
    top, left = (int(rng.integers(0, full - kept + 1)) for full, kept in zip(image.shape, (height, width), strict=True))
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def blank(like: Image, rng: np.random.Generator) -> Image:
    """One grey with a little noise, or none."""
    noise = rng.normal(0, rng.choice([0.0, 1.0, 3.0]), like.shape)
    return np.clip(rng.integers(0, 256) + noise, 0, 255).astype(np.uint8)


def noise(like: Image, rng: np.random.Generator) -> Image:
    """Noise of one of three coarsenesses, smooth like clouds or single pixels."""
    coarse = int(rng.choice([1, 4, 16]))
    small = rng.random((like.shape[0] // coarse + 1, like.shape[1] // coarse + 1), dtype=np.float32)
    size = (like.shape[1], like.shape[0])
    return (cv2.resize(small, size, interpolation=cv2.INTER_CUBIC).clip(0, 1) * 255).astype(np.uint8)


def text(like: Image, rng: np.random.Generator) -> Image:
    """A page of lines of words, dark on light or, one in four, light on dark."""
    height, width = like.shape
    page = np.full((height, width), rng.integers(225, 256), np.uint8)
    scale = height / 256 * rng.uniform(0.3, 0.6)
    margin, line = rng.uniform(0.03, 0.12) * width, 36 * scale * rng.uniform(0.8, 1.3)
    for row in np.arange(margin + line, height - margin / 2, line):
        words = " ".join(rng.choice(_WORDS.split(), int(rng.uniform(0.3, 1) * width / (60 * scale))))
        cv2.putText(page, words, (int(margin), int(row)), cv2.FONT_HERSHEY_SIMPLEX, scale, 20, 1, cv2.LINE_AA)
    return 255 - page if rng.random() < 0.25 else page


def photo(like: Image, rng: np.random.Generator) -> Image:
    """Dead leaves: discs and boxes of any grey over each other, their number falling with the cube of their size."""
    height, width = like.shape
    side = min(height, width)
    scene = np.full((height, width), rng.integers(0, 256), np.float32)
    sizes = 1 / np.sqrt(rng.uniform(1 / 0.6**2, 1 / 0.04**2, 150)) * side
    for size in sizes:
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = (int(size * rng.uniform(0.4, 1)) + 1, int(size * rng.uniform(0.4, 1)) + 1)
        grey, angle = float(rng.integers(0, 256)), float(rng.uniform(0, 180))
        if rng.random() < 0.5:
            cv2.ellipse(scene, centre, axes, angle, 0, 360, grey, -1, cv2.LINE_AA)
        else:
            corners = cv2.boxPoints((centre, (2 * axes[0], 2 * axes[1]), angle)).astype(np.int32)
            cv2.fillConvexPoly(scene, corners, grey, cv2.LINE_AA)
    grainy = cv2.GaussianBlur(scene, (0, 0), side / 256) + rng.normal(0, 4, scene.shape)
    return np.clip(grainy, 0, 255).astype(np.uint8)


def lateral(like: Image, rng: np.random.Generator) -> Image:
    """A chest from its side as a drawing: trunk, air before and behind the heart, spine, sternum, diaphragm."""
    side = 256
    film = np.zeros((side, side), np.float32)

    def add(centre: tuple[float, float], axes: tuple[float, float], angle: float, grey: float) -> None:
        layer = np.zeros_like(film)
        moved = (int((centre[0] + rng.normal(0, 0.015)) * side), int((centre[1] + rng.normal(0, 0.015)) * side))
        size = (int(axes[0] * rng.uniform(0.9, 1.1) * side), int(axes[1] * rng.uniform(0.9, 1.1) * side))
        cv2.ellipse(layer, moved, size, angle + rng.normal(0, 4), 0, 360, grey, -1, cv2.LINE_AA)
        np.add(film, cv2.GaussianBlur(layer, (0, 0), 5), out=film)

    add((0.5, 0.55), (0.42, 0.6), 0, 0.55)  # the trunk
    add((0.5, 0.45), (0.29, 0.36), 8, -0.4)  # air
    add((0.40, 0.56), (0.16, 0.14), -35, 0.3)  # heart
    add((0.48, 0.95), (0.4, 0.23), 0, 0.4)  # what lies below the diaphragm
    for row in np.arange(0.08, 1.0, 0.085):
        add((0.78 + 0.05 * np.sin(3 * row), row), (0.05, 0.032), 0, 0.22)  # vertebrae
    add((0.17, 0.42), (0.02, 0.25), 8, 0.2)  # sternum
    film += rng.normal(0, 0.01, film.shape).astype(np.float32)
    picture = (np.clip(film, 0, 1) ** rng.uniform(0.7, 1.3) * 255).astype(np.uint8)
    if rng.random() < 0.5:
        picture = np.ascontiguousarray(picture[:, ::-1])
    return np.asarray(cv2.resize(picture, like.shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)


CHANGES: dict[str, Change] = {
    "good": lambda image, rng: image,
    "inverted": lambda image, rng: reorient(image, Orientation(False, 0, True)),
    "turned by 90 degrees": lambda image, rng: reorient(image, Orientation(False, 1, False)),
    "turned by 180 degrees": lambda image, rng: reorient(image, Orientation(False, 2, False)),
    "turned by 270 degrees": lambda image, rng: reorient(image, Orientation(False, 3, False)),
    "mirrored": lambda image, rng: reorient(image, Orientation(True, 0, False)),
    "cropped to 1/2 of each side": partial(crop, share=1 / 2),
    "cropped to 1/3 of each side": partial(crop, share=1 / 3),
    "blank": blank,
    "noise": noise,
    "page of text": text,
    "photo (dead leaves)": photo,
    "lateral view (a drawing)": lateral,
}
"""By the name in the table; each takes a good image (H, W) and gives one of any size."""
EVERY_IMAGE = 6  # So many of these are made of every image, the others of at most `MOST_PLANTED`, spread evenly.
MOST_PLANTED = 150
_WANTED = {"good": "at most 3 %"} | dict.fromkeys(list(CHANGES)[1:5], "at least 95 %")


def _row(name: str, found: Sequence[frozenset[str]]) -> str:
    """One line of the table from the names of each image's flags."""
    by_image = [bool(names & set(IMAGE_FLAGS)) for names in found]
    by_mask = [bool(names - set(IMAGE_FLAGS)) for names in found]
    all_flagged = [bool(names) for names in found]
    shares = "".join(f"{100 * float(np.mean(flagged)):8.1f} %" for flagged in (all_flagged, by_image, by_mask))
    common = Counter(flag for names in found for flag in sorted(names)).most_common(3)
    commonest = ", ".join(f"{flag} {100 * count / len(found):.1f} %" for flag, count in common)
    wanted = f"   (wanted: {_WANTED[name]})" if name in _WANTED else ""
    return f"{name:<28}{len(found):>8}{shares}   {commonest or '-'}{wanted}"


def _flags(predictor: Predictor, sources: Sequence[Source], change: Change) -> Iterator[frozenset[str]]:
    """Names of the flags of each image, changed; the same whatever else is measured."""
    rng = np.random.default_rng(0)  # a new one for each row, so that a row alone gives what it gives in the table
    for start in range(0, len(sources), _BATCH):
        changed = [change(source(), rng) for source in sources[start : start + _BATCH]]
        yield from (frozenset(flag.name for flag in each.flags) for each in predictor(changed))


def _draw(number: int, side_px: int) -> Image:
    return draw_phantom(_FIRST_SEED + number, number % 3, side_px).image
