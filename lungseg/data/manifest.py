"""CSV files that name images: a manifest of ours, and the label files of ChestX-ray14 and CheXpert as published.

Each becomes rows under the columns of a manifest; what is wrong in them is reported at once, with its lines.
"""

import csv
import difflib
import io
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from lungseg.data.folders import SPLIT_FOLDERS, Reading
from lungseg.data.sample import SPLITS, Sample
from lungseg.errors import DataError

COLUMNS = ("image", "lung", "infection", "label", "split", "group")  # Columns of a manifest; only `image` is required.
NO_FINDING = "no finding"  # What is written, in any case, where there is none.
_NIH = ("image index", "finding labels", "patient id")
_CHEXPERT = ("path", "sex", "age", "frontal/lateral", "ap/pa")  # Every further column is a finding.
_PATIENT = re.compile(r"(?:^|/)(patient\d+)/")  # Of CheXpert's paths.
_MARKS = {"1": 1, "0": 0, "-1": -1, "": -1}  # There, not there, unknown; CheXpert's -1 is "uncertain".

Row = dict[str, str]
Faults = defaultdict[str, list[tuple[int, str]]]  # Line and value of each occurrence, by kind of fault.


@dataclass(frozen=True)
class _Table:
    """A CSV file under our names."""

    layout: str
    rows: list[tuple[int, Row]]  # Line number and row, which has all `COLUMNS` and the findings.
    findings: tuple[str, ...]  # Columns that say of one finding each whether it is there.


def read_manifest(path: Path, multi_label: bool = False) -> Reading:
    """Read a CSV file with a header of `COLUMNS`, comma or semicolon between them; what is empty is missing.

    Files are relative to the CSV; an id is the image as written there. `label` is a class name, or its number in
    `data.classes`; with `multi_label`, names with `|` between them, and any other column is a finding: 1 there, 0 not
    there, -1 or empty unknown. `split` is given in every row or in none.

    ChestX-ray14's `Data_Entry_2017.csv` and CheXpert's `train.csv` are read as they are, with their patients as groups:
    images of the first lie beside it or in folders named `images...`; of the second, lateral views are left out.
    """
    faults: Faults = defaultdict(list)
    table = _read_table(path, faults, multi_label)
    has_splits = any(row["split"] for _, row in table.rows)
    samples: list[Sample] = []
    taken: set[str] = set()
    split_of: dict[str, str] = {}
    for line, row in table.rows:
        sample = _read_row(path.parent, line, row, table.findings, faults)
        if sample.id in taken:
            faults["image named before"].append((line, sample.id))
        if has_splits and row["split"].casefold() not in SPLIT_FOLDERS:
            faults[f"split other than {', '.join(SPLITS)} (in every row or in none)"].append((line, row["split"]))
        elif sample.group and split_of.setdefault(sample.group, sample.split) != sample.split:
            faults["group that an earlier line puts into another split"].append((line, sample.group))
        taken.add(sample.id)
        samples.append(sample)
    problems = [phrase_lines(fault, found) for fault, found in faults.items()]
    return Reading(table.layout, samples, problems, has_splits, findings=table.findings)


def _read_table(path: Path, faults: Faults, multi_label: bool) -> _Table:
    """Read a CSV file of any of the forms; which one it is, its header says."""
    names, rows = read_csv(path, faults)
    columns = [name.casefold() for name in names]
    foreign = next((form for form in (_NIH, _CHEXPERT) if set(form[:2]) <= set(columns)), None)
    if foreign and not multi_label:
        whose = "ChestX-ray14" if foreign is _NIH else "CheXpert"
        raise DataError(f"{path}: the labels of {whose}, several findings an image; set data.multi_label=true")
    if foreign is _NIH:
        return _Table("ChestX-ray14", [(line, row) for line, row in _from_nih(path.parent, rows)], ())
    findings = tuple(name for name in names if name.casefold() not in (*COLUMNS, *_CHEXPERT))
    if foreign is _CHEXPERT:
        return _Table("CheXpert", _from_chexpert(path.parent, rows), findings)
    _check_columns(path, columns, multi_label)
    return _Table("CSV manifest", [(line, dict.fromkeys(COLUMNS, "") | row) for line, row in rows], findings)


def read_csv(path: Path, faults: Faults) -> tuple[list[str], list[tuple[int, Row]]]:
    """The header, and line numbers and rows by column, in lower case where we know it; without empty rows."""
    rows: list[tuple[int, Row]] = []
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin a file with a byte order mark
        head = text.partition("\n")[0]
        reader = csv.reader(io.StringIO(text), delimiter=";" if ";" in head and "," not in head else ",", strict=True)
        names = [name.strip() for name in next(reader, [])]
        known = {*COLUMNS, *_NIH, *_CHEXPERT}
        keys = [name.casefold() if name.casefold() in known else name for name in names]
        for fields in reader:
            if len(fields) > len(keys):
                faults["more fields than columns (quote a comma in a name)"].append((reader.line_num, fields[-1]))
            named = dict.fromkeys(keys, "")  # of a row that ends early
            named |= {name: field.strip() for name, field in zip(keys, fields, strict=False)}
            if any(named.values()):
                rows.append((reader.line_num, named))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        after = f"after {len(rows)} rows: {error}"
        raise DataError(f"{path}: cannot be read as CSV {after}; save it as CSV in UTF-8") from None
    return names, rows


def _check_columns(path: Path, columns: Sequence[str], multi_label: bool) -> None:
    unknown = [name for name in columns if name not in COLUMNS]
    wrong = ["", *(["label"] if unknown else [])] if multi_label else unknown
    if any(name in columns for name in wrong) or "image" not in columns or len(set(columns)) < len(columns):
        near = difflib.get_close_matches(unknown[0], COLUMNS, 1) if unknown else []
        hint = f" ({unknown[0]!r}: did you mean {near[0]!r}?)" if near else ""
        if multi_label:
            hint = ", and a column a finding, or else `label` with | between them"
        elif unknown and not near:
            hint = "; a column a finding needs data.multi_label=true"
        raise DataError(
            f"{path}: the header must be {','.join(COLUMNS)} (only image is required), each once, got {columns!r}{hint}"
        )


def _from_nih(base: Path, rows: Sequence[tuple[int, Row]]) -> list[tuple[int, Row]]:
    """Rows of ChestX-ray14, whose images, named alone, may lie in several folders."""
    places = {name: f"{name}" for name in sorted(path.name for path in base.iterdir())}
    for folder in sorted(name for name in places if name.casefold().startswith("images")):
        for parent, _, files in os.walk(base / folder):
            places |= {name: (Path(parent) / name).relative_to(base).as_posix() for name in files}
    empty = dict.fromkeys(COLUMNS, "")
    image, label, group = _NIH
    return [
        (line, empty | {"image": places.get(name, name), "label": row.get(label, ""), "group": row.get(group, "")})
        for line, row in rows
        for name in [row.get(image, "")]
    ]


def _from_chexpert(base: Path, rows: Sequence[tuple[int, Row]]) -> list[tuple[int, Row]]:
    """Frontal images of CheXpert, whose paths begin with the folder that the CSV lies in."""
    read = []
    for line, row in rows:
        if row.get("frontal/lateral", "").casefold() == "lateral":
            continue
        path = row.get("path", "")
        first, _, rest = path.partition("/")
        patient = _PATIENT.search(path)
        named = {"image": rest if first == base.resolve().name else path}
        named |= {"group": patient[1] if patient else ""}
        read.append((line, dict.fromkeys(COLUMNS, "") | row | named))
    return read


def _read_row(base: Path, line: int, row: Mapping[str, str], findings: Sequence[str], faults: Faults) -> Sample:
    """Turn a row into a sample; what is wrong in it is added to `faults`."""
    files: dict[str, Path | None] = {}
    for column in ("image", "lung", "infection"):
        name = row[column].replace("\\", "/")
        files[column] = file = base / name if name else None
        if (file or column == "image") and not (file and os.path.isfile(file)):  # noqa: PTH113 (three times as fast)
            faults[f"{column} file not found"].append((line, name))
    marks = []
    for name in findings:
        mark = mark_of(row.get(name, ""))
        if mark is None:
            faults[f"{name} other than 1, 0, -1 or nothing"].append((line, row[name]))
        marks.append(-1 if mark is None else mark)
    return Sample(
        id=posixpath.normpath(row["image"].replace("\\", "/")),
        image=files["image"] or base,
        lung=files["lung"],
        infection=files["infection"],
        label=None,
        split=SPLIT_FOLDERS.get(row["split"].casefold(), "train"),
        group=row["group"] or None,
        class_name=plain_number(row["label"]) or None,
        findings=tuple(marks) if findings else None,
    )


def mark_of(text: str) -> int | None:
    """What a cell says of a finding: 1 there, 0 not there, -1 unknown; None if it is none of these."""
    return _MARKS.get(plain_number(text))


def is_published(path: Path) -> bool:
    """Whether a file has the header of ChestX-ray14's or CheXpert's labels."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        columns = {name.strip().casefold() for name in file.readline().split(",")}
    return any(set(form[:2]) <= columns for form in (_NIH, _CHEXPERT))


def plain_number(text: str) -> str:
    """Spreadsheets write the number 1 as 1.0 in a column with gaps."""
    whole = text.removesuffix(".0")
    return whole if whole.removeprefix("-").isdigit() else text


def phrase_lines(fault: str, found: Sequence[tuple[int, str]]) -> str:
    """Phrase one kind of fault in a manifest: all its lines, as ranges, and the first three values."""
    lines = sorted({line for line, _ in found})
    # Within a run of consecutive numbers the difference to the position is the same.
    runs = [[line for _, line in run] for _, run in groupby(enumerate(lines), lambda pair: pair[1] - pair[0])]
    ranges = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    first = ", ".join(repr(value) for _, value in found[:3])
    return f"{fault}: {len(found)} on line {ranges} ({first}{', ...' if len(found) > 3 else ''})"
