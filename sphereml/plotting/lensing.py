"""Figures of CMB lensing reconstruction: noise curves, ratios, null tests, likelihoods, calibration.

Conventions: a :class:`Curve` has a value a band at its mean multipole, drawn as given: its colour, line and label are
the caller's.  Measured ones carry standard errors as bars and are joined, theory is thin and dashed.  kappa's spectra
are C_L without factors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sphereml.plotting.style import OTHER_COLOURS, label_multipoles, new_figure, styled

# Networks take these in their order; the others look the same in every figure.
NETWORK_COLOURS = ("#0072b2", *OTHER_COLOURS)
QUADRATIC_COLOURS = {"qe_naive": "#9a9a9a", "qe_eb": "#e69f00", "qe_mv": "#d55e00", "iterated": "#8c564b"}
TRUTH_COLOUR, THEORY_COLOUR = "#000000", "#444444"
_THEORY_LINES = (":", "--", "-.")
_HIGHEST_RATIO = 4.0


@dataclass(frozen=True)
class Curve:
    """Values ``(band,)`` (None: not drawn) with errors ``(band,)`` or none."""

    label: str
    colour: str
    value: Sequence[float | None]
    error: Sequence[float | None] | None = None
    line: str = "-"


Curves = Sequence[Curve]


@dataclass(frozen=True)
class Goal:
    """A range of multipoles and of values, shaded and named."""

    span: tuple[float, float]
    values: tuple[float, float]
    name: str


@styled
def noise_curves(ell: Sequence[float], noise: Curves, theory: Mapping[str, Sequence[float]], signal: str) -> Figure:
    """N_L of every estimator, logarithmic, with theory curves; the one named ``signal`` is drawn as a black line."""
    figure = new_figure(7.6, 5.0)
    axes = figure.subplots()
    others = [name for name in theory if name != signal]
    axes.plot(ell, _floats(theory[signal]), color=TRUTH_COLOUR, label=signal)
    for name, line in zip(others, _THEORY_LINES, strict=False):
        axes.plot(ell, _floats(theory[name]), color=THEORY_COLOUR, linestyle=line, linewidth=1.1, label=name)
    _draw(axes, ell, noise)
    _logarithmic(axes, [curve.value for curve in noise] + list(theory.values()))
    _finish(axes, ell, r"$C_L^{\kappa\kappa}$, $N_L^{\kappa\kappa}$", legend=False)
    _legend_above(figure, axes)
    return figure


@styled
def ratio_curves(ell: Sequence[float], ratios: Curves, ylabel: str, goals: Sequence[Goal] = ()) -> Figure:
    """Ratios to something, with a line at 1; a triangle at the top stands for a value above the frame."""
    figure = new_figure(7.6, 4.2)
    axes = figure.subplots()
    axes.axhline(1, color="#888888", linewidth=0.9)
    for goal in goals:
        axes.fill_between(goal.span, *goal.values, color="#009e73", alpha=0.13, linewidth=0, label=goal.name)
    _draw(axes, ell, ratios)
    _legend_above(figure, axes)
    top = min(1.08 * max(1.1, *(float(np.nanmax(_floats(curve.value))) for curve in ratios)), _HIGHEST_RATIO)
    axes.set_ylim(0, top)
    for curve in ratios:
        above = np.flatnonzero(_floats(curve.value) > top)
        axes.plot(np.asarray(ell, float)[above], np.full(len(above), 0.98 * top), linestyle="none", marker="^",
                  markersize=7, color=curve.colour, clip_on=False)  # fmt: skip
    _finish(axes, ell, ylabel, legend=False)
    return figure


@styled
def spectra_and_residuals(parts: Mapping[str, tuple[Sequence[float], Curves, Curves]]) -> Figure:
    """A column a field: above its spectra, below residual power over the truth's.

    Args:
        parts: by field (ell, spectra, residual ratios).
    """
    figure = new_figure(5.4 * len(parts) + 1.0, 6.2)
    grid = figure.subplots(2, len(parts), squeeze=False, sharex="col", height_ratios=(3, 2))
    for (field, (ell, spectra, residuals)), (above, below) in zip(parts.items(), grid.T, strict=True):
        _draw(above, ell, spectra)
        _logarithmic(above, [curve.value for curve in spectra])
        _finish(above, ell, r"$C_L$", legend=False)
        above.set_xlabel("")
        above.set_title(field)
        below.axhline(1, color="#888888", linewidth=0.9)
        _draw(below, ell, residuals)
        below.set_ylim(0, 2)
        _finish(below, ell, "residual / truth", legend=False)
    _legend_above(figure, grid[0][0])
    return figure


@styled
def power_points(ell: Sequence[float], points: Curves, ylabel: str, title: str = "") -> Figure:
    """Positive values of every band, logarithmic."""
    figure = new_figure(7.6, 4.4)
    axes = figure.subplots()
    _draw(axes, ell, points)
    _logarithmic(axes, [curve.value for curve in points])
    _finish(axes, ell, ylabel)
    axes.set_title(title)
    return figure


@styled
def null_panels(ell: Sequence[float], skies: Mapping[str, Curves], ylabel: str) -> Figure:
    """A panel a sky: values that should be zero within their bars, each estimator a little beside the last."""
    figure = new_figure(5.4 * len(skies) + 0.6, 4.2)
    panels = figure.subplots(1, len(skies), squeeze=False, sharey=True)[0]
    for axes, (sky, points) in zip(panels, skies.items(), strict=True):
        axes.axhline(0, color="#888888", linewidth=0.9)
        _draw(axes, ell, points, joined=False)
        _finish(axes, ell, ylabel if axes is panels[0] else "", legend=False)
        axes.set_title(sky)
    _legend_above(figure, panels[0])
    return figure


@styled
def setting_panels(panels: Sequence[tuple[Sequence[float], Curves]], ylabel: str) -> Figure:
    """Ratios of several settings in one frame, each over its own bands."""
    figure = new_figure(7.6, 4.4)
    axes = figure.subplots()
    axes.axhline(1, color="#888888", linewidth=0.9)
    for ell, curves in panels:
        _draw(axes, ell, curves)
    axes.set_ylim(0, None)
    _finish(axes, [position for ell, _ in panels for position in ell], ylabel)
    return figure


@dataclass(frozen=True)
class LikelihoodCurve:
    """Likelihoods over a grid of one parameter, peak 1: debiased as the paper does, and corrected."""

    label: str
    colour: str
    fixed: Sequence[float]
    corrected: Sequence[float]


@styled
def likelihood_panels(grid: Sequence[float], skies: Mapping[float, Sequence[LikelihoodCurve]], xlabel: str) -> Figure:
    """A panel a true value: corrected likelihoods as lines, uncorrected ones dashed, the truth as a vertical line."""
    figure = new_figure(4.4 * len(skies) + 0.6, 4.2)
    panels = figure.subplots(1, len(skies), squeeze=False, sharey=True)[0]
    for axes, (true, curves) in zip(panels, skies.items(), strict=True):
        axes.axvline(true, color="#888888", linewidth=0.9)
        for curve in curves:
            axes.plot(grid, curve.corrected, color=curve.colour, label=curve.label)
            axes.plot(grid, curve.fixed, color=curve.colour, linestyle="--", linewidth=1.1)
        axes.set(xlabel=xlabel, ylim=(0, 1.05), title=f"skies of {true:g}")
        axes.xaxis.set_major_locator(MaxNLocator(5))
    panels[0].set_ylabel("likelihood / peak")
    _legend_above(figure, panels[0])
    return figure


@styled
def calibration_panels(rings: Mapping[str, Curves], positions: Sequence[float], ell: Sequence[float]) -> Figure:
    """Deviation of the pull: by distance to the edge (``rings["pixels"]``) and by band (``rings["bands"]``)."""
    figure = new_figure(10.6, 4.0)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key, x in ((left, "pixels", positions), (right, "bands", ell)):
        axes.axhline(1, color="#888888", linewidth=0.9)
        axes.axhspan(0.95, 1.05, color="#eeeeee", zorder=0)
        _draw(axes, x, rings[key])
    left.set(xlabel="distance to the edge [pixels]", ylabel="(prediction - truth) / sigma, deviation", ylim=(0.7, 1.3))
    left.legend(loc="best")
    label_multipoles(right, _around(ell))
    right.set_xlabel(r"multipole $L$")
    return figure


@styled
def map_rows(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], degrees: float) -> Figure:
    """Maps ``(size, size)``, a row a patch; all of a row but its last (a sigma) share one scale about zero."""
    figure = new_figure(2.9 * len(titles) + 0.8, 2.9 * len(rows) + 0.4)
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    extent = (0.0, degrees, 0.0, degrees)
    for row, panels in zip(rows, grid, strict=True):
        limit = float(np.quantile(np.abs(row[0]), 0.995))
        for column, (image, axes) in enumerate(zip(row, panels, strict=True)):
            own = column == len(row) - 1
            scale = {"vmin": 0, "cmap": "viridis"} if own else {"vmin": -limit, "vmax": limit, "cmap": "RdBu_r"}
            shown = axes.imshow(image, origin="lower", extent=extent, **scale)
            if column >= len(row) - 2:
                figure.colorbar(shown, ax=axes, shrink=0.8)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    for axes in grid.flat:
        axes.set_xticks([0, degrees])
        axes.set_yticks([])
    grid[-1][0].set_xlabel("degrees")
    return figure


def _draw(axes: Axes, ell: Sequence[float], curves: Curves, joined: bool = True) -> None:
    for index, curve in enumerate(curves):
        # Side by side, so that no bar hides another.
        beside = np.asarray(ell, float) * (1 + (0.0 if joined else 0.02) * (index - (len(curves) - 1) / 2))
        error = None if curve.error is None else _floats(curve.error)
        axes.errorbar(beside, _floats(curve.value), error, color=curve.colour,
                      linestyle=curve.line if joined else "none", marker="o", markersize=3.5, elinewidth=1.0,
                      label=curve.label)  # fmt: skip


def _floats(values: Sequence[float] | Sequence[float | None]) -> np.ndarray:
    """None (what JSON could not hold) as NaN, which is not drawn."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _logarithmic(axes: Axes, curves: Sequence[Sequence[float | None]] | Sequence[Sequence[float]]) -> None:
    """Logarithmic, over what is positive: a noise may come out negative."""
    values = np.concatenate([_floats(curve) for curve in curves])
    values = values[np.isfinite(values) & (values > 0)]
    axes.set_yscale("log", nonpositive="mask")
    if len(values):
        axes.set_ylim(values.min() / 1.6, values.max() * 1.6)


def _finish(axes: Axes, ell: Sequence[float], ylabel: str, legend: bool = True) -> None:
    label_multipoles(axes, _around(ell))
    axes.set_xlabel(r"multipole $L$")
    axes.set_ylabel(ylabel)
    if legend:
        axes.legend(loc="best", fontsize=8.5)


def _legend_above(figure: Figure, axes: Axes) -> None:
    """The legend of these axes over the whole figure, where no curve runs."""
    handles, labels = axes.get_legend_handles_labels()
    inches = 0.7 + 0.075 * max(len(label) for label in labels)
    columns = max(1, int(figure.get_figwidth() / inches))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=8.5)


def _around(ell: Sequence[float]) -> list[float]:
    """The axis' ends, with room for the outermost bars."""
    return [0.9 * min(ell), 1.1 * max(ell)]
