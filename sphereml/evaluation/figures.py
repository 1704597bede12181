"""The figures of a comparison, with captions, in ``<folder>/figures``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sphereml.data.store import Sky
from sphereml.data.whole_files import write_atomically
from sphereml.evaluation.compare import Comparison
from sphereml.evaluation.statistics import block_jackknife
from sphereml.plotting.maps import map_triptych, patch_row, sky_map
from sphereml.plotting.scatter import band_scatter
from sphereml.plotting.spectra import correlation_curves
from sphereml.plotting.style import write_png

_CAPTIONS = {
    "r_flat": "Correlation with the true dust on held-out flat patches (single Fourier modes, then averaged), with "
    "block-jackknife standard errors.",
    "r_sphere": "The same on the sphere: pseudo-spectra of the full-sky maps under the test mask, in bins of 10 "
    "multipoles.",
    "scatter": "Each point is one held-out patch: a model's r against the integrated column's.",
    "patch": "One held-out patch: the target and every model.",
}


def draw_figures(
    comparison: Comparison,
    sky: Sky,
    patches: Mapping[str, np.ndarray],
    spheres: Mapping[str, np.ndarray],
    folder: Path,
) -> None:
    """Draw r(ell), scatter, an example patch and full-sky maps; ``patches`` and ``spheres`` are the predictions."""
    figures = folder / "figures"
    drawn = {
        "r_sphere": (_sphere_curves(comparison), _CAPTIONS["r_sphere"]),
        "patch": (_patch_figure(comparison, sky, patches), _CAPTIONS["patch"]),
    }
    if len(_flat_ell(comparison)) > 1:
        drawn = {"r_flat": (_flat_curves(comparison), _CAPTIONS["r_flat"])} | drawn
    if len(patches) > 1:
        bands = {name: scores.bands for name, scores in comparison.patches.items()}
        drawn["scatter"] = (band_scatter(bands), _CAPTIONS["scatter"])
    for name, values in spheres.items():
        target = sky.target.astype(np.float64)
        figure = map_triptych(target, values, values - target, sky.target_unit)
        drawn[f"sky_{name}"] = (figure, f"Full sky: target, prediction and residual of {name}.")
    drawn["test_region"] = (_region_figure(comparison), "The held-out region (1 = kept).")
    _write(drawn, figures)


def _write(drawn: Mapping[str, tuple[Figure, str]], folder: Path) -> None:
    captions = {name: caption for name, (_, caption) in drawn.items()}
    for name, (figure, _) in drawn.items():
        write_png(figure, folder / f"{name}.png", dpi=110)
    write_atomically(folder / "captions.json", json.dumps(captions, indent=1).encode())


def _flat_ell(comparison: Comparison) -> np.ndarray:
    """Multipoles of the flat bins the map resolves; on a coarse map one bin may be left, which makes no curve."""
    return next(iter(comparison.patches.values())).ell


def _flat_curves(comparison: Comparison) -> Figure:
    curves = {
        name: block_jackknife(scores.binned, comparison.test.block) for name, scores in comparison.patches.items()
    }
    bands = {name: band for name, band in comparison.bands.items() if name != "r_low"}
    return correlation_curves(_flat_ell(comparison), curves, bands, "held-out flat patches")


def _sphere_curves(comparison: Comparison, width: int = 10) -> Figure:
    """r_ell averaged over bins of ``width`` multipoles from ell = 2 up."""
    curves = {}
    for name, regions in comparison.sphere.items():
        r = regions["test"].r[2:]
        whole = len(r) // width * width
        curves[name] = (r[:whole].reshape(-1, width).mean(axis=1), None)
    ell = 2 + width * np.arange(len(next(iter(curves.values()))[0])) + (width - 1) / 2
    return correlation_curves(ell, curves, comparison.bands, "sphere, test region")


def _patch_figure(comparison: Comparison, sky: Sky, patches: Mapping[str, np.ndarray]) -> Figure:
    """The patch with the median correlation of the last model, so that the example is neither best nor worst."""
    last = list(comparison.patches.values())[-1].bands["r50"]
    chosen = int(np.argsort(last)[len(last) // 2])
    images = [comparison.test.target[chosen], *(values[chosen] for values in patches.values())]
    return patch_row(images, ["target", *patches], sky.target_unit, width_deg=comparison.test.patch.extent)


def _region_figure(comparison: Comparison) -> Figure:
    return sky_map(comparison.masks["test"], "held-out region", "")
