"""One process a device, each with every n-th file: no process waits for another, and the loss of one costs its share.

Prediction needs no collective calls, so nothing ties the processes together but the output folder.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from lungseg.errors import UserError


def parse_shard(text: str) -> tuple[int, int]:
    """`I/N`, the I-th (from 0) of N shares.

    Raises:
        ValueError: Anything else.
    """
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(f"--shard: I/N with 0 <= I < N, such as 0/4, got {text!r}")
    return int(index), int(count)


def run_shards(words: Sequence[str], devices: Sequence[str]) -> list[str]:
    """Run `python -m lungseg.predict` once a device and wait; all are ended should this process be.

    Args:
        words: Arguments of the command, without `--device` and `--shard`.
        devices: One name a process.

    Returns:
        The devices whose process did not reach its end (bad files do not count).
    """
    command = [sys.executable, "-m", "lungseg.predict", *words]
    children = [
        subprocess.Popen(
            [*command, "--device", device, "--shard", f"{index}/{len(devices)}"], stdout=subprocess.DEVNULL
        )
        for index, device in enumerate(devices)
    ]
    try:
        codes = [child.wait() for child in children]
    finally:
        for child in children:
            child.terminate()
    return [device for device, code in zip(devices, codes, strict=True) if code not in (0, 1)]
