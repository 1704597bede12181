"""How r depends on one number: a setting of the loss, or how many weights there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from sphereml.plotting.style import legend_below, model_colours, new_figure, styled

# Values of the number, mean r, and its standard error or None.
Points = tuple[Sequence[float], Sequence[float], Sequence[float] | None]


@styled
def dependence_panels(panels: Mapping[str, Mapping[str, Points]], label: str) -> Figure:
    """One panel a band, one curve a series, over an axis that is linear below 1 and logarithmic above.

    Args:
        panels: band -> series -> points.
        label: of the common axis.
    """
    figure = new_figure(4.3 * len(panels), 4.4)
    for axes, (band, series) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
        for name, colour in model_colours(series).items():
            at, mean, error = series[name]
            axes.errorbar(at, mean, error, color=colour, marker="o", markersize=4, capsize=2, label=name)
        ticks = sorted({value for at, *_ in series.values() for value in at})
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xticks(_apart(ticks), [f"{value:g}" for value in _apart(ticks)])
        axes.minorticks_off()
        axes.set(title=band, xlabel=label, ylabel=f"mean r of {band}")
        legend_below(axes, most=2, drop=0.17)
    return figure


def _apart(values: Sequence[float]) -> list[float]:
    """The values that can be labelled side by side: each 1.5 times the one before or more."""
    kept: list[float] = []
    for value in values:
        if not kept or value >= max(1.5 * kept[-1], kept[-1] + 1):
            kept.append(value)
    return kept
