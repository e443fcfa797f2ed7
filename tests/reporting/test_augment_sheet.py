"""The picture of augmented samples that an audit writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from lungseg.config import AugmentConfig
from lungseg.data.datamodule import LungDataModule
from lungseg.reporting.augment_sheet import EPOCHS, GAP_PX, HEAD_PX, SAMPLES, SIDE_PX, TEXT_PX, draw_augmented
from lungseg.reporting.drawing import TRUE_COLOUR, Array

STILL = AugmentConfig(shift=0, scale=0, rotate=0, brightness=0, contrast=0, gamma=0, noise=0)


def _data(root: Path, augmentation: AugmentConfig) -> LungDataModule:
    # Of the size of a panel, so that no pixel of it is interpolated.
    data = LungDataModule(
        augmentation=augmentation, seed=3, root=str(root), image_size=SIDE_PX, batch_size=4, workers=0
    )
    data.find_samples()
    return data


def _panels(sheet: Array) -> Array:
    """The panels (rows, columns, S, S, 3) of a sheet."""
    rows = sheet[HEAD_PX:].reshape(SAMPLES, SIDE_PX + TEXT_PX, -1, 3)[:, :SIDE_PX]
    starts = [column * (SIDE_PX + GAP_PX) for column in range(EPOCHS + 1)]
    return np.stack([rows[:, :, start : start + SIDE_PX] for start in starts], axis=1)


@pytest.fixture
def unmasked(phantoms: Path, tmp_path: Path) -> Path:
    """A manifest of the phantoms in Train without their masks, whose outlines would hide pixels."""
    images = sorted(phantoms.glob("Lung*/*/Train/*/images/*.png"))
    lines = [f"{image},{image.parents[1].name},train" for image in images]
    manifest = tmp_path / "list.csv"
    manifest.write_text("\n".join(["image,label,split", *lines]))
    return manifest


def test_columns_are_the_images_of_the_trainings_own_batches_bit_for_bit(unmasked: Path) -> None:
    data = _data(unmasked, AugmentConfig(transforms=["CLAHE(clip_limit=4, p=0.5)"]))
    panels = _panels(draw_augmented(data))
    for epoch in range(EPOCHS):
        loader = data.train_dataloader()
        assert isinstance(loader, DataLoader)
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        seen = {image.numpy().tobytes() for batch in loader for image in batch["image"][:, 0]}
        drawn = panels[:, epoch + 1, :, :, 0]
        assert len({panel.tobytes() for panel in drawn}) == SAMPLES
        assert all(panel.tobytes() in seen for panel in drawn)


def test_without_augmentation_all_columns_are_the_image_as_it_is(phantoms: Path) -> None:
    panels = _panels(draw_augmented(_data(phantoms, STILL)))
    assert (panels == panels[:, :1]).all()
    outlined = (panels == TRUE_COLOUR).all(axis=-1).any(axis=(2, 3))
    assert outlined.all()


def test_outlines_move_with_their_image(phantoms: Path) -> None:
    panels = _panels(draw_augmented(_data(phantoms, AugmentConfig(**{**vars(STILL), "flip": 1.0}))))
    lung = (panels == TRUE_COLOUR).all(axis=-1)
    flipped = lung[:, 0, :, ::-1]
    # Tracing an outline from its other side may step around another corner of it.
    assert (lung[:, 1] & flipped).sum() > 0.95 * flipped.sum()
