"""Pictures of the sky: full-sky Mollweide maps and rows of flat patches.

Conventions: maps are full-sky NEST ``(npix,)``, Galactic (see :mod:`~sphereml.plotting.mollweide`).  NaN and UNSEEN are
drawn grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from sphereml.plotting.colours import ColourScale, intensity_scale, residual_scale
from sphereml.plotting.mollweide import draw_classes, draw_mollweide
from sphereml.plotting.style import new_figure, styled, unit_label

_PATCHES_ABREAST = 4


class PlottableMap(Protocol):
    """Maps of one sky with names and units, as :class:`sphereml.SkyMap`."""

    @property
    def fields(self) -> tuple[Any, ...]: ...

    @property
    def values(self) -> np.ndarray: ...

    @property
    def column_names(self) -> tuple[str, ...]: ...

    def nested(self) -> PlottableMap: ...


@styled
def sky_map(
    values: np.ndarray,
    title: str,
    unit: str,
    scale: ColourScale | None = None,
    region: np.ndarray | None = None,
) -> Figure:
    """One full-sky map ``(npix,)`` NEST with its colour bar; ``region`` ``(npix,)`` is outlined where it is true."""
    figure = new_figure(5.8, 3.8)
    draw_mollweide(figure.subplots(), values, scale or intensity_scale(values), title, unit, region)
    return figure


@styled
def class_map(classes: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """A map ``(npix,)`` NEST of whole numbers from 0, each with its name and colour."""
    figure = new_figure(5.8, 3.8)
    draw_classes(figure.subplots(), classes, tuple(names), title)
    return figure


def weight_map(weights: np.ndarray, title: str) -> Figure:
    """A mask ``(npix,)`` NEST: two classes where it is 0 and 1 only, else a linear scale."""
    if np.isin(weights, (0, 1)).all():
        return class_map(weights, ("left out (0)", "kept (1)"), title)
    return sky_map(weights, title, "weight", ColourScale("cividis", 0.0, 1.0))


@styled
def sky_panels(maps: PlottableMap, scale: ColourScale | None = None, width: float = 7.2) -> Figure:
    """Every column of maps that know their names and units (:class:`sphereml.SkyMap`), one below the other.

    Args:
        scale: of all columns; else each has its own, a diverging one where its values have both signs.
        width: of the figure, inches.

    Example:
        >>> import numpy as np, sphereml as sm
        >>> maps = sm.SkyMap(np.ones((768, 2)), sm.Field("P", "uK_CMB", spin=2), order="nest")
        >>> len(sm.plot.sky(maps).axes)
        4
    """
    nested = maps.nested()
    units = [one.unit for one in nested.fields for _ in one.column_names]
    figure = new_figure(width, 0.65 * width * len(units))
    panels = zip(figure.subplots(len(units), 1, squeeze=False)[:, 0], nested.values.T, units, strict=True)
    for name, (axes, values, unit) in zip(nested.column_names, panels, strict=True):
        signed = np.nanmin(values) < 0 < np.nanmax(values)
        own = scale or (residual_scale(values) if signed else intensity_scale(values))
        draw_mollweide(axes, values, own, name, unit)
    return figure


@styled
def patch_row(
    images: Sequence[np.ndarray],
    titles: Sequence[str],
    unit: str,
    *,
    width_deg: float | None = None,
    scale: ColourScale | None = None,
) -> Figure:
    """Flat patches ``(H, W)`` in rows on one scale, with one colour bar and, if known, their width in degrees."""
    columns = min(len(images), _PATCHES_ABREAST)
    lines = -(-len(images) // columns)
    figure = new_figure(2.35 * columns + 0.9, 2.55 * lines + 0.35)
    panels = figure.subplots(lines, columns, squeeze=False)
    row = panels.ravel()[: len(images)]
    for axes in panels.ravel()[len(images) :]:
        axes.set_axis_off()
    scale = scale or intensity_scale(images[0], stretch="linear")
    half = 0.5 * width_deg if width_deg else 0.5
    for axes, image, title in zip(row, images, titles, strict=True):
        axes.imshow(image, origin="lower", extent=(-half, half, -half, half), cmap=scale.colours(), norm=scale.norm())
        axes.set_title(title)
        axes.spines[:].set_visible(True)
        axes.tick_params(labelsize=8)
        if not width_deg:
            axes.set(xticks=[], yticks=[])
        elif axes not in panels[:, 0]:
            axes.set_yticklabels([])
    if width_deg:
        panels[-1, 0].set(xlabel="x [deg]", ylabel="y [deg]")
    bar = figure.colorbar(
        ScalarMappable(scale.norm(), scale.colours()), ax=panels, extend="both", shrink=0.82, pad=0.02
    )
    bar.set_label(unit_label(unit))
    return figure
