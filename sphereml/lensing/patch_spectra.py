"""Spectra of kappa estimates against the truth in bands of L: what networks and quadratic estimators are judged by.

Conventions
-----------
* Images are ``(patch, size, size)``, estimate and truth under the same window; a band holds ``lo <= L < hi``, its power
  is the mean over its modes, in sr, with the window's loss undone as in :mod:`sphereml.harmonics.flat`.
* ``<>`` is the mean over patches (arXiv:1810.01483, eqs. 10 and 12):

      R_L = <C^{hat k, k}> / <C^kk>,   N_L = <C^{hat k, hat k}> / R_L^2 - <C^kk>,
      rho_L = <C^{hat k, k}> / sqrt(<C^{hat k, hat k}> <C^kk>).

* Mean powers stand as ``(..., 3, band)``: auto of the estimate, cross with the truth, truth.
* N_L is the paper's proxy: on lensed skies it holds N1 and higher terms beside N0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from sphereml.harmonics.bands import Bands
from sphereml.harmonics.flat import FlatModes


@dataclass(frozen=True, eq=False)
class PatchBands:
    """Consecutive bands of L on patches of these modes, and the window under which powers are taken.

    Args:
        window: ``(size, size)``, multiplies both images less their window-weighted means; none: ones, means kept.

    Raises:
        UserError: a band without modes.
    """

    modes: FlatModes
    bands: Bands
    window: torch.Tensor | None = None

    def __post_init__(self) -> None:
        for lo, hi in self.bands.limits:
            self.modes.in_band(lo, hi)

    @property
    def edges(self) -> tuple[float, ...]:
        """Limits of the bands, one more than there are bands."""
        return (self.bands.limits[0][0], *(hi for _, hi in self.bands.limits))

    @property
    def centers(self) -> np.ndarray:
        """Mean L of the modes in each band."""
        return self.modes.band_mean(torch.from_numpy(self.modes.ell), self.bands).numpy()

    def average(self, curve: np.ndarray) -> np.ndarray:
        """A curve over L = 0, 1, ... averaged over each band's modes, as the powers are."""
        values = np.interp(self.modes.ell - 0.5, np.arange(len(curve)), curve)
        return self.modes.band_mean(torch.from_numpy(values), self.bands).numpy()

    def power(self, a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
        """Cross power of images ``(patch, size, size)`` in each band, float64 ``(patch, band)``."""
        power = self.modes.cross_power(a, b, self.window)
        return self.modes.band_mean(power, self.bands).cpu().numpy()


class PowerBands(Protocol):
    """Bands of patches or of whole skies."""

    @property
    def bands(self) -> Bands: ...

    @property
    def edges(self) -> tuple[float, ...]: ...

    @property
    def centers(self) -> np.ndarray: ...

    def average(self, curve: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class PatchPowers:
    """Auto power of an estimate, its cross power with the truth and the truth's own, each ``(patch, band)``."""

    bands: PowerBands
    auto: np.ndarray
    cross: np.ndarray
    truth: np.ndarray

    @classmethod
    def measure(cls, bands: PatchBands, estimate: torch.Tensor, truth: torch.Tensor) -> PatchPowers:
        powers = (bands.power(a, b) for a, b in ((estimate, estimate), (estimate, truth), (truth, truth)))
        return cls(bands, *powers)

    @property
    def stacked(self) -> np.ndarray:
        """Auto, cross and truth of every patch, ``(patch, 3, band)``."""
        return np.stack([self.auto, self.cross, self.truth], axis=1)


def response_of(means: np.ndarray) -> np.ndarray:
    """R_L of mean powers ``(..., 3, band)``."""
    result: np.ndarray = means[..., 1, :] / means[..., 2, :]
    return result


def noise_of(calibration: np.ndarray, means: np.ndarray) -> np.ndarray:
    """N_L of mean powers ``(..., 3, band)`` with the response of ``calibration``."""
    result: np.ndarray = means[..., 0, :] / response_of(calibration) ** 2 - means[..., 2, :]
    return result


def correlation_of(means: np.ndarray) -> np.ndarray:
    """rho_L of mean powers ``(..., 3, band)``."""
    result: np.ndarray = means[..., 1, :] / np.sqrt(means[..., 0, :] * means[..., 2, :])
    return result


def residual_of(means: np.ndarray) -> np.ndarray:
    """Power of estimate minus truth over that of the truth, of mean powers ``(..., 3, band)``."""
    result: np.ndarray = (means[..., 0, :] - 2 * means[..., 1, :] + means[..., 2, :]) / means[..., 2, :]
    return result
