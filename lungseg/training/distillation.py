"""Distillation: a network learns the probabilities that a trained one, its teacher, gives of every training image."""

import logging
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from lungseg.config import LossConfig, ModelConfig
from lungseg.data.datamodule import LungDataModule
from lungseg.errors import UserError
from lungseg.models.losses import Term, distillation_term
from lungseg.models.network import LungNetwork, LungOutput
from lungseg.runs.model_info import ModelInfo
from lungseg.training.fine_tuning import load_other

log = logging.getLogger(__name__)


class Teacher:
    """A trained network that never changes, and whose outputs are learned.

    It is no `nn.Module`: whoever holds one has none of its weights among the parameters that are optimised, averaged,
    synchronised between processes or saved. So nothing moves it along, either: that is what `to` is for.
    """

    def __init__(self, network: LungNetwork):
        self._network = network.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # the moving average of the weights copies the module that holds it

    @property
    def has_lung(self) -> bool:
        """Whether it predicts lungs."""
        return self._network.has_lung

    def to(self, device: torch.device | str) -> None:
        """Move it to a device."""
        self._network.to(device)

    def term(self, student: LungOutput, image: Tensor) -> Term:
        """`distillation_loss` of a batch.

        Args:
            student: Outputs of the student, with its gradient.
            image: (B, 1, H, W) float32 in [0, 1], what the student has seen, on the device of both.
        """
        with torch.no_grad():
            output: LungOutput = self._network(image)
        return distillation_term(student, output, self._network.multi_label)


def load_teacher(loss: LossConfig, model: ModelConfig, data: LungDataModule) -> Teacher | None:
    """Load `loss.teacher`, on the CPU; None where there is none, or its weight is 0.

    Args:
        loss: Section `loss`.
        model: Section `model`, of the student.
        data: Of this run, its samples found.

    Raises:
        UserError: The teacher has learned from Val or Test of this run; its images are of another size, its classes
            others; or the two have no output in common.
        FileNotFoundError: Nothing there.
    """
    if loss.teacher is None or loss.teacher_weight == 0:
        return None
    # What building a network draws at random is given back: with a teacher a run begins with the weights it would have.
    with torch.random.fork_rng(devices=[]):
        network, info = load_other("loss.teacher", Path(loss.teacher), data)
    _check_fits(loss.teacher, info, model, data)
    return Teacher(network)


def _check_fits(source: str, info: ModelInfo, model: ModelConfig, data: LungDataModule) -> None:
    """Refuse a teacher that sees other images, or speaks of other things than the student."""
    theirs, own, size = list(info.classes), data.classes, data.config.image_size
    if info.image_size != size:
        raise UserError(f"loss.teacher: {source} sees {info.image_size} px, data.image_size is {size}")
    if theirs and own:
        if theirs != own:
            raise UserError(
                f"loss.teacher: {source} has the classes {theirs}, this run {own}; data.classes and data.label_map "
                "name and order those of a run"
            )
        if info.multi_label != data.config.multi_label:
            has, takes = str(info.multi_label).lower(), str(data.config.multi_label).lower()
            raise UserError(f"loss.teacher: {source} was trained with data.multi_label={has}, here it is {takes}")
    elif not (info.has_lung and model.lung):
        taught, asked = ("classes alone" if names else "masks alone" for names in (theirs, own))
        raise UserError(
            f"loss.teacher: {source} predicts {taught}, this run {asked}: there is nothing to learn from it"
        )
    if info.keep_aspect != data.config.keep_aspect:
        has = str(info.keep_aspect).lower()
        log.warning("loss.teacher: %s was trained with data.keep_aspect=%s and sees images otherwise here", source, has)
