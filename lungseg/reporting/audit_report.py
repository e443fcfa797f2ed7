"""An audit in words, as JSON, and as the files `leaks.csv`, `faults.csv` and `pairs.png` of a folder."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from lungseg.auditing.audit import Audit, Cell
from lungseg.data.duplicates import Leak
from lungseg.data.images import read_image
from lungseg.data.sample import Sample
from lungseg.errors import DataError, UserError
from lungseg.reporting import drawing
from lungseg.reporting.formatting import align
from lungseg.runs.whole_files import to_csv, write_whole

SHOWN_FILES = 10  # Files named of each kind of fault in the summary; `faults.csv` and the JSON have all.
_VIEWS = {"border": "the border alone", "lungs blanked": "the image without its lungs"}
LEAKS, FAULTS, PAIRS, AUGMENTED = "leaks.csv", "faults.csv", "pairs.png", "augmented.png"
_OF_EACH = ("id", "split", "label")
LEAK_COLUMNS = ("kind", "correlation", "across_splits", *(f"{name}_{image}" for image in "ab" for name in _OF_EACH))
FAULT_COLUMNS = ("kind", "file", "detail")
MOST_PAIRS, PAIRS_A_ROW = 48, 4  # Of the picture.
SIDE_PX, _GAP_PX, _TEXT_PX = 176, 8, 50
LONGEST_NAME = 26  # Letters.


def summarise(audit: Audit) -> str:
    """Write the audit as text of several lines, the findings last."""
    sizes = ", ".join(audit.sizes) if len(audit.sizes) < 4 else f"{len(audit.sizes)} sizes"
    splits = "" if audit.has_splits else ", no splits"
    head = f"audit of {audit.root}: {audit.layout}{splits}, {audit.images:,} images ({sizes or 'none readable'})"
    findings = [f"  - {finding}" for finding in list_findings(audit)]
    parts: list[Iterable[str]] = [
        [head],
        *_count_tables(audit.cells),
        _fault_lines(audit),
        _copy_lines(audit),
        _probe_lines(audit),
    ]
    parts.append(["findings:", *findings] if findings else ["no findings"])
    return "\n\n".join("\n".join(part) for part in parts).encode("utf-8", "backslashreplace").decode()


def list_findings(audit: Audit) -> list[str]:
    """Phrase each kind of thing that is wrong; empty for a clean data set."""
    kinds = Counter(fault.kind for fault in audit.faults)
    findings = [*audit.problems, *(f"{kind}: {count:,}" for kind, count in kinds.items())]
    if audit.moved:
        findings.append(f"images that the two trees have under different splits: {len(audit.moved):,}")
    across = sum(leak.across for leak in audit.leaks)
    if across:
        findings.append(f"leaks, pairs of one image in two splits: {across:,}")
    if len(audit.leaks) > across:
        where = "one split" if audit.has_splits else "the set"
        findings.append(f"pairs of one image twice in {where}: {len(audit.leaks) - across:,}")
    views = [probe.view for probe in audit.probes if probe.is_shortcut]
    if views:
        findings.append(f"shortcut: the class can be told from {' and from '.join(_VIEWS[view] for view in views)}")
    return findings


def to_json(audit: Audit) -> dict[str, Any]:
    """Turn the audit into plain values, complete, with all file names."""
    return {
        "root": str(audit.root),
        "layout": audit.layout,
        "has_splits": audit.has_splits,
        "clean": audit.is_clean,
        "findings": list_findings(audit),
        "images": audit.images,
        "sizes": audit.sizes,
        "counts": [cell._asdict() | {"verdict": _verdict(cell)} for cell in audit.cells],
        "problems": audit.problems,
        "faults": [fault._asdict() for fault in audit.faults],
        "in_both_trees": audit.in_both_trees,
        "moved": [dict(zip(LEAK_COLUMNS, _leak_row(leak), strict=True)) for leak in audit.moved],
        "leaks": [dict(zip(LEAK_COLUMNS, _leak_row(leak), strict=True)) for leak in audit.leaks],
        "groups": [[sample.id for sample in group] for group in audit.groups],
        "training_copies": sorted(audit.training_copies),
        "probes": [probe._asdict() | {"shortcut": probe.is_shortcut} for probe in audit.probes],
    }


def check_output(folder: Path, root: Path) -> None:
    """Raise where writing there would change the data set or overwrite what no audit wrote.

    Raises:
        UserError: The folder lies inside the data set.
        FileExistsError: It is a file, or holds a file of a name wanted that is none of an audit.
    """
    if root.is_dir() and folder.resolve().is_relative_to(root.resolve()):
        raise UserError(f"--output: {str(folder)!r} lies inside the data set; name a folder elsewhere")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--output: {str(folder)!r} is a file; name a folder")
    there = [name for name in (LEAKS, FAULTS, PAIRS, AUGMENTED) if (folder / name).exists()]
    head = ",".join(LEAK_COLUMNS).encode()
    if there and not (LEAKS in there and (folder / LEAKS).read_bytes().startswith(head)):
        raise FileExistsError(f"--output: {str(folder / there[0])!r} was not written by an audit; name another folder")


def write_report(audit: Audit, folder: Path) -> list[Path]:
    """Write the files, each whole or absent, over those of an earlier audit; `pairs.png` only where there are pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [*(leak for leak in audit.leaks if leak.across), *audit.moved]
    pairs += [leak for leak in audit.leaks if not leak.across]
    files = {FAULTS: _csv(FAULT_COLUMNS, audit.faults), LEAKS: _csv(LEAK_COLUMNS, map(_leak_row, pairs))}
    if pairs:
        files[PAIRS] = drawing.png(draw_pairs(pairs))
    else:
        (folder / PAIRS).unlink(missing_ok=True)
    for name, content in files.items():
        write_whole(folder / name, content)
    return [folder / name for name in files]


def draw_pairs(leaks: Sequence[Leak]) -> drawing.Array:
    """Draw the first of one pair or more side by side, each with kind, correlation, split, class and file."""
    shown = leaks[:MOST_PAIRS]
    title = f"{len(shown)} of {len(leaks)} pairs of images that show one exposure"
    cells = [_draw_pair(leak) for leak in shown]
    height, width = cells[0].shape[:2]
    columns = min(PAIRS_A_ROW, len(cells))
    rows = -(-len(cells) // columns)
    sheet = np.full((40 + rows * (height + _GAP_PX), columns * (width + _GAP_PX) - _GAP_PX, 3), drawing.PAPER, np.uint8)
    for index, cell in enumerate(cells):
        top, left = 40 + index // columns * (height + _GAP_PX), index % columns * (width + _GAP_PX)
        sheet[top : top + height, left : left + width] = cell
    return drawing.write_texts(sheet, [drawing.Text(8, 8, title, 17)])


def _count_tables(cells: Sequence[Cell]) -> Iterator[list[str]]:
    """A table a tree: splits down, classes across."""
    for tree, of_tree in groupby(cells, lambda cell: cell.tree):
        known = list(of_tree)
        names = list(dict.fromkeys(cell.name for cell in known if cell.name != "no class"))
        names += ["no class"] if any(cell.name == "no class" for cell in known) else []
        table = [["", *names]]
        for split, row in groupby(known, lambda cell: cell.split):
            counts = {cell.name: _count(cell) for cell in row}
            table.append([split, *(counts.get(name, "0") for name in names)])
        heading = "images, of those published," if any(cell.published for cell in known) else "images"
        lines = [f"{heading} in {tree}", *(f"  {line}" for line in align(table))]
        if any(_verdict(cell) == "differs" for cell in known):
            lines.append("  a part of the tree may differ on purpose: only counts off by 1 % or less count as findings")
        yield lines


def _count(cell: Cell) -> str:
    if cell.published is None:
        return f"{cell.images:,}"
    return f"{cell.images:,} of {cell.published:,} {_verdict(cell)}"


def _verdict(cell: Cell) -> str | None:
    if cell.published is None:
        return None
    return "ok" if cell.images == cell.published else "differs"


def _fault_lines(audit: Audit) -> Iterator[str]:
    yield f"files and masks: {f'{len(audit.faults):,} faults' if audit.faults else 'no fault'}"
    for kind, of_kind in groupby(audit.faults, lambda fault: fault.kind):
        faults = list(of_kind)
        yield f"  {kind}: {len(faults):,}"
        for fault in faults[:SHOWN_FILES]:
            yield f"    {fault.file}{': ' if fault.detail else ''}{fault.detail}"
        if len(faults) > SHOWN_FILES:
            yield f"    ... and {len(faults) - SHOWN_FILES:,} more, see {FAULTS}"


def _copy_lines(audit: Audit) -> Iterator[str]:
    if audit.in_both_trees or audit.moved:
        yield f"both trees: {audit.in_both_trees:,} images under the same split (expected), {len(audit.moved):,} not"
    if not audit.leaks:
        yield "copies: none, neither exact nor near"
        return
    groups = audit.groups
    images = sum(map(len, groups))
    yield f"copies: {images:,} images show {len(groups):,} exposures (up to {max(map(len, groups))} images of one)"
    for across in (True, False) if audit.has_splits else (False,):
        leaks = [leak for leak in audit.leaks if leak.across == across]
        exact = sum(leak.kind == "exact" for leak in leaks)
        where = ("across splits" if across else "within a split") if audit.has_splits else "in the set"
        yield f"  {where}: {exact:,} exact and {len(leaks) - exact:,} near pairs"
    leaking = sum(len({sample.split for sample in group}) > 1 for group in groups)
    if leaking:
        drop = len(audit.training_copies)
        yield f"  {leaking:,} exposures lie in several splits; data.exclude_leaks=true drops {drop:,} training images"
    contrary = sum(leak.first.label != leak.second.label for leak in audit.leaks)
    if contrary:
        yield f"  {contrary:,} pairs have two different classes"


def _probe_lines(audit: Audit) -> Iterator[str]:
    if not audit.probes:
        yield "shortcut probe: not run, it needs images of two classes or more to fit and to test"
        return
    first = audit.probes[0]
    yield (
        f"shortcut probe: balanced accuracy of ridge regression on 32x32 pixels, fitted on {first.fitted:,} images and "
        f"tested on {first.tested:,}; chance is {first.chance:.2f}"
    )
    for probe in audit.probes:
        verdict = "a shortcut: training will learn it" if probe.is_shortcut else "not clearly above chance"
        verdict = "may show the disease itself" if probe.view == "thumbnail" else verdict
        yield f"  {probe.view:<14}{probe.accuracy:.3f} +- {probe.deviation:.3f}  {verdict}"


def _leak_row(leak: Leak) -> tuple[Any, ...]:
    return leak.kind, round(leak.likeness, 4), leak.across, *_columns(leak.first), *_columns(leak.second)


def _columns(sample: Sample) -> tuple[str, str, str]:
    return sample.id, sample.split, sample.class_name or ""


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    return to_csv([columns, *(map(str, row) for row in rows)]).encode("utf-8", "surrogateescape")


def _draw_pair(leak: Leak) -> drawing.Array:
    cell = np.full((SIDE_PX + _TEXT_PX, 2 * SIDE_PX, 3), drawing.PAPER, np.uint8)
    cell[:SIDE_PX, :SIDE_PX] = _panel(leak.first.image)
    cell[:SIDE_PX, SIDE_PX:] = _panel(leak.second.image)
    kind = f"{leak.kind}, {leak.likeness:.3f}" + (", across splits" if leak.across else "")
    texts = [drawing.Text(4, SIDE_PX + 2, kind, 12, drawing.WARNING_COLOUR if leak.across else drawing.INK)]
    for left, sample in ((4, leak.first), (SIDE_PX + 4, leak.second)):
        texts += [
            drawing.Text(left, SIDE_PX + 18, _caption(sample), 11),
            drawing.Text(left, SIDE_PX + 33, _name(sample), 11),
        ]
    return drawing.write_texts(cell, texts)


def _panel(path: Path) -> drawing.Array:
    """An image in the middle of a square; a grey square where it can no longer be read."""
    try:
        image = read_image(path)
    except DataError:
        return np.full((SIDE_PX, SIDE_PX, 3), 60, np.uint8)
    grey = np.rint(drawing.resize(image, drawing.fit_size(image.shape, SIDE_PX))).astype(np.uint8)
    return drawing.centre(np.repeat(grey[..., None], 3, axis=2), SIDE_PX, paper=(0, 0, 0))


def _caption(sample: Sample) -> str:
    return f"{sample.split}, {sample.class_name or 'no class'}"


def _name(sample: Sample) -> str:
    """The file's name, its start left out where it is long."""
    name = sample.image.name
    return name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}"
