"""Figures of what jets recover: by multipole, and on the sky."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from sphereml.plotting.style import new_figure, styled


@styled
def transfer_curves(curves: Mapping[str, tuple[int, np.ndarray, np.ndarray]]) -> Figure:
    """Transfer and correlation against ell over Nside; ``curves`` by name: Nside, transfer and r, each by ell."""
    figure = new_figure(8.0, 3.4)
    axes = figure.subplots(1, 2)
    for name, (nside, *values) in curves.items():
        for axis, value in zip(axes, values, strict=True):
            axis.plot(np.arange(2, len(value)) / nside, value[2:], label=name, lw=1)
    for axis, label, low in zip(axes, ("transfer of E", "correlation of E"), (0.4, 0.94), strict=True):
        axis.set(xlabel="ell / Nside", ylabel=label, xlim=(0, 2), ylim=(low, 1.01))
    axes[0].legend(fontsize=8)
    return figure


@styled
def places_on_the_sky(images: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Square images ``(n, n)`` in units of a standard deviation: places in rows, what they show in columns."""
    titles = list(next(iter(images.values())))
    figure = new_figure(2.6 * len(titles), 2.7 * len(images))
    axes = figure.subplots(len(images), len(titles), squeeze=False)
    for row, (place, shown) in zip(axes, images.items(), strict=True):
        for axis, title in zip(row, titles, strict=True):
            axis.imshow(shown[title], origin="lower", cmap="RdBu_r", vmin=-3, vmax=3, interpolation="nearest")
            axis.set(xticks=[], yticks=[], title=title)
            axis.grid(False)
        row[0].set_ylabel(place)
    return figure
