"""DICOM results of a DICOM input (extra `dicom-out`): a segmentation (SEG) of lungs and infection, and the overlay.

Both belong to the input's study and bear its patient: an archive files them by that, and by nothing else.
"""

import io
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lungseg import __version__
from lungseg.data.dicom import spacing_mm
from lungseg.data.dicom_file import is_dicom, open_dataset
from lungseg.errors import DataError, UserError
from lungseg.inference.inputs import Input
from lungseg.inference.prediction import Prediction
from lungseg.runs.whole_files import write_whole

_MAKER = "lungseg"
_MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber"),
)
"""Elements of type 2: a file with its patient's data taken out may lack them."""


def check_highdicom() -> None:
    """Raise a UserError if what writes DICOM is not installed."""
    if find_spec("highdicom") is None:
        raise UserError("--dicom-out: needs highdicom; pip install 'lungseg[dicom-out]'")


def write_dicom(folder: Path, file: Input, prediction: Prediction) -> None:
    """Write `NAME.seg.dcm` (binary), if lungs are predicted, and `NAME.overlay.dcm` (RGB); nothing of another input.

    Segment 1 are the lungs, segment 2 is the infection where the network predicts it.

    They lie below the folder as the input lay. Where the header lacks what they need a DataError says so, and quotes
    nothing of it.
    """
    if not is_dicom(file.path):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote header values
            source = open_dataset(file.path.read_bytes())
            for name in _MAY_BE_EMPTY:
                if name not in source:
                    setattr(source, name, None)
            results = {"seg": _segmentation(source, prediction)} if prediction.has_lung else {}
            results["overlay"] = _capture(source, prediction)
            contents = {name: io.BytesIO() for name in results}
            for name, dataset in results.items():
                dataset.save_as(contents[name], enforce_file_format=True)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file.path}: no DICOM output can be made of its header ({type(error).__name__}); leave out --dicom-out"
        ) from None
    # Only now is anything written: either both files of an image are there or neither.
    for name, content in contents.items():
        write_whole(folder / f"{file.id.removesuffix('.dcm')}.{name}.dcm", content.getvalue())


def _segmentation(source: Any, prediction: Prediction) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    made_by = highdicom.AlgorithmIdentificationSequence(_MAKER, codes.DCM.ArtificialIntelligence, __version__)
    lungs = highdicom.seg.SegmentDescription(1, "lungs", codes.SCT.Organ, codes.SCT.Lung, "AUTOMATIC", made_by)
    segments, masks, names = [lungs], [prediction.mask], "lungs"
    if prediction.infection is not None:
        # The type is of CID 7159, Lesion Segmentation Types: what kind of lesion it is a mask does not say.
        kind = (codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion)
        segments.append(
            highdicom.seg.SegmentDescription(
                2, "infection", *kind, "AUTOMATIC", made_by, anatomic_regions=[codes.SCT.Lung]
            )
        )
        masks.append(prediction.infection)
        names = "lungs and infection"
    dataset = highdicom.seg.Segmentation(
        [source],
        np.stack(masks, axis=-1)[None].astype(np.uint8),
        "BINARY",
        segments,
        manufacturer_model_name=_MAKER,
        software_versions=__version__,
        device_serial_number="0",
        content_label=names.upper().replace(" AND ", "_"),
        pixel_measures=_pixel_measures(source),
        omit_empty_frames=False,  # a mask without lungs is a result too
        series_description=f"{names}, predicted; not for diagnosis",
        **_identity(9101),
    )
    dataset.PatientOrientation = source.get("PatientOrientation")
    return dataset


def _pixel_measures(source: Any) -> Any:
    """Spacing of the pixels where the input says it, be it at the detector; None where it does not."""
    import highdicom

    spacing = spacing_mm(source)
    # A projection has no thickness, but common readers (highdicom, ITK) take no spacing without one.
    return None if spacing is None else highdicom.PixelMeasuresSequence(spacing, slice_thickness=1.0)


def _capture(source: Any, prediction: Prediction) -> Any:
    import highdicom

    orientation = source.get("PatientOrientation")
    dataset: Any = highdicom.sc.SCImage.from_ref_dataset(
        source,
        prediction.overlay(),
        "RGB",
        8,
        "PATIENT",
        patient_orientation=tuple(orientation or ("L", "F")),  # which highdicom wants; what is not known goes below
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **_identity(9102),
    )
    laterality = source.get("Laterality")
    dataset.PatientOrientation, dataset.Laterality = orientation, laterality if laterality in ("L", "R") else None
    shown = [*["lungs"] * prediction.has_lung, *["class map"] * bool(prediction.classes)]
    dataset.SeriesDescription = f"{' and '.join(shown)}, predicted; not for diagnosis"
    words = [_class_words(prediction), *prediction.severity_words.split("\n")]
    dataset.ImageComments = "; ".join(filter(None, words))
    return dataset


def _class_words(prediction: Prediction) -> str:
    """The class, or the findings called, with probabilities, and how much of the evidence lies in the lungs."""
    labels = [prediction.label] if prediction.called is None else prediction.called
    probs = prediction.probabilities
    named = [f"{prediction.classes[label]} {float(probs[label]):.2f}" for label in labels if label >= 0]
    evidence = prediction.evidence_in_lungs
    inside = "no evidence" if evidence is None else f"{evidence:.0%} of its evidence in the lungs"
    if not prediction.classes:
        return ""
    words = ", ".join(named) or prediction.name
    return f"{words}, {inside}".removeprefix(", ") if prediction.has_lung else words


def _identity(series_number: int) -> dict[str, Any]:
    import highdicom

    uids = {"series_instance_uid": highdicom.UID(), "sop_instance_uid": highdicom.UID()}
    return {**uids, "series_number": series_number, "instance_number": 1, "manufacturer": _MAKER}
