"""What most people write to look at images with a trained network: the yardstick of `benchmarks.predict`.

`python -m lungseg.benchmarks.plain_predict RUN FOLDER SIZE`: for each PNG a forward pass and the Grad-CAM of the
package grad-cam; prints a line an image and writes nothing.
"""

import sys
from pathlib import Path
from typing import Any

import cv2
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from lungseg.models.checkpoint import load_model
from lungseg.runs.run import Run


class ClassLogits(nn.Module):
    """The one output that the package can take: logits (B, C)."""

    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Run images (B, 1, H, W)."""
        logits: Tensor = self.network(image).class_logits
        return logits


def grad_cam(network: Any) -> GradCAM:
    """The package's Grad-CAM of the features that the closed form takes; it leaves hooks on the network."""
    return GradCAM(model=ClassLogits(network), target_layers=[network.classifier.dropout])


def main(run: Path, folder: Path, size_px: int) -> None:
    """Go through the images one by one."""
    network, info = load_model(Run.open(run))
    explain = grad_cam(network)
    for path in sorted(folder.glob("*.png")):
        grey: Any = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        image = torch.from_numpy(cv2.resize(grey, (size_px, size_px), interpolation=cv2.INTER_AREA))[None, None] / 255
        with torch.no_grad():
            output = network(image)
        label, lung = int(output.class_logits.argmax()), output.mask_logits[0, 0].numpy() > 0
        cam = explain(input_tensor=image, targets=[ClassifierOutputTarget(label)])[0] * lung
        print(path.name, info.classes[label], float(output.class_logits.softmax(1).max()), float(cam.max()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
