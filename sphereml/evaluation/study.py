"""From finished runs to everything a user reads: predictions, templates, comparison, figures, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sphereml import __version__
from sphereml.config.schema import ExperimentConfig
from sphereml.data.splits import Split
from sphereml.data.store import Sky
from sphereml.errors import UserError
from sphereml.evaluation.compare import REFERENCE, Comparison, begin_comparison
from sphereml.evaluation.figures import draw_figures
from sphereml.evaluation.report import write_report
from sphereml.templates.prediction import Prediction, Predictor
from sphereml.templates.products import write_template
from sphereml.training.runs import Run


@dataclass(eq=False)
class Study:
    """Finished runs of one experiment on their sky; predictions are made once and kept."""

    config: ExperimentConfig
    runs: Sequence[Run]
    sky: Sky
    split: Split
    say: Callable[[str], None] = print
    _predictions: dict[str, Prediction] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [run.name for run in self.runs]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"two runs of the model {twice} stand side by side", "name the run folders to compare")
        for run in self.runs:
            run.check_data(self.sky.provenance)
            _refuse_other_sky(run.config, self.config)

    def predict(self, run: Run) -> Prediction:
        """The full-sky prediction of a run."""
        if run.name not in self._predictions:
            prediction = Predictor(run, self.sky).sphere()
            # Of the network's output, a correction to the first guess: far less of the map.
            seam = "" if prediction.seam is None else f", overlapping patches differ by {prediction.seam:.2f} sigma"
            self.say(f"{run.name}: full sky in {prediction.seconds:.1f} s{seam}")
            self._predictions[run.name] = prediction
        return self._predictions[run.name]

    def write_templates(self, folder: Path, overwrite: bool = True) -> list[Path]:
        """One FITS file a run, ``<model>.fits``, in the target's unit; all of them or none if one stands there."""
        paths = [folder / f"{run.name}.fits" for run in self.runs]
        standing = next((path for path in paths if path.exists()), None)
        if standing and not overwrite:
            raise UserError(f"{standing} exists", "add --overwrite, or choose another folder with --out")
        for run, path in zip(self.runs, paths, strict=True):
            header = {
                "run_id": run.folder.name,
                "weights_hash": run.manifest()["weights_sha256"],
                "model": run.name,
                "code_version": __version__,
            }
            maps = {"I": self.predict(run).values}
            write_template(path, maps, self.sky.target_unit, header, overwrite=overwrite)
        return paths

    def compare(self, folder: Path) -> Comparison:
        """Score every run, draw the figures and write ``comparison.json``."""
        if REFERENCE not in [run.name for run in self.runs]:
            raise UserError(
                "no run of the integrated model to compare with", "train it: `sphereml train ... model=integrated`"
            )
        comparison = begin_comparison(self.config, self.sky, self.split)
        patches = {}
        for run in self.runs:
            prediction = self.predict(run)
            patches[run.name] = Predictor(run, self.sky).patches(comparison.test.frames, prediction.values)
            comparison.add(run.name, patches[run.name], prediction.values, self.sky, **_facts(run, prediction))
        spheres = {run.name: self.predict(run).values for run in self.runs if run.config.model.domain != "none"}
        comparison.save(folder)
        draw_figures(comparison, self.sky, patches, spheres or {REFERENCE: self._predictions[REFERENCE].values}, folder)
        return comparison

    def report(self, folder: Path) -> Path:
        return write_report(folder)


def _facts(run: Run, prediction: Prediction) -> dict[str, object]:
    """What the comparison says of a run beside its scores."""
    manifest = run.manifest()
    facts: dict[str, object] = {
        "domain": run.config.model.domain,
        "form": run.config.model.form if run.config.model.domain != "none" else "closed form",
        "run": run.folder.name,
        "seconds_train": manifest["seconds_train"],
        "seconds_predict": round(prediction.seconds, 3),
    }
    if prediction.seam is not None:
        facts["seam"] = prediction.seam
    return facts


def _refuse_other_sky(run: ExperimentConfig, asked: ExperimentConfig) -> None:
    """Runs are comparable on the same data, split, bands, patches and evaluation only."""
    for part in ("split", "bands", "patches", "evaluation"):
        if asdict(getattr(run, part)) != asdict(getattr(asked, part)):
            raise UserError(
                f"the run of {run.model.name} has another `{part}` than the run of {asked.model.name}",
                "compare runs of one experiment, trained with the same overrides",
            )
    if run.data.name != asked.data.name or run.data.galaxy != asked.data.galaxy:
        raise UserError(f"the run of {run.model.name} was trained on other data", "compare runs on the same data")
