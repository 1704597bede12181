"""What debiased spectra of kappa say of omega_c: shifts (eq. 16) and a one-parameter likelihood (eq. 17).

Conventions: omega_c is ``omch2``, all else of the cosmology is kept.  Equations of arXiv:1810.01483, with D the
debiased mean band powers of the test patches of a cosmology and S the covariance of one fiducial test patch:

    chi^2 = (D - D_fid) [S 2/n]^-1 (D - D_fid)                                        (eq. 16)
    -2 ln L(omega_c) = (D - C(omega_c)) [S (1/n_test + 1/n_validation)]^-1 (D - C(omega_c))   (eq. 17)

The patches of all cosmologies share their random phases, so D - D_fid scatters by less than its covariance says.  The
second term of that of eq. 17 is the noise of the measured bias.  ``C(omega_c)`` is the mean true band power of the
fiducial validation patches times ``C^kk(omega_c) / C^kk(fiducial)`` of CAMB: the window is in it.  Between cosmologies
that were computed, curves are the polynomials through them.

The paper debiases with R and N_L of the fiducial cosmology whatever omega_c is, though the noise depends on it through
the lensed spectra.  ``fixed`` does as the paper does; ``corrected`` reads R and N_L off polynomials through the three
simulated cosmologies, whose validation patches share their random phases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sphereml.evaluation.lensing.chi_square import ChiSquare, Covariance
from sphereml.evaluation.lensing.noise import noise_of, response_of
from sphereml.lensing.patch_spectra import PatchPowers

# The paper's, about its fiducial 0.1185.
SHIFT = 0.01
_GRID = 801


@dataclass(frozen=True, eq=False)
class Curve:
    """Band powers (or responses) as a polynomial in omega_c through computed points, ``(point, band)``."""

    points: np.ndarray
    values: np.ndarray

    def __call__(self, omega: np.ndarray) -> np.ndarray:
        """``(omega, band)``."""
        centre, scale = self.points.mean(), np.ptp(self.points)
        powers = np.polyfit((self.points - centre) / scale, self.values, len(self.points) - 1)
        x = (omega - centre) / scale
        result: np.ndarray = sum(row * x[:, None] ** k for k, row in enumerate(powers[::-1]))
        return result


@dataclass(frozen=True)
class Posterior:
    """Of omega_c under a flat prior over the grid: mean, standard deviation, and the grid's likelihood (peak 1)."""

    mean: float
    deviation: float
    likelihood: list[float]

    @classmethod
    def of(cls, grid: np.ndarray, chi_square: np.ndarray) -> Posterior:
        likelihood = np.exp(-(chi_square - chi_square.min()) / 2)
        weight = likelihood / likelihood.sum()
        mean = float((weight * grid).sum())
        return cls(mean, float(np.sqrt((weight * (grid - mean) ** 2).sum())), likelihood.tolist())


@dataclass(frozen=True, eq=False)
class DensityFit:
    """One estimate's powers on patches of several cosmologies.

    Args:
        validation, test: by omega_c, of the same cosmologies.
        theory: ``C^kk`` in the bands by omega_c, at least of these cosmologies.
        fiducial: the omega_c that R, N_L and the covariance are of.
    """

    validation: Mapping[float, PatchPowers]
    test: Mapping[float, PatchPowers]
    theory: Mapping[float, np.ndarray]
    fiducial: float

    @cached_property
    def grid(self) -> np.ndarray:
        return np.linspace(min(self.theory), max(self.theory), _GRID)

    @cached_property
    def _calibrations(self) -> dict[float, np.ndarray]:
        """Mean auto, cross and truth of validation patches, ``(3, band)``."""
        return {omega: _means(powers) for omega, powers in self.validation.items()}

    @cached_property
    def covariance(self) -> Covariance:
        """Of the debiased power of one fiducial test patch."""
        return Covariance(self.test[self.fiducial].auto / response_of(self._calibrations[self.fiducial]) ** 2)

    def debiased(self, omega: float) -> np.ndarray:
        """Mean debiased band powers of the test patches of a cosmology, with the fiducial R and N_L."""
        own = self._calibrations[self.fiducial]
        result: np.ndarray = self.test[omega].auto.mean(axis=0) / response_of(own) ** 2 - noise_of(own, own)
        return result

    def shift(self, omega: float) -> ChiSquare:
        """Eq. 16 for the patches of this omega_c."""
        patches = len(self.test[omega].auto)
        return self.covariance.test(self.debiased(omega) - self.debiased(self.fiducial), 2 / patches)

    def fixed(self, omega: float) -> Posterior:
        """Eq. 17 from the patches of this omega_c, debiased at the fiducial cosmology as in the paper."""
        return self._posterior(np.broadcast_to(self.debiased(omega), (_GRID, self._model.shape[1])))

    def corrected(self, omega: float) -> Posterior:
        """Eq. 17 with the R and N_L of every omega_c on the grid."""
        points = np.array(sorted(self._calibrations))
        means = [self._calibrations[point] for point in points]
        response = Curve(points, np.stack([response_of(mean) for mean in means]))(self.grid)
        bias = Curve(points, np.stack([noise_of(mean, mean) for mean in means]))(self.grid)
        return self._posterior(self.test[omega].auto.mean(axis=0) / response**2 - bias)

    @cached_property
    def _model(self) -> np.ndarray:
        """``C(omega_c)`` on the grid, ``(omega, band)``."""
        points = np.array(sorted(self.theory))
        ratio = Curve(points, np.stack([self.theory[point] / self.theory[self.fiducial] for point in points]))
        result: np.ndarray = self._calibrations[self.fiducial][2] * ratio(self.grid)
        return result

    def _posterior(self, data: np.ndarray) -> Posterior:
        """Of debiased powers ``(omega, band)``."""
        share = 1 / len(self.test[self.fiducial].auto) + 1 / len(self.validation[self.fiducial].auto)
        return Posterior.of(self.grid, self.covariance.squared(data - self._model, share))

    def to_json(self) -> dict[str, Any]:
        """By cosmology of the patches: eq. 16 where it is not the fiducial one, eq. 17 in both ways."""
        return {f"{omega:.4f}": self._entry(omega) for omega in sorted(self.test)}

    def _entry(self, omega: float) -> dict[str, Any]:
        ways = {"fixed": self.fixed(omega), "corrected": self.corrected(omega)}
        entry: dict[str, Any] = {
            way: {"mean": found.mean, "sigma": found.deviation, "offset_sigmas": (found.mean - omega) / found.deviation,
                  "likelihood": found.likelihood[::4]}
            for way, found in ways.items()
        }  # fmt: skip
        if omega != self.fiducial:
            entry["shift"] = self.shift(omega).to_json()
        return entry


def _means(powers: PatchPowers) -> np.ndarray:
    return np.stack([part.mean(axis=0) for part in (powers.auto, powers.cross, powers.truth)])
