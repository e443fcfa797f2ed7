"""The backend of PyTorch: networks of runs and of .safetensors files, on any device."""

import numpy as np
import torch
from numpy.typing import NDArray

from lungseg.errors import UserError
from lungseg.inference.backend import Outputs
from lungseg.models.checkpoint import load_model
from lungseg.models.network import LungNetwork
from lungseg.runs.model_info import ModelInfo
from lungseg.runs.run import Run


class TorchBackend:
    """A `Backend` around a network, which is put into evaluation mode and moved to the device of a name.

    Threads may share it, for a pass changes nothing in it.
    """

    concurrent = False

    def __init__(self, network: LungNetwork, info: ModelInfo, device: str = "auto"):
        self.device = find_device(device)
        self.network = network.eval().to(self.device)
        self.info = info

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run the network on images (B, S, S) uint8."""
        with torch.inference_mode():
            # Bytes go to the device and become floats there: a quarter of the transfer.
            pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)[:, None]
            output = self.network(pixels.float().div_(255))
            # The lung, and the infection where the network has it.
            masks = (
                output.mask_logits.sigmoid() if self.network.has_lung else torch.zeros_like(pixels, dtype=torch.float32)
            )
            mask_probs, *infection_probs = masks.unbind(dim=1)
            class_probs = self.network.probabilities(output.class_logits / self.info.temperature)
            found = (mask_probs, class_probs, output.class_maps, *infection_probs)
            outputs = Outputs(*(one.float().cpu().numpy() for one in found))
            between = output.disagreement
            return outputs if between is None else outputs._replace(disagreement=between.float().cpu().numpy())


def load_torch(run: Run, device: str = "auto") -> TorchBackend:
    """Load the network of a run or of a .safetensors file; errors are those of `load_model` and `find_device`."""
    find_device(device)  # before the file is read: a wrong name should not take seconds to be told
    return TorchBackend(*load_model(run), device)


def find_device(name: str) -> torch.device:
    """The device of a name (`auto` is a GPU if there is one, else the CPU); a UserError if it is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device: no such device {name!r}; choose auto, cpu, cuda, cuda:0, ... or mps") from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    # torch itself would say so at the first copy to the device, in many lines.
    if (device.index or 0) >= there.get(device.type, 0):
        kinds = ", ".join(f"{count} of {kind}" for kind, count in there.items() if count)
        raise UserError(f"device: {name!r} is not there; this machine has {kinds}")
    return device
