"""Kappa and E of a user's own whole sky by a trained network, with the response and noise that a simulated sky shows.

Conventions: those of :mod:`sphereml.lensing.reconstruction`.  The network's kappa is given as it comes: ``response`` is
``<kappa' kappa> / <kappa kappa>`` and ``n0`` its power beyond ``response^2 C``, both measured on the first sky that
validated the run and averaged over bands of L, so that the Wiener filter of a template is the regression on the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sphereml.data.array_files import read_arrays, write_arrays
from sphereml.data.store import Sky
from sphereml.errors import UserError
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.harmonics.transforms import analysis
from sphereml.lensing.full_sky import EstimateSettings, ObservedMaps
from sphereml.lensing.mean_field import smooth_ratio
from sphereml.lensing.reconstruction import KappaEstimate
from sphereml.sky.grid import HealpixGrid
from sphereml.sources.lensed_patches import sky_split
from sphereml.tasks.lensing_sphere import SphereLensingTask
from sphereml.tasks.protocol import Say
from sphereml.training.predictor import Predictor
from sphereml.training.runs import Run

_CURVES = "kappa_curves.npz"


@dataclass(frozen=True, eq=False)
class NetworkSky:
    """The estimate of kappa, and a_lm of the unlensed E to the run's lmax_eb where the network predicts it, uK."""

    kappa: KappaEstimate
    e: np.ndarray | None


@dataclass(frozen=True, eq=False)
class SkyNetwork:
    """A finished run of whole skies, for maps of a user's own.

    Raises:
        UserError: the run is of something else.
    """

    run: Run
    say: Say

    def __post_init__(self) -> None:
        config = self.run.config
        if (config.task, config.model.domain) != ("lensing", "sphere") or "kappa" not in config.lensing.outputs:
            raise UserError(f"{self.run.folder} predicts no kappa of whole skies", "name such a run of lensing")

    @cached_property
    def task(self) -> SphereLensingTask:
        return SphereLensingTask(self.run.config, self.say)

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(self.run, self.task, say=self.say)

    def settings(self, pixel_window: bool = False, tolerance: float = 1e-4) -> EstimateSettings:
        """How the run's features are made of maps."""
        lensing, top = self.run.config.lensing, self.task.skies.campaign.lmax_kappa
        settings = EstimateSettings(lensing.noise, lensing.beam, lensing.lmin, lensing.lmax_eb, top)
        return replace(settings, lmin_b=lensing.lmin_b, pixel_window=pixel_window, tolerance=tolerance)

    def estimate(self, observed: ObservedMaps, settings: EstimateSettings) -> NetworkSky:
        """Of maps in the run's instrument.

        Raises:
            UserError: a masked sky for a run of several passes; a filter that does not converge.
        """
        sky, skies = observed.without_gaps()[0], self.task.skies
        passes = skies.campaign.passes
        if passes > 1 and not (sky.weights is None and sky.depth is None):
            what = f"a mask or a depth, and a run whose features take {passes} passes of a whole, homogeneous sky"
            raise UserError(what, "name a run of lensing.passes=1, or leave --run out")
        chosen = settings.reconstruction(sky.maps.shape[-1], sky.weights, sky.depth, skies.spectra)
        legs = chosen.legs(sky.maps, say=self.say)
        features = skies.features
        nside = skies.campaign.nside
        nothing = np.zeros((HealpixGrid(nside).npix, 0), np.float32)
        found = self._alms(Sky(HealpixGrid(nside), features(legs), nothing, features.fields, ()))
        curves, top = self.curves, skies.campaign.lmax_kappa
        power = skies.spectra.kappa[: top + 1]
        facts = {} if legs.filtered is None else legs.filtered.facts() | {"tolerance": chosen.tolerance}
        kappa = KappaEstimate(
            found["kappa"], curves["noise"], curves["response"], power, None, legs.wiener_e, chosen.weights(), 1, facts
        )
        return NetworkSky(kappa, found.get("e"))

    @cached_property
    def curves(self) -> dict[str, np.ndarray]:
        """``response`` and ``noise`` ``(lmax_kappa + 1,)``, kept in the run's folder."""
        path = self.run.folder / _CURVES
        if (kept := read_arrays(path)) is not None:
            return kept
        sky = self.task.numbered(sky_split(self.task.settings)["validation"][0])
        top = self.task.skies.campaign.lmax_kappa
        truth, found = _alm(sky.targets[:, 0], top), self._alms(sky)["kappa"]
        cross, auto, power = (cross_spectrum(*pair, top) for pair in ((found, truth), (found, found), (truth, truth)))
        response = smooth_ratio(cross, power)
        fiducial = self.task.skies.spectra.kappa[: top + 1]
        noise = np.maximum((smooth_ratio(auto, power) - response**2) * fiducial, 0.0)
        made = {"response": response, "noise": np.where(np.arange(top + 1) < 2, np.inf, noise)}
        write_arrays(path, made)
        return made

    def _alms(self, sky: Sky) -> dict[str, np.ndarray]:
        """a_lm of every output of the network."""
        campaign = self.task.skies.campaign
        top = {"kappa": campaign.lmax_kappa, "e": campaign.lmax_eb}
        values = self._predictor.sphere(sky).values
        return {name: _alm(one, top[name]) for name, one in zip(self.task.settings.outputs, values.T, strict=True)}


def _alm(values: np.ndarray, lmax: int) -> np.ndarray:
    return analysis(values.astype(np.float64), lmax)
