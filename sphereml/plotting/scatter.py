"""Realization by realization, or pixel by pixel: models against the integrated model, and against the target.

A point of the first is one test patch; above the 1:1 line the model wins.  Win counts are strict: ties are not wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from sphereml.plotting.style import legend_below, model_colours, new_figure, styled, unit_label

Scores = Mapping[str, Mapping[str, np.ndarray]]


@styled
def band_scatter(scores: Scores, baseline: str = "integrated") -> Figure:
    """One panel a band: r of every model against the baseline's r, patch by patch.

    Args:
        scores: model -> band name -> ``(n,)`` correlations; holds the baseline too.
    """
    bands = list(scores[baseline])
    colours = model_colours(scores)
    figure = new_figure(4.3 * len(bands), 5.4)
    for axes, band in zip(np.atleast_1d(figure.subplots(1, len(bands))), bands, strict=True):
        reference = scores[baseline][band]
        others = {name: values[band] for name, values in scores.items() if name != baseline and band in values}
        for name, values in others.items():
            wins = int(np.count_nonzero(values > reference))
            label = f"{name}  {wins}/{len(values)}"
            axes.scatter(reference, values, s=11, alpha=0.55, linewidth=0, color=colours[name], label=label)
        _finish_panel(axes, band, baseline, np.concatenate([reference, *others.values()]))
    return figure


def _finish_panel(axes: Axes, band: str, baseline: str, values: np.ndarray) -> None:
    # A few lost patches would squeeze the cloud: the axes hold 99 % of the points.
    low, high = np.nanpercentile(values, 0.5), np.nanmax(values)
    margin = 0.04 * max(high - low, 1e-3)
    limits = (float(low - margin), float(min(high + margin, 1.0) if high < 1 else high + margin))
    axes.plot(limits, limits, color="black", linewidth=0.9)
    axes.set(xlim=limits, ylim=limits, aspect="equal", title=band)
    axes.set_xlabel(f"r of {baseline}")
    axes.set_ylabel("r of the model")
    look: dict[str, Any] = {"title": "patches won", "alignment": "left", "handletextpad": 0.2, "markerscale": 1.6}
    legend_below(axes, most=2, drop=0.15, **look)


@styled
def joint_histograms(target: np.ndarray, predictions: Mapping[str, np.ndarray], unit: str) -> Figure:
    """Number of pixels by target and prediction, a panel a model, on common axes that hold 99 % of the target.

    Args:
        target: ``(n,)``; predictions: model -> ``(n,)``, both in ``unit``.
    """
    columns = min(len(predictions), 4)
    figure = new_figure(2.75 * columns + 0.9, 3.1)
    low, high = (float(one) for one in np.quantile(target, (0.005, 0.995)))
    panels = figure.subplots(1, columns, squeeze=False, sharey=True)[0]
    drawn = None
    for axes, (name, values) in zip(panels, predictions.items(), strict=True):
        where: dict[str, Any] = {"bins": 80, "range": [[low, high]] * 2, "norm": LogNorm(), "cmap": "viridis"}
        drawn = axes.hist2d(target, values, **where)[3]
        axes.axline((low, low), slope=1, color="black", linewidth=0.9)
        axes.set(title=name, aspect="equal", xlabel=f"target [{unit_label(unit)}]")
    panels[0].set_ylabel(f"prediction [{unit_label(unit)}]")
    if drawn is not None:
        figure.colorbar(drawn, ax=list(panels), shrink=0.8, pad=0.02).set_label("pixels")
    return figure


@styled
def latitude_points(latitude: Mapping[str, Any], band: str) -> Figure:
    """Mean r of a band in bins of Galactic latitude, a point a model; ``latitude`` as in ``comparison.json``."""
    figure = new_figure(5.8, 4.4)
    axes = figure.subplots()
    edges, models = np.asarray(latitude["edges"]), latitude["models"]
    middles, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges).min()
    for index, (name, colour) in enumerate(model_colours(models).items()):
        values = [(one["mean"] or np.nan, one["sem"] or 0.0) for one in models[name].get(band, ())]
        if values:
            mean, sem = np.array(values).T
            shift = width * 0.5 * ((index + 0.5) / len(models) - 0.5)
            axes.errorbar(middles + shift, mean, sem, color=colour, marker="o", markersize=4, linestyle="", label=name)
    for edge in edges:
        axes.axvline(edge, color="#808080", linewidth=0.5, linestyle=":")
    axes.set(xlabel="Galactic latitude |b| of the patch's centre [deg]", ylabel=f"mean {band}")
    legend_below(axes)
    return figure
