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


@dataclass(frozen=True)
class Observation:
    """White noise (uK-arcmin), beam FWHM (arcmin), and E and B used for ``lmin <= ell <= lmax``.

    Raises:
        UserError: negative or non-finite noise or beam; lmin below 2, or not below lmax.
    """

    noise: float = 1.0
    beam: float = 1.0
    lmin: int = 30
    lmax: int = 4000

    def __post_init__(self) -> None:
        for name, value, unit in (("noise", self.noise, "uK-arcmin"), ("beam", self.beam, "arcmin (FWHM)")):
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"{name} {value:g} is impossible", f"give 0 or more, in {unit}")
        if self.lmin < 2:
            raise UserError(f"lmin {self.lmin} is impossible", "polarization starts at ell = 2: give 2 or more")
        if self.lmin >= self.lmax:
            raise UserError(f"lmin {self.lmin} is not below lmax {self.lmax}", "lower lmin or raise lmax")

    def noise_spectrum(self) -> np.ndarray:
        """``(noise / b_ell)^2`` for ell = 0..lmax, b the beam's window; infinite where the beam leaves nothing."""
        if self.noise == 0:
            return np.zeros(self.lmax + 1)
        with np.errstate(over="ignore", divide="ignore"):
            spectrum: np.ndarray = (self.noise * _ARCMIN / gaussian_beam(self.lmax, self.beam)) ** 2
        return spectrum

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
