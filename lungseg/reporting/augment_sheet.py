"""A picture of what training will see: samples as they are, and as they are augmented epoch by epoch."""

from copy import copy
from typing import Any

import numpy as np

from lungseg.data.datamodule import LungDataModule
from lungseg.data.decode import INFECTION, LUNG
from lungseg.data.sample import Sample, spread_over_classes
from lungseg.reporting import drawing

SAMPLES, EPOCHS = 6, 5  # Rows and, beside the image as it is, columns of the picture.
SIDE_PX, GAP_PX, HEAD_PX, TEXT_PX = 224, 4, 54, 18
_LONGEST_NAME = 60  # Letters.


def draw_augmented(data: LungDataModule) -> drawing.Array:
    """Draw samples of Train, spread over the classes, one a row: as the data set has it, then of the first epochs.

    The items are those that the training's loader makes of the same config, bit for bit: size, seed and transforms are
    those of `data`, whose samples are found. Outlines show that masks move with their image.
    """
    samples, seen = data.samples["train"], data.dataset("train")
    plain = copy(seen)
    plain.augmentation = None
    rows = []
    for index in spread_over_classes(samples, SAMPLES):
        items = [plain[0, index], *(seen[draw, index] for draw in range(EPOCHS))]
        rows += [_join([_panel(item) for item in items]), _caption(samples[index])]
    title = f"samples of Train as training sees them, {seen.image_size} px, run.seed={data.seed}"
    texts = [drawing.Text(8, 5, title, 15)]
    texts += [drawing.Text(8, 31, "as it is", 12), drawing.Text(64, 31, "lung", 12, drawing.TRUE_COLOUR)]
    texts += [drawing.Text(96, 31, "infection", 12, drawing.INFECTION_COLOUR)]
    views = data.augmentation.views
    for draw in range(EPOCHS):
        words = f"epoch {draw // views}" + f", view {draw % views + 1}" * (views > 1)
        texts.append(drawing.Text((draw + 1) * (SIDE_PX + GAP_PX) + 8, 31, words, 12))
    head = drawing.write_texts(_paper(HEAD_PX), texts)
    return np.concatenate([head, *rows], axis=0)


def _panel(item: dict[str, Any]) -> drawing.Array:
    """The image of an item of `LungDataset` with the outlines of its masks, uint8 (S, S, 3) of `SIDE_PX`."""
    size = (SIDE_PX, SIDE_PX)
    image, masks = item["image"][0].numpy(), item["masks"][0].numpy()
    panel = drawing.grey_to_rgb(drawing.resize(image / 255, size))
    for bit, colour in ((LUNG, drawing.TRUE_COLOUR), (INFECTION, drawing.INFECTION_COLOUR)):
        panel = drawing.draw_outline(panel, drawing.resize_mask(masks & bit > 0, size), colour)
    return panel


def _join(panels: list[drawing.Array]) -> drawing.Array:
    gap = np.full((SIDE_PX, GAP_PX, 3), drawing.PAPER, np.uint8)
    return np.concatenate([piece for panel in panels for piece in (panel, gap)][:-1], axis=1)


def _caption(sample: Sample) -> drawing.Array:
    name = sample.id if len(sample.id) <= _LONGEST_NAME else f"...{sample.id[3 - _LONGEST_NAME :]}"
    text = drawing.Text(8, 1, f"{sample.class_name or 'no class'}   {name}", 12)
    return drawing.write_texts(_paper(TEXT_PX), [text])


def _paper(height: int) -> drawing.Array:
    width = (EPOCHS + 1) * (SIDE_PX + GAP_PX) - GAP_PX
    return np.full((height, width, 3), drawing.PAPER, np.uint8)
