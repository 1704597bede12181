"""Batches from one sky: columns of the whole sphere, read at the places that a footprint draws."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
        outputs: spins of the fields whose columns base and target are; None: scalars.  A gain on a field is a field of
            its kind, but for the last ``scalar_gains``, which are the same number for all its columns.
    """

    channels: Channels
    features: np.ndarray
    base: np.ndarray
    gains: np.ndarray | None
    target: np.ndarray
    outputs: tuple[int, ...] | None = None
    scalar_gains: int = 0

    def at(self, rows: np.ndarray) -> SkyColumns:
        """Some of the rows."""
        gains = None if self.gains is None else self.gains[rows]
        parts = {"features": self.features[rows], "base": self.base[rows], "target": self.target[rows]}
        return replace(self, **parts, gains=gains)

    @property
    def guess(self) -> np.ndarray:
        """Base and gains side by side, gain by gain, ``(npix, O + G O)``."""
        parts = [self.base]
        if self.gains is not None:
            parts.append(self.gains.swapaxes(1, 2).reshape(len(self.base), -1))
        return np.concatenate(parts, axis=1)

    def split_guess(self, guess: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Base ``(..., O)`` and gains ``(..., O, G)`` of values laid out as :attr:`guess`."""
        outputs = self.base.shape[1]
        base, gains = guess[..., :outputs], guess[..., outputs:]
        return base, None if self.gains is None else gains.unflatten(-1, (-1, outputs)).swapaxes(-1, -2).contiguous()

    @property
    def target_spins(self) -> tuple[int, ...]:
        """Spins of the fields of the target."""
        return (0,) * self.target.shape[1] if self.outputs is None else self.outputs

    @property
    def guess_spins(self) -> tuple[int, ...]:
        """Spins of the fields of :attr:`guess`."""
        gains = 0 if self.gains is None else self.gains.shape[2]
        return self.target_spins * (1 + gains - self.scalar_gains) + (0,) * (self.scalar_gains * self.target.shape[1])


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
        columns = self.columns
        spins = (*columns.channels.spins, *columns.guess_spins, *columns.target_spins)
        spins += (0,) * (1 if self.weight is None else 2)
        domain, stack = self.footprint.draw(np.random.default_rng(seed), size, self._stack, spins)
        values = torch.from_numpy(stack).to(device)
        last = -1 if self.weight is None else -2
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
