"""Models that W&B keeps, by the name they have there: `wandb:entity/project/name:alias`."""

import os
from pathlib import Path

from lungseg.errors import UserError

PREFIX = "wandb:"


def fetch_model(name: str) -> Path:
    """Download a model that a run has sent (`wandb.artifacts=true`); what is there already is not fetched again.

    Args:
        name: `entity/project/name:alias`, such as `me/lungseg/demo:best`; without the entity that of the login.

    Returns:
        Its folder, where W&B's client puts it: `artifacts/name:v3` in the current folder, or in `WANDB_ARTIFACT_DIR`.

    Raises:
        UserError: W&B cannot be reached, has no such model, or lets this user have none.
    """
    source = f"{PREFIX}{name}"
    path, _, alias = name.partition(":")
    if path.count("/") not in (1, 2) or not all(path.split("/")) or not alias:
        raise UserError(f"{source}: expected {PREFIX}entity/project/name:alias, such as {PREFIX}me/lungseg/demo:best")
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        raise UserError(f"{source}: WANDB_MODE is {os.environ['WANDB_MODE']}, so W&B is not asked; unset it")
    import wandb

    try:
        return Path(wandb.Api(timeout=30).artifact(name, type="model").download())
    except Exception as error:  # of its own kinds and of those of what it uses: no network, no key, no such name
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{source}: W&B does not give it ({reason}); are you online, and logged in (wandb login)?"
        ) from error
