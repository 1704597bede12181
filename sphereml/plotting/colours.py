"""Colours of values: scales for intensities and residuals, classes, and the ticks of their colour bars.

Missing values (NaN and UNSEEN) take part in no scale and are drawn grey.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import healpy
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import AsinhNorm, BoundaryNorm, Colormap, ListedColormap, LogNorm, Normalize

from sphereml.plotting.style import CLASS_COLOURS, MASKED_GREY

Stretch = Literal["linear", "asinh", "log"]
# Share of a colour bar that a tick and its label need.
_TICK_ROOM = 0.11


@dataclass(frozen=True)
class ColourScale:
    """Colours of values: a matplotlib colour map, its limits and its stretch.

    Attributes:
        vmin, vmax: in the unit of the map.
        asinh_width: values well below it are stretched linearly; a tenth of the larger limit when None.

    Example:
        >>> import sphereml as sm
        >>> float(sm.plot.ColourScale("RdBu_r", -3, 3).norm()(0.0))
        0.5
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
    """One scale for several maps of one quantity, over the 1st to the 99th percentile of the first.

    Args:
        maps: ``(npix,)`` each, of one unit, in any order.

    Example:
        >>> import numpy as np, sphereml as sm
        >>> scale = sm.plot.intensity_scale(np.arange(101.0))
        >>> scale.vmin, scale.vmax, scale.stretch
        (1.0, 99.0, 'asinh')
    """
    values = _seen(maps[0])
    positive = values[values > 0]
    low, high = np.percentile(positive if stretch == "log" and positive.size else values, [1, 99])
    if not high > low:
        low, high = low - 0.5, low + 0.5
    return ColourScale(cmap, float(low), float(high), stretch, float(np.median(np.abs(values))) or None)


def residual_scale(*maps: np.ndarray, region: np.ndarray | None = None) -> ColourScale:
    """One diverging scale for several maps, symmetric about zero, over the 98th percentile of the absolute values.

    Args:
        maps: ``(npix,)`` each, of one unit, in one order.
        region: ``(npix,)`` where the percentile is taken; the bright plane would set it otherwise.

    Example:
        >>> import numpy as np, sphereml as sm
        >>> sm.plot.residual_scale(np.linspace(-1, 1, 201)).vmax
        0.98
    """
    limit = float(np.median([np.percentile(np.abs(_seen(values, region)), 98) for values in maps])) or 1.0
    return ColourScale("RdBu_r", -limit, limit, "linear")


def class_scale(count: int) -> tuple[BoundaryNorm, Colormap]:
    """One colour for each of the whole numbers 0 to ``count - 1``."""
    colours = ListedColormap(CLASS_COLOURS[:count]).with_extremes(bad=MASKED_GREY)
    return BoundaryNorm(np.arange(count + 1) - 0.5, count), colours


def spread_ticks(norm: Any) -> list[float]:
    """Round values (0, then 1, 2, 3 and 5 times powers of ten) that stand apart on a stretched colour bar."""
    assert norm.vmin is not None and norm.vmax is not None
    top = max(abs(norm.vmin), abs(norm.vmax))
    powers = 10.0 ** np.arange(np.floor(np.log10(top)) - 6, np.floor(np.log10(top)) + 1)[::-1]
    candidates = [0.0, *(sign * step * power for step in (1, 5, 2, 3) for power in powers for sign in (1, -1))]
    kept: list[float] = []
    for tick in candidates:
        if norm.vmin <= tick <= norm.vmax and all(abs(norm(tick) - norm(one)) > _TICK_ROOM for one in kept):
            kept.append(float(tick))
    return sorted(kept)


def missing(values: np.ndarray) -> np.ndarray:
    """Where a map has no value."""
    return ~np.isfinite(values) | np.isclose(values, healpy.UNSEEN)


def _seen(values: np.ndarray, region: np.ndarray | None = None) -> np.ndarray:
    values = np.asarray(values)
    kept = ~missing(values) if region is None else ~missing(values) & region
    return values[kept] if kept.any() else np.zeros(1)
