"""The network compiled by torch, for training: `trainer.compile`."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from lungseg.models.network import LungNetwork, LungOutput

log = logging.getLogger(__name__)


def compile_network(network: LungNetwork) -> Callable[[Tensor], LungOutput]:
    """The network's pass, compiled for the first size of batch that it gets; with a warning as it is, if that fails.

    Only training asks for it: its batches are all of one size, while those of a validation end with a smaller one, and
    run in another mode, which would be compiled anew. The network itself stays as it is, for checkpoints and the rest.
    """
    compiled: Callable[[Tensor], LungOutput] | None = torch.compile(network.forward, dynamic=False)

    def run(image: Tensor) -> LungOutput:
        nonlocal compiled
        if compiled is not None:
            try:
                return compiled(image)
            except Exception as error:  # of the compilers, which share no base; what is wrong with a batch comes again
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                log.warning("trainer.compile: the network could not be compiled, and runs as it is (%s)", reason)
                compiled = None
        output: LungOutput = network(image)
        return output

    return run
