"""lungseg: lung mask, class and class activation map of a chest X-ray from one network in one pass.

The pieces for a script of one's own are imported when they are first asked for, so `import lungseg` takes no time.
Research software, not a medical device.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lungseg.data.datamodule import LungDataModule
    from lungseg.inference.predictor import Predictor
    from lungseg.models.network import LungNetwork
    from lungseg.training.module import LungModule
    from lungseg.training.overlays import OverlayCallback

__version__ = "0.1.0"
__all__ = ["LungDataModule", "LungModule", "LungNetwork", "OverlayCallback", "Predictor"]

_PLACES = {
    "LungDataModule": "lungseg.data.datamodule",
    "LungModule": "lungseg.training.module",
    "LungNetwork": "lungseg.models.network",
    "OverlayCallback": "lungseg.training.overlays",
    "Predictor": "lungseg.inference.predictor",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'lungseg' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
