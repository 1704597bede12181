"""Is the sphere as good as the plane?  The same network on both, paired on the held-out sky, over all bins of r(ell).

Conventions: differences are sphere - plane; of patches, realization by realization, with the block jackknife of their
centres; on the sphere under one mask, from its common jackknife; of several seeds the mean of their r.  With d the
differences in p bins and C their jackknife covariance from g groups,

    T^2 = d C^-1 d,    F = T^2 (g - p) / (p (g - 1))

has Fisher's distribution of p and g - p degrees of freedom (Hotelling's test), and chi^2 = T^2 (g - p - 2) / (g - 1)
has the mean p (Hartlap et al. 2007, astro-ph/0608064).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from sphereml.evaluation.lensing.chi_square import ChiSquare
from sphereml.evaluation.maps.ranking import CLEAR
from sphereml.evaluation.maps.scores import TargetScores
from sphereml.evaluation.paper.claims import shown_row
from sphereml.evaluation.statistics import jackknife_covariance, leave_one_out, paired

# Fewer groups a bin would leave the covariance without an inverse that means something.
_GROUPS_A_BIN = 3
# Convolutions of a third of the flat network's weights, and of as many.
SPHERES = ("unet_sphere", "unet_oriented")


def compare_domains(scores: TargetScores, flat: str = "unet_flat") -> dict[str, dict[str, Any]]:
    """For each network on the sphere ``rows``, and for ``patches`` and ``sphere`` what :func:`_place` says."""
    rows = {name: (shown_row(scores, name), shown_row(scores, flat)) for name in SPHERES}
    return {name: _compare(scores, one, other) for name, (one, other) in rows.items() if one and other}


def _compare(scores: TargetScores, one: str, other: str) -> dict[str, Any]:
    block = scores.held_out.test.block
    binned = leave_one_out(scores.patches[one].binned - scores.patches[other].binned, block)
    on_patches = _place(scores.patches[one].ell, binned, np.unique(block, return_counts=True)[1])
    bands = {name: (values, scores.patches[other].bands[name]) for name, values in scores.patches[one].bands.items()}
    on_patches["bands"] = {name: paired(*pair, block).to_json() for name, pair in bands.items()}
    first, second = (scores.sphere[row]["test"] for row in (one, other))
    samples = (first.r_samples - second.r_samples)[:, 2:]
    on_sphere = _place(first.ell[2:], samples, first.size) | {"bands": first.difference(second)}
    seeds = [_seeds(scores, one, other, place) for place in ("patches", "sphere")]
    return {
        "rows": [one, other],
        "patches": on_patches | {"seeds": seeds[0]},
        "sphere": on_sphere | {"seeds": seeds[1]},
    }


def _place(ell: np.ndarray, samples: np.ndarray, size: np.ndarray) -> dict[str, Any]:
    """``ell`` (middles of bins), ``difference`` and ``sem``, ``chi2``, ``bins`` (their number), ``probability``, and
    ``holds``: the difference is compatible with none, or no bin lies below by two errors.

    Args:
        ell: ``(n,)``; samples: ``(1 + g, n)``, the difference of all and without each group; size: ``(g,)``.
    """
    count = max(min(len(ell), len(size) // _GROUPS_A_BIN), 1)
    parts = np.array_split(np.arange(len(ell)), count)
    means = np.stack([samples[:, part].mean(axis=1) for part in parts], axis=1)
    covariance = jackknife_covariance(means, size)
    error = np.sqrt(np.diag(covariance))
    found = hotelling_test(means[0], covariance, len(size))
    above = bool((means[0] > -CLEAR * error).all())
    return {
        "ell": [float(ell[part].mean()) for part in parts],
        "difference": means[0].tolist(),
        "sem": error.tolist(),
        **{"chi2": found.value, "bins": found.bands, "probability": found.probability},
        "holds": above or (found.probability is not None and found.probability > 0.05),
    }


def hotelling_test(difference: np.ndarray, covariance: np.ndarray, groups: int) -> ChiSquare:
    """Whether differences ``(p,)`` are zero, from their covariance ``(p, p)`` of so many groups."""
    bins = len(difference)
    squared = float(difference @ np.linalg.solve(covariance, difference))
    ratio = squared * (groups - bins) / (bins * (groups - 1))
    chi2 = squared * (groups - bins - 2) / (groups - 1)
    return ChiSquare(chi2, bins, float(stats.f.sf(ratio, bins, groups - bins)))


def _seeds(scores: TargetScores, one: str, other: str, place: str) -> dict[str, Any]:
    """By band the differences of the first, second, ... seeds, their mean, and its error from their scatter."""
    pairs = list(zip(scores.groups.get(one, []), scores.groups.get(other, []), strict=False))
    if len(pairs) < 2:
        return {}
    bands = scores.patches[one].bands if place == "patches" else scores.sphere[one]["test"].bands
    found = {}
    for band in bands:
        values = np.array([_score(scores, first, place, band) - _score(scores, second, place, band)
                           for first, second in pairs])  # fmt: skip
        error = values.std(ddof=1) / np.sqrt(len(values))
        found[band] = {"values": values.tolist(), "mean": float(values.mean()), "sem": float(error)}
    return found


def _score(scores: TargetScores, name: str, place: str, band: str) -> float:
    if place == "patches":
        return float(scores.patches[name].bands[band].mean())
    return scores.sphere[name]["test"].bands[band]
