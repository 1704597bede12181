"""The forecast of r from the templates that runs predict."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from sphereml.config.schema import ExperimentConfig
from sphereml.errors import UserError
from sphereml.evaluation.forecast.cleaning import METHODS
from sphereml.evaluation.forecast.draws import Draws, SurveyForecast
from sphereml.evaluation.forecast.likelihood import estimate_ratio
from sphereml.evaluation.forecast.result import ForecastResult
from sphereml.evaluation.forecast.skies import SurveyField, Theory, dust_scaling
from sphereml.evaluation.maps.study import MapStudy
from sphereml.evaluation.protocol import Result, Study, StudyOptions
from sphereml.training.runs import Run


class ForecastStudy(Study):
    """r with no template, with that of each run, and with the dust itself, on the synthetic Galaxy."""

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

    @cached_property
    def dust(self) -> np.ndarray:
        """Q and U of the dust without noise, ``(2, npix)`` uK_RJ at 353 GHz."""
        sky = self.maps.task.sky
        noise = np.stack([sky.components["Q_noise"], sky.components["U_noise"]])
        return np.asarray(sky.targets.T, dtype=np.float64) - noise

    @cached_property
    def templates(self) -> dict[str, np.ndarray]:
        """Predictions of the runs, ``(2, npix)`` uK_RJ, and the dust itself as the best that any could do."""
        found = {}
        for run in self.maps.runs:
            values = self.maps.predict(run).values.T.astype(np.float64)
            if values.shape != self.dust.shape:
                raise UserError(f"the run of {run.name} predicts no Q and U", "use runs of task dust_polarization")
            found[self.maps.names[run.folder]] = values
        return found | {"true dust": self.dust}

    def _measure(self) -> ForecastResult:
        """Draw the skies of every survey, clean them, and estimate r."""
        config = self.forecast
        theory = Theory.to_lmax(self.maps.sky.grid.safe_lmax)
        surveys = {survey.name: self._survey(index, theory) for index, survey in enumerate(config.surveys)}
        content = {
            "experiment": self.maps.config.name,
            "frequencies": config.frequencies,
            "dust_scaling": [dust_scaling(ghz, config.beta, config.temperature) for ghz in config.frequencies],
            "skies": config.skies,
            "residual_prior": config.residual_prior,
            "surveys": surveys,
            "notes": _NOTES,
        }
        return ForecastResult(content)

    def _survey(self, index: int, theory: Theory) -> dict[str, Any]:
        survey, grid = self.forecast.surveys[index], self.maps.sky.grid
        here = SurveyForecast(SurveyField(survey, self.forecast, grid), theory, self.dust, self.templates)
        mask = here.field.workspace.fields[0].mask
        trained = bool((mask[self.maps.split.train] > 0).any())
        draws = here.draw(self.runs[0].folder.parent / "forecast", self.options.say)
        away = SurveyForecast(
            SurveyField(survey, self.forecast, grid, mirrored=True), theory, self.dust, self.templates
        )
        workspace = here.field.workspace
        return {
            "fsky": float(mask.mean()),
            "noise": survey.noise,
            "held_out": not trained,
            "bands": {"lo": workspace.lower.tolist(), "hi": workspace.upper.tolist()},
            "tensor": here.model(theory.tensor).tolist(),
            "lensing": here.model(theory.cmb).tolist(),
            "templates": self._templates(here, draws, away.residual_shares(), theory),
        }

    def _templates(
        self, here: SurveyForecast, draws: Draws, shares: np.ndarray, theory: Theory
    ) -> dict[str, dict[str, Any]]:
        """By template and method: amplitudes, what is left, and r with and without the template's own uncertainty."""
        signal, offset, power = here.model(theory.tensor), here.model(theory.cmb), here.template_power()
        found: dict[str, dict[str, Any]] = {}
        for index, name in enumerate(here.names):
            found[name] = {}
            for method, label in enumerate(METHODS if index else METHODS[:1]):
                bandpowers = draws.bandpowers[:, :, index, method]
                amplitudes = draws.amplitudes[:, :, index, method].mean(axis=(0, 1))
                expected = amplitudes.prod() * shares[index, method] * power[index]
                rows = []
                for number, r in enumerate(self.forecast.r):
                    plain = estimate_ratio(bandpowers[:, number], signal, offset)
                    carried = estimate_ratio(
                        bandpowers[:, number], signal, offset, expected, self.forecast.residual_prior
                    )
                    rows.append({"r": r, "plain": plain.to_json(r), "with_uncertainty": carried.to_json(r)})
                left = bandpowers[:, 0].mean(axis=0) - offset - self.forecast.r[0] * signal
                found[name][label] = {
                    "amplitudes": amplitudes.tolist(), "left": left.tolist(), "expected": expected.tolist(), "r": rows,
                }  # fmt: skip
        return found


_NOTES = [
    "One realization of dust, with the same angles at both frequencies; the CMB, Gaussian with lensed power, tensors "
    "and noise are drawn anew for every sky. r is read from the BB cross spectrum of the two frequencies.",
    "Amplitudes are fitted on every sky, so that the scatter that serves as covariance marginalizes over them.",
    "With uncertainty: what a template is expected to leave of the dust's power is subtracted and marginalized over. "
    "It is measured where the template learnt, on the survey's mirror image across the Galactic equator, per unit of "
    "the template's own power.",
    "`true dust` is cleaning with the dust itself: what the method adds without any fault of a template.",
]
