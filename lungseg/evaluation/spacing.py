"""How many millimetres a pixel of the network's square covers: known of DICOM files alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungseg.config import DataConfig
from lungseg.data.dicom import is_dicom, read_dicom
from lungseg.data.geometry import Letterbox
from lungseg.data.sample import Sample
from lungseg.evaluation.statistics import Floats


def read_spacings(samples: Sequence[Sample], config: DataConfig) -> Floats:
    """Height and width in mm of a pixel as the network sees the image: (N, 2), NaN where it is not known.

    Where only the spacing at the detector is stored, distances are magnified (`dicom.DicomImage.spacing_mm`).
    """
    found = np.full((len(samples), 2), np.nan)
    for index, sample in enumerate(samples):
        if not is_dicom(sample.image):
            continue
        image = read_dicom(sample.image)
        if image.spacing_mm is not None:
            shape = (image.pixels.shape[0], image.pixels.shape[1])
            content = Letterbox.of(shape, config.image_size, config.keep_aspect).content
            found[index] = [mm * n / m for mm, n, m in zip(image.spacing_mm, shape, content, strict=True)]
    return found
