"""Phantoms with none, one or two of three findings, and the manifest that names them."""

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lungseg.data.phantom.generator import draw_phantom

FINDINGS = ("consolidation", "opacities", "marker")
_LABEL = {"opacities": 0, "consolidation": 1}  # Of the phantom that shows the finding.
_NORMAL = 2
CASES = [case for size in range(3) for case in itertools.combinations(FINDINGS, size)]


def write_finding_set(folder: Path, train: int, val: int, test: int, size_px: int = 64) -> Path:
    """Write images, lung masks and `manifest.csv`, whose path is given; images take the seven cases in turn."""
    folder.mkdir(parents=True)
    rows = ["image,lung,label,split"]
    for split, count in (("train", train), ("val", val), ("test", test)):
        for _ in range(count):
            number, case = len(rows), CASES[len(rows) % len(CASES)]
            shown = [draw_phantom(number, _NORMAL, size_px)]
            # Phantoms of one seed differ by their findings alone, which add brightness.
            shown += [draw_phantom(number, _LABEL[name], size_px) for name in case if name in _LABEL]
            image = np.maximum.reduce([phantom.image for phantom in shown])
            if "marker" in case:
                _add_marker(image, number)
            for name, picture in (("image", image), ("lung", shown[0].lung * np.uint8(255))):
                (folder / f"{name}{number}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
            rows.append(f"image{number}.png,lung{number}.png,{'|'.join(case) or 'No Finding'},{split}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


def _add_marker(image: Any, seed: int) -> None:
    """Lay a bright plate with a dark rim over an upper lung field, as a pacemaker lies, in place."""
    rng, side = np.random.default_rng(seed), len(image)
    x, y = side * (rng.choice([0.3, 0.7]) + rng.uniform(-0.04, 0.04)), side * rng.uniform(0.25, 0.35)
    for half, grey in ((0.045, 20), (0.035, 245)):
        corners = [(round(x + sign * half * side), round(y + sign * half * side)) for sign in (-1, 1)]
        cv2.rectangle(image, *corners, grey, -1)
