"""The measurements of DeepCMB on finished runs of lensing: the first setting in full, the others' noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

from sphereml.config.schema import ExperimentConfig
from sphereml.errors import UserError
from sphereml.evaluation.lensing.entries import main_part, notes_of, omega_c_entry, setting_entry
from sphereml.evaluation.lensing.noise import output_bands
from sphereml.evaluation.lensing.results import LensingResult
from sphereml.evaluation.lensing.sentences import PAPER
from sphereml.evaluation.lensing.setting import Setting, settings_of
from sphereml.evaluation.lensing.sphere import SphereSetting
from sphereml.evaluation.protocol import Result, Study
from sphereml.evaluation.provenance import provenance
from sphereml.evaluation.run_groups import run_names
from sphereml.training.runs import Run


class LensingStudy(Study):
    """Networks beside quadratic estimators on the same patches, setting by setting (size, noise, cosmology)."""

    sections = ("nulls", "omega_c", "uncertainty", "responses", "delensing", "latitude")
    result: ClassVar[type[Result]] = LensingResult

    @classmethod
    def refuse(cls, configs: Sequence[ExperimentConfig]) -> None:
        for config in configs:
            refuse_few(config)

    @cached_property
    def settings(self) -> list[Setting]:
        """Runs that see the same, the largest group first."""
        names = dict(zip((id(run) for run in self.runs), run_names(self.runs), strict=True))
        return [
            _setting(group[0])({names[id(run)]: run for run in group}, self.options) for group in settings_of(self.runs)
        ]

    def _measure(self) -> LensingResult:
        """Measure everything that is not skipped.

        Raises:
            UserError: a run that predicts no kappa, or too few test patches for the bands.
        """
        main = self.settings[0]
        skip = {*self.options.skip, *self.sections} - ({*main.sections} - {*self.options.skip})
        refuse_few(main.config)
        content = main_part(main)
        content["patch_sizes"] = [setting_entry(setting) for setting in self.settings]
        if "nulls" not in skip:
            content["nulls"] = _json(main.null_tests())
        if "omega_c" not in skip:
            content["omega_c"] = omega_c_entry(main)
        if "uncertainty" not in skip:
            content["uncertainty"] = _json(main.calibrations())
        if "responses" not in skip:
            content["responses"] = _json(main.responses("omega_c" not in skip))
        if "delensing" not in skip and (templates := main.delensing()):
            content["delensing"] = templates
        if isinstance(main, SphereSetting) and "latitude" not in skip:
            content["latitude"] = main.latitude()
        content["provenance"] = provenance()
        asked = [name for name in main.sections if name in skip]
        content["paper"], content["notes"] = PAPER, notes_of(main, self.settings, content, asked)
        return LensingResult(content, main)


def refuse_few(config: ExperimentConfig) -> None:
    """Raise UserError when there are too few test or validation patches for a covariance of the bands of kappa."""
    if config.model.domain == "sphere":
        return
    bands, lensing = len(output_bands(config)), config.lensing
    if config.evaluation.patches < bands + 3:
        what = f"{config.evaluation.patches} test patches for {bands} bands of L"
        raise UserError(what, f"raise evaluation.patches to {bands + 3} or more, better to {10 * bands}")
    skies = min(lensing.test_skies, lensing.validation_skies)
    if lensing.simulator == "curved" and (skies < 2 or skies * lensing.patches_per_sky < bands + 3):
        what = f"{skies} skies of {lensing.patches_per_sky} patches to test (or to validate) for {bands} bands of L"
        raise UserError(what, "an error takes two skies or more: raise lensing.test_skies and lensing.validation_skies")


def _setting(run: Run) -> type[Setting]:
    return SphereSetting if run.config.model.domain == "sphere" else Setting


def _json(parts: Any) -> Any:
    """Nested dicts of results as JSON values."""
    return {key: _json(part) for key, part in parts.items()} if isinstance(parts, dict) else parts.to_json()
