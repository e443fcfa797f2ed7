"""The left and the right lung of a mask apart, and how many pieces and holes a mask has.

Left and right are those of the image as it is drawn: in a frontal view its left is the patient's right.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
LEAST_LUNG = 0.1
"""Share of a lung mask below which a connected component of it is a speck, no lung. The smaller lung of 4,660 masks of
COVID-QU-Ex has at least 0.23."""
LEAST_SIDE = 0.2
"""Two lungs that touch have at least this share of their mask on each side of the image's middle; of those masks 99.9 %
have more than 0.24, and 99 % of lungs alone less than 0.14."""


class Sides(NamedTuple):
    """The two lungs of a mask, (H, W) each; together they are the mask."""

    left: Flags
    right: Flags


def part_lungs(mask: Flags) -> Sides:
    """Part a lung mask (H, W) by the first rule that applies.

    1. Two connected components (8 neighbours) or more hold `LEAST_LUNG` of the mask each: the two largest are the
       lungs, the one whose centroid lies further left is the left one; every other pixel goes to the nearer of them.
    2. Less than `LEAST_SIDE` of the largest component lies on one side of the image's middle: it is one lung alone, and
       the whole mask goes to the side that it is on.
    3. The lungs touch: the mask is cut at the column of its centroid, a pixel on it going to the left.
    """
    count, parts, stats, centroids = cv2.connectedComponentsWithStats(_bytes(mask), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    empty = np.zeros_like(mask)
    if count == 1:
        return Sides(empty, empty.copy())
    lungs = 1 + np.argsort(-areas, kind="stable")[:2]
    if len(lungs) == 2 and areas[lungs[1] - 1] >= LEAST_LUNG * areas.sum():
        left, right = sorted(lungs, key=lambda part: float(centroids[part, 0]))
        both = Sides(parts == left, parts == right)
        return both if count == 3 else part_like(mask, both)
    width = mask.shape[1]
    largest = parts == lungs[0]
    share = (np.count_nonzero(largest[:, : width // 2]) + np.count_nonzero(largest[:, : (width + 1) // 2])) / (
        2 * areas[lungs[0] - 1]
    )  # a middle column counts half to each side
    if min(share, 1 - share) < LEAST_SIDE:
        return Sides(mask, empty) if share > 0.5 else Sides(empty, mask)
    column = np.nonzero(mask)[1].mean()
    on_left = np.arange(width) <= column
    return Sides(mask & on_left, mask & ~on_left)


def part_like(mask: Flags, lungs: Sides) -> Sides:
    """Part a mask (H, W) as other lungs lie: each pixel goes to the nearer of them, of two as near to the left one.

    A predicted mask parted like the true lungs is charged with a lung that it misses or merges with the other. Where
    there are not two lungs to go by, `part_lungs` parts the mask by itself.
    """
    if not lungs.left.any() or not lungs.right.any():
        return part_lungs(mask)
    on_left = squared_distance(lungs.left) <= squared_distance(lungs.right)
    return Sides(mask & on_left, mask & ~on_left)


def squared_distance(mask: Flags) -> NDArray[np.float32]:
    """Square of the distance, in pixels, from each pixel to the nearest one of a mask (H, W) that is not empty."""
    distance = cv2.distanceTransform(_bytes(~mask), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # OpenCV's roots differ in the last digit from call to call. Squares are whole numbers: rounded, ties are exact.
    squared: NDArray[np.float32] = np.rint(np.square(distance))
    return squared


def count_components(mask: Flags) -> int:
    """Connected components (8 neighbours) of a mask (H, W); a lung mask as it should be has two."""
    return int(cv2.connectedComponents(_bytes(mask), connectivity=8)[0]) - 1


def count_holes(mask: Flags) -> int:
    """Connected components (4 neighbours) of what is not mask and does not reach the image's border."""
    outside = np.pad(~mask, 1, constant_values=True)  # one component with all that reaches the border
    return int(cv2.connectedComponents(_bytes(outside), connectivity=4)[0]) - 2


def _bytes(mask: Flags) -> NDArray[np.uint8]:
    """(H, W) uint8, 0 or 1, as OpenCV takes it."""
    return np.ascontiguousarray(mask).view(np.uint8)
