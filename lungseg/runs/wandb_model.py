"""Models that W&B keeps, by the name they have there: `wandb:entity/project/name:alias`."""

import os
import re
import tempfile
from pathlib import Path

from lungseg.errors import UserError

_PREFIX = "wandb:"


def is_wandb_name(path: str | Path) -> bool:
    """Whether this names a model at W&B, and no file."""
    return Path(path).as_posix().startswith(_PREFIX)


def check_version(key: str, path: str | Path) -> None:
    """Raise a UserError if this is a name at W&B that may mean another model tomorrow, as `:best` does.

    What a config names must be the same when the run is resumed.
    """
    if is_wandb_name(path) and not re.search(r":v\d+$", str(path)):
        raise UserError(
            f"{key}: {Path(path).as_posix()} may become another model; give its version, as in {_PREFIX}...:v3"
        )


def fetch_model(path: str | Path) -> Path:
    """Download a model that a run has sent (`wandb.artifacts=true`), unless this version of it is here already.

    Args:
        path: `wandb:entity/project/name:alias`, such as `wandb:me/lungseg/demo:best`; without the entity that of the
            login.

    Returns:
        Its folder, `artifacts/demo-v3` in the current folder, or in that of `WANDB_ARTIFACT_DIR`.

    Raises:
        UserError: It is no such name; or W&B cannot be reached, has no such model, or does not give it to this user.
    """
    source = Path(path).as_posix()
    name, _, alias = source.removeprefix(_PREFIX).partition(":")
    if name.count("/") not in (1, 2) or not all(name.split("/")) or not alias:
        raise UserError(f"{source}: expected {_PREFIX}entity/project/name:alias, as in {_PREFIX}me/lungseg/demo:best")
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        raise UserError(f"{source}: WANDB_MODE is {os.environ['WANDB_MODE']}, so W&B is not asked; unset it")
    import wandb

    try:
        artifact = wandb.Api(timeout=30).artifact(f"{name}:{alias}", type="model")
        folder: Path = Path(os.environ.get("WANDB_ARTIFACT_DIR") or "artifacts") / artifact.name.replace(":", "-")
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as part:
                artifact.download(root=str(Path(part) / "model"))
                try:
                    (Path(part) / "model").rename(folder)
                except OSError:
                    if not folder.exists():  # which another process may have been faster to make
                        raise
    except Exception as error:  # of its own kinds and of those of what it uses: no network, no key, no such name
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{source}: W&B does not give it ({reason}); are you online, and logged in (wandb login)?"
        ) from error
    return folder
