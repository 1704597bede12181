"""Batches: what a network is shown and asked for, and the law that says which one comes when.

Conventions: tensors are channel-last on a domain of shape ``*s``, in standardized units.  A batch is a function of a
seed, and the seed of (training seed, stream, epoch, index) alone, so a resumed training sees the same as one that was
not interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch.utils.data import IterableDataset

from sphereml.domains import Domain
from sphereml.domains.channels import Channels

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True, eq=False)
class Batch:
    """What a network takes and is asked for.

    Args:
        channels: what the columns of ``features`` are.
        features: ``(B, *s, F)``.
        base: ``(B, *s, O)``, the first guess of every real column of the outputs.
        gains: ``(B, *s, O, G)``, what G outputs of the network are multiplied by for each column; None where the
            network has one output a column that is added as it is.
        target: ``(B, *s, O)``.
        weight: ``(B, *s)`` or ``(*s)``, what each pixel counts.
    """

    domain: Domain
    channels: Channels
    features: torch.Tensor
    base: torch.Tensor
    gains: torch.Tensor | None
    target: torch.Tensor
    weight: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device."""
        gains = None if self.gains is None else self.gains.to(device)
        moved = (tensor.to(device) for tensor in (self.features, self.base, self.target, self.weight))
        features, base, target, weight = moved
        return Batch(self.domain, self.channels, features, base, gains, target, weight)


class Source(Protocol):
    """Gives batches, each a function of its seed."""

    def batch(self, seed: int, size: int, device: torch.device | str) -> Batch: ...


def batch_seed(*place: int) -> int:
    """A seed of 63 bits for the batch at ``place``: (seed, stream, epoch, index), or fewer numbers."""
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)


@dataclass(eq=False)
class EpochSeeds(IterableDataset[Any]):
    """The seeds of one epoch's batches: ``count`` of them, by (seed, stream, epoch, index)."""

    seed: int
    stream: int
    count: int
    epoch: int = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        for index in range(self.count):
            yield batch_seed(self.seed, self.stream, self.epoch, index)
