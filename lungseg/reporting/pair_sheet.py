"""The contact sheet of an audit: pairs of images that show one exposure, the worst first."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lungseg.data.duplicates import Leak
from lungseg.data.images import read_image
from lungseg.data.sample import CLASSES, Sample
from lungseg.errors import DataError
from lungseg.reporting.drawing import INK, PAPER, WARNING_COLOUR, Text, centre, fit_size, resize, write_texts

MOST_PAIRS = 48
SIDE_PX = 176
COLUMNS = 4
LONGEST_NAME = 26
_GAP_PX, _TEXT_PX = 8, 50

Picture = npt.NDArray[np.uint8]  # (H, W, 3) uint8.


def draw_pairs(leaks: Sequence[Leak]) -> Picture:
    """Draw the first of one pair or more side by side, each with kind, correlation, split, class and file."""
    shown = leaks[:MOST_PAIRS]
    title = f"{len(shown)} of {len(leaks)} pairs of images that show one exposure"
    cells = [_draw_pair(leak) for leak in shown]
    height, width = cells[0].shape[:2]
    columns = min(COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    sheet = np.full((40 + rows * (height + _GAP_PX), columns * (width + _GAP_PX) - _GAP_PX, 3), PAPER, np.uint8)
    for index, cell in enumerate(cells):
        top, left = 40 + index // columns * (height + _GAP_PX), index % columns * (width + _GAP_PX)
        sheet[top : top + height, left : left + width] = cell
    return write_texts(sheet, [Text(8, 8, title, 17)])


def _draw_pair(leak: Leak) -> Picture:
    cell = np.full((SIDE_PX + _TEXT_PX, 2 * SIDE_PX, 3), PAPER, np.uint8)
    cell[:SIDE_PX, :SIDE_PX] = _panel(leak.first.image)
    cell[:SIDE_PX, SIDE_PX:] = _panel(leak.second.image)
    kind = f"{leak.kind}, {leak.likeness:.3f}" + (", across splits" if leak.across else "")
    texts = [Text(4, SIDE_PX + 2, kind, 12, WARNING_COLOUR if leak.across else INK)]
    for left, sample in ((4, leak.first), (SIDE_PX + 4, leak.second)):
        texts += [Text(left, SIDE_PX + 18, _caption(sample), 11), Text(left, SIDE_PX + 33, _name(sample), 11)]
    return write_texts(cell, texts)


def _panel(path: Path) -> Picture:
    """An image in the middle of a square; a grey square where it can no longer be read."""
    try:
        image = read_image(path)
    except DataError:
        return np.full((SIDE_PX, SIDE_PX, 3), 60, np.uint8)
    grey = np.rint(resize(image, fit_size(image.shape, SIDE_PX))).astype(np.uint8)
    return centre(np.repeat(grey[..., None], 3, axis=2), SIDE_PX, paper=(0, 0, 0))


def _caption(sample: Sample) -> str:
    return f"{sample.split}, {'no class' if sample.label is None else CLASSES[sample.label]}"


def _name(sample: Sample) -> str:
    """The file's name, its start left out where it is long."""
    name = sample.image.name
    return name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}"
