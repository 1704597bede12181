"""The forecast of r from the templates that runs predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sphereml.config.schema import ExperimentConfig
from sphereml.data.unit_conversion import conversion_factor
from sphereml.errors import UserError
from sphereml.evaluation.cross_fit.leak import LeakTest
from sphereml.evaluation.forecast.cleaning import METHODS
from sphereml.evaluation.forecast.contamination import ContaminationTest
from sphereml.evaluation.forecast.draws import Draws, SurveyForecast
from sphereml.evaluation.forecast.likelihood import estimate_ratio
from sphereml.evaluation.forecast.result import ForecastResult
from sphereml.evaluation.forecast.skies import REFERENCE_GHZ, SurveyField, Theory, dust_scaling, target_cmb
from sphereml.evaluation.maps.study import MapStudy
from sphereml.evaluation.protocol import Result, Study, StudyOptions
from sphereml.templates.cross_fit import CrossFit
from sphereml.templates.cross_fitted import cross_fitted_maps
from sphereml.training.runs import Run

# The CMB in the target of cross-fitted templates: a sky that is never cleaned.
_TARGET_SKY = 1_000_000


class ForecastStudy(Study):
    """r with no template, with those of each run, and with the dust itself, on the synthetic Galaxy."""

    result: ClassVar[type[Result]] = ForecastResult

    def __init__(self, runs: Sequence[Run], options: StudyOptions) -> None:
        super().__init__(runs, options)
        self.maps = MapStudy(runs, options)
        self.forecast = self.maps.evaluation.forecast

    @classmethod
    def refuse(cls, configs: Sequence[ExperimentConfig]) -> None:
        for config in configs:
            if config.data.kind != "galaxy":
                raise UserError(f"data.kind={config.data.kind}: the forecast needs the true dust", "choose data=galaxy")
        top = 2 * configs[0].data.galaxy.nside
        if configs[0].evaluation.forecast.edges[-1] > top:
            what = f"evaluation.forecast.edges end at {configs[0].evaluation.forecast.edges[-1]:g}"
            raise UserError(what, f"end them at {top} (2 nside) or below")
        names = dict.fromkeys([*(one.model.name for one in configs), *configs[0].models, *configs[0].rows])
        for name in configs[0].evaluation.forecast.cross_fitted:
            if name not in names:
                what = f"evaluation.forecast.cross_fitted names {name}"
                raise UserError(what, f"choose models of the experiment: {', '.join(names)}")

    @property
    def _folder(self) -> Path:
        return self.runs[0].folder.parent

    @cached_property
    def theory(self) -> Theory:
        return Theory.to_lmax(self.maps.sky.grid.safe_lmax)

    @cached_property
    def target(self) -> np.ndarray:
        """Q and U as Planck would have them, ``(npix, 2)`` uK_RJ at 353 GHz: dust, noise and a CMB."""
        sky, config = self.maps.task.sky, self.forecast
        cmb = target_cmb(self.theory, sky.grid.nside, config.seed, _TARGET_SKY)
        return np.asarray(sky.targets + config.cmb_strength * cmb)

    @cached_property
    def dust(self) -> np.ndarray:
        """Q and U of the dust without noise, ``(2, npix)`` uK_RJ at 353 GHz."""
        return np.asarray(self.maps.task.sky.targets.T, dtype=np.float64) - self._noise

    @cached_property
    def _noise(self) -> np.ndarray:
        components = self.maps.task.sky.components
        return np.stack([components["Q_noise"], components["U_noise"]])

    @cached_property
    def templates(self) -> dict[str, np.ndarray]:
        """Predictions of the runs, ``(2, npix)`` uK_RJ, cross-fitted ones, and the dust itself, the best there is."""
        found = {}
        for run in self.maps.runs:
            values = self.maps.predict(run).values.T.astype(np.float64)
            if values.shape != self.dust.shape:
                raise UserError(f"the run of {run.name} predicts no Q and U", "use runs of task dust_polarization")
            found[self.maps.names[run.folder]] = values
        for run in self.maps.runs:
            if run.name in self.forecast.cross_fitted:
                name = self.maps.names[run.folder]
                found[f"{name}, cross-fitted"] = self._cross_fitted(run).T.astype(np.float64)
        return found | {"true dust": self.dust}

    def _cross_fitted(self, run: Run) -> np.ndarray:
        """The template ``(npix, 2)`` of the networks of every fold, trained on :attr:`target` where they are not."""
        config, settings = self.forecast, self.maps.evaluation.cross_fit
        sky = replace(self.maps.task.sky, targets=self.target.astype(np.float32))
        name = f"cross_fit_cmb{config.seed}_strength{config.cmb_strength:g}"
        self.options.say(f"{run.name}: cross-fitted to a target with a CMB of strength {config.cmb_strength:g}")
        return cross_fitted_maps(CrossFit(run.config, self._folder, settings, self.options.say, sky, name))

    def _measure(self) -> ForecastResult:
        """Draw the skies of every survey, clean them, and estimate r."""
        config = self.forecast
        surveys = {survey.name: self._survey(index) for index, survey in enumerate(config.surveys)}
        content = {
            "experiment": self.maps.config.name,
            "frequencies": config.frequencies,
            "dust_scaling": [dust_scaling(ghz, config.beta, config.temperature) for ghz in config.frequencies],
            "skies": config.skies,
            "residual_prior": config.residual_prior,
            "surveys": surveys,
            "contamination": {} if not config.contaminated else {
                self.maps.names[run.folder]: self._contamination(run) for run in self.maps.runs
            },
            "notes": _NOTES,
        }  # fmt: skip
        return ForecastResult(content)

    def _contamination(self, run: Run) -> dict[str, Any]:
        """On the first survey."""
        leak = LeakTest(run, self.maps.evaluation.cross_fit, self.maps.evaluation.seed, self.options.say)
        field = SurveyField(self.forecast.surveys[0], self.forecast, self.maps.sky.grid, mirrored=True)
        return ContaminationTest(leak, field, self.theory, self.dust, self._folder / "forecast").measure()

    def _survey(self, index: int) -> dict[str, Any]:
        survey, theory = self.forecast.surveys[index], self.theory
        field = SurveyField(survey, self.forecast, self.maps.sky.grid)
        here = SurveyForecast(field, theory, self.dust, self.templates)
        workspace = field.workspace
        mask = workspace.fields[0].mask
        trained = bool((mask[self.maps.split.train] > 0).any())
        draws = here.draw(self._folder / "forecast", self.options.say)
        shares = {
            "with_uncertainty": replace(here, field=replace(field, mirrored=True)).residual_shares(),
            "with_measured_residual": replace(here, dust=self.target.T).residual_shares(self._beside_dust(here)),
        }
        return {
            "fsky": float(mask.mean()),
            "noise": survey.noise,
            "held_out": not trained,
            "bands": {"lo": workspace.lower.tolist(), "hi": workspace.upper.tolist()},
            "tensor": here.model(theory.tensor).tolist(),
            "lensing": here.model(theory.cmb).tolist(),
            "templates": self._templates(here, draws, shares),
        }

    def _beside_dust(self, here: SurveyForecast) -> np.ndarray:
        """BB ``(nbin,)`` that noise and CMB are expected to add to that of the target."""
        factor = self.forecast.cmb_strength * conversion_factor("uK_CMB", "uK_RJ", REFERENCE_GHZ)
        noise = np.square(self._noise).mean() * self.maps.sky.grid.pixel_area
        return here.model(factor**2 * self.theory.cmb + noise)

    def _templates(
        self, here: SurveyForecast, draws: Draws, shares: dict[str, np.ndarray]
    ) -> dict[str, dict[str, Any]]:
        """By template and method: amplitudes, what is left, and r with and without the template's own uncertainty."""
        signal, offset, power = here.model(self.theory.tensor), here.model(self.theory.cmb), here.template_power()
        found: dict[str, dict[str, Any]] = {}
        for index, name in enumerate(here.names):
            found[name] = {}
            for method, label in enumerate(METHODS if index else METHODS[:1]):
                bandpowers = draws.bandpowers[:, :, index, method]
                amplitudes = draws.amplitudes[:, :, index, method].mean(axis=(0, 1))
                own = amplitudes.prod() * power[index]
                expected = {kind: own * share[index, method] for kind, share in shares.items()}
                residuals: dict[str, np.ndarray | None] = {"plain": None, **expected}
                rows = []
                for number, r in enumerate(self.forecast.r):
                    skies, prior = bandpowers[:, number], self.forecast.residual_prior
                    kinds = {
                        kind: estimate_ratio(skies, signal, offset, residual, prior).to_json(r)
                        for kind, residual in residuals.items()
                    }
                    rows.append({"r": r} | kinds)
                left = bandpowers[:, 0].mean(axis=0) - offset - self.forecast.r[0] * signal
                found[name][label] = {
                    "amplitudes": amplitudes.tolist(),
                    "left": left.tolist(),
                    "expected": expected["with_uncertainty"].tolist(),
                    "measured": expected["with_measured_residual"].tolist(),
                    "r": rows,
                }
        return found


_NOTES = [
    "One realization of dust, with the same angles at both frequencies; the CMB, Gaussian with lensed power, tensors "
    "and noise are drawn anew for every sky. r is read from the BB cross spectrum of the two frequencies.",
    "Amplitudes are fitted on every sky, so that the scatter that serves as covariance marginalizes over them.",
    "With uncertainty: what a template is expected to leave of the dust's power is subtracted and marginalized over. "
    "It is measured where the template learnt, on the survey's mirror image across the Galactic equator, per unit of "
    "the template's own power.",
    "With the residual measured: the same, but measured in the survey, where the template was not shown the target, as "
    "the power of target less template without that of the target's noise and CMB.",
    "Cross-fitted templates were trained on a target with a CMB that no cleaned sky holds.",
    "`true dust` is cleaning with the dust itself: what the method adds without any fault of a template.",
]
