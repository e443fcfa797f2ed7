"""Other runs to start from or to learn from, unless they learned from images that this one is to be measured on."""

import logging
from dataclasses import replace
from pathlib import Path

import torch

from lungseg.data.datamodule import LungDataModule
from lungseg.errors import DataError, UserError
from lungseg.models.checkpoint import load_model
from lungseg.models.ensemble import Ensemble
from lungseg.models.network import LungNetwork
from lungseg.runs.model_info import ModelInfo
from lungseg.runs.run import MIXED_DIVISIONS, Run
from lungseg.runs.wandb_model import check_version

log = logging.getLogger(__name__)


def start_from(network: LungNetwork, data: LungDataModule, source: Path) -> None:
    """Give a network all weights of another run, a checkpoint or an exported model.

    Args:
        network: Of the same architecture, but that it may predict infection where the other did not.
        data: Of this run, its samples found.
        source: See `load_other`.

    Raises:
        UserError, FileNotFoundError: As `load_other`, or the model is of another architecture.
    """
    # Through the network, not from tensors by name: any file that predicts can be started from.
    other, _ = load_other("run.init", source, data)
    if isinstance(other, Ensemble):
        raise UserError(f"run.init: {source} is an ensemble; start from one of its members, or average them (--soup)")
    theirs, own = other.state_dict(), network.state_dict()
    # An infection channel may be added to a network that had none: the new channel starts as it was drawn.
    for name, value in theirs.items():
        if name.startswith("segmenter.segmentation_head") and name in own and len(own[name]) == len(value) + 1:
            theirs[name] = torch.cat([value, own[name][len(value) :]])
    try:
        network.load_state_dict(theirs)
    except RuntimeError as error:
        first = str(error).split("\n")[1].strip().rstrip(".")[:200]
        raise UserError(f"run.init: {source} is of another architecture than the config's: {first}") from error


def load_other(key: str, source: Path, data: LungDataModule) -> tuple[LungNetwork, ModelInfo]:
    """Load the network of another run, as `load_model` gives it.

    Args:
        key: Of the config, that names the source.
        source: A run folder, a .ckpt file in one, or a model file. What a model file was trained on is not known.
        data: Of this run, its samples found.

    Raises:
        UserError: Val or Test of this run hold images from Train of the other: numbers on them would flatter.
        FileNotFoundError: Nothing there.
    """
    check_version(key, source)
    run = Run.open(source)
    if run.kind == "onnx":
        raise UserError(f"{key}: {source}: an ONNX file is for other programs; give the run it was exported from")
    # Of the same fingerprint are the same images in the same splits, and nothing of Test or Val was learned from.
    if run.fingerprint not in (None, data.fingerprint) and run.config_file.is_file():
        _refuse_seen(key, source, run, data)
    network, info = load_model(run)
    # A file that was taken out of its run folder tells no images; but that its data were divided otherwise it does.
    known = info.description.get("training", {}).get("data_fingerprint")
    if known == MIXED_DIVISIONS:
        raise UserError(
            f"{key}: {source} is an ensemble of several divisions of the data, which together may have learned from "
            "images of this run's Val and Test; make it of runs of one division"
        )
    if run.fingerprint is None and known not in (None, data.fingerprint):
        log.warning(
            "%s: %s was trained on other data than these, or on these divided otherwise: it may have learned from "
            "images of Val and Test; its run folder would tell",
            key,
            source,
        )
    return network, info


def _refuse_seen(key: str, source: Path, run: Run, data: LungDataModule) -> None:
    """Divide this run's data as the other run did; where that gives its fingerprint, its Train is known image by image.

    Another fingerprint is another data set, of which nothing is known.
    """
    other = run.config()
    section = replace(other.data, root=data.config.root, phantom=data.config.phantom, cache_dir=data.config.cache_dir)
    before = LungDataModule(section, other.augment, other.run.seed)
    try:
        before.find_samples()
    except DataError:
        return
    if before.fingerprint != run.fingerprint:
        return
    learned = {sample.id for sample in before.samples["train"]}
    fold = "null" if section.fold is None else f"{section.fold} data.folds={section.folds}"
    for split in ("val", "test"):
        seen = sum(sample.id in learned for sample in data.samples[split])
        if seen:
            raise UserError(
                f"{key}: {source} was trained on {seen} of the {len(data.samples[split])} images of this run's "
                f"{split} split; divide the data as it did: data.split_seed={section.split_seed} "
                f"data.test_fraction={section.test_fraction} data.fold={fold}"
            )
