"""The files of one prediction in the output folder: mask and overlay, named like the input, without any metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lungseg.inference.inputs import Input
from lungseg.inference.journal import Row
from lungseg.inference.prediction import Prediction, png
from lungseg.runs.whole_files import write_whole

OVERLAY_PX = 1024
"""Longer side of an overlay at most; the mask has the image's own size."""


def write_prediction(output: Path, file: Input, prediction: Prediction, dicom: bool = False) -> Row:
    """Write `masks/NAME.png` (0 and 255) and `overlays/NAME.png`, and give the row of the image.

    Args:
        output: The output folder.
        file: What was predicted.
        prediction: What to write.
        dicom: Write `dicom/NAME.seg.dcm` and `dicom/NAME.overlay.dcm` too, of an input that is DICOM.

    Raises:
        DataError: The input's header lacks what a DICOM output needs.
    """
    mask, overlay = f"masks/{file.png}", f"overlays/{file.png}"
    if dicom:
        from lungseg.inference.dicom_out import write_dicom

        write_dicom(output / "dicom", file, prediction)
    write_whole(output / overlay, png(prediction.overlay(OVERLAY_PX)))
    write_whole(output / mask, png(prediction.mask.view(np.uint8) * np.uint8(255)))
    return {**prediction.row(), "mask": mask, "overlay": overlay}
