"""What a square flat patch's data are made of, and the legs of quadratic estimators that filters make of them.

Conventions
-----------
* Patches ``q, u`` are ``(batch, size, size)`` in uK with the signs of :mod:`sphereml.harmonics.flat_polarization`, as
  observed: ``mask (beam * sky + noise)``, the noise white.
* Legs are modes (``rfft2``'s layout) of a periodic sky whose corner ``[:size, :size]`` is the patch.  With C the
  covariance of the data, ``A`` beam and pixels, S the lensed spectra: inverse-variance filtered ``A^T C^-1 d``, and
  Wiener filtered ``S A^T C^-1 d``.  Without a mask these are ``b d / (b^2 S + N)`` and S times that.
* All multipoles below the Nyquist one are signal to C; only then are the legs cut to ``lmin <= ell <= lmax``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from sphereml.errors import UserError
from sphereml.harmonics.filters import gaussian_beam
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.lensing.low_b import low_b_waves
from sphereml.lensing.observation import Observation
from sphereml.simulate.cmb_spectra import CmbSpectra

# A pixel where the taper leaves less than this counts as masked, so that none is magnified more than this allows.
_LEAST_MASK = 1e-3


@dataclass(frozen=True, eq=False)
class Legs:
    """Modes ``(batch, n, n // 2 + 1)`` on ``sky`` of n pixels a side; the patch is its corner ``[:size, :size]``.

    Attributes:
        e: Wiener-filtered E (uK).
        e_inverse, b_inverse: inverse-variance filtered E and B (1 / (uK sr)).
    """

    sky: FlatSky
    size: int
    e: torch.Tensor
    e_inverse: torch.Tensor
    b_inverse: torch.Tensor

    def images(self, *modes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Images of the patch ``(batch, size, size)`` from modes on the sky."""
        everything = self.sky.to_images(torch.stack(modes, dim=1))
        return everything[..., : self.size, : self.size].unbind(1)


@dataclass(frozen=True, eq=False)
class PatchModel:
    """What the data of a patch are made of.

    Args:
        mask: apodized, ``(size, size)``, by which the data are multiplied.
        period: side in pixels of the periodic sky that the patch is a part of; large for a patch of the sphere.

    Raises:
        UserError: the mask has another shape or leaves nothing; the observation's lmax is above the pixels' Nyquist
            multipole or the end of the spectra; the period is below the patch's side or odd.
    """

    patch: FlatSky
    spectra: CmbSpectra
    observation: Observation
    mask: torch.Tensor
    period: int = 1024

    def __post_init__(self) -> None:
        size, nyquist = self.patch.size, self.patch.nyquist_ell
        if self.mask.shape != (size, size):
            raise UserError(
                f"a mask of {tuple(self.mask.shape)} on patches of {size} x {size}", "give one of that size"
            )
        if not self.support.any():
            raise UserError("the mask leaves no pixel", "give one that reaches 1")
        if self.observation.lmax > nyquist:
            what = f"lmax {self.observation.lmax} is above the Nyquist multipole {nyquist:.0f} of the pixels"
            raise UserError(what, "lower lmax or take smaller pixels")
        if self.period < size or self.period % 2:
            raise UserError(f"a periodic sky of {self.period} pixels", f"give an even number from {size} up")
        for power in (self.spectra.ee_lensed, self.spectra.bb_lensed):
            self.observation.filtered(power, power, 0)

    @property
    def padded(self) -> FlatSky:
        """The grid of the exact filters' legs: no lag within the patch wraps around it."""
        return self.patch.with_size(2 * self.patch.size)

    @cached_property
    def support(self) -> torch.Tensor:
        return self.mask > _LEAST_MASK

    @cached_property
    def inverse_mask(self) -> torch.Tensor:
        """What undoes the taper; zero outside the support."""
        return torch.where(self.support, 1 / self.mask.clamp_min(_LEAST_MASK), 0.0)

    @property
    def variance(self) -> float:
        """Noise variance of one pixel of Q, uK^2."""
        return (self.observation.noise / self.patch.pixel_arcmin) ** 2

    @cached_property
    def beam(self) -> np.ndarray:
        """``exp(-ell (ell + 1) sigma^2 / 2)`` up to the end of the spectra."""
        return gaussian_beam(self.spectra.lmax, self.observation.beam)

    @cached_property
    def band(self) -> np.ndarray:
        """The beam where the observation uses E, zero elsewhere."""
        ell = np.arange(self.spectra.lmax + 1)
        return np.where((ell >= self.observation.lmin) & (ell <= self.observation.lmax), self.beam, 0.0)

    @cached_property
    def band_b(self) -> np.ndarray:
        """The beam where the observation uses B, zero elsewhere."""
        return np.where(np.arange(self.spectra.lmax + 1) >= self.observation.lowest_b, self.band, 0.0)

    @property
    def _powers(self) -> tuple[np.ndarray, np.ndarray]:
        return self.spectra.ee_lensed, self.spectra.bb_lensed

    @cached_property
    def unseen(self) -> torch.Tensor | None:
        """Orthonormal data ``(rank, 2, size, size)`` float64 that B below ``lmin_b`` can be made of, None if it may be.

        Exact filters give them an infinite variance, ``C^-1 - C^-1 F (F^T C^-1 F)^-1 F^T C^-1``.
        """
        lowest, size = self.observation.lmin_b, self.patch.size
        if not lowest:
            return None
        return low_b_waves(self.patch, self.support.double(), lowest).T.reshape(-1, 2, size, size)

    @cached_property
    def covariance(self) -> torch.Tensor:
        """Covariances QQ, QU, UU of the beamed sky at the lags of the padded grid, uK^2, float64 ``(3, 2n, 2n)``."""
        sky, size = self.patch.with_size(self.period), self.patch.size
        like = torch.empty(0, dtype=torch.float64)
        modes = diagonal_in_eb(sky, *(sky.weights(power * self.beam**2, like) for power in self._powers))
        everywhere = sky.to_images(modes + 0j)
        lags = torch.cat([torch.arange(size), torch.zeros(1, dtype=torch.long), torch.arange(1 - size, 0)])
        chosen = everywhere[:, lags % self.period][..., lags % self.period]
        chosen[:, size, :] = chosen[:, :, size] = 0  # no two pixels are so far apart
        return chosen

    @cached_property
    def signal_on_padded(self) -> torch.Tensor:
        """Modes of :attr:`covariance`, float64 ``(3, 2n, n + 1)``."""
        return torch.fft.rfft2(self.covariance).real

    @cached_property
    def inverse_on_padded(self) -> torch.Tensor:
        """QQ, QU, UU of ``(S + N)^-1`` at every mode of the padded periodic sky, float64: the preconditioner."""
        sky, like = self.padded, torch.empty(0, dtype=torch.float64)
        totals = (sky.weights(power * self.beam**2, like) / sky.step**2 + self.variance for power in self._powers)
        return diagonal_in_eb(sky, *(1 / total for total in totals))

    def untapered(self, q: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Data ``(batch, 2, size, size)`` without the taper; zero where the mask leaves nothing."""
        return torch.stack([q, u], dim=1) * self.inverse_mask.to(q)

    def legs(self, weighted: torch.Tensor) -> Legs:
        """Legs on the padded grid from ``C^-1 d``, ``(batch, 2, size, size)``."""
        sky = self.padded
        q, u = torch.fft.rfft2(weighted, s=(sky.size, sky.size)).unbind(1)
        e, b = sky.to_eb(q, u)
        e, b = sky.weights(self.band, q) * e, sky.weights(self.band_b, q) * b
        return Legs(sky, self.patch.size, sky.weights(self.spectra.ee_lensed, q) * e, e, b)


def diagonal_in_eb(sky: FlatSky, e: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """QQ, QU, UU of a matrix that is diagonal in E and B, at every mode, ``(3, n, n // 2 + 1)``."""
    zero = torch.zeros_like(e)
    (eq, eu), (bq, bu) = sky.to_qu(torch.ones_like(e), zero), sky.to_qu(zero, torch.ones_like(b))
    return torch.stack([eq * eq * e + bq * bq * b, eq * eu * e + bq * bu * b, eu * eu * e + bu * bu * b])
