"""What templates do to r: bias of r by template, and the BB power that each leaves.

Conventions: spectra are C_ell in uK_CMB^2, drawn as l(l+1) C_l / 2 pi; bias is the mean of skies less the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sphereml.plotting.style import model_colours, new_figure, styled

_MARKERS = {"explicit": "o", "implicit": "s"}
_COLOURS = {"plain": "#0072b2", "with_uncertainty": "#d55e00", "with_measured_residual": "#009e73"}


@styled
def ratio_biases(name: str, survey: Mapping[str, Any]) -> Figure:
    """One survey of ``forecast.json``: left the bias of r with its stated error, right the power left."""
    figure = new_figure(11.5, 0.45 * len(survey["templates"]) + 2.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    _draw_biases(left, survey["templates"])
    _draw_left(right, survey)
    figure.suptitle(
        f"{name}: fsky {survey['fsky']:.3f}, noise {' and '.join(f'{x:g}' for x in survey['noise'])} uK arcmin"
    )
    return figure


def _draw_biases(axes: Axes, templates: Mapping[str, Any]) -> None:
    for row, methods in enumerate(templates.values()):
        for method, found in methods.items():
            kinds = [kind for kind in _COLOURS if kind in found["r"][0]]
            for shift, kind in zip((-0.2, 0, 0.2), kinds, strict=False):
                one = found["r"][0][kind]
                offset = shift + (0.08 if method == "implicit" else 0)
                filled = None if kind == "plain" else "white"
                axes.errorbar(one["bias"], row + offset, xerr=one["sigma"], fmt=_MARKERS[method], markersize=4.5,
                              color=_COLOURS[kind], markerfacecolor=filled)  # fmt: skip
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(templates)), list(templates))
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_xlabel(
        "bias of r, and its stated error; square: implicit\n"
        "filled: plain; red: with the template's uncertainty; green: with the residual measured"
    )


def _draw_left(axes: Axes, survey: Mapping[str, Any]) -> None:
    lo, hi = (np.array(survey["bands"][key], float) for key in ("lo", "hi"))
    middle = (lo + hi - 1) / 2
    factor = middle * (middle + 1) / (2 * np.pi)
    axes.plot(middle, factor * 0.01 * np.array(survey["tensor"]), "k--", label="tensors, r = 0.01")
    axes.plot(middle, factor * np.array(survey["lensing"]), color="#5f5f5f", linestyle=":", label="lensing")
    colours = model_colours(survey["templates"])
    for name, methods in survey["templates"].items():
        axes.plot(middle, factor * np.abs(methods["explicit"]["left"]), color=colours[name], label=name)
    axes.set_yscale("log")
    axes.set_xlabel(r"multipole $\ell$")
    axes.set_ylabel(r"BB left, $\ell(\ell+1)\,|C_\ell|/2\pi$  [$\mu$K$^2_\mathrm{CMB}$]")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
