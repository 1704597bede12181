"""From finished runs to everything a user reads: predictions, templates, scores, figures, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sphereml.config.schema import EvaluationConfig, ExperimentConfig
from sphereml.data.sky_on_disk import ReadableSky
from sphereml.data.split_files import Split, read_split
from sphereml.errors import UserError
from sphereml.evaluation.maps.comparison import Comparison, Drawing
from sphereml.evaluation.maps.patches import draw_test_patches
from sphereml.evaluation.maps.referee import covariance, latitudes, power, setting, training_facts
from sphereml.evaluation.maps.scores import HeldOut, PolarizedTruth, ScalarTruth, TargetScores, region_masks
from sphereml.evaluation.protocol import Result, Study, StudyOptions
from sphereml.evaluation.provenance import provenance
from sphereml.evaluation.run_groups import run_names, same_but_seed
from sphereml.harmonics.bands import Bands
from sphereml.patches.sampling import sample_patches
from sphereml.progress import counted
from sphereml.sky.fields import Field
from sphereml.tasks import open_task
from sphereml.tasks.losses import resolved_bands
from sphereml.tasks.maps import MapTask
from sphereml.tasks.protocol import Say
from sphereml.templates.full_sky import predict_templates
from sphereml.templates.products import refuse_standing
from sphereml.training.predictor import Prediction, Predictor
from sphereml.training.runs import Run

# On the whole sphere ``(npix, columns)`` and on the held-out patches ``(n, size, size, columns)``.
_Maps = tuple[np.ndarray, np.ndarray]


class MapStudy(Study):
    """Runs of one experiment on full-sky maps; predictions are made once and kept.

    They are scored on the regions that they were trained with, which stand in their folders.
    """

    result: ClassVar[type[Result]] = Comparison

    def __init__(self, runs: Sequence[Run], options: StudyOptions) -> None:
        super().__init__(runs, options)
        self._predictions: dict[str, Prediction] = {}
        first = self.runs[0]
        for run in self.runs:
            _refuse_other_experiment(run, first)
            run.check_data(self.sky.provenance)
        self.runs = _without_repeats(self.runs, options.say)
        self.names = dict(zip((run.folder for run in self.runs), run_names(self.runs), strict=True))

    @property
    def config(self) -> ExperimentConfig:
        return self.runs[0].config

    @property
    def evaluation(self) -> EvaluationConfig:
        return self.options.evaluation or self.config.evaluation

    @cached_property
    def split(self) -> Split:
        """The regions that the runs were trained with."""
        return read_split(self.runs[0].split_path)

    @cached_property
    def task(self) -> MapTask:
        task = open_task(self.config, self.options.say, split=self.split)
        assert isinstance(task, MapTask)
        return task

    @property
    def sky(self) -> ReadableSky:
        return self.task.readable_sky

    @cached_property
    def predictors(self) -> dict[str, Predictor]:
        given, say = {"sky": self.sky, "split": self.split}, self.options.say
        return {
            self.names[run.folder]: Predictor(run, open_task(run.config, say, **given), say=say) for run in self.runs
        }

    def predict(self, run: Run) -> Prediction:
        """The full-sky prediction of a run."""
        name = self.names[run.folder]
        if name not in self._predictions:
            self._keep(name, self.predictors[name].sphere(self.sky))
        return self._predictions[name]

    def _keep(self, name: str, prediction: Prediction) -> None:
        # Of the network's output, a correction to the first guess: far less of the map.
        seam = "" if prediction.seam is None else f", overlapping patches differ by {prediction.seam:.2f} sigma"
        self.options.say(f"{name}: full sky in {prediction.seconds:.1f} s{seam}")
        self._predictions[name] = prediction

    def write_templates(self, folder: Path, overwrite: bool = True) -> list[Path]:
        paths = [folder / f"{self.names[run.folder]}.fits" for run in self.runs]
        refuse_standing(paths, overwrite)
        named = {name: self.predictors[name] for name in self.names.values()}
        for name, prediction in predict_templates(folder, named, self.sky).items():
            self._keep(name, prediction)
        return paths

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Models that differ in their seed alone, by what their mean is called."""
        found: dict[str, list[str]] = {}
        for group in same_but_seed(self.runs):
            name = f"{group[0].name}, {len(group)} seeds"
            found[name if name not in found else f"{name} of {group[0].folder.name}"] = [
                self.names[run.folder] for run in group
            ]
        return found

    @cached_property
    def held_out(self) -> HeldOut:
        """Patches, masks and bands of the test region."""
        bands = self._bands()
        test = draw_test_patches(self.task.patch, self.split, self.config.patches.max_masked, self.evaluation)
        return HeldOut(test, region_masks(self.evaluation, self.split), bands, self.evaluation)

    def _bands(self) -> Bands:
        bands = resolved_bands(self.config.bands, self.sky.grid.nside)
        if "r50" not in bands:
            what = f"the maps of Nside {self.sky.grid.nside} do not resolve bands.r50={self.config.bands.r50}"
            raise UserError(what, "lower bands.r50")
        return bands

    def _measure(self) -> Comparison:
        """Score every run on every target field."""
        frames, patch, fields = self.held_out.test.frames, self.task.patch, self.sky.target_fields
        spheres = {self.names[run.folder]: self.predict(run).values for run in self.runs}
        patches = {name: self.predictors[name].patches(frames, sphere, self.sky) for name, sphere in spheres.items()}
        targets = sample_patches(self.sky.targets, frames, patch, [one.spin for one in fields])
        scores: dict[str, TargetScores] = {}
        polarization: dict[str, Any] = {}
        first = 0
        for one in fields:
            columns = slice(first, first + one.columns)
            cut = {name: (spheres[name][:, columns], patches[name][..., columns]) for name in spheres}
            truth = self.sky.targets[:, columns], targets[..., columns]
            if one.spin == 2:
                polarization |= self._score_polarization(one, truth, cut, scores)
            else:
                self._score_columns(one, truth, cut, scores)
            first += one.columns
        drawing = Drawing(scores, self.sky, patches, spheres, targets)
        return Comparison(_content(self, scores) | polarization, drawing)

    def _score_columns(self, one: Field, truth: _Maps, cut: dict[str, _Maps], scores: dict[str, TargetScores]) -> None:
        """Add the scores of a scalar, or of each component of a vector, under its columns' names."""
        for column, name in enumerate(one.column_names):
            known = ScalarTruth(self.held_out, truth[0][:, column], truth[1][..., column])
            scores[name] = TargetScores(self.held_out)
            for run in counted(self.runs, f"{name}: scored", self.options.say):
                model = self.names[run.folder]
                sphere, patches = cut[model]
                found = known.score(sphere[:, column], patches[..., column])
                scores[name].add(model, *found, **_facts(run, self.predict(run)))
            self._add_groups(scores[name])

    def _score_polarization(
        self, one: Field, truth: _Maps, cut: dict[str, _Maps], scores: dict[str, TargetScores]
    ) -> dict[str, Any]:
        """Add the scores of E and B, and return what else is known of the models' polarization."""
        intensity = self.sky.intensity
        intensity = np.zeros(self.sky.grid.npix, np.float32) if intensity is None else intensity
        frames, patch = self.held_out.test.frames, self.task.patch
        known = PolarizedTruth(self.held_out, *truth, (intensity, sample_patches(intensity, frames, patch)))
        both = [scores.setdefault(name, TargetScores(self.held_out, None)) for name in one.parity_names]
        facts = {}
        for run in counted(self.runs, f"{one.name}: scored", self.options.say):
            model = self.names[run.folder]
            found, facts[model] = known.score(*cut[model])
            for own, values in zip(both, found, strict=True):
                own.add(model, *values, **_facts(run, self.predict(run)))
        for own in both:
            self._add_groups(own)
        return {"polarization": facts}

    def _add_groups(self, scores: TargetScores) -> None:
        for group, members in self.groups.items():
            scores.add_mean(group, members)


def _without_repeats(runs: Sequence[Run], say: Say) -> list[Run]:
    """Every run once, and of closed forms that differ in a seed, which they do not use, the first."""
    runs = list({run.folder.resolve(): run for run in runs}.values())
    repeats = [run for group in same_but_seed(runs) if group[0].config.model.domain == "none" for run in group[1:]]
    for run in repeats:
        say(f"{run.folder}: left out, a closed form is the same with every seed")
    return [run for run in runs if run not in repeats]


def _content(study: MapStudy, scores: dict[str, TargetScores]) -> dict[str, Any]:
    """``comparison.json``; the first target in its own place, further ones under ``other_targets``."""
    config, held_out = study.config, study.held_out
    first, *others = scores
    content: dict[str, Any] = {
        "experiment": {"name": config.name, "data": config.data.name, "seed": config.training.seed},
        "split": study.split.name,
        "ell_bands": {name: list(band) for name, band in held_out.bands.items()},
        "target": first,
        **scores[first].to_json(),
        "notes": _notes(study),
        **_referee(study, scores[first]),
        "provenance": provenance(),
    }
    return content | ({"other_targets": {name: scores[name].to_json() for name in others}} if others else {})


def _referee(study: MapStudy, scores: TargetScores) -> dict[str, Any]:
    """What is asked beside the scores, of the first target."""
    sphere = {name: scores.sphere[name]["test"] for name in scores.shown}
    return {
        "power": {name: power(one, study.held_out.bands) for name, one in sphere.items()},
        "covariance": {name: covariance(one) for name, one in sphere.items()},
        "latitude": latitudes(scores),
        "training": {study.names[run.folder]: training_facts(run) for run in study.runs},
        "setting": setting(study.config, study.sky),
    }


def _notes(study: MapStudy) -> list[str]:
    """What a reader must know to trust the numbers."""
    bands, asked = study.held_out.bands, study.config.bands
    notes = [*study.evaluation.notes] + [
        f"The band {name} was asked over {lo:g} <= ell < {hi:g}, the map resolves ell < {bands[name][1]:g}."
        if name in bands
        else f"The band {name} ({lo:g} <= ell < {hi:g}) lies beyond what the map resolves and is left out."
        for name, (lo, hi) in asdict(asked).items()
        if name not in bands or bands[name][1] < hi
    ]
    blocks = len(np.unique(study.held_out.test.block))
    if cuts := study.evaluation.cuts:
        discs = ", ".join(f"{cut.name} ({cut.lon:g}, {cut.lat:g}; {cut.radius:g} degrees)" for cut in cuts)
        notes.append(f"The cut discs are {discs}, in Galactic coordinates.")
    notes += [
        f"{name}: the mean of {' and '.join(members)}, and its spread over them."
        for name, members in study.groups.items()
    ]
    notes.append("A best value is marked where its paired difference to every other model is two standard errors.")
    notes.append(
        f"Standard errors leave out one of {blocks} blocks of sky (Nside {study.evaluation.block_nside}) at "
        "a time, because patches overlap; the training sky is one realization."
    )
    return notes


def _facts(run: Run, prediction: Prediction) -> dict[str, Any]:
    """What the comparison says of a run beside its scores."""
    closed = run.config.model.domain == "none"
    facts = {
        "domain": run.config.model.domain,
        "form": "closed form" if closed else run.config.model.form,
        "run": run.folder.name,
        "seconds_train": run.manifest()["seconds_train"],
        "seconds_predict": round(prediction.seconds, 3),
    }
    return facts if prediction.seam is None else facts | {"seam": prediction.seam}


def _refuse_other_experiment(run: Run, first: Run) -> None:
    """Runs are comparable on the same regions, bands, patches and data only."""
    data, other = (replace(one.config.data, folder=None, stores="") for one in (run, first))
    if data != other:
        raise UserError(f"the run of {run.name} was trained on other data", "compare runs on the same data")
    same_split = run.manifest().get("split_sha256") == first.manifest().get("split_sha256")
    differing = [] if same_split else ["split"]
    differing += [part for part in ("bands", "patches") if getattr(run.config, part) != getattr(first.config, part)]
    if differing:
        raise UserError(
            f"the run of {run.name} has another `{differing[0]}` than the run of {first.name}",
            "compare runs of one experiment, trained with the same overrides",
        )
