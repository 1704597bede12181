"""Which model is the best, where that is clear: two standard errors of the paired difference to every other one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sphereml.evaluation.maps.sphere import SphereScores
from sphereml.evaluation.statistics import paired

# Standard errors of a paired difference from which on one model is called better than another.
CLEAR = 2.0


def best_on_patches(scores: Mapping[str, Mapping[str, np.ndarray]], block: np.ndarray) -> dict[str, str | None]:
    """The best model by band, None where it is not clear.

    Args:
        scores: by model and band, ``(n,)`` on the same patches.
        block: ``(n,)`` jackknife block of every patch.
    """
    found: dict[str, str | None] = {}
    for band in next(iter(scores.values())):
        best = max(scores, key=lambda name: float(scores[name][band].mean()))
        others = [paired(scores[best][band], one[band], block).sigmas for name, one in scores.items() if name != best]
        found[band] = best if others and min(others) >= CLEAR else None
    return found


def best_on_sphere(scores: Mapping[str, SphereScores]) -> dict[str, str | None]:
    """The same from scores under one mask."""
    found: dict[str, str | None] = {}
    for band in next(iter(scores.values())).bands:
        best = max(scores, key=lambda name: scores[name].bands[band])
        others = [scores[best].difference(one)[band]["sigmas"] for name, one in scores.items() if name != best]
        found[band] = best if others and min(others) >= CLEAR else None
    return found
