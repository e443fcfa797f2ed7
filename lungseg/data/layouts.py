"""Layouts of other data sets: COVID-19 Radiography Database, plain folders, CSV manifest. `index` chooses among them.

A finder says which folders hold its layout, a reader turns them into samples and phrases on what is wrong. Readers
raise only where nothing can be read, so that `index` reports every fault at once.
"""

import csv
import difflib
import io
import os
import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from lungseg.data.folders import PART_FOLDERS, SPLIT_FOLDERS, Folders, Reading, join, phrase
from lungseg.data.sample import SPLITS, Sample, Split
from lungseg.errors import DataError

RADIOGRAPHY = "COVID-19 Radiography Database"
RADIOGRAPHY_CLASSES = {"COVID": "COVID-19", "Lung_Opacity": "Non-COVID", "Viral Pneumonia": "Non-COVID"}
"""Class folders of the COVID-19 Radiography Database beside `Normal`, and the class of COVID-QU-Ex that each one is."""

COLUMNS = ("image", "lung", "infection", "label", "split", "group")  # Columns of a manifest; only `image` is required.

Faults = defaultdict[str, list[tuple[int, str]]]  # Line and value of each occurrence in a manifest, by kind of fault.


def read_radiography(folders: Folders) -> Reading | None:
    """Read `{COVID,Normal,Lung_Opacity,Viral Pneumonia}/{images,masks}` in the root or one folder in it.

    It has no splits. Its masks are 256 px, its images 299 px: they are fitted when decoded. None where it is not there.
    """
    names = {name.casefold() for name in RADIOGRAPHY_CLASSES}
    for folder in ("", *folders.dirs("")):
        classes = [join(folder, name) for name in folders.dirs(folder) if name.casefold() in names]
        if any(folders.child(one, ("images",)) and folders.child(one, ("masks",)) for one in classes):
            break
    else:
        return None
    samples = read_classes(folders, folder, "train")
    _warn_of_missing_masks(folders, samples)
    samples = [replace(sample, fit_masks=True) for sample in samples]
    return Reading(RADIOGRAPHY, samples, folders.problems(), False)


def read_plain(folders: Folders) -> Reading | None:
    """Read folders of images, with or without masks, one folder a class or none, below split folders or not.

    A folder's masks lie beside its `images` (or `CXR_png`) in `masks`, `mask` or `lung masks`, named as the image or
    with `_mask` added, or among the images, marked by name, or one file a side (`folders.SIDES`). Images right below
    a split folder or the root have no label. An image may lack its mask. None where there are no images.
    """
    splits = [name for name in folders.dirs("") if name.casefold() in SPLIT_FOLDERS]
    found = [one for one in splits or [""] if any(map(folders.holds_images, (one, *_image_folders(folders, one))))]
    if not found:
        return None
    samples: list[Sample] = []
    for folder in found:
        split = SPLIT_FOLDERS.get(folder.casefold(), "train")
        samples += folders.samples(folder, None, split) if folders.holds_images(folder) else []
        samples += read_classes(folders, folder, split)
    _warn_of_missing_masks(folders, samples)
    has_splits = found[0] != ""
    stray = [name for name in _image_folders(folders, "") if name not in found] if has_splits else []
    problems = [
        *phrase("folder of images beside the split folders", stray, "move it into one of them"),
        *folders.problems(),
    ]
    layout = "plain folders" + (", lung masks among the images" if folders.beside else "")
    return Reading(layout, samples, problems, has_splits)


def read_classes(folders: Folders, folder: str, split: Split) -> list[Sample]:
    """Give the samples of the class folders in a folder, each with the name of its folder."""
    samples: list[Sample] = []
    for inside in _image_folders(folders, folder):
        samples += folders.samples(inside, inside.rpartition("/")[2], split)
    return samples


def read_manifest(path: Path) -> Reading:
    """Read a CSV file with a header of `COLUMNS`, comma or semicolon between them; what is empty is missing.

    Files are relative to the CSV; an id is the image as written there. `label` is a class name, or
    its number in `data.classes`. `split` is given in every row or in none.
    """
    faults: Faults = defaultdict(list)
    rows = read_rows(path, faults)
    has_splits = any(row["split"] for _, row in rows)
    samples: list[Sample] = []
    taken: set[str] = set()
    split_of: dict[str, str] = {}
    for line, row in rows:
        sample = _read_row(path.parent, line, row, faults)
        if sample.id in taken:
            faults["image named before"].append((line, sample.id))
        if has_splits and row["split"].casefold() not in SPLIT_FOLDERS:
            faults[f"split other than {', '.join(SPLITS)} (in every row or in none)"].append((line, row["split"]))
        elif sample.group and split_of.setdefault(sample.group, sample.split) != sample.split:
            faults["group that an earlier line puts into another split"].append((line, sample.group))
        taken.add(sample.id)
        samples.append(sample)
    problems = [_phrase_lines(fault, found) for fault, found in faults.items()]
    return Reading("CSV manifest", samples, problems, has_splits)


def read_rows(path: Path, faults: Faults) -> list[tuple[int, dict[str, str]]]:
    """Read line numbers and rows, each with all columns, stripped; rows without a value are left out."""
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin a file with a byte order mark
        head = text.partition("\n")[0]
        reader = csv.reader(io.StringIO(text), delimiter=";" if ";" in head and "," not in head else ",", strict=True)
        columns = [name.strip().casefold() for name in next(reader, [])]
        _check_columns(path, columns)
        for fields in reader:
            if len(fields) > len(columns):
                faults["more fields than columns (quote a comma in a name)"].append((reader.line_num, fields[-1]))
            named = {name: field.strip() for name, field in zip(columns, fields, strict=False)}
            if any(named.values()):
                rows.append((reader.line_num, dict.fromkeys(COLUMNS, "") | named))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        after = f"after {len(rows)} rows: {error}"
        raise DataError(f"{path}: cannot be read as CSV {after}; save it as CSV in UTF-8") from None
    return rows


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown or "image" not in columns or len(set(columns)) < len(columns):
        near = difflib.get_close_matches(unknown[0], COLUMNS, 1) if unknown else []
        hint = f" ({unknown[0]!r}: did you mean {near[0]!r}?)" if near else ""
        raise DataError(
            f"{path}: the header must be {','.join(COLUMNS)} (only image is required), each once, got {columns!r}{hint}"
        )


def _read_row(base: Path, line: int, row: Mapping[str, str], faults: Faults) -> Sample:
    """Turn a row into a sample; what is wrong in it is added to `faults`."""
    files: dict[str, Path | None] = {}
    for column in ("image", "lung", "infection"):
        name = row[column].replace("\\", "/")
        files[column] = file = base / name if name else None
        if (file or column == "image") and not (file and os.path.isfile(file)):  # noqa: PTH113 (three times as fast)
            faults[f"{column} file not found"].append((line, name))
    # Spreadsheets write the number 1 as 1.0 in a column with gaps.
    name = row["label"].removesuffix(".0") if row["label"].removesuffix(".0").isdigit() else row["label"]
    return Sample(
        id=posixpath.normpath(row["image"].replace("\\", "/")),
        image=files["image"] or base,
        lung=files["lung"],
        infection=files["infection"],
        label=None,
        split=SPLIT_FOLDERS.get(row["split"].casefold(), "train"),
        group=row["group"] or None,
        class_name=name or None,
    )


def _phrase_lines(fault: str, found: Sequence[tuple[int, str]]) -> str:
    """Phrase one kind of fault in a manifest: all its lines, as ranges, and the first three values."""
    lines = sorted({line for line, _ in found})
    # Within a run of consecutive numbers the difference to the position is the same.
    runs = [[line for _, line in run] for _, run in groupby(enumerate(lines), lambda pair: pair[1] - pair[0])]
    ranges = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    first = ", ".join(repr(value) for _, value in found[:3])
    return f"{fault}: {len(found)} on line {ranges} ({first}{', ...' if len(found) > 3 else ''})"


def _warn_of_missing_masks(folders: Folders, samples: Sequence[Sample]) -> None:
    """Warn once of images without a lung mask in folders where others have one."""
    masked = {sample.image.parent for sample in samples if sample.lung is not None}
    bare = [sample.id for sample in samples if sample.lung is None and sample.image.parent in masked]
    folders.warn("image without a lung mask, used without", bare, "add the mask if there should be one")


def _image_folders(folders: Folders, folder: str) -> list[str]:
    """The folders in a folder that hold images and may be classes."""
    inside = (join(folder, name) for name in folders.dirs(folder) if name.casefold() not in PART_FOLDERS)
    return [one for one in inside if folders.holds_images(one)]
