"""All that the dust paper measured, on its own sky and splits and on the sphere: one table from many runs.

Runs are comparable on one sky and one split; those of each are measured together, by the study of maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sphereml.config.schema import ExperimentConfig
from sphereml.errors import UserError
from sphereml.evaluation.maps.comparison import Comparison
from sphereml.evaluation.maps.scores import TargetScores
from sphereml.evaluation.maps.study import MapStudy
from sphereml.evaluation.paper.claims import check_channels, check_claims
from sphereml.evaluation.paper.domains import compare_domains
from sphereml.evaluation.paper.overfitting import overfitting
from sphereml.evaluation.paper.result import DustPaperResult
from sphereml.evaluation.protocol import Result, Study
from sphereml.training.runs import Run

_NOTES = [
    "A conclusion is judged on held-out patches: above means by two paired block-jackknife errors in r50 and in r150.",
    "These errors are of the sky; how far trainings differ by their seed alone stands in the skies' pages, and beside "
    "them for the sphere against the plane.",
    "Every choice was made on the validation region inside the training side; the test side is scored here alone.",
]


class DustPaperStudy(Study):
    """Rows of one experiment on one or several skies and splits."""

    sections: ClassVar[tuple[str, ...]] = ("overfitting",)
    result: ClassVar[type[Result]] = DustPaperResult

    @classmethod
    def refuse(cls, configs: Sequence[ExperimentConfig]) -> None:
        others = [config for config in configs if config.task != "dust"]
        if others:
            raise UserError(f"{others[0].model.name} is a run of {others[0].task}", "the dust paper is of task=dust")

    def _measure(self) -> DustPaperResult:
        measured = {name: self._measured(runs) for name, runs in _by_sky(self.runs).items()}
        first = next(iter(measured.values()))
        content = {
            "experiment": self.runs[0].config.name,
            "skies": {name: one.content(first) for name, one in measured.items()},
            "overfitting": [] if "overfitting" in self.options.skip else first.overfitting(),
            "notes": _NOTES,
        }
        return DustPaperResult(content, {name: one.comparison for name, one in measured.items()})

    def _measured(self, runs: Sequence[Run]) -> _MeasuredSky:
        study = MapStudy(runs, self.options)
        comparison = study.measure()
        assert isinstance(comparison, Comparison) and comparison.drawing is not None
        return _MeasuredSky(study, comparison, next(iter(comparison.drawing.scores.values())))


@dataclass(frozen=True, eq=False)
class _MeasuredSky:
    """The runs on one sky and split, and their scores for the one target."""

    study: MapStudy
    comparison: Comparison
    scores: TargetScores

    def content(self, first: _MeasuredSky) -> dict[str, Any]:
        """The comparison, what of the paper's conclusions holds, and the sphere against the plane."""
        more = [] if self is first else check_channels(self.scores, first.scores, self.study.config.data.name)
        claims = check_claims(self.scores) + more
        return self.comparison.content | {"claims": claims, "domains": compare_domains(self.scores)}

    def overfitting(self) -> list[dict[str, Any]]:
        study = self.study
        return overfitting(study.sky.whole(), study.split, study.held_out.bands, list(study.config.model.scales))


def _by_sky(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by the names of their data and split, in the order in which they come."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(f"{run.config.data.name}-{run.config.split.name}", []).append(run)
    return found
