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
from lungseg.data.sample import CLASSES, SPLITS, Sample, Split
from lungseg.errors import DataError, UserError

RADIOGRAPHY_CLASSES = {"COVID": "COVID-19", "Lung_Opacity": "Non-COVID", "Viral Pneumonia": "Non-COVID"}
"""Class folders of the COVID-19 Radiography Database beside `Normal`, and the class each one counts as."""

COLUMNS = ("image", "lung", "infection", "label", "split", "group")  # Columns of a manifest; only `image` is required.

Labels = Mapping[str, int]  # Label by class name in lower case.

Faults = defaultdict[str, list[tuple[int, str]]]  # Line and value of each occurrence in a manifest, by kind of fault.


def class_labels(names: Mapping[str, str] | None = None) -> dict[str, int]:
    """Give the label of each name in lower case: of `CLASSES`, and of the keys of `names`, whose values are classes."""
    labels = {name.casefold(): label for label, name in enumerate(CLASSES)}
    known = dict(labels)
    for name, meant in (names or {}).items():
        if meant.casefold() not in known:
            raise UserError(f"data.label_map: {name!r} must map to one of {', '.join(CLASSES)}, got {meant!r}")
        labels[name.casefold()] = known[meant.casefold()]
    return labels


def read_radiography(folders: Folders, labels: Labels) -> Reading | None:
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
    samples, unknown = read_classes(folders, {**class_labels(RADIOGRAPHY_CLASSES), **labels}, folder, "train")
    _warn_of_missing_masks(folders, samples)
    samples = [replace(sample, fit_masks=True) for sample in samples]
    return Reading("COVID-19 Radiography Database", samples, [*unknown_classes(unknown), *folders.problems()], False)


def read_plain(folders: Folders, labels: Labels) -> Reading | None:
    """Read folders of images, with or without masks, one folder a class or none, below split folders or not.

    A folder's masks lie beside its `images` (or `CXR_png`) in `masks`, `mask` or `lung masks`, named as the image or
    with `_mask` added, or one file a side in `ManualMask/leftMask` and `rightMask` (`lung_files`). Images right below
    a split folder or the root have no label. An image may lack its mask. None where there are no images.
    """
    splits = [name for name in folders.dirs("") if name.casefold() in SPLIT_FOLDERS]
    found = [one for one in splits or [""] if any(map(folders.holds_images, (one, *_image_folders(folders, one))))]
    if not found:
        return None
    samples: list[Sample] = []
    unknown: list[str] = []
    for folder in found:
        split = SPLIT_FOLDERS.get(folder.casefold(), "train")
        samples += folders.samples(folder, None, split) if folders.holds_images(folder) else []
        of_classes, of_no_class = read_classes(folders, labels, folder, split)
        samples += of_classes
        unknown += of_no_class
    _warn_of_missing_masks(folders, samples)
    has_splits = found[0] != ""
    stray = [name for name in _image_folders(folders, "") if name not in found] if has_splits else []
    problems = [
        *phrase("folder of images beside the split folders", stray, "move it into one of them"),
        *unknown_classes(unknown),
        *folders.problems(),
    ]
    return Reading("plain folders", samples, problems, has_splits)


def read_classes(folders: Folders, labels: Labels, folder: str, split: Split) -> tuple[list[Sample], list[str]]:
    """Give the samples of the class folders in a folder, and the folders of images whose name is no class."""
    samples: list[Sample] = []
    unknown: list[str] = []
    for inside in _image_folders(folders, folder):
        # Of other names nothing is guessed: the user maps them or moves them away.
        label = labels.get(inside.rpartition("/")[2].casefold())
        if label is None:
            unknown.append(inside)
        else:
            samples += folders.samples(inside, label, split)
    return samples, unknown


def unknown_classes(found: Sequence[str]) -> list[str]:
    """Phrase the fault of folders whose names are no class."""
    advice = f"classes are {', '.join(CLASSES)}; map other names to them with data.label_map, or write a CSV manifest"
    return phrase("folder whose name is no class", found, advice)


def read_manifest(path: Path, labels: Labels) -> Reading:
    """Read a CSV file with a header of `COLUMNS`, comma or semicolon between them; what is empty is missing.

    Files are relative to the CSV; an id is the image as written there. `label` is a class name or 0..2. `split` is
    given in every row or in none.
    """
    faults: Faults = defaultdict(list)
    rows = read_rows(path, faults)
    has_splits = any(row["split"] for _, row in rows)
    samples: list[Sample] = []
    taken: set[str] = set()
    split_of: dict[str, str] = {}
    for line, row in rows:
        sample = _read_row(path.parent, labels, line, row, faults)
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


def _read_row(base: Path, labels: Labels, line: int, row: Mapping[str, str], faults: Faults) -> Sample:
    """Turn a row into a sample; what is wrong in it is added to `faults`."""
    files: dict[str, Path | None] = {}
    for column in ("image", "lung", "infection"):
        name = row[column].replace("\\", "/")
        files[column] = base / name if name else None
        if (name or column == "image") and not os.path.isfile(base / name):  # noqa: PTH113 (three times as fast)
            faults[f"{column} file not found"].append((line, name))
    # A class name or a number; spreadsheets write 1 as 1.0 in a column with gaps.
    numbers = {f"{label}{end}": label for label in range(len(CLASSES)) for end in ("", ".0")}
    label = numbers.get(row["label"], labels.get(row["label"].casefold()))
    if row["label"] and label is None:
        faults[f"label other than {', '.join(CLASSES)}, 0..{len(CLASSES) - 1}"].append((line, row["label"]))
    return Sample(
        id=posixpath.normpath(row["image"].replace("\\", "/")),
        image=files["image"] or base,
        lung=files["lung"],
        infection=files["infection"],
        label=label,
        split=SPLIT_FOLDERS.get(row["split"].casefold(), "train"),
        group=row["group"] or None,
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
