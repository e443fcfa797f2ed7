"""A study file: variants of one config, each trained with several seeds and, if wanted, on every fold of the data.

name: heads                        # a folder below run.dir; the file's stem where it is left out
config: configs/demo.yaml          # the base config, and words over it for all
words: [trainer.max_epochs=8]
variants:                          # the first is what the others are compared with
  linear: []
  conv: [model.head=conv]
seeds: [0, 1, 2]
folds: 5                           # cross-validation of what is not Test; leave it out for the splits of the data
split: val                         # what is measured; without folds: test unless it says val
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lungseg.config import Config
from lungseg.config.fields import field_types
from lungseg.config.loading import COMMAND_LINE, load_config, read_yaml
from lungseg.errors import SweepError, UserError
from lungseg.runs.run import Run
from lungseg.runs.whole_files import write_json
from lungseg.sweeping.checking import check_networks
from lungseg.sweeping.schema import check_keys, is_int, parse_yaml, require, section_of
from lungseg.sweeping.spec import VARIABLE

_KEYS = ("name", "config", "words", "variants", "seeds", "folds", "split")
_SET_HERE = {
    "run.name": "every run has a folder of its own",
    "run.resume": "a run goes on where it stopped by itself",
    "run.report": "the study has a page of its own",
    "run.seed": "seeds: lists them",
    "data.fold": "folds: says how many, and all are trained",
    "data.folds": "folds: says how many",
}
_MAY_CHANGE = (
    *("run.dir", "run.name", "run.seed", "run.resume", "run.report", "run.mlflow", "run.tensorboard"),
    *("data.fold", "data.root", "data.phantom.dir", "data.cache", "data.workers"),
    *("trainer.devices", "trainer.num_nodes", "trainer.accelerator", "overlays.", "wandb."),
)
"""Starts of the keys in which runs of one variant may differ: places, and what a run is shown by."""


class StudyRun(NamedTuple):
    """One training of a study."""

    variant: str
    seed: int
    fold: int | None

    @property
    def name(self) -> str:
        """Of its folder in the study's."""
        return f"{self.variant}-seed{self.seed}" + ("" if self.fold is None else f"-fold{self.fold}")


@dataclass(frozen=True)
class Study:
    """A checked study file."""

    path: Path
    name: str
    folder: Path  # Where its runs and its tables lie.
    config: Path  # The base config.
    words: tuple[str, ...]  # Over it, of every run.
    variants: Mapping[str, tuple[str, ...]]  # Words of each; the first is the baseline.
    seeds: tuple[int, ...]
    folds: int | None
    split: Literal["val", "test"]  # Whose images are measured; `val` with folds, so that each is measured out of fold.
    missing: tuple[str, ...] = ()  # Names in `${envvar:NAME}` that are not set here: no run can be started.

    @property
    def runs(self) -> list[StudyRun]:
        """All trainings, variants changing fastest, so that what is there early can be compared."""
        folds = [None] if self.folds is None else list(range(self.folds))
        return [StudyRun(variant, seed, fold) for seed in self.seeds for fold in folds for variant in self.variants]

    def run(self, run: StudyRun) -> Run:
        """The run folder of a training."""
        return Run(self.folder / run.name)

    def run_words(self, run: StudyRun) -> list[str]:
        """Everything that makes its config of the base config, its place included."""
        seed, fold = run.seed, list[str]()
        if run.fold is not None and self.folds is not None:
            fold = [f"data.fold={run.fold}", f"data.folds={self.folds}"]
            # With one seed the folds would start from the same weights, and the table takes them for drawn anew.
            seed = seed * self.folds + run.fold
        place = [f"run.dir={self.folder}", f"run.name={run.name}", "run.report=false"]
        return [*self.words, *self.variants[run.variant], f"run.seed={seed}", *fold, *place]

    def variant_config(self, variant: str) -> Config:
        """The config of the first run of a variant; a SweepError of one line if its words are wrong."""
        first = next(run for run in self.runs if run.variant == variant)
        try:
            return load_config(self.config, self.run_words(first))
        except UserError as error:
            raise SweepError(f"variants: {variant}: {str(error).removeprefix(f'{COMMAND_LINE}: ')}") from error


def load_study(path: Path) -> Study:
    """Read a study file and check all that can be known before a run.

    Raises:
        SweepError: One line, `FILE: key: rule, value`.
    """
    try:
        study = _read(path)
        check_networks(study.variant_config(variant).model for variant in study.variants)
    except UserError as error:
        raise SweepError(f"{path}: {str(error).removeprefix(f'{path}: ').removeprefix(f'{COMMAND_LINE}: ')}") from error
    return study


def keep_definition(study: Study) -> None:
    """Keep in the study's folder what its runs are made with; where that is there already, it must be the same.

    Variants and seeds may be added. Called by one process at a time.

    Raises:
        SweepError: With the first key that differs.
    """
    file = study.folder / "definition.json"
    before: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    now: dict[str, Any] = {"folds": study.folds, "variants": {}}
    for variant in study.variants:
        now["variants"][variant] = dict(_values(study.variant_config(variant)))
    known = before.get("variants", {})
    pairs = {"folds": (before.get("folds", study.folds), study.folds)}
    for variant in now["variants"].keys() & known.keys():
        was, is_now = known[variant], now["variants"][variant]
        pairs |= {f"variants: {variant}: {key}": (was[key], is_now[key]) for key in is_now if key in was}
    for key, (was, is_now) in pairs.items():
        require(
            was == is_now,
            f"{study.path}: {key}: the runs in {str(study.folder)!r} were made with {was!r}, got {is_now!r}; give the "
            "study another name, or move the folder away",
        )
    write_json(file, now | {"variants": known | now["variants"]})


def _values(config: Config) -> Iterator[tuple[str, Any]]:
    for key in field_types():
        if not key.startswith(_MAY_CHANGE):
            yield key, reduce(getattr, key.split("."), config)


def _read(path: Path) -> Study:
    tree = read_yaml(path, parse_yaml, "keys such as 'variants:'")
    check_keys("", tree, _KEYS)
    name, base, folds = tree.get("name", path.stem), tree.get("config"), tree.get("folds")
    _check_name("name", name)
    if not isinstance(base, str):
        raise SweepError(f"config: must be a config file such as configs/demo.yaml, got {base!r}")
    require(folds is None or (is_int(folds) and folds >= 2), f"folds: must be a whole number >= 2, got {folds!r}")
    seeds = tree.get("seeds", [0])
    are_seeds = isinstance(seeds, list) and seeds and all(is_int(seed) and seed >= 0 for seed in seeds)
    require(are_seeds and len(set(seeds)) == len(seeds), f"seeds: must list different numbers >= 0, got {seeds!r}")
    split = tree.get("split", "test" if folds is None else "val")
    require(split in ("val", "test"), f"split: must be 'val' or 'test', got {split!r}")
    require(
        folds is None or split == "val",
        "split: 'test' does not go with folds: the seeds of a fold share their training images, so that they are no "
        "trainings of their own; leave one of the two out",
    )
    variants = {}
    for variant, words in section_of(tree, "variants").items():
        _check_name("variants", variant)
        variants[variant] = _words(f"variants: {variant}", words)
    words = _words("words", tree.get("words"))
    given = " ".join([*words, *(word for each in variants.values() for word in each)])
    missing = tuple(name for name in VARIABLE.findall(given) if name not in os.environ)
    variants = {variant: tuple(map(_expand, each)) for variant, each in variants.items()}
    base_words = tuple(map(_expand, words))
    folder = Path(load_config(Path(base), base_words).run.dir) / name
    return Study(path, name, folder, Path(base), base_words, variants, tuple(seeds), folds, split, missing)


def _expand(word: str) -> str:
    return VARIABLE.sub(lambda match: os.environ.get(match[1], match[1]), word)


def _check_name(where: str, name: object) -> None:
    """A name is a part of a folder's."""
    plain = isinstance(name, str) and re.fullmatch(r"\w[\w.+-]{0,60}", name)
    require(plain, f"{where}: a name must be letters, digits and '.+-_', got {name!r}")


def _words(where: str, words: object) -> tuple[str, ...]:
    given: Sequence[object] = words if isinstance(words, list) else () if words is None else [words]
    for word in given:
        right = isinstance(word, str) and "=" in word
        require(right, f"{where}: must list words such as 'optim.lr=1e-3', got {word!r}")
        key = str(word).partition("=")[0]
        allowed = key != "run.dir" or where == "words"
        reason = _SET_HERE.get(key) or (None if allowed else "all runs of a study lie in one folder")
        require(reason is None, f"{where}: {key}: cannot be set: {reason}")
    return tuple(map(str, given))
