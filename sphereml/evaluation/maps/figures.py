"""The figures of a comparison, with captions, in ``<folder>/figures``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sphereml.data.whole_files import sealed_json, write_atomically
from sphereml.evaluation.maps.comparison import Drawing
from sphereml.evaluation.maps.scores import BASELINES, TargetScores
from sphereml.evaluation.statistics import block_jackknife
from sphereml.plotting.colours import intensity_scale, residual_scale
from sphereml.plotting.maps import patch_row, sky_map, weight_map
from sphereml.plotting.scatter import band_scatter, latitude_points
from sphereml.plotting.spectra import correlation_curves, loss_curves, power_curves, ratio_curves
from sphereml.plotting.style import inline_svg, write_pair

_CAPTIONS = {
    "r_flat": "Correlation with the true dust on held-out flat patches (single Fourier modes, then averaged), with "
    "block-jackknife standard errors.",
    "r_sphere": "The same on the sphere: pseudo-spectra of the full-sky maps under the test mask, in bins of 10 "
    "multipoles, with block-jackknife standard errors.",
    "power": "Pseudo-spectra on the test region: the target (dashed) and every prediction.",
    "residual": "Pseudo-spectra of prediction minus target on the test region, beside the target's (dashed).",
    "transfer": "Transfer function C(target x prediction) / C(target) on the test region: 1 where the prediction holds "
    "all of the target's power in its own phases; with block-jackknife standard errors.",
    "training": "Loss of every epoch on the training (thin) and validation batches.",
    "latitude": "Mean r50 of the flat test patches in thirds of the Galactic latitude of their centres.",
    "patch": "One held-out patch, gnomonic, x and y in degrees: the target and every model.",
}
# Figures whose curves a page shows or hides by model.
SWITCHED = ("r_flat", "r_sphere", "power", "residual", "transfer", "training")
Drawn = dict[str, tuple[Figure, str]]


def draw_figures(drawing: Drawing, content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw r(ell), spectra, scatter, training, an example patch and full-sky maps; returns the pictures."""
    first, scores = next(iter(drawing.scores.items()))
    which = f"{first}: " if len(drawing.scores) > 1 else ""
    captioned = {
        name: (figure, which * (name not in ("training", "patch")) + _CAPTIONS[name])
        for name, figure in _curves(scores, content, drawing).items()
    }
    if len(scores.shown) > 1 and (against := next((b for b in BASELINES if b in scores.patches), None)):
        for band in scores.patches[against].bands:
            values = {name: {band: scores.patches[name].bands[band]} for name in scores.shown}
            caption = f"{which}Each point is one held-out patch: a model's {band} against that of {against}."
            captioned[f"scatter_{band}"] = (band_scatter(values, against), caption)
    return write_figures(captioned | _maps(drawing, scores), folder / "figures")


def _curves(scores: TargetScores, content: Mapping[str, Any], drawing: Drawing) -> dict[str, Figure]:
    power, unit = content["power"], drawing.sky.target_fields[0].unit
    first = next(iter(power.values()))
    ell, target = np.array(first["ell"]), {"target": (np.array(first["target"]), None)}
    drawn = {"r_flat": flat_curves(scores, scores.shown)} if len(_flat_ell(scores)) > 1 else {}
    drawn["r_sphere"] = sphere_curves(scores, scores.shown)
    for name, key in (("power", "prediction"), ("residual", "residual")) if len(ell) > 1 else ():
        curves = target | {model: (np.array(one[key]), None) for model, one in power.items()}
        drawn[name] = power_curves(ell, curves, unit, reference="target", title=f"{key}, test region")
    if len(ell) > 1:
        ratios = {name: (np.array(one["transfer"]), np.array(one["transfer_sem"])) for name, one in power.items()}
        drawn["transfer"] = ratio_curves(ell, ratios, r"transfer function $C^{tp}_\ell / C^{tt}_\ell$")
    trained = {name: content["training"][name]["curves"] for name in scores.firsts}
    curves = {name: one for name, one in trained.items() if one["train_loss"]["epoch"]}
    if curves:
        drawn["training"] = loss_curves(curves)
    drawn["latitude"] = latitude_points(content["latitude"], "r50")
    drawn["patch"] = _patch_figure(drawing, scores)
    return drawn


def _maps(drawing: Drawing, scores: TargetScores) -> Drawn:
    """The target once, then prediction and residual of every network on common scales, and the region.

    Only the first of several columns is shown; of Q and U that is Q.
    """
    sky, first = drawing.sky, drawing.sky.target_fields[0]
    target, unit, of = sky.targets[:, 0].astype(np.float64), first.unit, f", {first.column_names[0]}" * bool(first.spin)
    region = scores.held_out.masks["test"] > 0
    values = {name: drawing.spheres[name][:, 0].astype(np.float64) for name in _networks(scores)}
    common = residual_scale(target, region=region) if first.spin else intensity_scale(target)
    residual = residual_scale(*(one - target for one in values.values()), region=region)
    figure = sky_map(target, f"target{of}", unit, common, region)
    drawn = {"sky_target": (figure, f"The target{of}; outlined: the test region.")}
    for name, one in values.items():
        figure = sky_map(one, f"{name}: prediction{of}", unit, common, region)
        drawn[f"sky_{name}"] = (figure, f"Prediction of {name}{of} on the target's scale; outlined: the test region.")
        figure = sky_map(one - target, f"{name}: prediction − target{of}", unit, residual, region)
        caption = f"Residual of {name}{of}; the scale is that of the test region and the same for every model."
        drawn[f"residual_{name}"] = (figure, caption)
    mask = weight_map(scores.held_out.masks["test"], "test region")
    drawn["test_region"] = (mask, "Weights of the test region, Galactic coordinates.")
    return drawn


def _networks(scores: TargetScores) -> list[str]:
    """Models whose maps are shown: all networks, or the first model where there is none."""
    models = scores.firsts
    return [name for name in models if scores.facts[name]["domain"] != "none"] or models[:1]


def write_figures(drawn: Drawn, folder: Path) -> list[Path]:
    """The pictures, their captions, and curves to switch, in place of those of an earlier comparison."""
    captions = {name: caption for name, (_, caption) in drawn.items()}
    for old in (*folder.glob("*.png"), *folder.glob("dark/*.png")):
        if old.stem not in drawn:
            old.unlink()
    curves = {name: inline_svg(drawn[name][0]) for name in SWITCHED if name in drawn}
    paths = [write_pair(figure, folder / f"{name}.png") for name, (figure, _) in drawn.items()]
    write_atomically(folder / "captions.json", sealed_json(captions))
    write_atomically(folder / "curves.json", sealed_json(curves))
    return paths


def _flat_ell(scores: TargetScores) -> np.ndarray:
    """Multipoles of the flat bins the map resolves; on a coarse map one bin may be left, which makes no curve."""
    return next(iter(scores.patches.values())).ell


def flat_curves(scores: TargetScores, models: Sequence[str]) -> Figure:
    """Mean r(ell) of the held-out patches."""
    block = scores.held_out.test.block
    curves = {name: block_jackknife(scores.patches[name].binned, block) for name in models}
    bands = {name: band for name, band in scores.held_out.bands.items() if name != "r_low"}
    return correlation_curves(_flat_ell(scores), curves, bands, "held-out flat patches")


def sphere_curves(scores: TargetScores, models: Sequence[str], width: int = 10) -> Figure:
    """r_ell averaged over bins of ``width`` multipoles from ell = 2 up."""
    binned = {name: scores.sphere[name]["test"].binned(width) for name in models}
    curves = {name: (mean, sem) for name, (_, mean, sem) in binned.items()}
    ell = next(iter(binned.values()))[0]
    return correlation_curves(ell, curves, dict(scores.held_out.bands), "sphere, test region")


def _patch_figure(drawing: Drawing, scores: TargetScores) -> Figure:
    """The patch with the median correlation of the last model, so that the example is neither best nor worst.

    Of models that differ in their seed alone the first is shown.
    """
    models = scores.firsts
    chosen = median_patch(scores, models[-1])
    images = [drawing.targets[chosen, ..., 0], *(drawing.patches[name][chosen, ..., 0] for name in models)]
    width = scores.held_out.test.patch.extent
    return patch_row(images, ["target", *models], drawing.sky.target_fields[0].unit, width_deg=width)


def median_patch(scores: TargetScores, model: str) -> int:
    """The patch on which the model's r50 is its median."""
    values = scores.patches[model].bands["r50"]
    return int(np.argsort(values)[len(values) // 2])
