"""The class-map part of an evaluation: measured, written to files, and told on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lungseg.cam.layers import FEATURES
from lungseg.evaluation.class_maps import MapResults, Target, Way, measure_class_maps
from lungseg.evaluation.subject import Subject, plain
from lungseg.evaluation.trust import measure_trust
from lungseg.reporting.map_tables import map_table, per_image_csv, table_lines, without_nan
from lungseg.reporting.whole_files import write_json, write_text


def evaluate_maps(subject: Subject, methods: Sequence[str], target: Target, faithful: int, output: Path) -> None:
    """Measure, write `class_maps.json` and `per_image.csv` into a folder, print what matters.

    Args:
        subject: Network and data.
        methods: `NAME` or `NAME@LAYER` each; `per_image.csv` holds the first.
        target: Whose maps are measured.
        faithful: Images for deletion, insertion and weight randomisation; 0 leaves them out.
        output: Folder; files of an earlier evaluation there are replaced.

    Raises:
        ValueError: Unknown method or layer, or a negative number of images.
    """
    if faithful < 0:
        raise ValueError(f"--faithfulness: must be 0 or more images, got {faithful}")
    ways = [parse_way(method) for method in methods]
    results = measure_class_maps(subject, ways, target, lambda line: print(line, flush=True))
    trust: dict[str, dict[str, Any]] = {}
    for way in ways if faithful else ():
        print(f"faithfulness of {name_of(way)}", flush=True)
        trust[name_of(way)] = measure_trust(subject, way, faithful)
    first = results[ways[0]]
    write_text(output / "per_image.csv", per_image_csv(first.per_image))
    content = plain(subject) | {"target": target, "methods": _to_json(results, trust)}
    write_json(output / "class_maps.json", without_nan(content))
    for line in _lines(subject, results, trust):
        print(line)
    print(f"written: {output / 'per_image.csv'}, {output / 'class_maps.json'}")


def parse_way(text: str) -> Way:
    """`NAME` or `NAME@LAYER`."""
    method, _, layer = text.strip().partition("@")
    return method, layer or FEATURES


def name_of(way: Way) -> str:
    """The inverse of `parse_way`."""
    return way[0] if way[1] == FEATURES else f"{way[0]}@{way[1]}"


def _to_json(results: dict[Way, MapResults], trust: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        name_of(way): {
            "evidence": found.evidence,
            "localisation": found.localisation,
            "tuned_threshold": found.threshold,
            "faithfulness": trust.get(name_of(way)),
        }
        for way, found in results.items()
    }


def _lines(subject: Subject, results: dict[Way, MapResults], trust: dict[str, dict[str, Any]]) -> list[str]:
    """What the terminal shows: the ways side by side, evidence by class, the images not to be trusted."""
    first = next(iter(results.values()))
    whole = first.evidence["all"]
    lines = table_lines({name_of(way): map_table(r.evidence, r.localisation) for way, r in results.items()})
    lines.append(
        "evidence in lungs before crop, by true class: "
        + ", ".join(f"{name} {first.evidence[name]['evidence_in_lungs']:.3f}" for name in subject.classes)
        + f"; a uniform map would have {whole['lung_area']:.3f}"
    )
    outside = [row["id"] for row in first.per_image if row["evidence_outside"]]
    lines.append(f"images whose evidence is mostly outside the lungs: {len(outside)} of {len(first.per_image)}")
    lines += [f"  {name}" for name in outside[:5]]
    if len(outside) > 5:
        lines.append("  ... all of them in per_image.csv, column evidence_outside")
    for name, found in trust.items():
        stages = ", ".join(f"{stage} {value:.2f}" for stage, value in found["randomisation"].items())
        lines.append(
            f"{name}: deletion {found['deletion_area']:.3f} (misplaced map {found['random_deletion_area']:.3f}), "
            f"insertion {found['insertion_area']:.3f} ({found['random_insertion_area']:.3f}); "
            f"rank correlation once unlearned down to: {stages}"
        )
    return lines
