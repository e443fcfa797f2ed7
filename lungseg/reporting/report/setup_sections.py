"""Sections of the page beside the measurements: published numbers, notes, and what was run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from lungseg.reporting.report.content import Content
from lungseg.reporting.report.markup import folded, items, paragraph, section, table
from lungseg.reporting.report.words import told

PATHS = ("root", "cache_dir", "dir")
"""Keys of the config whose values, names of folders, stay out of the page."""


def scoreboard_section(content: Content) -> str:
    """This run beside the published numbers."""
    rows = [
        (
            str(row.get("what"))
            + (" (published)" if row.get("published") and "published" not in str(row.get("what")) else ""),
            told(row, 4) if row.get("value") is not None else "not measured",
            str(row.get("data")),
            str(row.get("source")),
        )
        for row in content.metrics.get("scoreboard") or []
    ]
    if not rows:
        return section("scoreboard", "Beside published numbers", [paragraph("There is no scoreboard.")])
    said = (
        "Side by side because readers compare them, not because they are comparable: the data differ, and so may the "
        "way of averaging. Published numbers come without intervals."
    )
    board = table(("what", "value [95 % interval]", "data", "source"), rows, "Scoreboard", "words board")
    return section("scoreboard", "Beside published numbers", [paragraph(said), board])


def notes_section(content: Content) -> str:
    """What was left out or is undefined."""
    notes = [str(note) for note in content.metrics.get("notes") or []]
    inside = items(f"{note[:1].upper()}{note[1:]}." for note in notes) if notes else paragraph("There are none.")
    return section("notes", "How to read these numbers", [inside])


def setup_section(content: Content) -> str:
    """Checkpoint, network, data, versions."""
    what = content.what
    run = {
        "checkpoint": _short_path(what.get("checkpoint")),
        "digest of the checkpoint": what.get("checkpoint_digest"),
        "lungseg": what.get("lungseg"),
        "revision": what.get("git_revision"),
        "date": what.get("date"),
        "data": what.get("data_name"),
        "split": what.get("split"),
        "data fingerprint": what.get("data_fingerprint"),
        "class maps shown": what.get("target"),
        "resamples behind an interval": what.get("bootstraps"),
        "devices": ", ".join(map(str, what.get("devices") or [])),
    }
    data = content.section("what", "data")
    return section(
        "setup",
        "Config and environment",
        [
            _pairs(run.items(), "What was evaluated"),
            folded("Network", _pairs(content.section("what", "network").items(), "Network")),
            folded(
                "Data settings",
                _pairs(data.items(), "Data settings; names of folders are left out"),
            ),
            folded("Versions", _pairs(content.section("what", "versions").items(), "Versions")),
        ],
    )


def _pairs(pairs: Iterable[tuple[str, Any]], caption: str) -> str:
    rows = [(name, _plain(value)) for name, value in pairs if name not in PATHS and value not in (None, "", [])]
    return table(("", ""), rows, caption, "words") if rows else paragraph("Not known.")


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items() if name not in PATHS)
    if isinstance(value, list | tuple):
        return ", ".join(_plain(inner) for inner in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value > 9999 else str(value)


def _short_path(path: Any) -> str:
    """The run's name and the file's: no folder above them."""
    parts = PurePath(str(path or "")).parts
    kept = [part for part in parts[-3:] if part not in ("checkpoints", "/")]
    return "/".join(kept)
