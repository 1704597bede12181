"""The cross-fitted template with its errors: joined from the folds' ensembles, written as one FITS file.

The file's first table holds the template, the second (``SIGMA``) one sigma a field, the third (``R_BAND``) r(ell) of
the template with the truth as the errors have it; see :mod:`sphereml.templates.error_model` and
:mod:`sphereml.templates.error_fields`.  Cards: ``FITTED = cross-fitted``, ``FOLDS``, ``BUFFER``, ``JOIN``, ``RECFIELD``
(degrees), ``SEEDS``, and ``FOLD0_1``, the run of fold 0 and its second seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sphereml import __version__
from sphereml.data.store import Sky
from sphereml.errors import UserError
from sphereml.sky.fields import Field
from sphereml.sky.maps import SkyMap
from sphereml.templates.cross_fit import CrossFit
from sphereml.templates.error_fields import draw_field, measure_errors, r_band
from sphereml.templates.error_model import ErrorModel
from sphereml.templates.products import curve_table, map_table, write_sky_map
from sphereml.training.predictor import Predictor
from sphereml.training.runs import Run

_BAND_REALIZATIONS = 32


@dataclass(frozen=True, eq=False)
class FoldPrediction:
    """The ensemble of one fold on the whole sky.

    Args:
        mean: over the seeds, float64 ``(npix, O)``.
        scatter: variance over them, ``(npix, O)``; zero for one seed.
    """

    mean: np.ndarray
    scatter: np.ndarray


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """A template, its errors, and where it may be believed.

    Args:
        maps: the template.
        sigma: of every field, float64 ``(npix, fields)``.
        kept: the mask's weights ``(npix,)``: errors were measured there.
        models: of the errors, by fold and field.
        errors: spectra of g by field, see :mod:`~sphereml.templates.error_fields`.
    """

    maps: SkyMap
    sigma: np.ndarray
    kept: np.ndarray
    models: list[list[ErrorModel]]
    errors: list[np.ndarray]

    def realizations(self, count: int, seed: int = 0) -> Iterator[np.ndarray]:
        """Skies that the data allow, ``(npix, O)`` each: the template and a draw of its errors."""
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            drawn = [draw_field(one, self.maps.nside, rng) for one in self.errors]
            parts = [sigma[:, None] * error for sigma, error in zip(self.sigma.T, drawn, strict=True)]
            yield self.maps.values + np.concatenate(parts, axis=1)

    def r_band(self) -> dict[str, np.ndarray]:
        """Columns ``ELL`` and, of every component, ``R_T``, ``R_T_LOW``, ``R_T_HIGH``: median and central 68 %."""
        skies = list(self.realizations(_BAND_REALIZATIONS))
        return r_band(self.maps.values, skies, self.maps.fields, self.kept)

    def write(self, path: Path, realizations: int = 0, overwrite: bool = False) -> list[Path]:
        """Write the template and, where they are asked for, realizations beside it.

        Raises:
            UserError: a file exists and may not be replaced, or its folder cannot be written.
        """
        paths = [path, realizations_path(path)][: 1 + (realizations > 0)]
        for one in paths[1:]:
            names = [f"{name}_{i:03d}" for i in range(realizations) for name in self.maps.column_names]
            columns = np.concatenate(list(self.realizations(realizations)), axis=1)
            fields = [Field(name, self.maps.unit) for name in names]
            write_sky_map(one, SkyMap(columns, fields, "nest", header=self.maps.header), overwrite=overwrite)
        sigmas = {
            f"SIGMA_{one.name or 'P'}": values for one, values in zip(self.maps.fields, self.sigma.T, strict=True)
        }
        tables = [map_table(sigmas, self.maps.unit, name="SIGMA"), curve_table("R_BAND", self.r_band())]
        write_sky_map(path, self.maps, overwrite=overwrite, tables=tables)
        return paths


def realizations_path(path: Path) -> Path:
    """Where the realizations of a template stand, beside it."""
    return path.with_name(f"{path.stem}_realizations.fits")


def predict_folds(plan: CrossFit, runs: Sequence[Sequence[Run]], sky: Sky | None = None) -> Iterator[FoldPrediction]:
    """What every fold's ensemble predicts, of the sky that it was trained on or of another one."""
    for tasks, fold in zip(plan.tasks, runs, strict=True):
        members = [
            Predictor(run, task).sphere(sky or plan.sky).values.astype(np.float64)
            for run, task in zip(fold, tasks, strict=True)
        ]
        scatter = np.var(members, axis=0, ddof=1) if len(members) > 1 else np.zeros_like(members[0])
        yield FoldPrediction(np.mean(members, axis=0), scatter)


def join_folds(plan: CrossFit, folds: Sequence[FoldPrediction]) -> np.ndarray:
    """The template ``(npix, O)``: the folds' means by the weights of the join."""
    return np.sum([weight[:, None] * fold.mean for weight, fold in zip(plan.weights, folds, strict=True)], axis=0)


def cross_fitted_maps(plan: CrossFit) -> np.ndarray:
    """The template ``(npix, O)`` alone; what is not trained yet is."""
    return join_folds(plan, list(predict_folds(plan, plan.train())))


def cross_fitted(plan: CrossFit, runs: Sequence[Sequence[Run]]) -> CrossFitted:
    """The template of the training's own sky; its errors are fitted to the folds' held-out pixels."""
    folds = list(predict_folds(plan, runs))
    models = [_fit_errors(plan, number, fold) for number, fold in enumerate(folds)]
    fields = plan.sky.target_fields
    errors = []
    for index, (one, columns) in enumerate(_columns(fields)):
        pulls = []
        for fold, model in zip(folds, models, strict=True):
            sigma = np.sqrt(model[index].variance(fold.mean[:, columns], fold.scatter[:, columns]))
            pulls.append((plan.sky.targets[:, columns] - fold.mean[:, columns]) / np.maximum(sigma, 1e-30)[:, None])
        masks = [plan.held_out(number).astype(np.float64) for number in range(len(folds))]
        errors.append(measure_errors(pulls, masks, one))
    return _joined(plan, folds, models, errors, _header(plan, runs))


def cross_fitted_elsewhere(plan: CrossFit, runs: Sequence[Sequence[Run]], sky: Sky, known: CrossFitted) -> CrossFitted:
    """The same networks and errors on a sky that none of them was trained on."""
    header = _header(plan, runs) | {"fitted": "other sky"}
    return _joined(plan, list(predict_folds(plan, runs, sky)), known.models, known.errors, header)


def _columns(fields: Sequence[Field]) -> Iterator[tuple[Field, slice]]:
    """Every field with its columns."""
    first = 0
    for one in fields:
        yield one, slice(first, first + one.columns)
        first += one.columns


def _fit_errors(plan: CrossFit, number: int, fold: FoldPrediction) -> list[ErrorModel]:
    pixels = plan.held_out(number)
    if pixels.sum() < 100:
        what = f"fold {number} has {pixels.sum()} held-out pixels to measure its errors on"
        raise UserError(what, "raise evaluation.cross_fit.buffer, or use maps of a higher Nside")
    mean, scatter, target = fold.mean[pixels], fold.scatter[pixels], plan.sky.targets[pixels]
    weight = plan.representation(number)[pixels]
    fields = _columns(plan.sky.target_fields)
    return [ErrorModel.fit(mean[:, own], scatter[:, own], target[:, own], weight) for _, own in fields]


def _joined(
    plan: CrossFit,
    folds: Sequence[FoldPrediction],
    models: list[list[ErrorModel]],
    errors: list[np.ndarray],
    header: dict[str, Any],
) -> CrossFitted:
    fields = plan.sky.target_fields
    maps, variance = join_folds(plan, folds), np.zeros((plan.sky.grid.npix, len(fields)))
    for weight, fold, model in zip(plan.weights, folds, models, strict=True):
        for index, (_, columns) in enumerate(_columns(fields)):
            variance[:, index] += weight * model[index].variance(fold.mean[:, columns], fold.scatter[:, columns])
    return CrossFitted(SkyMap(maps, fields, "nest", header=header), np.sqrt(variance), plan.kept, models, errors)


def _header(plan: CrossFit, runs: Sequence[Sequence[Run]]) -> dict[str, Any]:
    named = {f"fold{k}_{i}": run.folder.name for k, fold in enumerate(runs) for i, run in enumerate(fold)}
    weights = "".join(run.manifest()["weights_sha256"] for fold in runs for run in fold)
    digest = hashlib.sha256(weights.encode()).hexdigest()
    return {
        "run_id": f"{plan.name}-{digest[:8]}",
        "weights_hash": digest,
        "model": plan.config.model.name,
        "code_version": __version__,
        "fitted": "cross-fitted",
        "folds": len(runs),
        "buffer": plan.buffer,
        "join": plan.settings.join,
        "recfield": round(plan.receptive_field, 3),
        "seeds": len(runs[0]),
    } | named
