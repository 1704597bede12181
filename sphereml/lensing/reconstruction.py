"""Kappa from Q and U of the full or a masked sky: E and B, the quadratic estimate, its mean field and its response.

Conventions: Q and U are ``(2, npix)`` NEST, COSMO, uK (CMB); a_lm as in :mod:`sphereml.lensing.sphere_estimator`; noise
maps are rms in Q and in U, uK-arcmin, infinite where nothing is seen.

* A whole, homogeneous sky up to ``lmax = 2 nside`` is analysed by Jacobi iterations (one is good to 1e-5 up to 1.5
  nside, three beyond) and filtered by ``1 / (C_l + N_l)``.  Up to 1.5 nside, under a beam that leaves most of the power
  at lmax, none is made: a plain sum over pixels errs by 6e-4 of the rms of B, which changes 2e-7 of the power of kappa
  at any L (Nside 512, measured), and each iteration costs twice as much again.
* Everything else goes through :class:`~sphereml.lensing.sphere_filter.SphereFilter`, with multipoles some way beyond
  those that are used.  Its legs are normalized as those of a whole sky of the mean depth, so that far from the mask's
  edge, and where the depth is the mean, the estimate is that of the whole sky.
* The normalization N0 is that of the whole sky at the mean depth.  What the estimate holds of the true kappa, its
  response, is measured on simulated lensed skies with the same mask: :mod:`sphereml.lensing.mean_field`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.filters import gaussian_beam, multiply
from sphereml.harmonics.pixel_window import pixel_window
from sphereml.harmonics.rings import resize_alm
from sphereml.harmonics.transforms import analysis
from sphereml.lensing.noise import NoiseModel
from sphereml.lensing.observation import Observation
from sphereml.lensing.sphere_estimator import SphereEstimator
from sphereml.lensing.sphere_filter import FilteredSky, Say, SphereFilter
from sphereml.simulate.cmb_spectra import CmbSpectra
from sphereml.sky.grid import HealpixGrid

EstimatorName = Literal["EB", "EE", "MV"]
ESTIMATORS: tuple[EstimatorName, ...] = ("EB", "EE", "MV")
# Multipoles that a masked sky's filter takes beyond those that are used.
_MARGIN = 100
# Of the beam at lmax: what is deconvolved by more asks for a better analysis.
_MILD_BEAM = 0.5


@dataclass(frozen=True)
class PixelizedObservation(Observation):
    """Maps that are averages over HEALPix pixels of ``nside``, so that their window adds to the beam."""

    nside: int = 1

    def noise_spectrum(self) -> np.ndarray:
        """``(noise / (b_ell p_ell))^2``, ``(lmax + 1,)``."""
        return np.asarray(super().noise_spectrum() / pixel_window(self.nside, self.lmax) ** 2)


@dataclass(frozen=True, eq=False)
class Legs:
    """E and B ``(nalm,)`` to the lmax of the observation as the estimator takes them, and what the filter says.

    Attributes:
        e, b: deconvolved of the beam; of a masked sky, the filtered fields over the whole sky's weights.
        wiener_e: E multiplied by ``C / (C + N)``: the most likely (lensed) E.
        filtered: of the masked sky's filter, None where the sky was analysed.
    """

    e: np.ndarray
    b: np.ndarray
    wiener_e: np.ndarray
    filtered: FilteredSky | None = None


@dataclass(frozen=True, eq=False)
class SphereReconstruction:
    """The estimate of one mask, depth and instrument, for any map.

    Args:
        spectra: fiducial ones, up to the filter's lmax at least.
        observation: noise, beam and multipoles; its noise is the mean depth.
        nside: of the maps.
        lmax_kappa: highest L of the results.
        estimator: ``"EB"``, ``"EE"`` or ``"MV"``, both together at minimum variance.
        noise: ``(npix,)`` rms of every pixel, None for a whole sky of the observation's noise.
        tolerance: of the filter.

    Raises:
        UserError: lmax beyond ``3 nside - 1``, an impossible lmax_kappa, an estimator that does not exist, or what
            SphereFilter refuses.
    """

    spectra: CmbSpectra
    observation: Observation
    nside: int
    lmax_kappa: int
    estimator: EstimatorName = "MV"
    noise: np.ndarray | None = field(default=None, repr=False)
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise UserError(f"there is no estimator {self.estimator!r}", f"choose from {', '.join(ESTIMATORS)}")
        if self.observation.lmax > 3 * self.nside - 1:
            what = f"lmax {self.observation.lmax} is above what Nside {self.nside} holds ({3 * self.nside - 1})"
            raise UserError(what, "lower lmax, or give maps of a higher Nside")
        NoiseModel(self.spectra, self.observation, self.lmax_kappa)  # refuses an impossible lmax_kappa
        if not self.analysed and self.observation.noise == 0:
            what = "noise 0 on a masked sky or beyond lmax = 2 nside: without noise nothing can be inverted there"
            raise UserError(what, "filter for a small noise, e.g. 0.1 uK-arcmin")

    @property
    def analysed(self) -> bool:
        """Whether a plain analysis is enough: the sky is whole and homogeneous, and its quadrature good."""
        return self.noise is None and self.observation.lmax <= 2 * self.nside

    @cached_property
    def model(self) -> NoiseModel:
        return NoiseModel(self.spectra, self.observation, self.lmax_kappa)

    @cached_property
    def n0(self) -> np.ndarray:
        """N0 of kappa of the chosen estimator, ``(lmax_kappa + 1,)``, infinite where nothing is measured."""
        chosen = {"EB": self.model.eb, "EE": self.model.ee, "MV": self.model.minimum_variance}
        return chosen[self.estimator]()

    @cached_property
    def filter_lmax(self) -> int:
        """Highest multipole of the filter, and of what is simulated for it."""
        if self.analysed:
            return self.observation.lmax
        return min(self.observation.lmax + _MARGIN, 3 * self.nside - 1, self.spectra.lmax)

    @cached_property
    def transfer(self) -> np.ndarray:
        """Beam, and pixel window where the observation has one, ``(filter_lmax + 1,)``."""
        beam = gaussian_beam(self.filter_lmax, self.observation.beam)
        if isinstance(self.observation, PixelizedObservation):
            beam = beam * pixel_window(self.observation.nside, self.filter_lmax)
        return beam

    @cached_property
    def filter(self) -> SphereFilter:
        top = self.filter_lmax + 1
        noise = self.noise
        if noise is None:
            noise = np.full(HealpixGrid(self.nside).npix, self.observation.noise)
        ee = self.spectra.ee_lensed[:top]
        signal = np.stack([ee, self.observation.unseen_below(self.spectra.bb_lensed[:top], ee)])
        return SphereFilter(signal, self.transfer, noise, self.tolerance)

    def legs(self, maps: np.ndarray, start: np.ndarray | None = None, say: Say | None = None) -> Legs:
        """E and B of maps ``(2, npix)``.

        Args:
            start: warm start of the filter, the ``filtered.wiener`` of a map nearby.
        """
        if self.analysed:
            return self._analysed(maps)
        result = self.filter(maps, start, say)
        wiener = resize_alm(result.wiener, self.observation.lmax)
        # abar = x / S, and the estimator multiplies by 1 / (C + N) itself.
        weights = self.weights()
        e, b = (multiply(alm.copy(), self._unfilter(weights[f"C_{name * 2}"] * weights[f"FILTER_{name}"]))
                for alm, name in zip(wiener, "EB", strict=True))  # fmt: skip
        return Legs(e, b, wiener[0], result)

    def _analysed(self, maps: np.ndarray) -> Legs:
        lmax = self.observation.lmax
        if not np.isfinite(maps).all():
            raise UserError("the maps have missing values", "give a mask that is 0 there")
        alm = analysis(maps, lmax, spin=2, iterations=self._iterations)
        gain = np.divide(1.0, self.transfer, out=np.zeros(lmax + 1), where=self.transfer > 0)
        e, b = multiply(alm, gain)
        ee = self.spectra.ee_lensed
        return Legs(e, b, multiply(e.copy(), self.observation.filtered(ee, ee, 1)))

    @property
    def _iterations(self) -> int:
        if 2 * self.observation.lmax > 3 * self.nside:
            return 3
        return 0 if self.transfer[-1] > _MILD_BEAM else 1

    @staticmethod
    def _unfilter(weights: np.ndarray) -> np.ndarray:
        """``(C + N) / C`` within the band, what makes the estimator's own filter give the filtered field."""
        return np.divide(1.0, weights, out=np.zeros(len(weights)), where=weights > 0)

    def estimate(self, legs: Legs) -> np.ndarray:
        """Kappa ``(alm_size(lmax_kappa),)`` complex128, normalized by N0, its mean field not subtracted."""
        estimator = SphereEstimator(self.model)
        if self.estimator == "EB":
            return estimator.eb(legs.e, legs.b)
        if self.estimator == "EE":
            return estimator.ee(legs.e)
        return estimator.minimum_variance(legs.e, legs.b)

    def weights(self) -> dict[str, np.ndarray]:
        """The filters by ell, ``(lmax + 1,)`` each: signal, noise, and what E and B are multiplied by."""
        ee, bb, top = self.spectra.ee_lensed, self.spectra.bb_lensed, self.observation.lmax + 1
        return {
            "C_EE": ee[:top],
            "C_BB": bb[:top],
            "NOISE": self.observation.noise_spectrum(),
            "FILTER_E": self.observation.filtered(ee, ee, 0),
            "FILTER_B": self.observation.filtered_b(bb),
            "WIENER_E": self.observation.filtered(ee, ee, 1),
        }


@dataclass(frozen=True, eq=False)
class KappaEstimate:
    """An estimate with everything that is needed to use it.

    Attributes:
        kappa: a_lm ``(alm_size(lmax_kappa),)``, the mean field subtracted where there is one.
        n0, response: ``(lmax_kappa + 1,)``; the response is 1 by normalization where no simulation measured it.
        power: fiducial C_L of kappa, likewise.
        mean_field: a_lm as kappa, None where none was simulated.
        wiener_e: a_lm of the most likely lensed E to the lmax of the observation, uK.
        weights: the filters.
        simulations: from which mean field and response are.
        facts: of the filter: steps, residual, seconds.
    """

    kappa: np.ndarray
    n0: np.ndarray
    response: np.ndarray
    power: np.ndarray
    mean_field: np.ndarray | None
    wiener_e: np.ndarray
    weights: dict[str, np.ndarray]
    simulations: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


def noise_map(level: float, npix: int, weights: np.ndarray | None, depth: np.ndarray | None) -> np.ndarray | None:
    """Noise of every pixel, uK-arcmin, ``(npix,)``: None for a whole and homogeneous sky.

    Args:
        level: of the survey, where there is no depth.
        weights: mask, 0 to 1; the inverse variance is multiplied by it, so that 0 is not seen.
        depth: rms of every pixel; not seen where it is not above 0 or not finite.

    Raises:
        UserError: nothing is left.
    """
    if weights is None and depth is None:
        return None
    noise = np.full(npix, level, dtype=np.float64)
    if depth is not None:
        seen = np.isfinite(depth) & (depth > 0)
        noise = np.where(seen, np.where(seen, depth, 1.0), np.inf)
    if weights is not None:
        noise = np.where(weights > 0, noise / np.sqrt(np.where(weights > 0, weights, 1.0)), np.inf)
    if not np.isfinite(noise).any():
        raise UserError("nothing is seen: mask and depth leave no pixel", "check both")
    return noise
