"""What cross-fitting is worth, model by model: the CMB that templates take from their target, and their errors."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from sphereml.evaluation.cross_fit.calibration import calibrate
from sphereml.evaluation.cross_fit.leak import LeakTest
from sphereml.evaluation.cross_fit.result import CrossFitResult
from sphereml.evaluation.protocol import Result, Study
from sphereml.evaluation.run_groups import run_names


class CrossFitStudy(Study):
    """Templates in-sample and cross-fitted, side by side; trainings are made where they are not there yet."""

    sections = ("leak", "calibration")
    result: ClassVar[type[Result]] = CrossFitResult

    def _measure(self) -> CrossFitResult:
        """Measure everything that is not skipped; raises UserError as the trainings do."""
        first = self.runs[0].config
        models = {name: self._model(index) for index, name in enumerate(run_names(self.runs))}
        settings = asdict(self._evaluation.cross_fit)
        return CrossFitResult({"experiment": first.name, "settings": settings, "models": models, "notes": NOTES})

    @property
    def _evaluation(self) -> Any:
        return self.options.evaluation or self.runs[0].config.evaluation

    def _model(self, index: int) -> dict[str, Any]:
        test = LeakTest(self.runs[index], self._evaluation.cross_fit, self._evaluation.seed, self.options.say)
        plan = test.plan
        entry: dict[str, Any] = {"receptive_field": plan.receptive_field, "buffer": plan.buffer}
        if "leak" not in self.options.skip:
            entry |= {"bands": [list(span) for _, span in test.bands.items()], "leak": test.measure()}
        if "calibration" not in self.options.skip:
            entry["calibration"] = calibrate(plan)
        return entry


NOTES = [
    "transfer: the share of the CMB added to the training target that the template holds, less what the control holds; "
    "its error is what other skies of CMB, which nobody added, give by chance.",
    "In-sample templates are measured where they were trained, cross-fitted ones on all of the mask's sky.",
    "Below ell = 15 regions share the CMB's largest modes: what is right of a buffer knows what is left of it.",
    "Errors are calibrated on pixels that a fold held out beside its own region, never on the region.",
]
