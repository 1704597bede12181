"""Pictures of the sky: full-sky Mollweide maps and rows of flat patches.

Conventions: maps are full-sky NEST ``(npix,)``, Galactic, centred on the Galactic centre with longitude increasing to
the left, as seen from inside the sphere.  NaN and UNSEEN are drawn grey.  Projection: Snyder (1987), USGS PP 1395.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import healpy
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import AsinhNorm, Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from sphereml.plotting.style import MASKED_GREY, new_figure, styled, unit_label

Stretch = Literal["linear", "asinh", "log"]


class PlottableMap(Protocol):
    """Maps of one sky with names and units, as :class:`sphereml.SkyMap`."""

    @property
    def fields(self) -> tuple[Any, ...]: ...

    @property
    def values(self) -> np.ndarray: ...

    @property
    def column_names(self) -> tuple[str, ...]: ...

    def nested(self) -> PlottableMap: ...


@dataclass(frozen=True)
class ColourScale:
    """Colours of values: a matplotlib colour map, its limits and its stretch.

    Attributes:
        asinh_width: values well below it are stretched linearly; a tenth of the larger limit when None.
    """

    cmap: str = "cividis"
    vmin: float = 0.0
    vmax: float = 1.0
    stretch: Stretch = "linear"
    asinh_width: float | None = None

    def norm(self) -> Normalize:
        if self.stretch == "log":
            return LogNorm(self.vmin, self.vmax)
        if self.stretch == "asinh":
            return AsinhNorm(self.asinh_width or 0.1 * max(abs(self.vmin), abs(self.vmax)), self.vmin, self.vmax)
        return Normalize(self.vmin, self.vmax)

    def colours(self) -> Colormap:
        return colormaps[self.cmap].with_extremes(bad=MASKED_GREY)


def intensity_scale(*maps: np.ndarray, stretch: Stretch = "asinh", cmap: str = "inferno") -> ColourScale:
    """One scale for several maps of one quantity, over the 1st to the 99th percentile of the first."""
    values = _seen(maps[0])
    positive = values[values > 0]
    low, high = np.percentile(positive if stretch == "log" and positive.size else values, [1, 99])
    if not high > low:
        low, high = low - 0.5, low + 0.5
    return ColourScale(cmap, float(low), float(high), stretch, float(np.median(np.abs(values))) or None)


def residual_scale(values: np.ndarray) -> ColourScale:
    """A diverging scale, symmetric about zero, over the 98th percentile of the absolute values."""
    limit = float(np.percentile(np.abs(_seen(values)), 98)) or 1.0
    return ColourScale("RdBu_r", -limit, limit, "linear")


@styled
def sky_map(values: np.ndarray, title: str, unit: str, scale: ColourScale | None = None) -> Figure:
    """One full-sky map ``(npix,)`` NEST with its colour bar."""
    figure = new_figure(7.2, 4.65)
    axes = figure.subplots()
    draw_mollweide(axes, values, scale or intensity_scale(values), title, unit)
    return figure


@styled
def sky_panels(maps: PlottableMap, scale: ColourScale | None = None, width: float = 7.2) -> Figure:
    """Every column of maps that know their names and units (:class:`sphereml.SkyMap`), one below the other.

    Args:
        scale: of all columns; else each has its own, a diverging one where its values have both signs.
        width: of the figure, inches.
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
def map_triptych(target: np.ndarray, prediction: np.ndarray, residual: np.ndarray, unit: str) -> Figure:
    """Target and prediction on one scale, and prediction minus target on a symmetric one; all ``(npix,)`` NEST."""
    figure = new_figure(13.5, 3.25)
    common = intensity_scale(target, prediction)
    panels = zip(
        figure.subplots(1, 3),
        (target, prediction, residual),
        (common, common, residual_scale(residual)),
        ("target", "prediction", "prediction − target"),
        strict=True,
    )
    for axes, values, scale, title in panels:
        draw_mollweide(axes, values, scale, title, unit)
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
    """Flat patches ``(H, W)`` side by side on one scale, with one colour bar and, if known, their width in degrees."""
    figure = new_figure(2.35 * len(images) + 0.9, 2.9)
    row = np.atleast_1d(figure.subplots(1, len(images)))
    scale = scale or intensity_scale(images[0], stretch="linear")
    half = 0.5 * width_deg if width_deg else 0.5
    for axes, image, title in zip(row, images, titles, strict=True):
        axes.imshow(image, origin="lower", extent=(-half, half, -half, half), cmap=scale.colours(), norm=scale.norm())
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
    if width_deg:
        row[0].set_xlabel(f"{width_deg:.3g}° wide")
    bar = figure.colorbar(ScalarMappable(scale.norm(), scale.colours()), ax=row, extend="both", shrink=0.82, pad=0.02)
    bar.set_label(unit_label(unit))
    return figure


def draw_mollweide(axes: Axes, values: np.ndarray, scale: ColourScale, title: str, unit: str) -> None:
    """Draw a full-sky map ``(npix,)`` NEST into ``axes`` with a graticule of 30 degrees and a colour bar."""
    image = axes.imshow(
        sample_mollweide(values),
        origin="lower",
        extent=(-2, 2, -1, 1),
        cmap=scale.colours(),
        norm=scale.norm(),
        interpolation="antialiased",
    )
    outline = Ellipse((0, 0), 4, 2, facecolor="none", edgecolor="black", linewidth=0.9)
    axes.add_patch(outline)
    image.set_clip_path(outline)
    _draw_graticule(axes)
    axes.set(xlim=(-2.02, 2.02), ylim=(-1.02, 1.02), title=title)
    axes.set_axis_off()
    bar = axes.figure.colorbar(
        image, ax=axes, orientation="horizontal", shrink=0.62, aspect=32, pad=0.03, extend="both"
    )
    bar.set_label(unit_label(unit))
    bar.ax.tick_params(labelsize=9)
    if isinstance(image.norm, AsinhNorm):
        bar.set_ticks(_asinh_ticks(image.norm))


def _asinh_ticks(norm: AsinhNorm) -> list[float]:
    """Zero, and powers of ten beyond the linear part: matplotlib's own run into each other around zero."""
    assert norm.vmin is not None and norm.vmax is not None
    first, last = np.log10([2 * norm.linear_width, max(abs(norm.vmin), abs(norm.vmax))])
    decades = 10.0 ** np.arange(np.ceil(first), np.floor(last) + 1)
    return [float(tick) for tick in (*-decades[::-1], 0.0, *decades) if norm.vmin <= tick <= norm.vmax]


def sample_mollweide(values: np.ndarray, height: int = 500) -> np.ma.MaskedArray:
    """Nearest-pixel image ``(height, 2 height)`` of a map; missing pixels and the outside of the ellipse are masked.

    Rows go from south to north, columns from lon = +180 on the left to -180 on the right.
    """
    y = (np.arange(height) + 0.5) / height * 2 - 1
    x = (np.arange(2 * height) + 0.5) / height * 2 - 2
    x, y = np.meshgrid(x, y)
    inside = (x / 2) ** 2 + y**2 < 1
    auxiliary = np.arcsin(y)
    sin_lat = np.clip((2 * auxiliary + np.sin(2 * auxiliary)) / np.pi, -1, 1)
    lon = np.where(inside, -90.0 * x / np.cos(auxiliary), 0.0)
    nside = healpy.npix2nside(len(values))
    pixel = healpy.ang2pix(nside, lon, np.degrees(np.arcsin(sin_lat)), nest=True, lonlat=True)
    sampled = np.asarray(values, dtype=np.float64)[pixel]
    return np.ma.masked_where(~inside | _missing(sampled), sampled)


def _draw_graticule(axes: Axes) -> None:
    lat = np.radians(np.linspace(-90, 90, 181))
    auxiliary = _auxiliary_angle(lat)
    style: dict[str, Any] = {"color": "white", "linewidth": 0.5, "alpha": 0.45}
    for lon in range(-150, 180, 60):
        axes.plot(lon / 90 * np.cos(auxiliary), np.sin(auxiliary), **style)
    for parallel in np.radians([-60, -30, 0, 30, 60]):
        angle = _auxiliary_angle(np.array([parallel]))[0]
        axes.plot([-2 * np.cos(angle), 2 * np.cos(angle)], [np.sin(angle)] * 2, **style)


def _auxiliary_angle(lat: np.ndarray) -> np.ndarray:
    """Solve ``2t + sin 2t = pi sin(lat)`` for t by interpolation of its monotonic left side."""
    t = np.linspace(-np.pi / 2, np.pi / 2, 20001)
    return np.interp(np.pi * np.sin(lat), 2 * t + np.sin(2 * t), t)


def _missing(values: np.ndarray) -> np.ndarray:
    return ~np.isfinite(values) | np.isclose(values, healpy.UNSEEN)


def _seen(values: np.ndarray) -> np.ndarray:
    seen = np.asarray(values)[~_missing(np.asarray(values))]
    return seen if seen.size else np.zeros(1)
