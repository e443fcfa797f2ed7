"""An audit in words, as JSON, and as the files `leaks.csv`, `faults.csv` and `pairs.png` of a folder."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from lungseg.auditing.audit import Audit, Cell
from lungseg.data.duplicates import Leak
from lungseg.data.sample import CLASSES, Sample
from lungseg.errors import UserError
from lungseg.reporting.drawing import png
from lungseg.reporting.pair_sheet import draw_pairs
from lungseg.runs.whole_files import to_csv, write_whole

SHOWN_FILES = 10  # Files named of each kind of fault in the summary; `faults.csv` and the JSON have all.
_VIEWS = {"border": "the border alone", "lungs blanked": "the image without its lungs"}
LEAKS, FAULTS, PAIRS = "leaks.csv", "faults.csv", "pairs.png"
_OF_EACH = ("id", "split", "label")
LEAK_COLUMNS = ("kind", "correlation", "across_splits", *(f"{name}_{image}" for image in "ab" for name in _OF_EACH))
FAULT_COLUMNS = ("kind", "file", "detail")


def summarise(audit: Audit) -> str:
    """Write the audit as text of several lines, the findings last."""
    sizes = ", ".join(audit.sizes) if len(audit.sizes) < 4 else f"{len(audit.sizes)} sizes"
    splits = "" if audit.has_splits else ", no splits"
    lines = [
        f"audit of {audit.root}: {audit.layout}{splits}, {audit.images:,} images ({sizes or 'none readable'})",
        "",
        *_count_lines(audit.cells),
        *_fault_lines(audit),
        *_copy_lines(audit),
        *_probe_lines(audit),
    ]
    lines += (
        ["findings:", *(f"  - {finding}" for finding in list_findings(audit))]
        if not audit.is_clean
        else ["no findings"]
    )
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


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
    there = [name for name in (LEAKS, FAULTS, PAIRS) if (folder / name).exists()]
    if there and not _is_ours(folder / LEAKS):
        raise FileExistsError(f"--output: {str(folder / there[0])!r} was not written by an audit; name another folder")


def write_report(audit: Audit, folder: Path) -> list[Path]:
    """Write the files, each whole or absent, over those of an earlier audit; `pairs.png` only where there are pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [*(leak for leak in audit.leaks if leak.across), *audit.moved]
    pairs += [leak for leak in audit.leaks if not leak.across]
    files = {FAULTS: _csv(FAULT_COLUMNS, audit.faults), LEAKS: _csv(LEAK_COLUMNS, map(_leak_row, pairs))}
    if pairs:
        files[PAIRS] = png(draw_pairs(pairs))
    else:
        (folder / PAIRS).unlink(missing_ok=True)
    for name, content in files.items():
        write_whole(folder / name, content)
    return [folder / name for name in files]


def _count_lines(cells: Sequence[Cell]) -> Iterator[str]:
    """A table a tree: splits down, classes across."""
    for tree, of_tree in groupby(cells, lambda cell: cell.tree):
        rows = [list(row) for _, row in groupby(of_tree, lambda cell: cell.split)]
        names = [name for name in (*CLASSES, "no class") if any(cell.name == name for row in rows for cell in row)]
        published = any(cell.published for row in rows for cell in row)
        yield f"{'images, of those published,' if published else 'images'} in {tree}"
        yield f"  {'':6}" + "".join(f"{name:>24}" for name in names)
        for row in rows:
            counts = {cell.name: _count(cell) for cell in row}
            yield f"  {row[0].split:6}" + "".join(f"{counts.get(name, '0'):>24}" for name in names)
        if any(_verdict(cell) == "differs" for row in rows for cell in row):
            yield "  a part of the tree may differ on purpose: only counts off by 1 % or less count as findings"
        yield ""


def _count(cell: Cell) -> str:
    if cell.published is None:
        return f"{cell.images:,}"
    return f"{cell.images:,} of {cell.published:,} {_verdict(cell)}"


def _verdict(cell: Cell) -> str | None:
    if cell.published is None:
        return None
    return "ok" if cell.images == cell.published else "differs"


def _fault_lines(audit: Audit) -> Iterator[str]:
    if not audit.faults:
        yield "files and masks: no fault"
    else:
        yield f"files and masks: {len(audit.faults):,} faults"
    for kind, of_kind in groupby(audit.faults, lambda fault: fault.kind):
        faults = list(of_kind)
        yield f"  {kind}: {len(faults):,}"
        for fault in faults[:SHOWN_FILES]:
            yield f"    {fault.file}{': ' if fault.detail else ''}{fault.detail}"
        if len(faults) > SHOWN_FILES:
            yield f"    ... and {len(faults) - SHOWN_FILES:,} more, see {FAULTS}"
    yield ""


def _copy_lines(audit: Audit) -> Iterator[str]:
    if audit.in_both_trees or audit.moved:
        yield f"both trees: {audit.in_both_trees:,} images under the same split (expected), {len(audit.moved):,} not"
    if not audit.leaks:
        yield "copies: none, neither exact nor near"
        yield ""
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
    yield ""


def _probe_lines(audit: Audit) -> Iterator[str]:
    if not audit.probes:
        yield "shortcut probe: not run, it needs images of two classes or more to fit and to test"
        yield ""
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
    yield ""


def _leak_row(leak: Leak) -> tuple[Any, ...]:
    return leak.kind, round(leak.likeness, 4), leak.across, *_columns(leak.first), *_columns(leak.second)


def _columns(sample: Sample) -> tuple[str, str, str]:
    return sample.id, sample.split, "" if sample.label is None else CLASSES[sample.label]


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    return to_csv([columns, *(map(str, row) for row in rows)]).encode("utf-8", "surrogateescape")


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.readline().strip() == ",".join(LEAK_COLUMNS).encode()
    except OSError:
        return False
