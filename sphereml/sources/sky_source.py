"""Batches from one sky: columns of the whole sphere, read at the places that a footprint draws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from sphereml.domains.channels import Channels
from sphereml.sources.batch import Batch
from sphereml.sources.footprints import Footprint

# Interpolated over an edge of the mask a pixel mixes good and bad values: it does not count.
_WHOLE = 0.999


@dataclass(frozen=True, eq=False)
class SkyColumns:
    """Full-sky arrays a network is trained on, NEST, float32, in standardized units.

    Args:
        channels: what the columns of ``features`` are.
        features: ``(npix, F)``.
        base, target: ``(npix, O)``.
        gains: ``(npix, O, G)``, or None (see :class:`~sphereml.sources.batch.Batch`).
    """

    channels: Channels
    features: np.ndarray
    base: np.ndarray
    gains: np.ndarray | None
    target: np.ndarray

    def at(self, rows: np.ndarray) -> SkyColumns:
        """Some of the rows."""
        gains = None if self.gains is None else self.gains[rows]
        return SkyColumns(self.channels, self.features[rows], self.base[rows], gains, self.target[rows])

    @property
    def guess(self) -> np.ndarray:
        """Base and gains side by side, ``(npix, O + O G)``."""
        parts = [self.base] if self.gains is None else [self.base, self.gains.reshape(len(self.base), -1)]
        return np.concatenate(parts, axis=1)

    def split_guess(self, guess: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Base ``(..., O)`` and gains ``(..., O, G)`` of values laid out as :attr:`guess`."""
        outputs = self.base.shape[1]
        base, gains = guess[..., :outputs], guess[..., outputs:]
        return base, None if self.gains is None else gains.unflatten(-1, (outputs, -1))


@dataclass(frozen=True, eq=False)
class SkySource:
    """Batches of a sky's columns that count on a region alone.

    Args:
        region: ``(npix,)`` 0 or 1; an interpolated pixel counts where all that it is made of lies inside.
        weight: ``(npix,)`` in 0..1, what a pixel of the region counts; None: all alike.
    """

    columns: SkyColumns
    region: np.ndarray
    footprint: Footprint
    weight: np.ndarray | None = None

    @cached_property
    def _stack(self) -> np.ndarray:
        """Features, guess, target, region and weight side by side."""
        columns, rows = self.columns, [one[:, None] for one in (self.region, self.weight) if one is not None]
        return np.concatenate([columns.features, columns.guess, columns.target, *rows], axis=1, dtype=np.float32)

    def batch(self, seed: int, size: int, device: torch.device | str = "cpu") -> Batch:
        domain, stack = self.footprint.draw(np.random.default_rng(seed), size, self._stack)
        values = torch.from_numpy(stack).to(device)
        columns, last = self.columns, -1 if self.weight is None else -2
        outputs, features = columns.target.shape[1], columns.features.shape[1]
        base, gains = columns.split_guess(values[..., features : last - outputs])
        inside = (values[..., last] > _WHOLE).to(values.dtype)
        return Batch(
            domain=domain,
            channels=columns.channels,
            features=values[..., :features].contiguous(),
            base=base,
            gains=gains,
            target=values[..., last - outputs : last],
            weight=inside if self.weight is None else inside * values[..., -1],
        )
