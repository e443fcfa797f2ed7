"""Training augmentation: an albumentations pipeline whose draw depends on (seed, epoch, sample id) alone."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import cv2
import numpy as np

from lungseg.config import AugmentConfig

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else the import below asks the package index for news
import albumentations as A

cv2.setNumThreads(0)  # loader processes are the parallelism; OpenCV's own threads only get in each other's way


def build_augmentation(config: AugmentConfig) -> A.Compose | None:
    """The pipeline for uint8 images (H, W) and any number of uint8 masks (H, W); None if everything is off.

    One warp does shift, scale and rotation; brightness, contrast, gamma and noise follow, on the image only.
    What a warp brings in from outside the image is black, and no lung.
    """
    steps: list[A.BasicTransform] = []
    if config.shift or config.scale or config.rotate:
        steps.append(
            A.Affine(
                translate_percent=(-config.shift, config.shift),
                scale=(1 - config.scale, 1 + config.scale),
                rotate=(-config.rotate, config.rotate),
                border_mode=cv2.BORDER_CONSTANT,
                p=1.0,
            )
        )
    if config.flip:
        steps.append(A.HorizontalFlip(p=config.flip))
    if config.brightness or config.contrast:
        steps.append(A.RandomBrightnessContrast(config.brightness, config.contrast, p=1.0))
    if config.gamma:
        steps.append(A.RandomGamma((100 * (1 - config.gamma), 100 * (1 + config.gamma)), p=1.0))
    if config.noise:
        steps.append(A.GaussNoise(std_range=(0.0, config.noise), p=1.0))
    return A.Compose(steps) if steps else None


def augment(
    pipeline: A.Compose, image: np.ndarray[Any, Any], masks: list[np.ndarray[Any, Any]], key: str
) -> tuple[np.ndarray[Any, Any], list[np.ndarray[Any, Any]]]:
    """Apply the pipeline with the random draw that `key` stands for: the same key gives the same result anywhere."""
    pipeline.set_random_seed(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest()))
    result = pipeline(image=image, masks=masks)
    return result["image"], list(result["masks"])
