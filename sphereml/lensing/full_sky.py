"""From a user's Q and U to kappa and to a lensing-B template: what the command line and ``sm.lensing`` have in common.

Conventions: maps are NEST rows, Q and U ``(2, npix)`` COSMO in uK (CMB); masks weigh ``(npix,)`` 0 to 1; depths are rms
of Q and of U in uK-arcmin.  Missing pixels of the maps (NaN) get mask 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.filters import multiply
from sphereml.harmonics.rings import resize_alm
from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.lensing.lensed_b import Expansion, lensed_b
from sphereml.lensing.mean_field import MeanField, Simulations
from sphereml.lensing.observation import Observation
from sphereml.lensing.reconstruction import (
    EstimatorName,
    KappaEstimate,
    PixelizedObservation,
    SphereReconstruction,
    noise_map,
)
from sphereml.lensing.sphere_filter import Say
from sphereml.lensing.sphere_passes import SpherePasses
from sphereml.simulate.cmb_spectra import CmbSpectra
from sphereml.sky.grid import HealpixGrid


@dataclass(frozen=True)
class EstimateSettings:
    """What is estimated, and from what.

    Args:
        noise: of Q and of U, uK-arcmin; that of the depth where None, 1 without one.
        beam: FWHM, arcmin.
        lmin, lmax: of E and B; lmax 2 nside, but at most 3000, when None.
        lmax_kappa: highest L; lmax when None.
        lmin_b: B is used from here on; 0 where from lmin.
        passes: above 1 the result is the most likely kappa after so many passes on delensed B (``sphere_passes``): its
            response is what theory expects, its N0 the ``W (1 - W) C`` of a Wiener-filtered map of response W.
        pixel_window: whether the maps are averages over their pixels.
        tolerance: of the masked sky's filter.
        mean_field: number of simulations of it; 0 subtracts none.
        seed: of the simulations.
        folder: where they are kept, the data folder when None.
    """

    noise: float | None = None
    beam: float = 1.0
    lmin: int = 30
    lmax: int | None = None
    lmax_kappa: int | None = None
    estimator: EstimatorName = "MV"
    pixel_window: bool = False
    tolerance: float = 1e-4
    mean_field: int = 0
    seed: int = 1
    folder: Path | None = None
    lmin_b: int = 0
    passes: int = 1

    def reconstruction(
        self, npix: int, weights: np.ndarray | None, depth: np.ndarray | None, spectra: CmbSpectra
    ) -> SphereReconstruction:
        """The reconstruction of maps of ``npix`` pixels under this mask and depth.

        Raises:
            UserError: settings, mask or depth that are impossible.
        """
        nside = HealpixGrid.of_size(npix).nside
        level = self._level(depth, weights)
        top = min(2 * nside, 3000) if self.lmax is None else self.lmax
        numbers = (level, self.beam, self.lmin, top, self.lmin_b)
        observation = PixelizedObservation(*numbers, nside) if self.pixel_window else Observation(*numbers)
        if self.tolerance <= 0:
            raise UserError(f"a tolerance of {self.tolerance:g} is impossible", "give a number above 0, e.g. 1e-4")
        noise = noise_map(level, npix, weights, depth)
        reach = top if self.lmax_kappa is None else self.lmax_kappa
        return SphereReconstruction(spectra, observation, nside, reach, self.estimator, noise, self.tolerance)

    def _level(self, depth: np.ndarray | None, weights: np.ndarray | None) -> float:
        """The noise of N0: as given, else ``<depth^-2>^-1/2`` where the sky is seen."""
        if self.noise is not None or depth is None:
            return 1.0 if self.noise is None else self.noise
        seen = np.isfinite(depth) & (depth > 0) & (True if weights is None else weights > 0)
        if not seen.any():
            raise UserError("nothing is seen: mask and depth leave no pixel", "check both")
        return float(np.mean(depth[seen].astype(np.float64) ** -2) ** -0.5)


@dataclass(frozen=True, eq=False)
class ObservedMaps:
    """Q and U ``(2, npix)``, their mask and depth ``(npix,)``, None where there is none."""

    maps: np.ndarray
    weights: np.ndarray | None = None
    depth: np.ndarray | None = None

    def without_gaps(self) -> tuple[ObservedMaps, int]:
        """The same with mask 0 where Q or U is missing, and the number of pixels that the mask lost by it."""
        missing = np.isnan(self.maps[0]) | np.isnan(self.maps[1])
        if not missing.any():
            return self, 0
        weights = np.ones(missing.size) if self.weights is None else self.weights
        lost = int((missing & (weights > 0)).sum())
        return ObservedMaps(self.maps, np.where(missing, 0.0, weights), self.depth), lost


def estimate_kappa(
    observed: ObservedMaps, settings: EstimateSettings, spectra: CmbSpectra, say: Say | None = None
) -> KappaEstimate:
    """The estimate of kappa, its mean field subtracted where simulations are asked for.

    Raises:
        UserError: settings or maps that do not fit each other; a filter that does not converge.
    """
    sky = observed.without_gaps()[0]
    chosen = settings.reconstruction(sky.maps.shape[-1], sky.weights, sky.depth, spectra)
    if settings.passes > 1:
        return _in_passes(SpherePasses(chosen, settings.passes - 1), sky.maps, settings, say)
    if settings.mean_field:
        field = Simulations(chosen, settings.seed, settings.folder).measure(settings.mean_field, say)
    else:
        field = _assumed(chosen)
    legs = chosen.legs(sky.maps, say=say)
    kappa = chosen.estimate(legs)
    return KappaEstimate(
        kappa - field.alm if field.count else kappa,
        chosen.n0,
        field.response,
        spectra.kappa[: len(chosen.n0)],
        field.alm if field.count else None,
        legs.wiener_e,
        chosen.weights(),
        field.count,
        {} if legs.filtered is None else legs.filtered.facts() | {"tolerance": chosen.tolerance},
    )


def _in_passes(passes: SpherePasses, maps: np.ndarray, settings: EstimateSettings, say: Say | None) -> KappaEstimate:
    if settings.mean_field:
        raise UserError("a mean field of several passes", "leave out one of the two")
    chosen, response = passes.first, passes.response
    *_, (legs, kappa) = passes(maps, say)
    power = chosen.spectra.kappa[: len(response)]
    facts = {} if legs.filtered is None else legs.filtered.facts() | {"tolerance": chosen.tolerance}
    n0 = response * (1 - response) * power
    return KappaEstimate(kappa, n0, response, power, None, legs.wiener_e, chosen.weights(), 0, facts)


def _assumed(chosen: SphereReconstruction) -> MeanField:
    """No mean field, and the response of the normalization: 1 wherever there is an estimate."""
    return MeanField(np.zeros(0), np.isfinite(chosen.n0).astype(np.float64), 0)


@dataclass(frozen=True, eq=False)
class TemplateInputs:
    """What a template is made of.

    Args:
        kappa: a_lm of the most likely kappa.
        e: a_lm of E, uK, lensed for the expansion ``gradient``, unlensed for ``all``.
        nside: of the template.
        lmax: of the template.
    """

    kappa: np.ndarray
    e: np.ndarray
    nside: int
    lmax: int

    def template(self, expansion: Expansion = "gradient") -> np.ndarray:
        """Q and U ``(2, npix)`` float64 of the lensing B alone.

        Raises:
            UserError: an expansion that does not exist, or an lmax that the pixels do not hold.
        """
        if self.lmax > 3 * self.nside - 1:
            raise UserError(f"lmax {self.lmax} is above what Nside {self.nside} holds", "lower lmax, or raise nside")
        b = lensed_b(self.e, self.kappa, self.lmax, expansion)
        return synthesis(np.stack([np.zeros_like(b), b]), self.nside, self.lmax, spin=2)


def e_of_maps(rows: np.ndarray, lmax: int) -> np.ndarray:
    """a_lm of E from a scalar E map ``(npix,)`` or from Q and U ``(2, npix)``; missing pixels count as 0."""
    filled = np.nan_to_num(np.asarray(rows, dtype=np.float64), nan=0.0)
    if filled.ndim == 1:
        return analysis(filled, lmax)
    return np.asarray(analysis(filled, lmax, spin=2)[0])


def wiener_kappa(alm: np.ndarray, power: np.ndarray, n0: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The most likely kappa of an estimate: ``R C / (R^2 C + N0)`` times its a_lm, zero where N0 is infinite."""
    signal = response**2 * power
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = np.where(np.isfinite(n0) & (signal + n0 > 0), response * power / (signal + n0), 0.0)
    return multiply(resize_alm(alm, len(weights) - 1).copy(), weights)
