"""A polarization survey as lensing estimators see it: white noise, a Gaussian beam and the multipoles that are used.

Conventions: noise is that of Q and of U in uK-arcmin (no sqrt 2 from temperature), the beam a FWHM in arcmin; spectra
are C_ell in uK^2 from ell = 0, deconvolved of the beam.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.filters import gaussian_beam

_ARCMIN = math.pi / (180 * 60)
# Over the largest E power: some 1e3 times lensed B and noise, and conjugate gradients converge as they do for E.
_UNSEEN = 3.0


@dataclass(frozen=True)
class Observation:
    """White noise (uK-arcmin), beam FWHM (arcmin), and E and B used for ``lmin <= ell <= lmax``.

    Args:
        lmin_b: B is used from here on where that is above ``lmin``.  A template of the lensing B below ``lmin_b`` then
            knows nothing of the B that was observed there (Heinrich et al. 2022, arXiv:2210.01822).

    Raises:
        UserError: negative or non-finite noise or beam; lmin below 2, or not below lmax; lmin_b not in 0..lmax - 1.
    """

    noise: float = 1.0
    beam: float = 1.0
    lmin: int = 30
    lmax: int = 4000
    lmin_b: int = 0

    def __post_init__(self) -> None:
        for name, value, unit in (("noise", self.noise, "uK-arcmin"), ("beam", self.beam, "arcmin (FWHM)")):
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"{name} {value:g} is impossible", f"give 0 or more, in {unit}")
        if self.lmin < 2:
            raise UserError(f"lmin {self.lmin} is impossible", "polarization starts at ell = 2: give 2 or more")
        if self.lmin >= self.lmax:
            raise UserError(f"lmin {self.lmin} is not below lmax {self.lmax}", "lower lmin or raise lmax")
        if not 0 <= self.lmin_b < self.lmax:
            raise UserError(f"lmin_b {self.lmin_b} is not in 0 to lmax {self.lmax}", "give 0 for none, or e.g. 300")

    def noise_spectrum(self) -> np.ndarray:
        """``(noise / b_ell)^2`` for ell = 0..lmax, b the beam's window; infinite where the beam leaves nothing."""
        if self.noise == 0:
            return np.zeros(self.lmax + 1)
        with np.errstate(over="ignore", divide="ignore"):
            spectrum: np.ndarray = (self.noise * _ARCMIN / gaussian_beam(self.lmax, self.beam)) ** 2
        return spectrum

    @property
    def lowest_b(self) -> int:
        """The first multipole of which B is used."""
        return max(self.lmin, self.lmin_b)

    def filtered_b(self, power: np.ndarray) -> np.ndarray:
        """``1 / (power + noise)`` for ``lowest_b <= ell <= lmax``, zero outside, ``(lmax + 1,)``."""
        weights = self.filtered(power, power, 0)
        weights[: self.lowest_b] = 0
        return weights

    def unseen_below(self, bb: np.ndarray, ee: np.ndarray) -> np.ndarray:
        """B power for filters of the masked sphere: below lmin_b a variance beside which all else is small.

        A filter that inverts the data's covariance then projects these modes out, under any mask, together with the
        part of E that cannot be told from them.
        """
        power = bb.copy()
        power[: self.lmin_b] = _UNSEEN * ee.max()
        return power

    def filtered(self, signal: np.ndarray, power: np.ndarray, exponent: int) -> np.ndarray:
        """``signal^exponent / (power + noise)`` within the band and zero outside it, ``(lmax + 1,)``.

        Raises:
            UserError: the power in the band is not positive, or a spectrum ends below lmax.
        """
        if min(len(signal), len(power)) <= self.lmax:
            last = min(len(signal), len(power)) - 1
            raise UserError(f"the spectra end at ell={last}, below lmax {self.lmax}", "lower lmax, or give longer ones")
        band = slice(self.lmin, self.lmax + 1)
        total = power[band] + self.noise_spectrum()[band]
        if not (total > 0).all():
            ell = self.lmin + int(np.argmin(total > 0))
            raise UserError(f"the power at ell={ell} is not positive", "give other spectra, or a noise above 0")
        weights = np.zeros(self.lmax + 1)
        weights[band] = signal[band] ** exponent / total
        return weights
