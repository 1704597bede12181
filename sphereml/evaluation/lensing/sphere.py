"""A setting of whole skies: the measurements of patches, on a_lm.

Conventions: estimates are a_lm of kappa (to ``lmax_kappa``) and of E (to ``lmax_eb``, uK) by name and output; beside
the networks stand ``qe_mv``, the minimum variance of one pass, normalized, and with several passes ``iterated``, the
best kappa of the last one, as it is filtered.  A *row*, which the jackknife leaves out, is every tenth multipole of a
sky: those of one sky are independent to good approximation, whatever the estimate.  R and noise bias come from the
skies that validate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sphereml.data.store import Sky
from sphereml.evaluation.lensing.delensing import LOWEST, ell_cut, wiener_weights
from sphereml.evaluation.lensing.estimates import Estimates
from sphereml.evaluation.lensing.noise import EDGES, Judged, Measured
from sphereml.evaluation.lensing.responses import A_LENS, response_slope
from sphereml.evaluation.lensing.setting import Setting
from sphereml.evaluation.response import Response
from sphereml.evaluation.statistics import jackknife_error, leave_one_out
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.filters import multiply
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.harmonics.transforms import analysis
from sphereml.lensing.lensed_b import lensed_b
from sphereml.lensing.patch_spectra import PatchPowers, correlation_of, residual_of
from sphereml.simulate.cmb_spectra import CmbSpectra
from sphereml.sky.grid import HealpixGrid
from sphereml.sources.batch import Part
from sphereml.sources.lensed_patches import sky_split
from sphereml.tasks.lensing_sphere import SphereLensingTask
from sphereml.training.predictor import Predictor

ROWS = 10
_WIDE_EDGES = (10, 30, 60, *EDGES)
# Absolute latitudes between which squared errors are taken, and sectors of longitude that give their error.
LATITUDES = (0, 20, 41, 60, 75, 90)
_SECTORS = 8
Alms = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class SkyBands:
    """Bands of multipoles, each of ``ROWS`` rows."""

    bands: Bands

    @classmethod
    def of(cls, lmax: int) -> SkyBands:
        return cls(Bands.edges(*(edge for edge in _WIDE_EDGES if edge <= lmax + 1)))

    @property
    def edges(self) -> tuple[float, ...]:
        return (self.bands.limits[0][0], *(hi for _, hi in self.bands.limits))

    @property
    def centers(self) -> np.ndarray:
        return self.bands.centers

    def average(self, curve: np.ndarray) -> np.ndarray:
        """A curve over L = 0, 1, ... averaged over the modes of each band."""
        return self._means(curve, 0, 1)

    def rows(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Cross power of a_lm in every row and band, ``(ROWS, band)``."""
        power = cross_spectrum(a, b, (int(np.sqrt(8 * len(a) + 1)) - 3) // 2)
        return np.array([self._means(power, row, ROWS) for row in range(ROWS)])

    def _means(self, curve: np.ndarray, first: int, step: int) -> np.ndarray:
        parts = [np.arange(band.start + first, band.stop, step) for band in self.bands.slices]
        return np.array([np.average(curve[part], weights=2 * part + 1) for part in parts])

    def powers(self, estimates: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> PatchPowers:
        """Of the skies of a set, one after the other."""
        pairs = list(zip(estimates, truths, strict=True))
        parts = ([(a, a) for a, _ in pairs], pairs, [(b, b) for _, b in pairs])
        return PatchPowers(self, *(np.concatenate([self.rows(*pair) for pair in part]) for part in parts))


@dataclass(frozen=True, eq=False)
class SkyEstimates:
    """Everything estimated of one sky, and the truth.

    Args:
        errors: by name squared errors of kappa, ``(sector, latitude)``; the quadratic estimates Wiener-filtered.
        e: the most likely lensed E.
    """

    truth: dict[str, np.ndarray]
    estimates: Alms
    errors: dict[str, np.ndarray]
    e: np.ndarray


@dataclass(frozen=True, eq=False)
class SkySet:
    """What a result asks of a set: the truth of its first sky by output, no images, and the number of rows."""

    truth: dict[str, torch.Tensor]
    groups: np.ndarray
    images: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SphereSetting(Setting):
    """Runs of one campaign of whole skies under their names."""

    sections = ("responses", "delensing", "latitude")

    @cached_property
    def task(self) -> SphereLensingTask:  # type: ignore[override]
        """Of the physical form with the most passes, whose features hold the quadratic estimates."""
        configs = [run.config for run in self.runs.values() if run.config.model.form == "physical"]
        first = max(configs, key=lambda config: config.lensing.passes, default=self.config)
        return SphereLensingTask(replace(first, model=replace(first.model, form="physical")), self.say)

    @cached_property
    def _predictors(self) -> dict[str, Predictor]:
        return {name: Predictor(run, SphereLensingTask(run.config, self.say)) for name, run in self.runs.items()}

    @property
    def estimators(self) -> list[Estimates]:
        return []

    @property
    def quadratic(self) -> list[str]:
        return ["qe_mv", *(["iterated"] if self.task.settings.passes > 1 else [])]

    @property
    def reference(self) -> str:
        return "qe_mv"

    @property
    def ensembles(self) -> dict[str, list[str]]:
        return {}

    @property
    def extent(self) -> float:
        return 360.0

    def described(self) -> dict[str, Any]:
        lensing = self.task.settings
        return {
            "name": self.config.name, "simulator": "sphere", "noise": lensing.noise, "beam": lensing.beam,
            "nside": lensing.nside, "passes": lensing.passes, "patches": len(self._skies["test"]),
            "seed": lensing.seed, "lmin": lensing.lmin, "lmax_eb": lensing.lmax_eb, "reference": self.reference,
        }  # fmt: skip

    def notes(self) -> list[str]:
        count = len(self._skies["test"])
        return [
            f"{count} whole {'sky' if count == 1 else 'skies'} that no training saw; R and the noise bias come from "
            "the skies that validate, errors from leaving out every tenth multipole.",
            "N_L is <auto>/R^2 - C^kk, which holds N1 and higher terms beside N0. Compare proxy with proxy.",
        ]

    @cached_property
    def bands(self) -> SkyBands:  # type: ignore[override]
        return self.output_bands("kappa")

    def output_bands(self, output: str) -> SkyBands:  # type: ignore[override]
        campaign = self.task.skies.campaign
        return SkyBands.of(campaign.lmax_kappa if output == "kappa" else campaign.lmax_eb)

    def maps(self, uncertain: bool) -> dict[str, np.ndarray]:
        return {}

    @cached_property
    def _skies(self) -> dict[Part, range]:
        return sky_split(self.task.settings)

    @cached_property
    def _found(self) -> dict[Part, list[SkyEstimates]]:
        parts: tuple[Part, ...] = ("validation", "test")
        return {part: [self._estimate(part, number) for number in self._skies[part]] for part in parts}

    @property
    def test(self) -> SkySet:  # type: ignore[override]
        first = self._found["test"][0]
        outputs = {name for one in first.estimates.values() for name in one}
        truth = {name: torch.from_numpy(alm) for name, alm in first.truth.items() if name in outputs}
        return SkySet(truth, np.arange(ROWS * len(self._skies["test"])))

    def _estimate(self, what: str, number: int, spectra: CmbSpectra | None = None) -> SkyEstimates:
        """Of a stored sky, or of one with the same phases and other spectra."""
        self.say(f"{what}: sky {number}")
        sky = self._sky(self.task, number, spectra)
        campaign = self.task.skies.campaign
        top = {"kappa": campaign.lmax_kappa, "e": campaign.lmax_eb}
        names = list(top)
        truth = {name: _alm(sky.targets[:, place], top[name]) for place, name in enumerate(names)}
        kappa, columns = sky.targets[:, 0], self._quadratic_columns(sky)
        errors = {name: _squared_errors(values - kappa) for name, values in columns.items()}
        estimates: Alms = {name: {"kappa": _alm(values, top["kappa"])} for name, values in columns.items()}
        estimates["qe_mv"]["kappa"] = multiply(estimates["qe_mv"]["kappa"], self._unfilter)
        e = _alm(sky.inputs[:, 0], top["e"])
        for name, predictor in self._predictors.items():
            own = predictor.task
            assert isinstance(own, SphereLensingTask)
            same = own.skies.campaign == campaign
            values = predictor.sphere(sky if same else self._sky(own, number, spectra)).values
            found = dict(zip(own.settings.outputs, values.T, strict=True))
            errors[name] = _squared_errors(found["kappa"] - kappa)
            estimates[name] = {output: _alm(one, top[output]) for output, one in found.items()}
        return SkyEstimates(truth, estimates, errors, e)

    @staticmethod
    def _sky(task: SphereLensingTask, number: int, spectra: CmbSpectra | None) -> Sky:
        return task.numbered(number) if spectra is None else task.skies.simulate(number, spectra)

    def _quadratic_columns(self, sky: Sky) -> dict[str, np.ndarray]:
        """Wiener-filtered maps of the quadratic estimates, which stand after E."""
        names = self.quadratic
        return {name: sky.inputs[:, len(names) - place] for place, name in enumerate(names)}

    @cached_property
    def _unfilter(self) -> np.ndarray:
        """What undoes the Wiener filter of the first pass, by L."""
        weights = self.task.skies.features.estimator.curves.weights[0, 0]
        return np.divide(1.0, weights, out=np.zeros_like(weights), where=weights > 0)

    def judge(self, output: str) -> dict[str, Judged]:
        bands, sides = self.output_bands(output), []
        for part in ("validation", "test"):
            skies = self._found[part]
            truths = [one.truth[output] for one in skies]
            names = [name for name, found in skies[0].estimates.items() if output in found]
            sides.append({name: bands.powers([o.estimates[name][output] for o in skies], truths) for name in names})
        groups = [np.arange(len(next(iter(side.values())).auto)) for side in sides]
        return {name: Judged(sides[0][name], sides[1][name], *groups) for name in sides[1]}

    def responses(self, omega_c: bool = True) -> dict[str, dict[str, Response]]:
        """Slope over A_lens of the first test sky."""
        number, spectra, powers = self._skies["test"][0], self.task.skies.spectra, dict[float, dict[str, PatchPowers]]()
        for strength in A_LENS:
            found = self._found["test"][0]
            if strength != 1:
                scaled = replace(spectra, potential=strength * spectra.potential)
                found = self._estimate(f"A_lens = {strength:g}", number, scaled)
            powers[strength] = {
                name: self.bands.powers([one["kappa"]], [found.truth["kappa"]]) for name, one in found.estimates.items()
            }
        groups = np.arange(ROWS)
        slopes = {
            name: response_slope({a: own[name] for a, own in powers.items()}, judged.response, groups)
            for name, judged in self.judged.items()
        }
        return {"A_lens": slopes}

    def latitude(self) -> dict[str, Any]:
        """Squared error of kappa by latitude, over that of the Wiener-filtered reference on the same skies."""
        errors = {name: np.concatenate([one.errors[name] for one in self._found["test"]]) for name in [*self.judged]}
        reference = leave_one_out(errors[self.reference])
        ratios = {name: leave_one_out(own) / reference for name, own in errors.items() if name != self.reference}
        models = {name: Measured(one[0], jackknife_error(one)).to_json() for name, one in ratios.items()}
        return {"edges": list(LATITUDES), "models": models}

    def delensing(self) -> dict[str, Any]:
        """What templates of gradient order leave of the lensing B, of the observed, Wiener-filtered E.

        The other B that a template should not follow is the noise's.
        """
        campaign, skies = self.task.skies.campaign, self.task.skies
        cut, lmax = ell_cut(campaign.lmin_b), campaign.lmax_eb
        bands, low = SkyBands.of(lmax), SkyBands(Bands.edges(float(LOWEST), float(min(cut, lmax))))
        weights = {name: wiener_weights(judged.validation, campaign.lmax_kappa) for name, judged in self.judged.items()}
        templates: dict[str, list[np.ndarray]] = {}
        lensing, noise = [], []
        for number, found in zip(self._skies["test"], self._found["test"], strict=True):
            self.say(f"delensing: sky {number}")
            drawn = skies.draw(number)
            lensing.append(drawn.b)
            noise.append(drawn.legs.b - drawn.b)
            kappas = {name: multiply(one["kappa"].copy(), weights[name]) for name, one in found.estimates.items()}
            kappas["truth"] = found.truth["kappa"]
            for name, kappa in kappas.items():
                templates.setdefault(name, []).append(lensed_b(found.e, kappa, lmax, "gradient"))
        left = {name: residual_of(leave_one_out(bands.powers(own, lensing).stacked)) for name, own in templates.items()}
        models = {}
        for name, own in templates.items():
            follows = [correlation_of(leave_one_out(low.powers(own, b).stacked)) for b in (lensing, noise)]
            parts = (left[name], left[name] / left[self.reference], *follows)
            keys = ("left", "ratio", "follows_lensing", "follows_other")
            models[name] = {
                key: Measured(part[0], jackknife_error(part)).to_json() for key, part in zip(keys, parts, strict=True)
            }
        shown = {"edges": list(bands.edges), "ell": bands.centers.tolist()}
        return {"bands": shown, "cut": cut, "reference": self.reference, "models": models}


def _alm(values: np.ndarray, lmax: int) -> np.ndarray:
    return analysis(values.astype(np.float64), lmax, iterations=1)


def _squared_errors(difference: np.ndarray) -> np.ndarray:
    """Means over ``(sector, latitude)``."""
    import healpy

    nside = HealpixGrid.of_size(len(difference)).nside
    longitude, latitude = healpy.pix2ang(nside, np.arange(len(difference)), nest=True, lonlat=True)
    belt = np.searchsorted(LATITUDES[1:-1], np.abs(latitude), side="right")
    cell = (longitude * _SECTORS // 360).astype(int) * (len(LATITUDES) - 1) + belt
    size = _SECTORS * (len(LATITUDES) - 1)
    sums = np.bincount(cell, np.square(difference, dtype=np.float64), size) / np.bincount(cell, minlength=size)
    return sums.reshape(_SECTORS, -1)
