"""The processes that share the forward passes of one evaluation, started by torchrun or srun.

Every process passes over the same batches and runs the network on its share of them. Rank zero collects what they
found, in order, and alone computes statistics, prints and writes. So the numbers are those of one process.
"""

import datetime
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed

from lungseg.data.batch import Batch
from lungseg.errors import UserError
from lungseg.runs.rank import detect_rank

PATIENCE = datetime.timedelta(hours=6)
"""Longest that the others wait for rank zero, which also computes; who started them ends them if it fails."""

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """This process among `size`; by default the only one."""

    rank: int = 0
    size: int = 1

    @property
    def is_zero(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, of_batch: Callable[[Batch], T], batches: Iterable[Batch]) -> list[T]:
        """Apply a function, whose results are picklable and small, to every batch, each on one process.

        The batches are the same everywhere; rank zero gets all results in order, the others none.
        """
        mine = [(number, of_batch(batch)) for number, batch in enumerate(batches) if number % self.size == self.rank]
        if self.size == 1:
            return [result for _, result in mine]
        parts: list[Any] | None = [None] * self.size if self.is_zero else None
        distributed.gather_object(mine, parts)
        found = {number: result for part in parts or [] for number, result in part}
        return [found[number] for number in sorted(found)]

    def wait_for_zero(self) -> None:
        """Begin when rank zero has found everything good: a mistake is told once, and the cache is made once.

        Raises:
            SystemExit: With code 2 where rank zero found a mistake and is gone.
        """
        if self.size == 1:
            return
        try:
            distributed.barrier()
        except RuntimeError:
            raise SystemExit(2) from None


ALONE = ProcessGroup()


@contextmanager
def join(environment: Mapping[str, str] = os.environ) -> Iterator[ProcessGroup]:
    """Take part in the processes that a launcher has started; alone where none has.

    Raises:
        UserError: srun has started several processes and the address of the first is not given.
    """
    place = detect_rank(environment)
    rank, size, local = place.rank, place.world_size or 1, place.local_rank
    if size == 1:
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in environment:
            raise UserError(f"{name} is not set, and {size} processes must find each other; set it, or use torchrun")
    distributed.init_process_group("gloo", rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield ProcessGroup(rank, size)
    finally:
        distributed.destroy_process_group()
