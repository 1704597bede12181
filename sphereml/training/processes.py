"""Training by several processes, each on a device of its own, on one machine or many.

``torchrun`` or ``srun`` starts them, as many as ``training.processes`` says.  All make the same whole batch of a step,
as the one law of seeds says; each puts its share of the samples through the network, gathers what the others predicted,
and has the loss of the whole batch, whatever that is made of: no loss or measure knows of processes.  A process's
gradient is that of its own samples; their sum is the step's.  Statistics of a batch are those of all processes
(:mod:`sphereml.models.shared_statistics`).

The first process, of rank 0, alone writes and speaks.  One that is lost ends the others with one line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from sphereml.errors import UserError
from sphereml.models.shared_statistics import process_count


@dataclass(frozen=True)
class Process:
    """This process, of rank ``rank`` among ``count``."""

    rank: int = 0
    count: int = 1

    @property
    def writes(self) -> bool:
        """Whether it is the one that writes the run's folder and says how it goes."""
        return self.rank == 0

    def share(self, size: int) -> slice:
        """The samples of a batch that are its own.

        Raises:
            UserError: they cannot be shared equally.
        """
        if size % self.count:
            what = f"a batch of {size} cannot be shared equally by {self.count} processes"
            raise UserError(
                what, "change training.batch_size or training.processes; a footprint that stays in place is one sample"
            )
        own = size // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def gathered(self, own: torch.Tensor) -> torch.Tensor:
        """All processes' samples ``(B, ...)`` in order; gradients run through this one's ``(B / count, ...)``."""
        if self.count == 1:
            return own
        parts = [torch.empty_like(own) for _ in range(self.count)]
        distributed.all_gather(parts, own.detach().contiguous())
        parts[self.rank] = own
        return torch.cat(parts)

    def from_first(self, value: Any = None) -> Any:
        """What the first process gave, on every process."""
        if self.count == 1:
            return value
        held = [value]
        distributed.broadcast_object_list(held)
        return held[0]


def this_process() -> Process:
    """Where this process stands among those of the training."""
    return Process() if process_count() == 1 else Process(distributed.get_rank(), distributed.get_world_size())


@contextmanager
def first_process_first() -> Iterator[None]:
    """The first process goes through the block before the others, who then find what it wrote."""
    me = this_process()
    if not me.writes:
        me.from_first()
    yield
    if me.writes:
        me.from_first()


@contextmanager
def together(count: int) -> Iterator[Process]:
    """The processes of a training of ``count``, joined for the block; alone where that is 1.

    Raises:
        UserError: another number was started, or one of them was lost.
    """
    if count == 1:
        yield Process()
        return
    _join(count)
    try:
        yield this_process()
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        if not this_process().writes:  # the first one says it
            raise SystemExit(1) from None
        raise UserError("another process of this training ended", "see what it said; --resume goes on") from None
    finally:
        distributed.destroy_process_group()


def _join(count: int) -> None:
    rank, started = _launch()
    if started != count:
        what = "1 process was" if started == 1 else f"{started} processes were"
        raise UserError(
            f"training.processes={count}, but {what} started",
            f"start them: torchrun --nproc-per-node {count} -m sphereml.cli.main train ... (or srun --ntasks {count})",
        )
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        distributed.init_process_group(backend, rank=rank, world_size=count)
    except (RuntimeError, ValueError) as error:
        what = f"the processes of this training do not find each other ({str(error).splitlines()[0]})"
        raise UserError(what, "see MASTER_ADDR and MASTER_PORT") from None


def _launch() -> tuple[int, int]:
    """Rank and number of processes as torchrun or srun says them; with srun where they meet, too."""
    found = os.environ
    if "RANK" in found and "WORLD_SIZE" in found:
        return int(found["RANK"]), int(found["WORLD_SIZE"])
    if "SLURM_PROCID" not in found or "SLURM_NTASKS" not in found:
        return 0, 1
    from lightning.fabric.plugins.environments import SLURMEnvironment

    nodes = found.get("SLURM_NODELIST", "127.0.0.1")
    found.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
    found.setdefault("MASTER_PORT", str(15000 + int(found.get("SLURM_JOB_ID", "0")) % 10000))
    return int(found["SLURM_PROCID"]), int(found["SLURM_NTASKS"])


def local_device() -> int:
    """Which of the devices that it sees is this process's; srun may show it one alone, which is its number 0."""
    rank = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
    seen = torch.cuda.device_count()
    return rank % seen if seen else rank


def _is_lost_connection(error: RuntimeError) -> bool:
    return isinstance(error, distributed.DistError) or "gloo" in str(error) or "onnection" in str(error)
