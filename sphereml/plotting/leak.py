"""The CMB that templates hold of what was added to their training target, by multipole.

Conventions: transfer is the share of the added CMB that stands in the template, in bands ``lo <= ell < hi``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sphereml.plotting.style import model_colours, new_figure, styled


@styled
def transfer_curves(models: Mapping[str, Any]) -> Figure:
    """Models of ``cross_fit.json``: left in-sample, right cross-fitted, at the largest strength that was added."""
    figure = new_figure(10.0, 4.2)
    colours = model_colours(models)
    panels = zip(figure.subplots(1, 2, sharey=True), ("in_sample", "cross_fitted"), strict=True)
    for axes, kind in panels:
        for shift, (name, entry) in enumerate(models.items()):
            strength = max(entry["leak"], key=float)
            middles = np.sqrt([lo * hi for lo, hi in entry["bands"]]) * 1.03**shift
            for component, found in entry["leak"][strength][kind].items():
                label = f"{name}, {component}"
                axes.errorbar(
                    middles, found["transfer"], yerr=found["error"], fmt="o", color=colours[name], label=label
                )
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xlabel(r"multipole $\ell$")
        axes.set_title(kind.replace("_", "-"))
    figure.axes[0].set_ylabel("share of the added CMB in the template")
    figure.axes[0].legend(loc="best", fontsize=8)
    return figure
