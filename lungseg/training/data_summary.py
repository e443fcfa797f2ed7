"""What a run says of its data before it trains."""

import logging
from collections import Counter

from lungseg.config import Config
from lungseg.data.datamodule import LungDataModule

log = logging.getLogger(__name__)


def say_what_data(config: Config, data: LungDataModule, world_size: int) -> None:
    """Print which data were found, what they hold and how they reach the processes; on rank zero."""
    counts = ", ".join(f"{len(samples)} {split}" for split, samples in data.samples.items())
    source = config.data.root if config.data.root is not None else f"phantoms in {config.data.phantom.dir}"
    left_out = f"; left out {data.excluded} training copies of Val or Test images" if config.data.exclude_leaks else ""
    every = [sample for samples in data.samples.values() for sample in samples]
    lungs, infections = (sum(getattr(s, mask) is not None for s in every) for mask in ("lung", "infection"))
    masks = f"{lungs} lung masks" + (f", {infections} infection masks" if infections else "")
    print(f"data: {source} ({data.layout}): {counts}; {masks}{left_out}", flush=True)
    print(_class_line(data), flush=True)
    if config.loss.localization_weight > 0 and not any(sample.infection for sample in data.samples["train"]):
        log.warning("loss.localization_weight: no training image has an infection mask, so the term is always 0")
    if world_size > 1:
        batch, steps = config.data.batch_size, config.trainer.accumulate_grad_batches
        micro = f" x {steps} accumulated" if steps > 1 else ""
        print(
            f"{world_size} processes x batch {batch}{micro} = {world_size * batch * steps} images an optimiser step; "
            f"optim.lr={config.optim.lr:g} is used as it is",
            flush=True,
        )


def _class_line(data: LungDataModule) -> str:
    """How many training images there are of each class."""
    train = data.samples["train"]
    if not data.classes:
        return "classes: none, masks alone are learned; no class, no class map"
    if not data.config.multi_label:
        labels = Counter(sample.label for sample in train)
        counts = ", ".join(f"{name} {labels[label]}" for label, name in enumerate(data.classes))
        return f"classes in train: {counts}" + (f", of no class {labels[None]}" if labels[None] else "")
    marks = [sample.findings or () for sample in train]
    known = [[image[place] for image in marks if image[place] >= 0] for place in range(len(data.classes))]
    counts = ", ".join(f"{name} {sum(of)} of {len(of)}" for name, of in zip(data.classes, known, strict=True))
    return f"findings in train, of the images where they are known: {counts}; none in {sum(not any(m) for m in marks)}"
