"""Standard errors over patches that share sky: the jackknife that leaves out one group of patches at a time.

Conventions
-----------
* Values have the patches first, ``(n, ...)``.  A group holds patches that share modes: those whose centre lies in one
  coarse HEALPix pixel, or those of one simulated sky.  Patches overlap, so neighbours repeat the same sky and
  ``std / sqrt(n)`` is too small; leaving out a whole group counts the sky once.  A group must be at least as large as a
  patch for that: pixels of Nside 2 or 4 for 25-degree patches.
* Samples are ``(1 + g, ...)``: a statistic of everything, and then of everything but each of the g groups.
* With n_j values in group j of n, h_j = n / n_j, theta the statistic of everything and theta_(j) that without group j,
  the pseudo-values are p_j = h_j theta - (h_j - 1) theta_(j), and (Busing, Meijer and van der Leeden 1999,
  Stat. Comput. 9, 3)

      theta_J = g theta - sum_j (1 - 1/h_j) theta_(j),   var = (1/g) sum_j (p_j - theta_J)^2 / (h_j - 1).

  For groups of one size this is ``(g - 1)/g sum_j (theta_(j) - <theta_(j)>)^2``, where theta itself takes no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from sphereml.errors import UserError

Groups: TypeAlias = "Sequence[int] | np.ndarray | None"


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference a - b, realization by realization, and its jackknife standard error."""

    mean: float
    sem: float

    @property
    def sigmas(self) -> float:
        """``mean / sem``: infinite for a constant difference, 0 for none."""
        if self.sem > 0:
            return self.mean / self.sem
        return float(np.copysign(np.inf, self.mean)) if self.mean else 0.0

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "sem": self.sem, "sigmas": self.sigmas}


def leave_one_out(values: np.ndarray, groups: Groups = None) -> np.ndarray:
    """Mean over all patches of ``(n, ...)``, and over all but one group: ``(1 + g, ...)``.

    Args:
        groups: a label for every patch; without them every patch is a group of its own.

    Raises:
        UserError: fewer than two groups, or not one label for each patch.
    """
    index, size = _grouped(len(values), groups)
    sums = np.zeros((len(size), *values.shape[1:]))
    np.add.at(sums, index, values)
    counts = size.reshape(-1, *[1] * (values.ndim - 1))
    left = (sums.sum(axis=0) - sums) / (len(values) - counts)
    return np.concatenate([sums.sum(axis=0)[None] / len(values), left])


def jackknife_error(samples: np.ndarray, size: np.ndarray | None = None) -> np.ndarray:
    """Standard error of a statistic from its samples ``(1 + g, ...)``; shape ``(...)``.

    Args:
        size: ``(g,)`` size of every group, in any unit; without it they are alike.
    """
    left = samples[1:]
    if size is None:
        error: np.ndarray = np.sqrt((len(left) - 1) * left.var(axis=0))
        return error
    deviation, weight = _deviations(samples, size)
    return np.sqrt(np.mean(deviation**2 / (weight - 1), axis=0))


def jackknife_covariance(samples: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Covariance ``(q, q)`` of q statistics from their samples ``(1 + g, q)``; its diagonal is the squared error."""
    deviation, weight = _deviations(samples, size)
    scaled = deviation / np.sqrt(weight - 1)
    covariance: np.ndarray = scaled.T @ scaled / len(scaled)
    return covariance


def _deviations(samples: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``p_j - theta_J`` of every group ``(g, ...)`` and ``h_j`` in a shape that broadcasts with it."""
    full, left = samples[0], samples[1:]
    weight = (size.sum() / size).reshape(-1, *[1] * (left.ndim - 1))
    # p_j - theta_J, a common theta taken away so that no digits are lost.
    pseudo = (weight - 1) * (full - left)
    return pseudo - np.sum((1 - 1 / weight) * (full - left), axis=0), weight


def block_jackknife(values: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of ``(n, ...)`` and its standard error, for blocks ``(n,)`` of unequal size.

    Raises:
        UserError: fewer than two blocks, or not one label for each value.
    """
    samples = leave_one_out(np.asarray(values, dtype=np.float64), blocks)
    return samples[0], jackknife_error(samples, _grouped(len(values), blocks)[1])


def pseudovalues(values: np.ndarray, groups: Groups = None) -> np.ndarray:
    """One value a group, ``(g, ...)``, whose covariance over their number is that of the mean.

    Of groups of one size they are the groups' means.
    """
    samples = leave_one_out(values, groups)
    count = len(samples) - 1
    result: np.ndarray = count * samples[0] - (count - 1) * samples[1:]
    return result


def paired(values_a: np.ndarray, values_b: np.ndarray, blocks: np.ndarray) -> PairedDifference:
    """Compare two models on the same realizations, ``values`` and ``blocks`` of shape ``(n,)``."""
    difference = np.asarray(values_a, dtype=np.float64) - np.asarray(values_b, dtype=np.float64)
    if difference.ndim != 1:
        raise ValueError(f"paired values have shape {difference.shape}, expected (n,)")
    mean, sem = block_jackknife(difference, blocks)
    return PairedDifference(float(mean), float(sem))


def _grouped(patches: int, groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """The group of every patch, numbered from 0, and the number of patches in each."""
    names, index = np.unique(np.arange(patches) if groups is None else np.asarray(groups), return_inverse=True)
    if index.shape != (patches,) or len(names) < 2:
        what = f"{len(names)} groups named for {index.size} of {patches} patches"
        raise UserError(what, "give every patch its group, and at least two groups")
    return index, np.bincount(index)
