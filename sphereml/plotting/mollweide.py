"""The full sky in Mollweide's projection, with Galactic longitude l and latitude b written on it.

Conventions: maps are full-sky NEST ``(npix,)``, Galactic, centred on the Galactic centre with longitude increasing to
the left, as seen from inside the sphere.  Projection: Snyder (1987), USGS PP 1395.
"""

from __future__ import annotations

from typing import Any

import healpy
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.image import AxesImage
from matplotlib.patches import Ellipse
from matplotlib.patheffects import Stroke, withStroke

from sphereml.plotting.colours import ColourScale, class_scale, missing, spread_ticks
from sphereml.plotting.style import unit_label

_MERIDIANS = (120, 60, 0, 300, 240)
_PARALLELS = (-60, -30, 0, 30, 60)


def draw_mollweide(
    axes: Axes, values: np.ndarray, scale: ColourScale, title: str, unit: str, region: np.ndarray | None = None
) -> None:
    """Draw a full-sky map ``(npix,)`` NEST into ``axes`` with a graticule and a colour bar.

    Args:
        region: ``(npix,)``, outlined: where it is true.
    """
    image = _draw_image(axes, values, title, {"cmap": scale.colours(), "norm": scale.norm()}, region)
    bar = _add_bar(axes, image, extend="both")
    bar.set_label(unit_label(unit))
    if scale.stretch != "linear":
        ticks = spread_ticks(image.norm)
        bar.set_ticks(ticks, labels=[f"{tick:g}".replace("-", "−") for tick in ticks])
        bar.ax.minorticks_off()


def draw_classes(axes: Axes, classes: np.ndarray, names: tuple[str, ...], title: str) -> None:
    """Draw a map of whole numbers, each the place of its name in ``names``, in one colour each."""
    norm, colours = class_scale(len(names))
    image = _draw_image(axes, classes, title, {"cmap": colours, "norm": norm, "interpolation": "nearest"}, None)
    bar = _add_bar(axes, image)
    bar.set_ticks(range(len(names)), labels=names)
    bar.ax.minorticks_off()
    bar.ax.tick_params(length=0)


def _draw_image(
    axes: Axes, values: np.ndarray, title: str, colours: dict[str, Any], region: np.ndarray | None
) -> AxesImage:
    given = {"origin": "lower", "extent": (-2, 2, -1, 1), "interpolation": "antialiased"} | colours
    image = axes.imshow(sample_mollweide(values), **given)
    outline = Ellipse((0, 0), 4, 2, facecolor="none", edgecolor="black", linewidth=0.9)
    axes.add_patch(outline)
    image.set_clip_path(outline)
    _draw_graticule(axes)
    if region is not None:
        _outline_region(axes, region)
    axes.set(xlim=(-2.22, 2.02), ylim=(-1.02, 1.02), title=title)
    axes.set_axis_off()
    return image


def _add_bar(axes: Axes, image: AxesImage, **more: Any) -> Colorbar:
    bar = axes.figure.colorbar(image, ax=axes, orientation="horizontal", shrink=0.7, aspect=32, pad=0.03, **more)
    bar.ax.tick_params(labelsize=9)
    return bar


def _outline_region(axes: Axes, region: np.ndarray) -> None:
    """A line around the pixels of a region: white over black, which is seen on every colour."""
    inside = np.ma.filled(sample_mollweide(np.asarray(region, dtype=np.float64)), 0.0)
    line = axes.contour(inside, levels=[0.5], extent=(-2, 2, -1, 1), colors="#ffffff", linewidths=1.0)
    line.set_path_effects([Stroke(linewidth=2.4, foreground="#000000"), Stroke(linewidth=1.0, foreground="#ffffff")])


def sample_mollweide(values: np.ndarray, height: int = 360) -> np.ma.MaskedArray:
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
    return np.ma.masked_where(~inside | missing(sampled), sampled)


def _draw_graticule(axes: Axes) -> None:
    lat = np.radians(np.linspace(-90, 90, 181))
    auxiliary = _auxiliary_angle(lat)
    style: dict[str, Any] = {"color": "white", "linewidth": 0.5, "alpha": 0.45}
    for lon in (-120, -60, 0, 60, 120):
        axes.plot(lon / 90 * np.cos(auxiliary), np.sin(auxiliary), **style)
    for parallel in np.radians(_PARALLELS):
        angle = _auxiliary_angle(np.array([parallel]))[0]
        axes.plot([-2 * np.cos(angle), 2 * np.cos(angle)], [np.sin(angle)] * 2, **style)
    _label_graticule(axes)


def _label_graticule(axes: Axes) -> None:
    """Latitudes beside the ellipse, longitudes on the equator."""
    for lat in _PARALLELS:
        angle = float(_auxiliary_angle(np.radians([lat]))[0])
        text = f"{lat}°".replace("-", "−") if lat else "b = 0°"
        axes.text(-2 * np.cos(angle) - 0.03, np.sin(angle), text, ha="right", va="center", fontsize=7.5)
    for lon in _MERIDIANS:
        place = -(lon if lon <= 180 else lon - 360) / 90
        text = f"{lon}°" if lon else "l = 0°"
        label = axes.text(place, -0.02, text, ha="center", va="top", fontsize=7.5, color="#ffffff")
        label.set_path_effects([withStroke(linewidth=1.6, foreground="#000000")])


def _auxiliary_angle(lat: np.ndarray) -> np.ndarray:
    """Solve ``2t + sin 2t = pi sin(lat)`` for t by interpolation of its monotonic left side."""
    t = np.linspace(-np.pi / 2, np.pi / 2, 20001)
    return np.interp(np.pi * np.sin(lat), 2 * t + np.sin(2 * t), t)
