"""The look of every figure: fonts, one colour per model, and the writer of PNG files.

Figures are made with matplotlib's object interface on the Agg canvas, under ``rc_context``: no window, no pyplot, and
no change to the caller's matplotlib state.  Colours are those of Okabe and Ito (2008), safe for
colour-blind readers.
"""

from __future__ import annotations

import io
import os
import platform
import re
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgba, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

P = ParamSpec("P")

MODEL_COLOURS = {
    "integrated": "#5f5f5f",
    "linear": "#e69f00",
    "unet_flat": "#0072b2",
    "unet_sphere": "#d55e00",
    "unet_flat_plain": "#56b4e9",
    "unet_sphere_plain": "#cc79a7",
}
OTHER_COLOURS = ("#009e73", "#8c564b", "#7f3c8d", "#b8a900", "#3969ac")
MASKED_GREY = "#c9c9c9"
CLASS_COLOURS = ("#d9d9d9", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
BAND_SHADES = ("#f3f0e6", "#e6eef3", "#eef3e6")

_UNIT_LABELS = {
    "uK_RJ": r"$\mu\mathrm{K}_\mathrm{RJ}$",
    "uK_CMB": r"$\mu\mathrm{K}_\mathrm{CMB}$",
    "K_CMB": r"$\mathrm{K}_\mathrm{CMB}$",
    "uK": r"$\mu\mathrm{K}$",
    "cm^-2": r"$\mathrm{cm}^{-2}$",
    "MJy/sr": r"$\mathrm{MJy\,sr}^{-1}$",
}

# The beginning of the group id of what shows one model alone.
_MODEL = "model:"

_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "mathtext.fontset": "dejavusans",
    "axes.titlesize": 11.5,
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
}


def model_colours(models: Iterable[str]) -> dict[str, str]:
    """A colour for every model: its own in all figures when it is shipped, else the next free one in order of name.

    A mean over seeds, ``NAME, 3 seeds``, has that of its model.
    """
    names = {model: model.partition(",")[0] for model in models}
    others = sorted({model for model, name in names.items() if name not in MODEL_COLOURS})
    free = {model: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, model in enumerate(others)}
    return {model: MODEL_COLOURS.get(name) or free[model] for model, name in names.items()}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw under our settings whatever the caller's are."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with rc_context(_RC):
            return draw(*args, **kwargs)

    return inner


class ShownFigure(Figure):
    """A figure that a notebook shows, without pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self, dpi=100)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` x ``height`` inches on the Agg canvas."""
    figure = ShownFigure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08))
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as PNG bytes, without a date or a software tag: equal figures give equal bytes."""
    stream = io.BytesIO()
    with rc_context(_RC):
        figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()


def write_png(figure: Figure, path: Path | str, dpi: int = 150) -> Path:
    """Write a PNG through a temporary sibling, so that a reader never meets half a picture."""
    return _write_bytes(Path(path), png(figure, dpi))


def _write_bytes(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Named as data.whole_files names scratch files, which sweeps those of killed processes.
    temporary = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.scratch")
    temporary.write_bytes(content)
    temporary.replace(path)
    return path


# Ink and paper of a figure on a dark page, by their colours on a light one.
_ON_DARK = {
    "#ffffff": "#16181b",
    "#000000": "#e6e7e9",
    "#444444": "#b9bdc4",
    "#555555": "#b9bdc4",
    "#5f5f5f": "#a9adb3",
    "#808080": "#a9adb3",
    "#0072b2": "#3a86d4",
    "#f3f0e6": "#2c2a22",
    "#e6eef3": "#1f2a31",
    "#eef3e6": "#262d20",
}


def darken(figure: Figure) -> Figure:
    """The figure for a dark page: paper, ink and shades change in place, data keep their colours.

    Labels that stand on data, with an outline, are left alone.
    """
    for artist in figure.findobj(lambda one: not one.get_path_effects()):
        for name in ("color", "facecolor", "edgecolor"):
            read, write = getattr(artist, f"get_{name}", None), getattr(artist, f"set_{name}", None)
            if read is not None and write is not None:
                _exchange(read(), write)
    return figure


def _exchange(colour: Any, write: Callable[[Any], None]) -> None:
    rows = to_rgba_array(colour)
    found = [_ON_DARK.get(to_hex(row[:3])) for row in rows]
    if len(rows) and any(found):
        new = [to_rgba(dark, row[3]) if dark else tuple(row) for dark, row in zip(found, rows, strict=True)]
        write(new if len(new) > 1 else new[0])


def of_model(name: str) -> dict[str, Any]:
    """Keyword of an artist that shows one model alone: :func:`inline_svg` marks it."""
    return {"gid": f"{_MODEL}{name}"}


# Characters of a legend's text to an inch, and those that the room of a line's handle and the gap to the next take.
_CHARACTERS_AN_INCH, _HANDLE = 12.6, 7


def legend_below(axes: Axes, most: int = 3, drop: float = 0.14, **look: Any) -> None:
    """A legend under the axes, where no curve runs, of ``most`` columns or the fewer that its labels have room for.

    Beyond three lines the figure grows with them.
    """
    figure, (_, labels) = axes.figure, axes.get_legend_handles_labels()
    assert isinstance(figure, Figure)
    room = figure.get_figwidth() / len(figure.axes) * _CHARACTERS_AN_INCH
    columns = min(most, max(1, int(room / (max(map(len, labels), default=1) + _HANDLE))))
    if axes is figure.axes[0]:
        figure.set_figheight(figure.get_figheight() + 0.2 * max(0, -(-len(labels) // columns) - 3))
    axes.legend(loc="upper left", bbox_to_anchor=(-0.11, -drop), ncols=columns, columnspacing=1.2, **look)


def mark_legend(axes: Axes) -> None:
    """The entries of a legend belong to the models that they name."""
    legend = axes.get_legend()
    for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True) if legend else ():
        for artist in (text, handle):
            if artist is not None:
                artist.set_gid(f"{_MODEL}{text.get_text()}")


def inline_svg(figure: Figure) -> str:
    """The figure as SVG inside a page: artists of one model carry ``data-model``, ink and paper are the page's."""
    stream = io.StringIO()
    with rc_context(_RC | {"svg.hashsalt": "sphereml"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", stream.getvalue(), flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text[text.index("<svg") :])
    text = re.sub(f'id="{_MODEL}([^"]*)"', r'data-model="\1"', re.sub(r'(<g) id="(?!model:)[^"]*"', r"\1", text))
    inks = "".join(f"--ink-{light[1:]}: {dark}; " for light, dark in _ON_DARK.items())
    for light in _ON_DARK:
        text = text.replace(light, f"var(--ink-{light[1:]}, {light})")
    scheme = f"<style>@media (prefers-color-scheme: dark) {{ svg {{ {inks}}} }}</style>"
    return text.replace(">", f">{scheme}", 1)


def write_pair(figure: Figure, path: Path, dpi: int = 110) -> Path:
    """Write a PNG for a light page, and one of the same name for a dark page into the folder ``dark`` beside it."""
    light, dark = png_pair(figure, dpi)
    _write_bytes(path, light)
    _write_bytes(path.parent / "dark" / path.name, dark)
    return path


def png_pair(figure: Figure, dpi: int) -> tuple[bytes, bytes]:
    """The figure for a light and for a dark page, as PNG bytes of 256 colours: a page carries both."""
    light = _few_colours(figure, dpi)
    # Colours move nothing: what was placed once stays.
    figure.set_layout_engine("none")
    return light, _few_colours(darken(figure), dpi)


def _few_colours(figure: Figure, dpi: int) -> bytes:
    stream, canvas = io.BytesIO(), FigureCanvasAgg(figure)
    with rc_context(_RC):
        figure.set_dpi(dpi)
        canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    drawn.quantize(256, dither=Image.Dither.NONE).save(stream, format="png")
    return stream.getvalue()


def unit_label(unit: str) -> str:
    """A unit as it is printed: ``uK_RJ`` with its Greek letter and subscript, unknown ones as they are."""
    return _UNIT_LABELS.get(unit, unit)


def label_multipoles(axes: Axes, ell: Any) -> None:
    """Logarithmic multipole axis from 2 or the first ell on, ticked at plain numbers."""
    first, last = max(float(min(ell)), 1.5), float(max(ell))
    axes.set_xscale("log")
    axes.set_xlim(first, last)
    ticks = [t for t in (2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if first <= t <= last]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel(r"multipole $\ell$")
