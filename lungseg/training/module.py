"""The LightningModule around the network: one `_step` for all stages, named losses, honest scores, the optimiser."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lungseg.cam.lung import evidence_in_lungs, resize_map
from lungseg.cam.methods import class_map_of
from lungseg.config import LossConfig, ModelConfig, OptimConfig
from lungseg.data.mixup import partner_targets
from lungseg.errors import UserError, check
from lungseg.models.checkpoint import read_checkpoint
from lungseg.models.head import MapClassifier
from lungseg.models.losses import (
    MAP_TERMS,
    Term,
    bce_term,
    binary_cross_entropy_term,
    cross_entropy_term,
    dice_term,
    evidence_term,
    localization_term,
    mixed_terms,
)
from lungseg.models.metrics import StageScores
from lungseg.models.model_file import read_model_section
from lungseg.models.network import LungNetwork, LungOutput
from lungseg.training.contrast import Contrast
from lungseg.training.distillation import Teacher
from lungseg.training.schedule import lr_schedule

Stage = Literal["train", "val", "test"]


class LungModule(LightningModule):
    """Trains and scores a `LungNetwork`.

    Args:
        model: Section `model`, or what of it differs from its defaults, as `{"encoder": "resnet34"}`.
        loss: Section `loss`, likewise.
        optim: Section `optim`, likewise.
        classes: Class names in label order.
        class_weights: One positive number a class for the cross-entropy, of which only the ratios matter; with
            `multi_label` the weight of the images that have the finding against those that have not. None: all 1.
        multi_label: An image may have several of the classes, or none.

    A loss of one's own is a method `terms` that adds to what the one here gives, and `weights` that adds its weight; a
    classifier of one's own is a subclass of `MapClassifier`, named as `head`.
    """

    head: type[MapClassifier] = MapClassifier

    def __init__(
        self,
        model: ModelConfig | Mapping[str, Any],
        loss: LossConfig | Mapping[str, Any],
        optim: OptimConfig | Mapping[str, Any],
        classes: Sequence[str],
        class_weights: Sequence[float] | None = None,
        multi_label: bool = False,
    ):
        super().__init__()
        model = model if isinstance(model, ModelConfig) else ModelConfig(**model)
        loss = loss if isinstance(loss, LossConfig) else LossConfig(**loss)
        optim = optim if isinstance(optim, OptimConfig) else OptimConfig(**optim)
        class_weights = [1.0] * len(classes) if class_weights is None else class_weights
        guided = "0 where an image has several findings: whose an infection mask is, is not known"
        check(
            not (multi_label and loss.localization_weight), "loss.localization_weight", guided, loss.localization_weight
        )
        self.loss, self.optim, self.classes = loss, optim, list(classes)
        # Plain values, not save_hyperparameters: the checkpoint must load with weights_only=True, without our classes.
        self.plain: dict[str, Any] = {
            "model": asdict(model.without_paths()),
            "loss": asdict(loss.without_paths()),
            "optim": asdict(optim),
        }
        self.plain |= {"classes": list(classes), "class_weights": list(class_weights), "multi_label": multi_label}
        self.plain |= {} if self.head is MapClassifier else {"head": self.head.__name__}
        self.network = LungNetwork(model, len(classes), multi_label, head=self.head)
        self.class_weights: Tensor
        self.register_buffer("class_weights", torch.tensor(class_weights, dtype=torch.float32), persistent=False)
        self.val_scores = StageScores(classes, model.infection, multi_label)
        self.test_scores = StageScores(classes, model.infection, multi_label)
        self.compiled: Callable[[Tensor], LungOutput] | None = None  # What trains in the network's place.
        self.teacher: Teacher | None = None  # Which is none of this module's parts; see `load_teacher`.
        self.contrast = Contrast(self.network) if loss.contrastive_weight > 0 else None
        self.steps_per_epoch = 1.0  # Optimiser steps; set when training starts.

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, map_location: Any = "cpu", weights_only: Literal[True] = True
    ) -> Self:
        """Rebuild the module of a checkpoint that this class has saved, with its weights, on a device.

        Nothing but tensors and plain values is read (`weights_only`); a UserError if it is no such checkpoint.
        """
        check(weights_only, "weights_only", "true: nothing else is in a checkpoint of lungseg", weights_only)
        content = read_checkpoint(Path(checkpoint_path))
        plain = content["lungseg"]
        own = plain.get("head", MapClassifier.__name__)
        check(
            own == cls.head.__name__, f"{checkpoint_path}: the head of the class that loads it", own, cls.head.__name__
        )
        model = replace(read_model_section(plain["model"]), encoder_weights=None)  # those of the file follow
        several = plain.get("multi_label", False)  # which older checkpoints do not say
        module = cls(model, plain["loss"], plain["optim"], plain["classes"], plain["class_weights"], several)
        module.load_state_dict(content["state_dict"])
        return module.to(map_location)

    def setup(self, stage: str) -> None:
        """Spare an encoder that is frozen to the end its backward pass; before the strategy looks for gradients.

        Raises:
            UserError: `loss.teacher` is set, and nobody has loaded it.
        """
        taught = self.loss.teacher is not None and self.loss.teacher_weight > 0
        if stage == "fit" and taught and self.teacher is None:
            raise UserError("loss.teacher: is not loaded; set module.teacher = load_teacher(module.loss, model, data)")
        if stage == "fit" and 0 < (self.trainer.max_epochs or 0) <= self.optim.frozen_encoder_epochs:
            self.network.segmenter.encoder.requires_grad_(False)

    def on_fit_start(self) -> None:
        """Put the teacher where this module has been put, since nothing but its own parts is moved along."""
        if self.teacher is not None:
            self.teacher.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add all that rebuilds this module, as plain values."""
        checkpoint["lungseg"] = self.plain

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        return self._step(batch, "train")

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Score one batch of Val."""
        return self._step(batch, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Score one batch of Test."""
        return self._step(batch, "test")

    def _step(self, batch: dict[str, Any], stage: Stage) -> Tensor:
        """Run the network, log or collect every named term, return the total loss."""
        run = self.compiled if stage == "train" and self.compiled else self.network
        output: LungOutput = run(batch["image"])
        terms = self.terms(output, batch)
        if "share" in batch:
            terms = mixed_terms(terms, self.terms(output, partner_targets(batch)), batch["share"])
        # Val and Test go without these, at no cost. Of mixed images the teacher sees both chests at once, too.
        if stage == "train" and self.teacher is not None:
            terms["distillation_loss"] = self.teacher.term(output, batch["image"])
        if stage == "train" and self.contrast is not None:
            terms["contrastive_loss"] = self.contrast(output, batch)
        means = {name: term.mean() for name, term in terms.items()}
        if stage != "train":
            self._score(self._scores(stage), output, batch, terms)  # logged at the epoch's end, over all ranks
            return self._total(means)
        total, size = self._total(means, self._map_ramp()), len(batch["image"])
        # Not read on the host: `float` or `.item()` here would make the GPU wait in every step.
        losses = {"train/loss": total.detach()} | {f"train/{name}": mean.detach() for name, mean in means.items()}
        self.log_dict(losses, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        self.log("train/step_loss", total.detach(), on_step=True, on_epoch=False, batch_size=size)
        return total

    def terms(self, output: LungOutput, batch: dict[str, Any]) -> dict[str, Term]:
        """Every term with a weight above 0, by the name it is logged under; names of one's own end in `_loss`."""
        terms: dict[str, Term] = {}
        for channel, mask in enumerate(["lung", "infection"][: output.mask_logits.shape[1]]):
            logits, truth, known = output.mask_logits[:, channel], batch[mask][:, 0], batch[f"has_{mask}"]
            prefix = "" if mask == "lung" else "infection_"
            if self.loss.dice > 0:
                terms[f"{prefix}dice_loss"] = dice_term(logits, truth, known)
            if self.loss.bce > 0:
                terms[f"{prefix}bce_loss"] = bce_term(logits, truth, known)
        if self.loss.cross_entropy > 0 and self.classes:
            terms["cross_entropy"] = self._class_term(output.class_logits, batch)
        if self.loss.evidence_weight > 0 and self.classes:
            # Detached: the penalty is to move the evidence, not to draw the lung mask around it.
            known, lung = batch["has_lung"].view(-1, 1, 1), output.lung().detach()
            lung = torch.where(known, batch["lung"][:, 0], lung.float())
            terms["evidence_loss"] = evidence_term(output.class_maps, lung, self.network.stride)
        if self.loss.localization_weight > 0 and self.classes:
            known, infection = batch["has_label"] & batch["has_infection"], batch["infection"][:, 0]
            terms["localization_loss"] = localization_term(
                output.class_maps, batch["label"], infection, known, self.network.stride
            )
        return terms

    def _class_term(self, class_logits: Tensor, batch: dict[str, Any]) -> Term:
        weights, smoothing = self.class_weights, self.loss.label_smoothing
        if self.network.multi_label:
            return binary_cross_entropy_term(class_logits, batch["findings"], weights, smoothing)
        return cross_entropy_term(class_logits, batch["label"], batch["has_label"], weights, smoothing)

    def _total(self, means: dict[str, Tensor], ramp: float = 1.0) -> Tensor:
        """Sum of the terms with their weights, of which those of class maps count to the share `ramp`."""
        weights = self.weights()
        weights |= {name: ramp * weights[name] for name in MAP_TERMS}
        return torch.stack([weights[name.removeprefix("infection_")] * value for name, value in means.items()]).sum()

    def weights(self) -> dict[str, float]:
        """Weights of the terms by name, of the section `loss`; those of the infection are those of the lungs."""
        return {
            "dice_loss": self.loss.dice,
            "bce_loss": self.loss.bce,
            "cross_entropy": self.loss.cross_entropy,
            "evidence_loss": self.loss.evidence_weight,
            "localization_loss": self.loss.localization_weight,
            "distillation_loss": self.loss.teacher_weight,
            "contrastive_loss": self.loss.contrastive_weight,
        }

    def _map_ramp(self) -> float:
        """Share of the weights of class maps that counts at this step, rising linearly from 0 to 1."""
        warmup = self.loss.evidence_warmup_epochs * self.steps_per_epoch
        return min(1.0, self.global_step / warmup) if warmup > 0 else 1.0

    def _score(self, scores: StageScores, output: LungOutput, batch: dict[str, Any], terms: dict[str, Term]) -> None:
        """Add one batch to the scores of a stage."""
        scores.add_terms(terms)
        masks = output.mask_logits > 0
        for channel, mask in enumerate(["lung", "infection"][: masks.shape[1]]):
            scores.add_masks(masks[:, channel], batch[mask][:, 0] > 0.5, batch[f"has_{mask}"], infection=channel == 1)
        if not self.classes:
            return
        class_probs = self.network.probabilities(output.class_logits)
        if self.network.multi_label:
            scores.add_findings(class_probs, batch["findings"])
        else:
            scores.add_classes(class_probs, batch["label"], batch["has_label"])
        lung = torch.where(batch["has_lung"].view(-1, 1, 1), batch["lung"][:, 0] > 0.5, output.lung())
        cam = class_map_of(output, output.top_class())
        cam = resize_map(cam, self.network.stride, (lung.shape[-2], lung.shape[-1]))
        scores.add_localization(cam, batch["infection"][:, 0] > 0.5, batch["has_infection"])
        if self.network.has_lung:
            scores.add_evidence(evidence_in_lungs(cam, lung), batch["label"].where(batch["has_label"], -1))

    def on_validation_epoch_end(self) -> None:
        """Log Val."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log Test."""
        self._log_scores("test")

    def _scores(self, stage: Stage) -> StageScores:
        return self.val_scores if stage == "val" else self.test_scores

    def _log_scores(self, stage: Stage) -> None:
        """Log all scores of a stage, its total loss, and `score`, the mean of dice and balanced accuracy (or AUROC)."""
        scores = self._scores(stage).compute()
        self._scores(stage).reset()
        losses = {n: torch.tensor(v) for n, v in scores.items() if n.endswith("_loss") or n == "cross_entropy"}
        scores["loss"] = float(self._total(losses))
        headline = [
            scores[name]
            for name in ("dice", "auroc" if self.network.multi_label else "balanced_accuracy")
            if name in scores
        ]
        if headline:
            scores["score"] = sum(headline) / len(headline)
        # Without sync_dist: the scores have been added up over the ranks already, in `compute`.
        self.log_dict({f"{stage}/{name}": value for name, value in scores.items()})

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW; each optimiser step follows warm-up and cosine, and a frozen encoder has learning rate 0.

        The rate 0 keeps the encoder's weights where they are (weight decay is scaled by it) without hiding parameters
        from multi-process training that needs them later; BatchNorm's statistics follow the new images from the start.
        """
        encoder = list(self.network.segmenter.encoder.parameters())
        inside = {id(parameter) for parameter in encoder}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in inside]
        groups = [
            {"params": encoder, "lr": self.optim.lr * self.optim.encoder_lr_factor, "name": "encoder"},
            {"params": rest, "lr": self.optim.lr, "name": "rest"},
        ]
        # Fused, one kernel for all weights; with a scaler of gradients (16-mixed) Lightning could not clip them.
        fused = (self.device.type == "cuda" and self.trainer.precision != "16-mixed") or None
        optimizer = torch.optim.AdamW(groups, weight_decay=self.optim.weight_decay, fused=fused)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        batches = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        self.steps_per_epoch = max(1.0, math.ceil(batches)) if math.isfinite(batches) else float(steps)
        schedule = lr_schedule(optimizer, self.optim, steps, self.steps_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_end(self) -> None:
        """Log the learning rate the epoch ended with."""
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        self.log("train/lr", optimizer.param_groups[1]["lr"])
