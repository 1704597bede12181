"""Line profiles and value distributions of a spectral cube.

Conventions: velocities are LSR km/s; a profile is the mean over the sky in the unit of the cube.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from sphereml.plotting.style import BAND_SHADES, OTHER_COLOURS, new_figure, styled, unit_label


@styled
def mean_profile(
    velocity: np.ndarray,
    mean: np.ndarray,
    used: tuple[float, float],
    unit: str,
    inside: tuple[np.ndarray, np.ndarray] | None = None,
) -> Figure:
    """Mean spectrum ``(nchan,)`` with the range that is used shaded, and that within a mask as a second curve.

    Args:
        inside: velocities and means within the mask, or None.
    """
    figure = new_figure(7.2, 4.0)
    axes = figure.subplots()
    axes.axvspan(*used, color=BAND_SHADES[1], zorder=0, linewidth=0)
    axes.plot(velocity, mean, color="black", marker="." if len(velocity) < 20 else "", label="whole sky")
    if inside is not None:
        axes.plot(*inside, color=OTHER_COLOURS[0], label="within the mask")
        axes.legend(loc="best")
    axes.set_xlabel("LSR velocity [km/s]")
    axes.set_ylabel(f"mean [{unit_label(unit)}]")
    axes.set_title(f"{used[0]:.1f} to {used[1]:.1f} km/s are used")
    return figure


@styled
def value_histogram(edges: np.ndarray, counts: Mapping[str, np.ndarray], unit: str) -> Figure:
    """Counts ``(nbin,)`` between ``edges`` ``(nbin + 1,)``, logarithmic, one step curve a name."""
    figure = new_figure(7.2, 3.6)
    axes = figure.subplots()
    for (name, values), colour in zip(counts.items(), OTHER_COLOURS, strict=False):
        axes.stairs(values, edges, color=colour, label=name)
    axes.set_yscale("log")
    axes.set_xlabel(f"value [{unit_label(unit)}]")
    axes.set_ylabel("pixels")
    axes.legend(loc="best")
    return figure
