"""Curves against multipole: correlation r(ell) and power spectra, one colour per model.

Conventions: spectra are C_ell; ``l(l+1) C_l / 2 pi`` is drawn and said on the axis.  Bands are ``lo <= ell < hi``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sphereml.plotting.style import (
    BAND_SHADES,
    label_multipoles,
    legend_below,
    mark_legend,
    model_colours,
    new_figure,
    of_model,
    styled,
    unit_label,
)

Curves = Mapping[str, tuple[np.ndarray, np.ndarray | None]]
Bands = Mapping[str, Sequence[float]]


@styled
def correlation_curves(ell: np.ndarray, curves: Curves, bands: Bands | None = None, title: str = "") -> Figure:
    """r(ell) of every model with its standard error as a band.

    Args:
        ell: ``(n,)`` multipoles, of bins or single.
        curves: model -> (mean ``(n,)``, standard error ``(n,)`` or None).
        bands: name -> (lo, hi), shaded and named.

    Example:
        >>> import numpy as np, sphereml as sm
        >>> ell = np.arange(2, 30)
        >>> figure = sm.plot.correlation(ell, {"linear": (np.exp(-ell / 100), None)}, {"r_low": (2, 15)})
        >>> float(figure.axes[0].get_ylim()[1])
        1.0
    """
    figure = new_figure(5.8, 4.5)
    axes = figure.subplots()
    _draw_curves(axes, ell, curves)
    label_multipoles(axes, ell)
    lowest = min(float(np.nanmin(mean)) for mean, _ in curves.values())
    axes.set_ylim(max(min(0.0, lowest), np.floor(20 * lowest - 0.4) / 20), 1.0)
    _shade_bands(axes, bands or {}, float(min(ell)), float(max(ell)))
    axes.set_ylabel(r"correlation with the target, $r(\ell)$")
    axes.set_title(title, pad=20 if bands else 8)
    legend_below(axes)
    mark_legend(axes)
    return figure


@styled
def ratio_curves(ell: np.ndarray, curves: Curves, label: str, title: str = "") -> Figure:
    """Ratios of every model against multipole, with their standard errors and a line at 1."""
    figure = new_figure(5.8, 4.4)
    axes = figure.subplots()
    axes.axhline(1.0, color="#808080", linewidth=0.8)
    _draw_curves(axes, ell, curves)
    label_multipoles(axes, ell)
    axes.set(ylabel=label, title=title)
    legend_below(axes)
    mark_legend(axes)
    return figure


@styled
def loss_curves(losses: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> Figure:
    """Loss by epoch: model -> ``train_loss`` (thin) and ``val_loss``, each with ``epoch`` from 1 and ``loss``."""
    figure = new_figure(5.8, 4.4)
    axes = figure.subplots()
    for name, colour in model_colours(losses).items():
        train, validation = losses[name]["train_loss"], losses[name]["val_loss"]
        look = {"color": colour} | of_model(name)
        axes.plot(train["epoch"], train["loss"], linewidth=0.8, **look)
        axes.plot(validation["epoch"], validation["loss"], marker="o", markersize=3, label=name, **look)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(axes)
    mark_legend(axes)
    return figure


@styled
def power_curves(
    ell: np.ndarray, curves: Curves, unit: str, *, bands: Bands | None = None, reference: str = "", title: str = ""
) -> Figure:
    """``l(l+1) C_l / 2 pi`` of every curve, logarithmic.

    Args:
        ell: ``(n,)``; curves: name -> (C_l ``(n,)``, standard error or None), in ``unit`` squared.
        reference: the curve drawn black and dashed (the target, or the CMB).

    Example:
        >>> import numpy as np, sphereml as sm
        >>> ell = np.arange(2, 30)
        >>> sm.plot.power(ell, {"dust": (ell**-2.4, None)}, "uK_CMB").axes[0].get_yscale()
        'log'
    """
    figure = new_figure(5.8, 4.5)
    axes = figure.subplots()
    factor = np.asarray(ell) * (np.asarray(ell) + 1) / (2 * np.pi)
    scaled = {n: (factor * cl, None if sem is None else factor * sem) for n, (cl, sem) in curves.items()}
    _draw_curves(axes, ell, scaled, reference)
    axes.set_yscale("log")
    label_multipoles(axes, ell)
    _shade_bands(axes, bands or {}, float(min(ell)), float(max(ell)))
    axes.set_ylabel(rf"$\ell(\ell+1)\,C_\ell / 2\pi$  [({unit_label(unit)})$^2$]")
    axes.set_title(title, pad=20 if bands else 8)
    legend_below(axes)
    mark_legend(axes)
    return figure


def _draw_curves(axes: Axes, ell: np.ndarray, curves: Curves, reference: str = "") -> None:
    colours = model_colours([name for name in curves if name != reference])
    for name, (mean, sem) in curves.items():
        colour, line = ("black", "--") if name == reference else (colours[name], "-")
        axes.plot(ell, mean, color=colour, linestyle=line, label=name, **of_model(name))
        if sem is not None:
            axes.fill_between(ell, mean - sem, mean + sem, color=colour, alpha=0.22, linewidth=0, **of_model(name))


def _shade_bands(axes: Axes, bands: Bands, first: float, last: float) -> None:
    """Shade the visible part of every band and name it above the axes, where no curve runs."""
    for index, (name, (lo, hi)) in enumerate(bands.items()):
        lo, hi = max(lo, first), min(hi, last)
        if lo >= hi:
            continue
        axes.axvspan(lo, hi, color=BAND_SHADES[index % len(BAND_SHADES)], zorder=0, linewidth=0)
        middle = float(np.sqrt(max(lo, 1) * hi))
        axes.text(
            middle, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=9, color="#555"
        )
