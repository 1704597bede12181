"""The figures of the paper's kinds, for flat networks and for those on the sphere, with captions.

A held-out patch, prediction against target, r(ell), the gain patch by patch, and r against lambda and the number of
weights; the repository's notes of the paper name these quantities, not the layout of its figures 3 to 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sphereml.evaluation.maps.comparison import Drawing
from sphereml.evaluation.maps.figures import Drawn, flat_curves, median_patch, sphere_curves, write_figures
from sphereml.evaluation.maps.scores import TargetScores
from sphereml.evaluation.paper.claims import shown_row
from sphereml.evaluation.statistics import block_jackknife
from sphereml.plotting.colours import residual_scale
from sphereml.plotting.dependence import Points, dependence_panels
from sphereml.plotting.maps import patch_row
from sphereml.plotting.scatter import band_scatter, joint_histograms

_MAIN = ("integrated", "linear", "linear_scales", "unet_flat", "unet_sphere", "unet_oriented", "spectral")
_LAMBDA = {"unet_flat": 30.0} | {f"lambda_{weight}": float(weight) for weight in (0, 1, 10, 60, 120)}


def draw_paper(drawing: Drawing, overfitting: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draw into ``folder/figures``; returns the pictures."""
    scores = next(iter(drawing.scores.values()))
    rows = [row for row in (shown_row(scores, name) for name in _MAIN) if row is not None]
    maps = [row if row not in scores.groups else scores.groups[row][0] for row in rows]
    drawn = _patches(drawing, scores, maps) | _pixels(drawing, scores, maps) | _curves(scores, rows)
    label = "weight of r in the loss, lambda"
    for name, panels in _by_lambda(scores).items():
        drawn[name] = (dependence_panels(panels, label), _CAPTIONS[name])
    if overfitting:
        drawn["weights"] = (
            dependence_panels(_by_weights(overfitting), "number of linear weights"),
            _CAPTIONS["weights"],
        )
    return write_figures(drawn, folder / "figures")


_CAPTIONS = {
    "patch": "A held-out patch, that on which the last model's r50 is its median: the target and the models of the "
    "first seed; gnomonic, x and y in degrees.",
    "patch_residual": "Prediction minus target on the same patch, on one scale.",
    "joint_flat": "Pixels of all held-out patches inside the test region, by target and prediction; line: equal.",
    "joint_sphere": "The same for the pixels of the full-sky maps in the test region.",
    "r_flat": "r(ell) on held-out patches, single Fourier modes averaged in bins, with block-jackknife errors; means "
    "over seeds.",
    "r_sphere": "r(ell) of the full-sky maps under the test mask, with block-jackknife errors; means over seeds.",
    "gain": "Gain over the integrated column on every held-out patch (means over seeds): above the line a model wins.",
    "lambda_flat": "r of held-out patches against the weight of the correlations in the loss, means over seeds, with "
    "block-jackknife errors, which all points share: they are of the sky.",
    "lambda_sphere": "The same of the stitched full-sky maps under the test mask.",
    "weights": "r on the sphere where linear weights were fitted and where they are tested, against their number: "
    "channels summed in groups, and the same apart by scale.",
}


def _patches(drawing: Drawing, scores: TargetScores, models: Sequence[str]) -> Drawn:
    chosen = median_patch(scores, models[-1])
    target, unit = drawing.targets[chosen, ..., 0], drawing.sky.target_fields[0].unit
    images = [drawing.patches[name][chosen, ..., 0] for name in models]
    width = scores.held_out.test.patch.extent
    errors = [np.where(scores.held_out.test.window[chosen] > 0, image - target, np.nan) for image in images]
    figures = {
        "patch": patch_row([target, *images], ["target", *models], unit, width_deg=width),
        "patch_residual": patch_row(errors, models, unit, width_deg=width, scale=residual_scale(*errors)),
    }
    return {name: (figure, _CAPTIONS[name]) for name, figure in figures.items()}


def _pixels(drawing: Drawing, scores: TargetScores, models: Sequence[str]) -> Drawn:
    """Joint histograms of four models: both baselines and both networks, where they are there."""
    models = [name for name in models if name.partition("-")[0] not in ("linear_scales", "spectral")][:4]
    inside, region = scores.held_out.test.window > 0, scores.held_out.masks["test"] > 0
    unit = drawing.sky.target_fields[0].unit
    flat = joint_histograms(
        drawing.targets[..., 0][inside], {name: drawing.patches[name][..., 0][inside] for name in models}, unit
    )
    sphere = joint_histograms(
        drawing.sky.targets[:, 0][region], {name: drawing.spheres[name][:, 0][region] for name in models}, unit
    )
    return {"joint_flat": (flat, _CAPTIONS["joint_flat"]), "joint_sphere": (sphere, _CAPTIONS["joint_sphere"])}


def _curves(scores: TargetScores, rows: Sequence[str]) -> Drawn:
    drawn: dict[str, tuple[Figure, str]] = {"r_sphere": (sphere_curves(scores, rows), _CAPTIONS["r_sphere"])}
    if len(next(iter(scores.patches.values())).ell) > 1:
        drawn["r_flat"] = (flat_curves(scores, rows), _CAPTIONS["r_flat"])
    if "integrated" in scores.patches and len(rows) > 1:
        values = {name.partition(",")[0]: scores.patches[name].bands for name in rows}
        drawn["gain"] = (band_scatter(values), _CAPTIONS["gain"])
    return drawn


def _by_lambda(scores: TargetScores) -> dict[str, dict[str, dict[str, Points]]]:
    """The panels of both figures, where two values or more were trained."""
    found = {at: shown_row(scores, name) for name, at in sorted(_LAMBDA.items(), key=itemgetter(1))}
    rows = {at: row for at, row in found.items() if row is not None}
    if len(rows) < 2:
        return {}
    figures: dict[str, dict[str, dict[str, Points]]] = {"lambda_flat": {}, "lambda_sphere": {}}
    for band in next(iter(scores.patches.values())).bands:
        flat = [block_jackknife(scores.patches[row].bands[band], scores.held_out.test.block) for row in rows.values()]
        spheres = [scores.sphere[row]["test"] for row in rows.values()]
        means, errors = [float(mean) for mean, _ in flat], [float(error) for _, error in flat]
        figures["lambda_flat"][band] = {"unet_flat": (list(rows), means, errors)}
        values, errors = [one.bands[band] for one in spheres], [one.sem[band] for one in spheres]
        figures["lambda_sphere"][band] = {"unet_flat": (list(rows), values, errors)}
    return figures


def _by_weights(overfitting: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Points]]:
    panels: dict[str, dict[str, Points]] = {}
    for part in ("train", "test"):
        for kind, scaled in (("", False), (", by scale", True)):
            rows = [row for row in overfitting if (row["scales"] > 1) == scaled]
            for band in rows[0][part] if rows else ():
                points = [row["weights"] for row in rows], [row[part][band] for row in rows], None
                panels.setdefault(band, {})[part + kind] = points
    return panels
