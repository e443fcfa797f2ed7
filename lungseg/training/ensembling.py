"""Several runs made one: an ensemble, which keeps every network, or the mean of their weights.

Both are written as a run folder, so that every command takes them, and what is chosen on Val has a place beside them.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from lungseg.config import AugmentConfig, Config
from lungseg.config.loading import dump_config
from lungseg.data.batch import unpack
from lungseg.data.datamodule import LungDataModule
from lungseg.errors import UserError, check
from lungseg.models.checkpoint import network_of, read_checkpoint
from lungseg.models.ensemble import Ensemble
from lungseg.models.network import LungNetwork
from lungseg.runs.environment import environment
from lungseg.runs.run import MIXED_DIVISIONS, Run, check_free
from lungseg.runs.whole_files import digest, whole_file, write_json, write_text
from lungseg.training.model_folder import NOT_SENT

log = logging.getLogger(__name__)


def write_ensemble(folders: Sequence[Path], output: Path) -> Run:
    """Write the best checkpoints of runs as one network whose outputs are the means of theirs.

    Args:
        folders: Run folders, or .ckpt files in them: two or more.
        output: A run folder that is not there yet.

    Raises:
        UserError: The networks do not go together, or see images in other ways.
        FileExistsError: There is something at `output`.
    """
    runs, config = _open(folders, output)
    contents = [read_checkpoint(run.model) for run in runs]
    networks = [network_of(run.model, content)[0] for run, content in zip(runs, contents, strict=True)]
    Ensemble(networks)  # which checks that they go together
    tensors = {
        f"network.members.{number}.{name}": tensor
        for number, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
    }
    sections = [content["lungseg"]["model"] for content in contents]
    about = {name: value for name, value in contents[0]["lungseg"].items() if name not in ("loss", "optim")}
    return _write(output, config, runs, tensors, about | {"members": sections}, contents[0])


def write_soup(folders: Sequence[Path], output: Path, words: Sequence[str] = ()) -> Run:
    """Write the mean of the weights of runs that started from the same ones, as a single network.

    Wortsman et al., "Model soups", ICML 2022. Away from a common start the mean of two networks is none. The statistics
    of BatchNorm are measured anew, on the images of Train as they are, for the mean of statistics is not that of the
    mean network.

    Args:
        folders: Run folders, or .ckpt files in them: two or more.
        output: A run folder that is not there yet.
        words: `data.key=value` over the config of the first, such as where the data lie now.

    Raises:
        UserError: The runs do not share their start, or are of different networks.
        FileExistsError: There is something at `output`.
    """
    for word in words:
        check(word.startswith("data."), word, "a word for 'data'", word)
    runs, config = _open(folders, output, words)
    contents = [read_checkpoint(run.model) for run in runs]
    sections = [content["lungseg"]["model"] for content in contents]
    check(all(section == sections[0] for section in sections), "RUN", "runs of one section 'model' to average", folders)
    if len({_start(run) for run in runs}) > 1:
        raise UserError(
            "RUN: weights can be averaged of runs that share their start, fine-tuned with the same run.init; these "
            "have " + ", ".join(f"{run.name}: {run.config().run.init or 'none'}" for run in runs)
        )
    networks = [network_of(run.model, content)[0] for run, content in zip(runs, contents, strict=True)]
    network, states = networks[0], [each.state_dict() for each in networks]
    means = {name: torch.stack([state[name].double() for state in states]).mean(dim=0) for name in states[0]}
    network.load_state_dict({name: mean.to(states[0][name].dtype) for name, mean in means.items()})
    data = LungDataModule(config.data, AugmentConfig(), config.run.seed)
    data.prepare_data()
    data.find_samples()
    if data.fingerprint not in {run.fingerprint for run in runs}:
        log.warning("data: these are not the images, or not the splits, that the runs were trained on")
    data.setup("fit")
    _measure_statistics(network, data, config.run.seed)
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    return _write(output, config, runs, tensors, dict(contents[0]["lungseg"]), contents[0])


def _open(folders: Sequence[Path], output: Path, words: Sequence[str] = ()) -> tuple[list[Run], Config]:
    """The runs, and the config of the first as that of the run to write."""
    check(len(folders) >= 2, "RUN", "two runs or more", len(folders))
    check_free(output.parent, output.name)
    runs = [Run.open(folder) for folder in folders]
    for run in runs:
        check(run.kind == "checkpoint", "RUN", "a run folder, or a .ckpt in one", str(run.model))
    configs = [run.config() for run in runs]
    for name in ("image_size", "keep_aspect", "classes"):
        found = [getattr(config.data, name) for config in configs]
        check(all(each == found[0] for each in found), f"data.{name}", "the same in all runs", found)
    config = runs[0].config(words)
    return runs, replace(config, run=replace(config.run, name=output.name, dir=str(output.parent), init=None))


def _start(run: Run) -> str:
    """What the run started from, else the run itself: its own epochs share a start."""
    init = run.config().run.init
    if init in (None, NOT_SENT):  # fetched from where it was sent to, its start is not known
        return str(run.folder.resolve())
    path = Path(init).expanduser()
    return str((Run.open(path).model if path.exists() else path).resolve())


def _measure_statistics(network: LungNetwork, data: LungDataModule, seed: int) -> None:
    """Measure the mean and variance that BatchNorm keeps anew, each image of Train counted once."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()  # nothing else is: dropout stays off
    # In an order that mixes the classes, for the index is sorted by them; without augmentation.
    data.always_the_same = True
    order = torch.randperm(len(data.samples["train"]), generator=torch.Generator().manual_seed(seed)).tolist()
    places: Any = [(0, index) for index in order]
    with torch.no_grad():
        for batch in DataLoader(data.dataset("train"), data.config.batch_size, sampler=places):
            network(unpack(batch)["image"])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def _write(
    output: Path, config: Config, runs: Sequence[Run], tensors: dict[str, Any], about: dict[str, Any], like: Any
) -> Run:
    """Write the run folder, its checkpoint last."""
    run, prints = Run(output), {each.fingerprint for each in runs}
    write_text(run.config_file, dump_config(config))
    made_of = [{"name": each.name, "checkpoint_digest": digest(each.model)} for each in runs]
    known = prints.pop() or "" if len(prints) == 1 else MIXED_DIVISIONS
    write_json(run.environment_file, environment(known) | {"made_of": made_of})
    content = {"epoch": like["epoch"], "global_step": like.get("global_step", 0)}
    with whole_file(run.best_checkpoint) as part:
        torch.save(content | {"state_dict": tensors, "lungseg": about}, part)
    return run
