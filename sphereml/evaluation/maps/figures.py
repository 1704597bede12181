"""The figures of a comparison, with captions, in ``<folder>/figures``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sphereml.data.whole_files import sealed_json, write_atomically
from sphereml.evaluation.maps.comparison import Drawing
from sphereml.evaluation.maps.scores import BASELINES, TargetScores
from sphereml.evaluation.statistics import block_jackknife
from sphereml.plotting.maps import map_triptych, patch_row, sky_map
from sphereml.plotting.scatter import band_scatter
from sphereml.plotting.spectra import correlation_curves
from sphereml.plotting.style import write_png

_CAPTIONS = {
    "r_flat": "Correlation with the true dust on held-out flat patches (single Fourier modes, then averaged), with "
    "block-jackknife standard errors.",
    "r_sphere": "The same on the sphere: pseudo-spectra of the full-sky maps under the test mask, in bins of 10 "
    "multipoles, with block-jackknife standard errors.",
    "patch": "One held-out patch: the target and every model.",
}


def draw_figures(drawing: Drawing, folder: Path) -> list[Path]:
    """Draw r(ell), scatter, an example patch and full-sky maps of the first target; returns the pictures."""
    scores, sky = next(iter(drawing.scores.values())), drawing.sky
    drawn = {
        "r_sphere": (_sphere_curves(scores), _CAPTIONS["r_sphere"]),
        "patch": (_patch_figure(drawing, scores), _CAPTIONS["patch"]),
    }
    if len(_flat_ell(scores)) > 1:
        drawn = {"r_flat": (_flat_curves(scores), _CAPTIONS["r_flat"])} | drawn
    if len(scores.shown) > 1 and (against := next((b for b in BASELINES if b in scores.patches), None)):
        bands = {name: scores.patches[name].bands for name in scores.shown}
        caption = f"Each point is one held-out patch: a model's r against that of {against}."
        drawn["scatter"] = (band_scatter(bands, against), caption)
    target, unit = sky.targets[:, 0].astype(np.float64), sky.target_fields[0].unit
    for name in _networks(scores):
        values = drawing.spheres[name][:, 0].astype(np.float64)
        figure = map_triptych(target, values, values - target, unit)
        drawn[f"sky_{name}"] = (figure, f"Full sky: target, prediction and residual of {name}.")
    region = sky_map(scores.held_out.masks["test"], "held-out region", "")
    drawn["test_region"] = (region, "The held-out region (1 = kept).")
    return _write(drawn, folder / "figures")


def _networks(scores: TargetScores) -> list[str]:
    """Models whose maps are shown: all networks, or the first model where there is none."""
    models = [name for name in scores.facts if name not in scores.groups]
    return [name for name in models if scores.facts[name]["domain"] != "none"] or models[:1]


def _write(drawn: Mapping[str, tuple[Figure, str]], folder: Path) -> list[Path]:
    """The pictures and their captions, in place of those of an earlier comparison."""
    captions = {name: caption for name, (_, caption) in drawn.items()}
    for old in folder.glob("*.png"):
        if old.stem not in drawn:
            old.unlink()
    paths = [write_png(figure, folder / f"{name}.png", dpi=110) for name, (figure, _) in drawn.items()]
    write_atomically(folder / "captions.json", sealed_json(captions))
    return paths


def _flat_ell(scores: TargetScores) -> np.ndarray:
    """Multipoles of the flat bins the map resolves; on a coarse map one bin may be left, which makes no curve."""
    return next(iter(scores.patches.values())).ell


def _flat_curves(scores: TargetScores) -> Figure:
    block = scores.held_out.test.block
    curves = {name: block_jackknife(scores.patches[name].binned, block) for name in scores.shown}
    bands = {name: band for name, band in scores.held_out.bands.items() if name != "r_low"}
    return correlation_curves(_flat_ell(scores), curves, bands, "held-out flat patches")


def _sphere_curves(scores: TargetScores, width: int = 10) -> Figure:
    """r_ell averaged over bins of ``width`` multipoles from ell = 2 up."""
    binned = {name: scores.sphere[name]["test"].binned(width) for name in scores.shown}
    curves = {name: (mean, sem) for name, (_, mean, sem) in binned.items()}
    ell = next(iter(binned.values()))[0]
    return correlation_curves(ell, curves, dict(scores.held_out.bands), "sphere, test region")


def _patch_figure(drawing: Drawing, scores: TargetScores) -> Figure:
    """The patch with the median correlation of the last model, so that the example is neither best nor worst."""
    last = scores.patches[list(drawing.patches)[-1]].bands["r50"]
    chosen = int(np.argsort(last)[len(last) // 2])
    images = [drawing.targets[chosen, ..., 0], *(values[chosen, ..., 0] for values in drawing.patches.values())]
    width = scores.held_out.test.patch.extent
    return patch_row(images, ["target", *drawing.patches], drawing.sky.target_fields[0].unit, width_deg=width)
