"""One network on the sphere and on patches: errors by third of the patch and at seams, and by place on the grid.

Conventions: ratios of squared errors, with their errors over blocks of sky (bars); 1 is no difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sphereml.plotting.style import MODEL_COLOURS, model_colours, new_figure, styled

_THIRDS = ("centre", "middle", "outer")


@styled
def projection_ratios(content: Mapping[str, Any]) -> Figure:
    """``thirds`` and ``seams`` of ``sphere_only.json``: a flat network's error over the spherical one's."""
    figure = new_figure(8.0, 4.2)
    axes, colours = figure.subplots(), model_colours(content["thirds"])
    seams = content.get("seams", {})
    for index, (name, own) in enumerate(content["thirds"].items()):
        parts = [own[third]["error"] for third in _THIRDS]
        parts += [seams[name][key] for key in ("at", "elsewhere")] if name in seams else []
        shift = 0.12 * (index - (len(content["thirds"]) - 1) / 2)
        _points(axes, shift, parts, color=colours[name], label=name)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.axvline(2.5, color="#808080", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(5), [*(f"{one} third" for one in _THIRDS), "stitched,\nat seams", "stitched,\nelsewhere"])
    axes.set_ylabel("squared error of the flat network\nover the spherical one's")
    axes.legend(fontsize=8)
    return figure


@styled
def place_ratios(content: Mapping[str, Any]) -> Figure:
    """``places`` and ``edge``: the spherical network's error there over that of the same sky elsewhere, or whole."""
    figure = new_figure(10.0, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
    controls = [one["control"] for one in content["places"].values()]
    _draw_places(left, content["places"], "in a place of the grid over elsewhere")
    _points(left, 0.2, controls, color=MODEL_COLOURS["integrated"], label=content["baseline"])
    _draw_places(right, content.get("edge", {}), "shown the test region alone over whole")
    left.set_ylabel("ratio of squared errors")
    left.legend(fontsize=8)
    right.set_xlabel("pixels from the edge")
    return figure


def _draw_places(axes: Axes, found: Mapping[str, Any], title: str) -> None:
    _points(axes, 0.0, list(found.values()), color=MODEL_COLOURS["unet_sphere"], label="spherical network")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(found)), list(found), rotation=40, ha="right")
    axes.set_title(title)
    axes.ticklabel_format(axis="y", useOffset=False)


def _points(axes: Axes, shift: float, estimates: Sequence[Mapping[str, Any]], **style: Any) -> None:
    """The estimates that there are, a step apart, with their errors over blocks."""
    known = [(place + shift, one["mean"], one["sem"] or 0) for place, one in enumerate(estimates) if one["mean"]]
    if known:
        x, y, error = zip(*known, strict=True)
        axes.errorbar(x, y, yerr=error, fmt="o", **style)
