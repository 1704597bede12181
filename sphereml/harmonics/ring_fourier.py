"""Fourier sums along packed HEALPix rings in torch, with the azimuth of each ring's first pixel and aliasing of m.

``synthesize``: ``T_j = sum_{|m| <= lmax} F_m e^{i m phi_j}`` with ``F_{-m} = conj F_m``; ``analyze``: its transpose,
``F_m = sum_j T_j e^{-i m phi_j}`` for m >= 0.  On a ring of n pixels m and m + n look alike, so coefficients are folded
modulo n.  Rings of equal n, the pairs of the polar caps and the whole equatorial belt, share one batched FFT.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch


@dataclass(frozen=True)
class _Run:
    """``count`` successive rings of ``length`` pixels, the first being number ``ring`` at place ``start``."""

    length: int
    ring: int
    count: int
    start: int

    @property
    def places(self) -> slice:
        return slice(self.start, self.start + self.count * self.length)

    @property
    def rings(self) -> slice:
        return slice(self.ring, self.ring + self.count)


@dataclass(frozen=True, eq=False)
class RingFourier:
    """Fourier sums on rings described as ducc0 does (``nphi``, ``phi0``, ``ringstart``), in ``dtype`` on ``device``."""

    geometry: dict[str, np.ndarray]
    lmax: int
    device: torch.device
    dtype: torch.dtype

    @cached_property
    def _groups(self) -> list[list[_Run]]:
        """Runs of successive rings of equal length, gathered by length."""
        count = self.geometry["nphi"].astype(np.int64)
        breaks = np.concatenate([[0], np.flatnonzero(np.diff(count)) + 1, [len(count)]])
        groups: dict[int, list[_Run]] = {}
        for first, last in zip(breaks[:-1].tolist(), breaks[1:].tolist(), strict=True):
            run = _Run(int(count[first]), first, last - first, int(self.geometry["ringstart"][first]))
            groups.setdefault(run.length, []).append(run)
        return list(groups.values())

    @cached_property
    def _phase(self) -> torch.Tensor:
        """``e^{i m phi0}`` of every ring ``(nring, lmax + 1)``."""
        phase = torch.from_numpy(np.exp(1j * self.geometry["phi0"][:, None] * np.arange(self.lmax + 1)))
        return phase.to(self.device, self.dtype.to_complex())

    def synthesize(self, fourier: torch.Tensor, rings: torch.Tensor) -> None:
        """Fill packed ``rings (batch, size)`` from ``fourier (batch, nring, lmax + 1)``."""
        for runs in self._groups:
            length = runs[0].length
            part = (
                torch.cat([fourier[:, run.rings] for run in runs], dim=1)
                if len(runs) > 1
                else fourier[:, runs[0].rings]
            )
            folded = _fold(part * self._phase_of(runs), length)
            values = torch.fft.irfft(folded, length, norm="forward")
            for run, piece in zip(runs, values.split([run.count for run in runs], dim=1), strict=True):
                rings[:, run.places] = piece.flatten(1)

    def analyze(self, rings: torch.Tensor) -> torch.Tensor:
        """Coefficients ``(batch, nring, lmax + 1)`` of packed ``rings (batch, size)``."""
        shape = (len(rings), len(self.geometry["nphi"]), self.lmax + 1)
        fourier = torch.empty(shape, dtype=self.dtype.to_complex(), device=self.device)
        for runs in self._groups:
            values = [rings[:, run.places].unflatten(1, (run.count, run.length)) for run in runs]
            spectrum = torch.fft.rfft(torch.cat(values, dim=1) if len(runs) > 1 else values[0])
            part = _unfold(spectrum, runs[0].length, self.lmax) * self._phase_of(runs).conj()
            for run, piece in zip(runs, part.split([run.count for run in runs], dim=1), strict=True):
                fourier[:, run.rings] = piece
        return fourier

    def _phase_of(self, runs: list[_Run]) -> torch.Tensor:
        return torch.cat([self._phase[run.rings] for run in runs])


def _fold(fourier: torch.Tensor, length: int) -> torch.Tensor:
    """Half spectrum of a real ring of ``length`` pixels from coefficients m >= 0 on the last axis."""
    size = fourier.shape[-1]
    if length > 2 * (size - 1):
        return fourier
    twice = torch.cat([fourier[..., :1], 2 * fourier[..., 1:]], dim=-1)
    padded = torch.nn.functional.pad(twice, (0, -size % length))
    bins = padded.unflatten(-1, (-1, length)).sum(dim=-2)
    half = length // 2 + 1
    mirrored = torch.cat([bins[..., :1], bins[..., half - 1 :].flip(-1)], dim=-1)
    return (bins[..., :half] + mirrored.conj()) / 2


def _unfold(spectrum: torch.Tensor, length: int, lmax: int) -> torch.Tensor:
    """Coefficients m = 0 .. lmax from the half spectrum of a ring: the transpose of :func:`_fold`."""
    if length > 2 * lmax:
        return spectrum[..., : lmax + 1]
    whole = torch.cat([spectrum, spectrum[..., 1 : (length + 1) // 2].flip(-1).conj()], dim=-1)
    repeats = -(-(lmax + 1) // length)
    return whole.repeat(*[1] * (whole.ndim - 1), repeats)[..., : lmax + 1]
