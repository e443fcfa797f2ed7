"""Transforms of albumentations written as calls, `CLAHE(clip_limit=4, p=0.3)`: what `augment.transforms` holds.

The library, which takes a second to import, is imported only where there are any.
"""

import ast
import os
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from lungseg.errors import UserError, did_you_mean

_KEY = "augment.transforms"
_TRIAL_PX = 64


@lru_cache
def build_transforms(calls: tuple[str, ...]) -> Any:
    """Make one `albumentations.Compose` of calls, in their order.

    Raises:
        UserError: One line: not a call, a name or an argument that albumentations does not know, a value that it
            refuses, or a transform that cannot be applied to a grey image or changes its size.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks a server for its newest version
    import albumentations
    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of an argument that it does not know it only warns
        made = albumentations.Compose([_made(albumentations, _parsed(call)) for call in calls])
    made.set_random_seed(0)
    trial = np.random.default_rng(0).integers(0, 256, (_TRIAL_PX, _TRIAL_PX), np.uint8)
    for call, transform in zip(calls, made.transforms, strict=True):
        transform.p, chance = 1.0, transform.p
        try:
            found = transform(image=trial, mask=trial & 3)
        except Exception as error:  # of many types
            raise UserError(f"{_KEY}: {call}: fails on a grey image: {_line(error)}") from error
        transform.p = chance
        shapes = [getattr(found[name], "shape", None) for name in ("image", "mask")]
        if shapes != [trial.shape] * 2 or found["image"].dtype != np.uint8:
            raise UserError(f"{_KEY}: {call}: changes the size or the kind of an image, which data.image_size decides")
    return made


def _parsed(call: str) -> ast.expr:
    try:
        return ast.parse(call.strip(), mode="eval").body
    except SyntaxError:
        raise UserError(f"{_KEY}: must be calls such as 'CLAHE(clip_limit=4, p=0.3)', got {call!r}") from None


def _made(library: Any, node: ast.expr) -> Any:
    """Evaluate a call of one of the library's transforms, whose arguments may be such calls, and nothing else."""
    text = ast.unparse(node)
    if isinstance(node, ast.List | ast.Tuple):
        return [_made(library, item) for item in node.elts]
    if not isinstance(node, ast.Call):
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise UserError(f"{_KEY}: {text}: must be a number, a text, a list of these, or a call") from None
    name = ast.unparse(node.func)
    known = [each for each in dir(library) if isinstance(getattr(library, each), type) and each[0].isupper()]
    known = [each for each in known if issubclass(getattr(library, each), library.BasicTransform | library.BaseCompose)]
    if name not in known:
        raise UserError(f"{_KEY}: albumentations has no {name!r}{did_you_mean(get_close_matches(name, known, 1))}")
    given = {word.arg or "**": _made(library, word.value) for word in node.keywords}
    try:
        return getattr(library, name)(*(_made(library, item) for item in node.args), **given)
    except (TypeError, ValueError, Warning) as error:
        raise UserError(f"{_KEY}: {text}: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def check_calls(calls: Sequence[str]) -> None:
    """Raise what `build_transforms` does; without calls nothing is imported."""
    if calls:
        build_transforms(tuple(calls))
