"""From what a data set says of each image to findings, of which it may have several or none: `data.multi_label`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from unicodedata import normalize

from lungseg.data.classes import comparable, in_order
from lungseg.data.covidqu import LACKING
from lungseg.data.folders import Reading, phrase
from lungseg.data.manifest import NO_FINDING
from lungseg.data.sample import Sample
from lungseg.errors import UserError

_DEVICES = "support devices"  # CheXpert's column that "No Finding" says nothing of.
Marks = dict[str, int]  # 1 there, 0 not there, -1 unknown, by the class's name in lower case.


def mark_findings(reading: Reading, classes: Sequence[str] | None, label_map: Mapping[str, str]) -> Reading:
    """Give each sample its `findings`, and leave its label out.

    Of names with `|` between them, those not named are not there; an image of which nothing is said is unknown
    throughout. Of columns, several that map to one class make it there if one of them is, unknown if one of them is
    unknown. `No Finding` is no class: where a column says so, findings left empty are not there (but CheXpert's
    devices).
    Names are compared in lower case.

    Args:
        reading: As a layout was read.
        classes: In label order; None: all that are there, sorted.
        label_map: Class by what the data set calls it; to nothing: it is no finding, as a `Normal` is none.

    Raises:
        UserError: `label_map` names a class that is none of `classes`.
    """
    meant = {comparable(name): target for name, target in label_map.items()} | {NO_FINDING: ""}
    names = dict.fromkeys(reading.findings)
    for sample in reading.samples:
        names |= dict.fromkeys(words_of(sample.class_name))
    targets = {name: meant.get(comparable(name), normalize("NFC", name)) for name in sorted(names, key=in_order)}
    found = {comparable(target): target for target in reversed(targets.values()) if target}
    chosen = tuple(classes) if classes is not None else tuple(sorted(found.values(), key=in_order))
    places = {comparable(name): place for place, name in enumerate(chosen)}
    for name, target in label_map.items():
        if target and comparable(target) not in places:
            raise UserError(f"data.label_map: {name!r} must map to one of {', '.join(chosen)}, got {target!r}")
    samples = [_marked(sample, reading.findings, targets, chosen) for sample in reading.samples]
    there = {place for s in samples if s.split == "train" for place, m in enumerate(s.findings or ()) if m == 1}
    lacking = [name for place, name in enumerate(chosen) if place not in there]
    problems = list(reading.problems)
    if there and (reading.has_splits or classes is not None):
        problems += phrase(LACKING, lacking, "add images of it there, or leave it out: data.label_map=[NAME=]")
    unknown = tuple(name for name, target in targets.items() if target and comparable(target) not in places)
    return reading._replace(samples=samples, problems=problems, classes=chosen, unknown=unknown)


def words_of(text: str | None) -> list[str]:
    """The names in a text with `|` between them."""
    return [word for part in (text or "").split("|") if (word := part.strip())]


def _marked(sample: Sample, columns: Sequence[str], targets: Mapping[str, str], classes: Sequence[str]) -> Sample:
    if sample.findings is not None:
        marks = _of_columns(dict(zip(columns, sample.findings, strict=True)), targets)
        marks = {comparable(name): marks.get(comparable(name), -1) for name in classes}
    else:
        words = words_of(sample.class_name)
        marks = dict.fromkeys(map(comparable, classes), 0 if words else -1)
        marks |= {key: 1 for word in words if (key := comparable(targets[word])) in marks}
    findings = tuple(marks[comparable(name)] for name in classes)
    named = "|".join(name for name, mark in zip(classes, findings, strict=True) if mark == 1)
    return replace(sample, label=None, findings=findings, class_name=named or None)


def _of_columns(values: Mapping[str, int], targets: Mapping[str, str]) -> Marks:
    healthy = any(mark == 1 for name, mark in values.items() if name.casefold() == NO_FINDING)
    joined: dict[str, list[int]] = {}
    for name, mark in values.items():
        absent = healthy and mark == -1 and name.casefold() != _DEVICES
        if targets[name]:
            joined.setdefault(comparable(targets[name]), []).append(0 if absent else mark)
    return {name: 1 if 1 in marks else min(marks) for name, marks in joined.items()}
