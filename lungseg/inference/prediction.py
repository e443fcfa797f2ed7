"""What is predicted of one image: plain NumPy at the image's own size, with the picture and the files made of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lungseg.data.severity import Severity
from lungseg.reporting import drawing
from lungseg.runs.whole_files import write_json, write_whole

OVERLAY_PX = 1024  # Longer side, at most, of the overlays that are written; a mask has the image's own size.


class Flag(NamedTuple):
    """A reason to look before trusting a prediction."""

    name: str  # One word for programs, such as `inverted`.
    reason: str  # One sentence for people, with the number behind it.
    value: float  # That number.


class LungAreas(NamedTuple):
    """The area of each lung, the patient's left and right."""

    left: float  # In a frontal view on the right of the image.
    right: float


class Disagreement(NamedTuple):
    """How far the members of an ensemble are from each other, 0 where they agree; NaN of what they do not predict."""

    classes: float  # Mutual information of class and member, nats.
    lungs: float  # 1 minus the mean dice of the members' lung probabilities with the ensemble's.


@dataclass(frozen=True, eq=False)
class Prediction:
    """What is predicted of one image of H x W pixels and C classes."""

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    """(C,) float32, calibrated by the temperature; they sum to 1, unless an image may have several classes. NaN if the
    network gave none that is finite: then there is neither a class nor a mask nor a map, and the flag `not_finite` says
    so."""
    image: NDArray[np.uint8]  # (H, W) uint8, as it was read: 0 black to 255 white.
    mask: NDArray[np.bool_]  # (H, W) bool: the lungs.
    class_map: NDArray[np.float32]  # (H, W) float32: raw class map of the predicted class, any sign.
    evidence_in_lungs: float | None
    """Share in [0, 1] of the positive evidence inside the lungs, before any crop; None where there is none."""
    lung_area_px: LungAreas
    lung_area_cm2: LungAreas | None
    """None where the size of a pixel is not known. DICOM files mostly know it at the detector: magnified."""
    flags: tuple[Flag, ...]  # Empty where nothing speaks against the image.
    infection: NDArray[np.bool_] | None = None
    """(H, W) bool, as the network says, even beside the lungs; None if it does not predict infection."""
    severity: Severity | None = None  # Infected shares of `mask`; None where `infection` is.
    is_extrapolated: bool = False
    """Infection is predicted, but there were no infection masks of the predicted class to learn from."""
    has_lung: bool = True  # Lungs are predicted; false of a model of classes alone: the mask is empty then.
    called: tuple[int, ...] | None = None
    """Indices of the classes called, the surest first, where an image may have several or none; else None."""
    finding_maps: tuple[NDArray[np.float32], ...] = ()  # (H, W) each: their raw class maps.
    class_set: tuple[int, ...] | None = None
    """Indices of the classes that cannot be excluded, the likeliest first; None of a model without such sets. Of images
    of each class like those of Val, 90 % (`runs.calibration.COVERAGE`) hold the true one."""
    disagreement: Disagreement | None = None  # None of a single network.

    @property
    def label(self) -> int:
        """Index of the predicted class, of several the surest; -1 where there is none."""
        if np.isnan(self.probabilities).any() or not self.classes or self.called == ():
            return -1
        return int(self.probabilities.argmax()) if self.called is None else self.called[0]

    @property
    def name(self) -> str:
        """Name of the predicted class; empty where there is none. Of several, with `|` between them; or `none`."""
        if self.called is None or np.isnan(self.probabilities).any():
            return self.classes[self.label] if self.label >= 0 else ""
        return "|".join(self.classes[label] for label in self.called) or "none"

    @property
    def severity_words(self) -> str:
        """The severity in a line, and a second one if it is an extrapolation; empty where no infection is predicted."""
        if self.severity is None:
            return ""
        both, left, right = ("-" if share is None else f"{share:.0%}" for share in self.severity[:3])
        words = f"infected: {both} of the lungs (patient's left {left}, right {right})"
        return words + self.is_extrapolated * f"\nextrapolated: no infection masks of {self.name} in training"

    def overlay(self, longest_px: int | None = None, opacity: float = 0.75, crop: bool = True) -> NDArray[np.uint8]:
        """Draw the class map, inside the lungs or all of it, and the outlines of the lungs over the image.

        Where infection is predicted its outline is drawn too, and `severity_words` stand at the lower edge. Of several
        findings each has a picture, beside each other, with its name and probability at the lower edge.

        Colour is in units of the map's maximum inside the lungs (`drawing.in_lung_units`), transparent without
        evidence. What a crop hides is not lost: `evidence_in_lungs` says how much that was.

        Args:
            longest_px: A larger image is scaled down to this, its longer side; None keeps its size.
            opacity: Of the strongest evidence, in [0, 1]; 0 shows image and outlines alone.
            crop: Show the map inside the lungs only, if lungs are predicted.

        Returns:
            (H, W, 3) uint8 RGB; (H, K * W, 3) of K findings.
        """
        side_px, words = longest_px or max(self.image.shape), self.severity_words
        if self.called is None:
            return self._picture(self.class_map, words, side_px, opacity, crop)
        if not self.called:
            nothing = np.zeros_like(self.class_map)
            return self._picture(nothing, f"no finding called\n{words}".strip(), side_px, opacity, crop)
        named = [f"{self.classes[label]} {self.probabilities[label]:.2f}\n{words}".strip() for label in self.called]
        pairs = zip(self.finding_maps, named, strict=True)
        return np.concatenate([self._picture(cam, text, side_px, opacity, crop) for cam, text in pairs], axis=1)

    def _disagreement(self) -> dict[str, float | None]:
        """By name; None where it is not known."""
        found = dict.fromkeys(Disagreement._fields) if self.disagreement is None else self.disagreement._asdict()
        return {name: None if each is None or np.isnan(each) else round(each, 6) for name, each in found.items()}

    def _picture(
        self, cam: NDArray[np.float32], words: str, side_px: int, opacity: float, crop: bool
    ) -> NDArray[np.uint8]:
        """One map over the image, with words at its lower edge."""
        image, cam = drawing.shrink(self.image, side_px), drawing.shrink(cam, side_px)
        mask = drawing.shrink(self.mask.astype(np.float32), side_px) > 0.5
        strength = drawing.in_lung_units(cam, mask)
        grey = np.repeat(image[..., None], 3, axis=2)
        mapped = drawing.draw_map(grey, strength * mask if crop and self.has_lung else strength, opacity)
        # Thicker in a large picture, or it could not be seen when that is scaled to a screen.
        width_px = max(1, max(image.shape) // 512)
        picture = drawing.draw_outline(mapped, mask, drawing.PREDICTED_COLOUR, width_px)
        if self.infection is not None:
            infection = drawing.shrink(self.infection.astype(np.float32), side_px) > 0.5
            picture = drawing.draw_outline(picture, infection, drawing.INFECTION_COLOUR, width_px)
        colour = drawing.INK if self.infection is None else drawing.INFECTION_COLOUR
        return drawing.write_below(picture, words, colour) if words else picture

    def row(self) -> dict[str, Any]:
        """All but the arrays as plain values: what `predictions.jsonl` holds of an image."""
        px, cm2 = self.lung_area_px, self.lung_area_cm2
        shares = dict.fromkeys(Severity._fields) if self.severity is None else self.severity._asdict()
        probabilities = zip(self.classes, self.probabilities, strict=True)
        # Rounded to what can be repeated: on another machine the last digits of a probability differ.
        return {
            "predicted": self.name or None,
            **{f"prob_{name}": round(float(p), 6) if self.name else None for name, p in probabilities},
            "class_set": "|".join(self.classes[label] for label in self.class_set) if self.class_set else None,
            **{f"disagreement_{name}": value for name, value in self._disagreement().items()},
            "evidence_in_lungs": None if self.evidence_in_lungs is None else round(self.evidence_in_lungs, 6),
            **{f"lung_{side}_px": int(getattr(px, side)) if self.has_lung else None for side in LungAreas._fields},
            **{f"lung_{side}_cm2": None if cm2 is None else round(getattr(cm2, side), 2) for side in LungAreas._fields},
            **{f"infected_{part}": None if share is None else round(share, 6) for part, share in shares.items()},
            "infection_extrapolated": None if self.severity is None else self.is_extrapolated,
            "flags": [flag.name for flag in self.flags],
            "flag_reasons": [flag.reason for flag in self.flags],
            "width_px": self.image.shape[1],
            "height_px": self.image.shape[0],
        }

    def save(self, folder: str | Path, name: str = "prediction") -> None:
        """Write `NAME_mask.png` (0 and 255), `NAME_overlay.png` and `NAME.json` into a folder, made if need be.

        And `NAME_infection_mask.png` where infection is predicted; no mask where lungs are not.
        """
        folder = Path(folder)
        if self.infection is not None:
            write_whole(folder / f"{name}_infection_mask.png", drawing.mask_png(self.infection))
        if self.has_lung:
            write_whole(folder / f"{name}_mask.png", drawing.mask_png(self.mask))
        write_whole(folder / f"{name}_overlay.png", drawing.png(self.overlay()))
        write_json(folder / f"{name}.json", self.row())
