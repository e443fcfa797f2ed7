"""The journal of predictions: one writer, one line an image, nothing lost but a torn line; no network needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lungseg.errors import UserError
from lungseg.inference.inputs import Input
from lungseg.inference.journal import Journal, done_ids


def _row(name: str, **values: Any) -> dict[str, Any]:
    return {"id": name, "error": None, "stamp": "1", **values}


def _ids(journal: Journal) -> list[str]:
    return [row["id"] for row in journal.rows()]


def test_a_torn_line_is_cut_off_and_the_next_one_is_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add(_row("a"))
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b'{"id": "b", "err')
    again = Journal(tmp_path)
    again.add(_row("c"))
    again.close()
    assert _ids(again) == ["a", "c"]
    assert journal.path.read_bytes().count(b"\n") == 2


def test_dropped_lines_are_gone_from_the_file_and_more_can_be_added(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for name in "abc":
        journal.add(_row(name))
    journal.drop({"a", "c", "z"})
    journal.add(_row("d"))
    journal.close()
    assert _ids(Journal(tmp_path)) == ["b", "d"]


def test_a_shard_is_collected_when_it_has_ended_and_refused_while_it_runs(tmp_path: Path) -> None:
    shard, journal = Journal(tmp_path, (0, 2)), Journal(tmp_path)
    shard.add(_row("a"))
    with pytest.raises(UserError, match="another process is predicting into it; wait for it to end"):
        journal.collect_shards()
    shard.close()
    journal.collect_shards()
    assert _ids(journal) == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".predictions.jsonl.lock", "predictions.jsonl"]


def test_done_is_what_has_a_mask_no_error_and_the_same_stamp(tmp_path: Path) -> None:
    journal, files = Journal(tmp_path / "out"), []
    (tmp_path / "out" / "masks").mkdir()
    for name in ("done", "changed", "failed", "no_mask"):
        (tmp_path / name).touch()
        file = Input(name, tmp_path / name)
        files.append(file)
        stamp = "other" if name == "changed" else file.stamp()
        journal.add(_row(name, stamp=stamp) | ({"error": "bad"} if name == "failed" else {}))
        if name != "no_mask":
            (tmp_path / "out" / "masks" / file.png).touch()
    assert done_ids(tmp_path / "out", files) == {"done"}


def test_the_table_is_sorted_has_a_cell_for_a_list_and_survives_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add(_row("b", error="bad"))
    journal.add(_row("a\udcff", prob_x=0.5, flags=["blank", "one_lung"]))
    journal.write_csv()
    head, first, second = (tmp_path / "predictions.csv").read_text().splitlines()
    assert head.startswith("id,predicted,prob_x,class_set,disagreement_classes,disagreement_lungs,evidence")
    assert first.startswith("a\\udcff,,0.5,") and "blank; one_lung" in first
    assert second.startswith("b,") and second.endswith(",bad")
