"""What a template does to r when its target held the CMB of the very sky that it cleans.

Conventions: template n of each kind (in-sample, cross-fitted) was trained on the target with the CMB of sky n in it, at
its strength at 353 GHz, and cleans that sky and the others.  The survey is the mirrored one, where ordinary runs
are trained.  With R[n, m] the r of sky m cleaned by template n, and R[0, m] by the control, trained without CMB,

    change_n = R[n, n] - R[0, n],   shared_n = change_n - mean over m != n of (R[n, m] - R[0, m]):

the first is all that a CMB in the target does, the second what is due to its being that of the sky; both are free of
the skies' own scatter.  Weights of the bandpowers are the control's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sphereml.evaluation.cross_fit.leak import KINDS, LeakTest
from sphereml.evaluation.forecast.cleaning import METHODS
from sphereml.evaluation.forecast.draws import Draws, SurveyForecast
from sphereml.evaluation.forecast.likelihood import estimate_ratio
from sphereml.evaluation.forecast.skies import SurveyField, Theory, target_cmb


@dataclass(frozen=True, eq=False)
class ContaminationTest:
    """One model's templates with the CMB of skies that they clean, on one mirrored survey.

    Args:
        leak: the trainings of the model.
        field: the masked sky where in-sample templates were trained.
        theory: spectra of what is drawn.
        dust: ``(2, npix)`` uK_RJ at 353 GHz, without noise.
        folder: of the draws.
    """

    leak: LeakTest
    field: SurveyField
    theory: Theory
    dust: np.ndarray
    folder: Path

    def measure(self) -> dict[str, Any]:
        """By kind and method: r of the control, ``change``, ``shared``, and amplitudes; JSON-ready."""
        own = [self._contaminated(number) for number in range(self.field.config.contaminated)]
        entry: dict[str, Any] = {"strength": self.field.config.cmb_strength, "level": self._forecast({}).level}
        for index, kind in enumerate(KINDS, start=1):
            entry[kind] = {name: self._compared(own, index, method) for method, name in enumerate(METHODS)}
        return entry

    @cached_property
    def control(self) -> Draws:
        """Every sky, cleaned by templates that were trained without CMB."""
        return self._forecast(self.leak.controls).draw(self.folder, self.leak.say)

    def _contaminated(self, number: int) -> Draws:
        """The first skies, cleaned by the templates whose target held the CMB of sky ``number``."""
        config = self.field.config
        name = f"sky{config.seed}_{number}_strength{config.cmb_strength:g}"
        self.leak.say(f"{self.leak.run.name}: CMB of sky {number + 1} of {config.contaminated} in the target")
        cmb = target_cmb(self.theory, self.field.grid.nside, config.seed, number)
        few = replace(self.field, config=replace(config, skies=config.contaminated))
        forecast = self._forecast(self.leak.templates(name, config.cmb_strength * cmb), few)
        return forecast.draw(self.folder, lambda line: None)

    def _forecast(self, templates: dict[str, np.ndarray], field: SurveyField | None = None) -> SurveyForecast:
        named = {kind: values.T.astype(np.float64) for kind, values in templates.items()}
        return SurveyForecast(field or self.field, self.theory, self.dust, named)

    def _compared(self, own: list[Draws], index: int, method: int) -> dict[str, Any]:
        forecast, count = self._forecast({}), len(own)
        signal, offset = forecast.model(self.theory.tensor), forecast.model(self.theory.cmb)
        scatter = self.control.bandpowers[:, 0, index, method]

        def ratios(bandpowers: np.ndarray) -> np.ndarray:
            return estimate_ratio(bandpowers, signal, offset, scatter=scatter).values

        control = estimate_ratio(scatter, signal, offset)
        excess = np.stack([ratios(one.bandpowers[:, 0, index, method]) for one in own]) - control.values[:count]
        change = np.diag(excess)
        shared = change - (excess.sum(axis=1) - change) / (count - 1)
        amplitudes = np.stack([one.amplitudes[:, 0, index, method] for one in own])
        return {
            "control": control.to_json(self.field.config.r[0]),
            "change": _mean(change),
            "shared": _mean(shared),
            "amplitudes": amplitudes[np.arange(count), np.arange(count)].mean(axis=0).tolist(),
            "control_amplitudes": self.control.amplitudes[:count, 0, index, method].mean(axis=0).tolist(),
        }


def _mean(values: np.ndarray) -> dict[str, float]:
    """Mean and its standard error."""
    return {"mean": float(values.mean()), "error": float(values.std(ddof=1) / np.sqrt(len(values)))}
