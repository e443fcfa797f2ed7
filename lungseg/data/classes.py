"""From what a data set calls its classes to labels: by `data.classes` and `data.label_map`, or else as it has them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from unicodedata import normalize

from lungseg.data.covidqu import CLASSES, LACKING
from lungseg.data.folders import Reading, phrase
from lungseg.data.layouts import RADIOGRAPHY, RADIOGRAPHY_CLASSES
from lungseg.data.sample import Sample
from lungseg.errors import DataError, UserError


def label_samples(reading: Reading, classes: Sequence[str] | None, label_map: Mapping[str, str]) -> Reading:
    """Give each sample the label of its class, and drop those whose class `label_map` maps to nothing.

    Names are compared in lower case, an accented letter being one, however it is written. A number is an index into
    classes that were given, where it names none of them.

    Args:
        reading: As a layout was read.
        classes: In label order, none: labels are left out; None: `CLASSES` where the layout is COVID-QU-Ex's, else all
            that are there, sorted.
        label_map: Class by what the data set calls it; of several that map to one, one class is made.

    Raises:
        UserError: `label_map` names a class that is none of `classes`.
    """
    if classes is not None and not classes:
        return reading._replace(samples=[replace(sample, class_name=None) for sample in reading.samples])
    meant = {comparable(name): target for name, target in label_map.items()}
    names = {sample.class_name for sample in reading.samples if sample.class_name is not None}
    targets = {name: meant.get(comparable(name), normalize("NFC", name)) for name in sorted(names, key=in_order)}
    chosen = tuple(classes) if classes is not None else _classes_of(reading, list(targets.values()), meant)
    for name, target in label_map.items():
        if target and comparable(target) not in map(comparable, chosen):
            raise UserError(f"data.label_map: {name!r} must map to one of {', '.join(chosen)}, got {target!r}")
    label_of = {
        name: _label(reading, name, target, chosen, classes is not None) for name, target in targets.items() if target
    }
    samples = [
        _labelled(sample, label_of, chosen)
        for sample in reading.samples
        if sample.class_name is None or sample.class_name in label_of
    ]
    unknown = tuple(name for name, label in label_of.items() if label is None)
    train = {sample.label for sample in samples if sample.split == "train"}
    lacking = [name for label, name in enumerate(chosen) if label not in train] if train else []
    problems = list(reading.problems)
    # Before they are divided all samples are in Train, and sets without any label may be joined for their masks.
    asked = reading.has_splits or (classes is not None and bool(train - {None}))
    if asked and not any(problem.startswith(LACKING) for problem in problems):
        also = "" if classes is None else ", and of data.classes"
        problems += phrase(LACKING, lacking, f"add images of it there, or leave it out: data.label_map=[NAME=]{also}")
    unseen = [name for name in chosen if not name.isprintable()]
    problems += phrase("class whose name holds what cannot be shown", unseen, "rename it, or map it: data.label_map")
    return reading._replace(samples=samples, problems=problems, classes=chosen, unknown=unknown)


def refuse_unknown(reading: Reading) -> list[str]:
    """Phrase what of a data set that is learned from belongs to no class."""
    advice = (
        f"classes are {', '.join(reading.classes)}; map other names to them with data.label_map, or to nothing: NAME="
    )
    return phrase("folder or label that names no class", reading.unknown, advice)


def unknown_infections(names: Sequence[str] | None, classes: Sequence[str]) -> list[int]:
    """Labels of `data.infection_unknown`: the classes whose empty infection masks say nothing.

    Raises:
        DataError: One of the names is no class.
    """
    chosen = [name for name in ("Non-COVID",) if name in classes] if names is None else names
    if wrong := [name for name in chosen if name not in classes]:
        raise DataError(f"data.infection_unknown: no class {wrong[0]!r}; choose from {', '.join(classes)}")
    return [classes.index(name) for name in chosen]


def _classes_of(reading: Reading, targets: Sequence[str], meant: Mapping[str, str]) -> tuple[str, ...]:
    """The classes of a data set that the config does not name."""
    published = [meant.get(comparable(name), name) for name in CLASSES]
    own = set(map(comparable, published)) & set(map(comparable, targets))
    if reading.layout == "COVID-QU-Ex" and (own or not targets):
        targets = published  # in their order, whether all are there or not
    words = [target for target in targets if target and not target.isdecimal()]
    # Numbers beside names could mean anything, and are left unknown.
    named = {comparable(target): target for target in reversed(words or targets) if target}
    return tuple(sorted(named.values(), key=targets.index))


def _labelled(sample: Sample, label_of: Mapping[str, int | None], classes: Sequence[str]) -> Sample:
    label = None if sample.class_name is None else label_of[sample.class_name]
    return sample if label is None else replace(sample, label=label, class_name=classes[label])


def _label(reading: Reading, name: str, target: str, classes: Sequence[str], may_count: bool) -> int | None:
    labels = {comparable(of_class): label for label, of_class in enumerate(classes)}
    also = [RADIOGRAPHY_CLASSES.get(name, "")] if reading.layout == RADIOGRAPHY else []
    found = next((labels[comparable(word)] for word in (target, *also) if comparable(word) in labels), None)
    if found is None and may_count and target.isdecimal() and int(target) < len(classes):
        return int(target)
    return found


def in_order(name: str) -> tuple[bool, int, str, str]:
    """Numbers as numbers, then names."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name.casefold(), name)


def comparable(name: str) -> str:
    """What of a name is compared."""
    return normalize("NFC", name).casefold()
