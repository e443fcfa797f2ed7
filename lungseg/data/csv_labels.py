"""Labels of a folder of images from the CSV file that lies in it: rows are joined with images by file name."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from lungseg.data.folders import Reading, phrase
from lungseg.data.manifest import (
    Faults,
    Row,
    is_published,
    mark_of,
    phrase_lines,
    plain_number,
    read_csv,
    read_manifest,
)
from lungseg.data.sample import Sample
from lungseg.errors import DataError

IMAGE_COLUMNS = (
    "image",
    "filename",
    "file_name",
    "file name",
    "file",
    "image_path",
    "path",
    "image_id",
    "image id",
    "id",
)
LABEL_COLUMNS = ("label", "labels", "class", "category", "finding", "findings", "diagnosis", "finding labels")
GROUP_COLUMNS = ("group", "patient", "patient_id", "patient id", "patientid", "subject_id")
"""Headings that are looked for, in any case; the first that is there."""

_log = logging.getLogger(__name__)


def read_published(root: Path, multi_label: bool) -> Reading | None:
    """Read a folder by the published label file in it, as that of ChestX-ray14; None if there is none."""
    found = [path for path in _tables(root) if is_published(path)]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{root}: holds several label files ({names}); give one of them as data.root")
    return read_manifest(found[0], multi_label) if found else None


def add_labels(root: Path, reading: Reading, multi_label: bool) -> Reading:
    """Give samples whose folder names no class what the one CSV file in the root says of them.

    Columns are those of `IMAGE_COLUMNS`, `LABEL_COLUMNS` and `GROUP_COLUMNS`; with `multi_label` and without a label
    column, every column that holds nothing but 1, 0, -1 or nothing is a finding. An image is named by its path from the
    root or by its name, with or without the suffix. A file that cannot be taken so is named in a warning.
    """
    tables = _tables(root)
    if not tables:
        return reading
    names = ", ".join(path.name for path in tables)
    if any(sample.class_name for sample in reading.samples) or len(tables) > 1:
        why = "the folders name the classes" if len(tables) == 1 else "there are several; give one as data.root"
        _log.warning("%s: not read: %s: %s", root, names, why)
        return reading
    faults: Faults = defaultdict(list)
    header, rows = read_csv(tables[0], faults)
    columns = {name.casefold(): name for name in rows[0][1]} if rows else {}
    image, label, group = (
        next((columns[name] for name in known if name in columns), None)
        for known in (IMAGE_COLUMNS, LABEL_COLUMNS, GROUP_COLUMNS)
    )
    findings = _finding_columns(rows, {image, group}) if multi_label and label is None else ()
    if image is None or not (label or findings):
        wanted = f"{' or '.join(IMAGE_COLUMNS[:3])}, and {' or '.join(LABEL_COLUMNS[:3])}"
        _log.warning("%s: not read: %s: looked for the columns %s, got %s", root, names, wanted, ", ".join(header))
        return reading
    by_name = _by_name(rows, image)
    samples = [_labelled(sample, _row_of(sample, by_name), label, group, findings) for sample in reading.samples]
    used = [row for sample in reading.samples if (row := _row_of(sample, by_name)) is not None]
    lost = len(rows) - len({id(row) for row in used})
    told = "%s: labels from %s for %d of %d images; %d of its rows name no image here"
    _log.warning(told, root, names, len(used), len(samples), lost)
    problems = [*reading.problems, *(f"{names}: {phrase_lines(fault, found)}" for fault, found in faults.items())]
    if not used:
        nameless = "row of a CSV file of labels that names no image here"
        problems += phrase(nameless, [row[image] for _, row in rows], "see its names")
    return reading._replace(
        layout=f"{reading.layout}, labels from a CSV file", samples=samples, problems=problems, findings=findings
    )


def _tables(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.suffix.casefold() == ".csv" and not path.name.startswith("."))


def _finding_columns(rows: Sequence[tuple[int, Row]], others: set[str | None]) -> tuple[str, ...]:
    """Columns that hold nothing but marks, and one at least."""
    names = [name for name in rows[0][1] if name not in others] if rows else []
    marks = {name: [mark_of(row.get(name, "")) for _, row in rows] for name in names}
    return tuple(name for name, found in marks.items() if None not in found and 1 in found)


def _by_name(rows: Sequence[tuple[int, Row]], image: str) -> dict[str, Row | None]:
    """Rows by all that may name their image; None where that is two rows' name."""
    found: dict[str, Row | None] = {}
    for _, row in rows:
        path = PurePosixPath(row.get(image, "").replace("\\", "/"))
        for name in {str(path), path.name, path.stem if path.suffix else path.name}:
            found[name.casefold()] = row if found.get(name.casefold(), row) is row else None
    return found


def _row_of(sample: Sample, by_name: dict[str, Row | None]) -> Row | None:
    path = PurePosixPath(sample.id)
    names = (str(path), str(path.with_suffix("")), path.name, path.stem)
    return next((row for name in names if (row := by_name.get(name.casefold())) is not None), None)


def _labelled(sample: Sample, row: Row | None, label: str | None, group: str | None, findings: Sequence[str]) -> Sample:
    marks = tuple(-1 if row is None else mark_of(row.get(name, "")) or 0 for name in findings) if findings else None
    if row is None:
        return replace(sample, findings=marks)
    name, patient = plain_number(row.get(label or "", "")), row.get(group or "") or sample.group
    return replace(sample, class_name=name or None, group=patient, findings=marks)
