"""Reasons to doubt an input: what the image looks like, and whether the mask predicted in it looks like two lungs.

The image is judged without a network (`orientation`), the mask by limits taken from true masks, so that no limit hangs
on the faults of one network. The limits were read off the Train split of COVID-QU-Ex, of images that `orientation` was
not learned from.
"""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.data.lungs_apart import LEAST_LUNG, Sides, part_lungs
from lungseg.inference.input_checks.orientation import compare, grey_ranks
from lungseg.inference.prediction import Flag

IMAGE_FLAGS = ("blank", "not_chest", "rotated", "inverted", "mirrored", "cropped")
"""Names of flags that the image alone gives."""
LEAST_CONTRAST = 12  # Grey values between the 1st and the 99th percentile below which an image is blank.
MOST_DISTANCE = 1.75  # `Likeness.distance` of 998 in 1,000 X-rays is below 1.69.
LIKELY = 0.5
"""Probability of a turned, an inverted or a cropped image: above it for 1 to 4 in 1,000 upright X-rays each."""
MIRRORED = 0.95  # The same of a mirrored one, whose signs are weak: above it for 4 in 1,000.
LEAST_AREA, MOST_AREA = 0.05, 0.6
"""Share of the image that lungs take: between 0.057 and 0.548 in 800 masks of COVID-QU-Ex."""
NOTHING = 0.005  # Share of the image below which a mask is specks, no lungs.
MOST_CUT = 0.5  # Share of one edge of the image that lies in the lungs; above it in 4 of 3,728 masks.
COLUMNS, ROWS = (0.25, 0.7), (0.17, 0.68)
"""Where the centroid of the lungs lies, in widths and heights: 0.328 to 0.634 and 0.222 to 0.627 in 998 of 1,000."""
MOST_SLOPE = 0.6  # How much higher one lung's centroid lies than the other's, in distances between them: at most 0.51.
LEAST_MIDLINE, LEAST_MIDLINE_CONTRAST = 0.14, 0.08
"""Width and brightness of what lies between the lungs (`Midline`); at least 0.154 and 0.099 in 1,243 true masks."""
_SIDE_PX = 256


class Midline(NamedTuple):
    """How wide and how bright what lies between the lungs is."""

    width: float  # Median over the rows that hold both lungs of its share in the width from lung to lung.
    contrast: float
    """How much brighter it is than the lungs, in [-1, 1]: the difference of mean ranks of the image's pixels."""


def check_input(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> tuple[Flag, ...]:
    """Say what speaks against an image and the lungs predicted in it; empty where nothing does.

    Beside the flags of `check_image` and `check_mask`, and only where there are none, it gives `lateral`.

    Args:
        image: (H, W) uint8, as it was read.
        mask: (H, W) bool.
    """
    small = _shrink(mask.view(np.uint8)).view(np.bool_)
    sides = part_lungs(small)
    of_image, of_mask = check_image(image), _mask_flags(small, sides, float(mask.mean()))
    # A turned or cropped X-ray looks lateral to the midline too, and the reason given would be the wrong one.
    return (*of_image, *of_mask) or tuple(_midline_flags(_shrink(image), sides))


def check_image(image: NDArray[np.uint8]) -> tuple[Flag, ...]:
    """The flags of an image (H, W) alone: `blank`; `not_chest`; or any of `rotated`, `inverted`, `mirrored`, `cropped`.

    In one that is no chest, or turned, the later ones would tell nothing, or nothing sure.
    """
    small = _shrink(image)
    # Percentiles: a white letter in the corner does not make a black image one with contrast.
    low, high = (float(value) for value in np.percentile(small, (1, 99)))
    if high - low < LEAST_CONTRAST:
        reason = f"blank: nearly all of the image lies within {high - low:.0f} of 255 grey values"
        return (Flag("blank", reason, high - low),)
    like = compare(small)
    if like.distance > MOST_DISTANCE:
        reason = f"not like a frontal chest X-ray: {like.distance:.2f} times the usual distance, limit {MOST_DISTANCE}"
        return (Flag("not_chest", reason, like.distance),)
    turn = f"by {like.degrees} degrees clockwise" if like.degrees else "by an unclear angle"
    # What mirroring looks like is known of upright images alone.
    mirrored = like.mirrored if like.turned <= LIKELY else 0.0
    doubts = (
        ("rotated", like.turned, LIKELY, f"looks turned {turn}"),
        ("inverted", like.inverted, LIKELY, "black and white look exchanged"),
        ("mirrored", mirrored, MIRRORED, "looks mirrored, or the heart lies on the right"),
        ("cropped", like.cropped, LIKELY, "looks like a part of a chest, not the whole"),
    )
    return tuple(
        Flag(name, f"{reason} (probability {value:.2f})", value)
        for name, value, limit, reason in doubts
        if value > limit
    )


def check_mask(mask: NDArray[np.bool_]) -> tuple[Flag, ...]:
    """The flags of a predicted lung mask (H, W) alone."""
    small = _shrink(mask.view(np.uint8)).view(np.bool_)
    return tuple(_mask_flags(small, part_lungs(small), float(mask.mean())))


def find_midline(image: NDArray[np.uint8], sides: Sides) -> Midline | None:
    """Measure between the two lungs of an image (H, W): heart, great vessels and spine in a frontal view.

    They are bright there, and a third of the width. None where no row of the image holds both lungs.
    """
    left, right = sides
    rows = left.any(axis=1) & right.any(axis=1)
    if not rows.any():
        return None
    left, right = left[rows], right[rows]
    columns = np.arange(left.shape[1])
    outer_left, outer_right = left.argmax(axis=1), columns[-1] - right[:, ::-1].argmax(axis=1)
    inner_left, inner_right = columns[-1] - left[:, ::-1].argmax(axis=1), right.argmax(axis=1)
    gaps = np.maximum(inner_right - inner_left - 1, 0)
    width = float(np.median(gaps / np.maximum(outer_right - outer_left + 1, 1)))
    between = (columns > inner_left[:, None]) & (columns < inner_right[:, None])
    if not between.any():
        return Midline(width, 0.0)
    ranks = grey_ranks(image)[image]  # what is bright in one exposure is mid grey in another
    return Midline(width, float(ranks[rows][between].mean() - ranks[sides.left | sides.right].mean()))


def _mask_flags(mask: NDArray[np.bool_], sides: Sides, share: float) -> Iterator[Flag]:
    """Of a mask as `_shrink` gives it, its two sides, and its share of the image."""
    if share < NOTHING:
        yield Flag("no_lungs", f"no lungs found: the mask covers {share:.1%} of the image", share)
        return
    if not LEAST_AREA <= share <= MOST_AREA:
        limits = f"{LEAST_AREA:.0%} to {MOST_AREA:.0%}"
        yield Flag("lung_area", f"the lungs cover {share:.1%} of the image, usual are {limits}", share)
    smaller = min(float(side.sum()) for side in sides) / float(mask.sum())
    if smaller < LEAST_LUNG:  # there is no second lung to be higher or lower
        yield Flag("one_lung", f"one lung only: the smaller side holds {smaller:.1%} of the mask", smaller)
    else:
        yield from _uneven(sides)
    cut = max(float(edge.mean()) for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    if cut > MOST_CUT:
        reason = f"the lungs reach over {cut:.0%} of one edge of the image, usual is {MOST_CUT:.0%}"
        yield Flag("lungs_cut", reason, cut)
    down, across = _centre(mask)
    for name, value, (least, most) in (("width", across, COLUMNS), ("height", down, ROWS)):
        if not least <= value <= most:
            where = f"at {value:.0%} of the image's {name}, usual are {least:.0%} to {most:.0%}"
            yield Flag("lung_position", f"the middle of the lungs lies {where}", float(value))


def _midline_flags(image: NDArray[np.uint8], sides: Sides) -> Iterator[Flag]:
    """Where nothing else speaks against an image: lungs seen from the side lie over each other, or before the spine."""
    midline = find_midline(image, sides)
    if midline is None:
        return
    if midline.width < LEAST_MIDLINE:
        reason = f"only {midline.width:.0%} of the chest's width lies between the lungs, as in a lateral view"
        yield Flag("lateral", reason, midline.width)
    elif midline.contrast < LEAST_MIDLINE_CONTRAST:
        reason = f"what lies between the lungs is hardly brighter ({midline.contrast:.2f} of 1), as in a lateral view"
        yield Flag("lateral", reason, midline.contrast)


def _uneven(sides: Sides) -> Iterator[Flag]:
    """One lung above the other, in a square image."""
    (left_y, left_x), (right_y, right_x) = map(_centre, sides)
    slope = abs(left_y - right_y) / max(right_x - left_x, 1e-6)
    if slope > MOST_SLOPE:
        reason = f"the lungs do not lie side by side: {slope:.1f} times as far apart in height as in width"
        yield Flag("lungs_uneven", reason, slope)


def _centre(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The middle of a mask (H, W) from above and from the left, as shares of the sides."""
    down, across = np.count_nonzero(mask, axis=1), np.count_nonzero(mask, axis=0)
    means = (down @ np.arange(len(down)), across @ np.arange(len(across))) / down.sum()
    return np.asarray((means + 0.5) / mask.shape)


def _shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """To at most `_SIDE_PX` a side; a mask of 0 and 1 stays one."""
    height, width = image.shape
    if max(height, width) <= _SIDE_PX:
        return image
    size = (min(width, _SIDE_PX), min(height, _SIDE_PX))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
