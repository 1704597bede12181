"""Quadratic estimators of kappa, EB, EE and both together, on flat patches by FFTs.

Conventions
-----------
* Legs are those of :mod:`sphereml.lensing.patch_model`; results are modes on the legs' grid.  kappa = L^2/2 phi.
* ``f^EB = C^EE_l1 (L.l1) sin 2(phi_l1 - phi_l2)``, ``f^EE = [C^EE_l1 (L.l1) + C^EE_l2 (L.l2)] cos 2(phi_l1 - phi_l2)``
  with L = l1 + l2 and the lensed C^EE (eq. 6 of arXiv:1810.01483; Hu & Okamoto 2002, astro-ph/0111606).  The integral
  over pairs of modes factors into images,

      g(L) = -div [Q^I grad Q^W + U^I grad U^W](L),    phi_hat = g / R,

  with Q^W, U^W made of the Wiener-filtered E, and Q^I, U^I of the inverse-variance filtered B (EB), E (EE), or both:
  the minimum-variance sum, as these two have uncorrelated noises.
* ``R_L = int d^2l1/(2 pi)^2 f^2 / (g C^tot_l1 C^tot_l2)``, g = 1 for EB and 2 for EE, is summed over the modes of the
  grid; N0 = 1/R.  A mask's loss of response is not in it: see ``patch_spectra`` for the measured response.
* Products are taken on a grid fine enough that nothing aliases into ``L <= lmax_kappa``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.fft import next_fast_len

from sphereml.errors import UserError
from sphereml.harmonics.flat_polarization import FlatSky, resample
from sphereml.lensing.observation import Observation
from sphereml.lensing.patch_model import Legs
from sphereml.simulate.cmb_spectra import CmbSpectra

Pair = Literal["EB", "EE", "MV"]

# Below this share of the largest response the sums may hold only rounding.
_ROUNDING = 1e-11


class _Tensor(NamedTuple):
    """The parts xx, xy, yy of a symmetric tensor."""

    xx: torch.Tensor
    xy: torch.Tensor
    yy: torch.Tensor


@dataclass(frozen=True, eq=False)
class FlatEstimator:
    """kappa from legs on ``sky``.

    Args:
        sky: grid of the legs: ``PatchModel.padded``, or the patch itself for naive legs.
        lmax_kappa: highest L that is estimated; kappa is zero beyond.

    Raises:
        UserError: lmax or lmax_kappa is above the grid's Nyquist multipole.
    """

    sky: FlatSky
    spectra: CmbSpectra
    observation: Observation
    pair: Pair = "EB"
    lmax_kappa: int = 3000

    def __post_init__(self) -> None:
        nyquist = self.sky.nyquist_ell
        for name, value in (("lmax", self.observation.lmax), ("lmax_kappa", self.lmax_kappa)):
            if value > nyquist:
                what = f"{name} {value} is above the Nyquist multipole {nyquist:.0f} of the pixels"
                raise UserError(what, f"lower {name} or take smaller pixels")

    @cached_property
    def fine(self) -> FlatSky:
        """The same sky on as many pixels as products of two legs need."""
        least = (2 * self.observation.lmax + self.lmax_kappa) / self.sky.fundamental_ell
        return self.sky.resampled(2 * next_fast_len(int(least / 2) + 1, real=True))

    def __call__(self, legs: Legs) -> torch.Tensor:
        """Modes of kappa on ``sky``, ``(batch, n, n // 2 + 1)``, normalized by the analytic response."""
        return self.normalized(self.unnormalized(legs))

    def image(self, legs: Legs) -> torch.Tensor:
        """kappa on the patch's pixels, ``(batch, size, size)``."""
        return self.sky.to_images(self(legs))[..., : legs.size, : legs.size]

    def unnormalized(self, legs: Legs) -> torch.Tensor:
        """Modes of ``g``, whose mean is R phi."""
        return self.divergence(self.flow(legs))

    def flow(self, legs: Legs) -> tuple[torch.Tensor, torch.Tensor]:
        """Modes of ``Q^I grad Q^W + U^I grad U^W``, east and north, on ``sky``."""
        zero = torch.zeros_like(legs.e)
        inverse = (zero if self.pair == "EB" else legs.e_inverse, zero if self.pair == "EE" else legs.b_inverse)
        weighted = [self._fine_images(part) for part in self.sky.to_qu(*inverse)]
        slopes = [self.sky.gradient(part) for part in self.sky.to_qu(legs.e, zero)]
        x, y = (
            weighted[0] * self._fine_images(of_q) + weighted[1] * self._fine_images(of_u)
            for of_q, of_u in zip(*slopes, strict=True)
        )
        return resample(self.fine.to_modes(x), self.sky.size), resample(self.fine.to_modes(y), self.sky.size)

    def divergence(self, flow: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Modes of minus the divergence of a flow."""
        x, y = flow
        return -(self.sky.gradient(x)[0] + self.sky.gradient(y)[1])

    def normalized(self, modes: torch.Tensor) -> torch.Tensor:
        """Modes of kappa from those of ``g``."""
        return modes * self._normalization.to(modes.real)

    @cached_property
    def response(self) -> torch.Tensor:
        """R of phi at every mode of ``sky``, float64 ``(n, n // 2 + 1)``."""
        tensor = _sum(
            *([self._tensor_eb()] if self.pair in ("EB", "MV") else []),
            *(self._tensors_ee() if self.pair in ("EE", "MV") else []),
        )
        ones = torch.ones(self.sky.size, self.sky.size // 2 + 1, dtype=torch.complex128)
        lx, ly = (part.imag for part in self.sky.gradient(ones))
        total = lx * lx * tensor.xx + 2 * lx * ly * tensor.xy + ly * ly * tensor.yy
        ell = self.sky.ell(total)
        return torch.where((ell > 0) & (ell <= self.lmax_kappa + 0.5), total, 0.0)

    @cached_property
    def n0(self) -> torch.Tensor:
        """N0 of kappa at every mode of ``sky``, float64; infinite where nothing is measured."""
        measured = self._measured
        power = self.sky.ell(self.response) ** 4 / 4
        return torch.where(measured, power / torch.where(measured, self.response, 1.0), torch.inf)

    @cached_property
    def _measured(self) -> torch.Tensor:
        kappa_response = self.response / self.sky.ell(self.response).clamp_min(1e-30) ** 4
        return kappa_response > _ROUNDING * kappa_response.max()

    @cached_property
    def _normalization(self) -> torch.Tensor:
        half = self.sky.ell(self.response) ** 2 / 2
        return torch.where(self._measured, half / torch.where(self._measured, self.response, 1.0), 0.0)

    def _fine_images(self, modes: torch.Tensor) -> torch.Tensor:
        return self.fine.to_images(resample(modes, self.fine.size))

    def _weights(self, power: np.ndarray, exponent: int) -> torch.Tensor:
        """``power^exponent / (power + noise)`` at the modes of the fine grid, complex128."""
        return self._modes(self.observation.filtered(power, power, exponent))

    def _modes(self, weights: np.ndarray) -> torch.Tensor:
        return self.fine.weights(weights, torch.empty(0, dtype=torch.complex128)) + 0j

    def _tensor_eb(self) -> _Tensor:
        """``int l1_a l1_b sin^2 2(phi_1 - phi_2) C^2/C^tot (l1) 1/C^tot(l2)``."""
        other = _spin_two_squares(self.fine, self._modes(self.observation.filtered_b(self.spectra.bb_lensed)))
        slopes = _second_derivatives(self.fine, self._weights(self.spectra.ee_lensed, 2))
        return _Tensor(*(self._convolve_sine(part, other) for part in slopes))

    def _tensors_ee(self) -> tuple[_Tensor, _Tensor]:
        """As for EB with cos^2, and the term in which both legs are lensed: ``l1_a l2_b C/C^tot (l1) C/C^tot (l2)``."""
        ee = self.spectra.ee_lensed
        other = _spin_two_squares(self.fine, self._weights(ee, 0))
        own = (self._convolve_cosine(part, other) for part in _second_derivatives(self.fine, self._weights(ee, 2)))
        x, y = self.fine.gradient(self._weights(ee, 1))
        pairs = ((x, x), (x, y), (y, y))
        exchanged = (-self._convolve_cosine(a, _spin_two_squares(self.fine, b)) for a, b in pairs)
        return _Tensor(*own), _Tensor(*exchanged)

    def _convolve_sine(self, modes: torch.Tensor, other: _Tensor) -> torch.Tensor:
        """``int sin^2 2(phi_1 - phi_2) modes(l1) other(l2)`` at the modes of ``sky``."""
        own = _spin_two_squares(self.fine, modes)
        return self._modes_of(own.xx * other.yy + own.yy * other.xx - 2 * own.xy * other.xy)

    def _convolve_cosine(self, modes: torch.Tensor, other: _Tensor) -> torch.Tensor:
        own = _spin_two_squares(self.fine, modes)
        return self._modes_of(own.xx * other.xx + own.yy * other.yy + 2 * own.xy * other.xy)

    def _modes_of(self, images: torch.Tensor) -> torch.Tensor:
        return resample(self.fine.to_modes(images), self.sky.size).real


def mean_field(estimates: Iterable[torch.Tensor]) -> torch.Tensor:
    """Average over simulations of what an estimator makes of the mask, to be subtracted; ``(..., )`` without batch.

    Args:
        estimates: batches of kappa, modes or images, of simulations under the data's mask.

    Raises:
        UserError: there are none.
    """
    total, count = None, 0
    for batch in estimates:
        part = batch.to(torch.complex128 if batch.is_complex() else torch.float64).sum(dim=0)
        total, count = part if total is None else total + part, count + len(batch)
    if total is None:
        raise UserError("a mean field of no simulations", "give at least one batch")
    return total / count


def _spin_two_squares(sky: FlatSky, modes: torch.Tensor) -> _Tensor:
    """Images of ``modes`` times cos^2 2phi, cos 2phi sin 2phi and sin^2 2phi."""
    zero = torch.zeros_like(modes)
    cosine, sine = (-part for part in sky.to_qu(modes, zero))
    of_cosine, of_sine = sky.to_qu(-cosine, zero), sky.to_qu(-sine, zero)
    return _Tensor(*(sky.to_images(part) for part in (of_cosine[0], of_cosine[1], of_sine[1])))


def _second_derivatives(sky: FlatSky, modes: torch.Tensor) -> _Tensor:
    """``l_a l_b`` times the modes."""
    x, y = sky.gradient(modes)
    return _Tensor(-sky.gradient(x)[0], -sky.gradient(x)[1], -sky.gradient(y)[1])


def _sum(*tensors: _Tensor) -> _Tensor:
    return _Tensor(*(torch.stack(parts).sum(dim=0) for parts in zip(*tensors, strict=True)))
