"""What debiased spectra of kappa say of omega_c: shifts (eq. 16) and a one-parameter likelihood (eq. 17).

Conventions: omega_c is ``omch2``, all else of the cosmology is kept.  Equations of arXiv:1810.01483, with D the
debiased mean band powers of the test patches of a cosmology and S the covariance of one fiducial test patch (measured
on jackknife groups of patches, see :func:`~sphereml.evaluation.statistics.pseudovalues`):

    chi^2 = (D - D_fid) [S 2/n]^-1 (D - D_fid)                                        (eq. 16)
    chi^2_paired = (D - D_fid) [S_d 1/n]^-1 (D - D_fid)
    -2 ln L(omega_c) = (D - C(omega_c)) [S (1/n_test + 1/n_validation)]^-1 (D - C(omega_c))   (eq. 17)

The patches of all cosmologies share their random phases, so D - D_fid scatters by less than 2/n S: the chi^2 of eq. 16
has no probability.  That of the paired one, with S_d the covariance of a patch's difference, has.  The second term of
the covariance of eq. 17 is the noise of the measured bias.  ``C(omega_c)`` is the mean true band power of the
fiducial validation patches times ``C^kk(omega_c) / C^kk(fiducial)`` of CAMB: the window is in it.  Between cosmologies
that were computed, curves are the polynomials through them.

The paper debiases with R and N_L of the fiducial cosmology whatever omega_c is, though the noise depends on it through
the lensed spectra.  ``fixed`` does as the paper does; ``corrected`` reads R and N_L off quadratics through the three
simulated cosmologies, whose validation patches share their random phases.  The grid ends ``MARGIN`` beyond the
outermost of them: from there to the edges R and N_L are extrapolated (C^kk is not: CAMB's spectra reach further).  A
likelihood above 1 % of its peak at an edge of the grid is cut by it, and its mean and deviation say nothing: a limit is
given where it falls off on the other side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sphereml.evaluation.lensing.chi_square import ChiSquare, Covariance
from sphereml.evaluation.statistics import pseudovalues
from sphereml.lensing.patch_spectra import PatchPowers, noise_of, response_of

# The paper's, about its fiducial 0.1185.
SHIFT = 0.01
# How far the grid goes beyond the simulated cosmologies, where R and N_L are extrapolated.
MARGIN = SHIFT / 2
_GRID = 801
_EDGE = 0.01
_TAIL = 0.05


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
    """Of omega_c under a flat prior over the grid.

    ``likelihood`` on the grid, peak 1; ``mean`` and ``deviation`` where it is below 1 % at both edges, else None.
    Where one edge cuts it, ``lower`` or ``upper`` is the limit (95 %) on the other side, which is on the safe side:
    what is cut off lies beyond the edge.
    """

    likelihood: list[float]
    mean: float | None = None
    deviation: float | None = None
    lower: float | None = None
    upper: float | None = None

    @classmethod
    def of(cls, grid: np.ndarray, chi_square: np.ndarray) -> Posterior:
        likelihood = np.exp(-(chi_square - chi_square.min()) / 2)
        weight, values = likelihood / likelihood.sum(), likelihood.tolist()
        cut_below, cut_above = values[0] > _EDGE, values[-1] > _EDGE
        if cut_below or cut_above:
            lower, upper = (float(grid[np.searchsorted(weight.cumsum(), share)]) for share in (_TAIL, 1 - _TAIL))
            return cls(values, lower=None if cut_below else lower, upper=None if cut_above else upper)
        mean = float((weight * grid).sum())
        return cls(values, mean, float(np.sqrt((weight * (grid - mean) ** 2).sum())))

    def to_json(self, true: float) -> dict[str, Any]:
        """Beside the omega_c of the skies; every fourth likelihood."""
        bounded = self.mean is not None and self.deviation is not None
        offset = (self.mean - true) / self.deviation if bounded else None  # type: ignore[operator]
        return {"bounded": bounded, "mean": self.mean, "sigma": self.deviation, "offset_sigmas": offset,
                "lower": self.lower, "upper": self.upper, "likelihood": self.likelihood[::4]}  # fmt: skip


@dataclass(frozen=True, eq=False)
class DensityFit:
    """One estimate's powers on patches of several cosmologies.

    Args:
        validation, test: by omega_c, of the same cosmologies.
        theory: ``C^kk`` in the bands by omega_c, at least of these cosmologies.
        fiducial: the omega_c that R, N_L and the covariance are of.
        groups: the jackknife group of every test patch; without them each is its own.
    """

    validation: Mapping[float, PatchPowers]
    test: Mapping[float, PatchPowers]
    theory: Mapping[float, np.ndarray]
    fiducial: float
    groups: np.ndarray | None = None

    @cached_property
    def grid(self) -> np.ndarray:
        return np.linspace(min(self.test) - MARGIN, max(self.test) + MARGIN, _GRID)

    @cached_property
    def _calibrations(self) -> dict[float, np.ndarray]:
        """Mean auto, cross and truth of validation patches, ``(3, band)``."""
        return {omega: _means(powers) for omega, powers in self.validation.items()}

    @cached_property
    def covariance(self) -> Covariance:
        """Of the debiased power of one group of fiducial test patches."""
        return Covariance(pseudovalues(self._over_response(self.fiducial), self.groups))

    def _over_response(self, omega: float) -> np.ndarray:
        """Auto powers of the test patches of a cosmology over the fiducial R^2, ``(patch, band)``."""
        result: np.ndarray = self.test[omega].auto / response_of(self._calibrations[self.fiducial]) ** 2
        return result

    def debiased(self, omega: float) -> np.ndarray:
        """Mean debiased band powers of the test patches of a cosmology, with the fiducial R and N_L."""
        own = self._calibrations[self.fiducial]
        result: np.ndarray = self._over_response(omega).mean(axis=0) - noise_of(own, own)
        return result

    def shift(self, omega: float) -> ChiSquare:
        """Eq. 16 for the patches of this omega_c, without a probability."""
        moved = self.debiased(omega) - self.debiased(self.fiducial)
        return replace(self.covariance.test(moved, 2 / len(self.covariance.powers)), probability=None)

    def paired_shift(self, omega: float) -> ChiSquare:
        """The same with the covariance of the difference, patch by patch."""
        moved = self._over_response(omega) - self._over_response(self.fiducial)
        rows = pseudovalues(moved, self.groups)
        return Covariance(rows).test(moved.mean(axis=0), 1 / len(rows))

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
        tested, validated = (len(side[self.fiducial].auto) for side in (self.test, self.validation))
        share = (1 + tested / validated) / len(self.covariance.powers)
        return Posterior.of(self.grid, self.covariance.squared(data - self._model, share))

    def to_json(self) -> dict[str, Any]:
        """By cosmology of the patches: eq. 16 where it is not the fiducial one, eq. 17 in both ways."""
        return {f"{omega:.4f}": self._entry(omega) for omega in sorted(self.test)}

    def _entry(self, omega: float) -> dict[str, Any]:
        ways = {"fixed": self.fixed(omega), "corrected": self.corrected(omega)}
        entry = {way: found.to_json(omega) for way, found in ways.items()}
        if omega != self.fiducial:
            entry |= {"shift": self.shift(omega).to_json(), "paired_shift": self.paired_shift(omega).to_json()}
        return entry


def _means(powers: PatchPowers) -> np.ndarray:
    return np.stack([part.mean(axis=0) for part in (powers.auto, powers.cross, powers.truth)])
