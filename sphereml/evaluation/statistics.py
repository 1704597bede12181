"""Means and their standard errors over overlapping patches: the delete-one-block jackknife.

Conventions: values are ``(n,)`` or ``(n, k)`` with the n patches first; a block is the coarse HEALPix pixel (NEST, any
Nside) that holds a patch's centre.  Patches overlap, so neighbours repeat the same sky and
``std / sqrt(n)`` is too small; leaving out a whole block at a time counts the sky once.  A block must be at least
as large as a patch for that: Nside 2 or 4 for 25-degree patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PairedDifference:
    """Difference a - b realization by realization.

    Attributes:
        mean, sem: mean difference and its block-jackknife standard error.
        sigmas: ``mean / sem`` (infinite for a constant non-zero difference, 0 for no difference).
        wins: number of realizations with a > b, of ``of``; ties are not wins.
    """

    mean: float
    sem: float
    sigmas: float
    wins: int
    of: int


def plain_sem(values: np.ndarray) -> np.ndarray:
    """``std / sqrt(n)`` along the first axis: right only for independent values.  Shape of one value."""
    return np.std(values, axis=0, ddof=1) / np.sqrt(len(values))


def block_jackknife(values: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and delete-one-block jackknife standard error, for blocks of unequal size.

    With g blocks of n_j values, h_j = n / n_j, theta the full mean and theta_(j) the mean without block j, the
    pseudo-values are p_j = h_j theta - (h_j - 1) theta_(j), and

        theta_J = g theta - sum_j (1 - 1/h_j) theta_(j),   var = (1/g) sum_j (p_j - theta_J)^2 / (h_j - 1)

    (Busing, Meijer and van der Leeden 1999, Stat. Comput. 9, 3).  For a mean, theta_J = theta; with blocks of one value
    this is ``plain_sem`` exactly.

    Args:
        values: ``(n,)`` or ``(n, k)``.
        blocks: ``(n,)`` integer labels.
    Returns:
        Mean and standard error, of shape ``()`` or ``(k,)``; the error is NaN when there is one block only.
    """
    values = np.asarray(values, dtype=np.float64)
    blocks = np.asarray(blocks)
    if blocks.shape != values.shape[:1]:
        raise ValueError(f"{blocks.shape} block labels for {values.shape[0]} values")
    size, total = _sum_by_block(values, blocks)
    mean = values.mean(axis=0)
    if len(size) < 2:
        return mean, np.full_like(mean, np.nan)
    without = (total.sum(axis=0) - total) / (size.sum() - size)
    weight = size.sum() / size
    deviation = (weight - 1) * (mean - without)  # p_j - theta_J, the common theta taken away
    return mean, np.sqrt(np.mean(deviation**2 / (weight - 1), axis=0))


def jackknife_sem(values: np.ndarray, size: np.ndarray) -> float:
    """Standard error of any statistic from its delete-one-block values, for blocks of unequal size.

    As in :func:`block_jackknife`, with the statistic itself in place of the mean.

    Args:
        values: ``(1 + g,)``, the statistic of all the data and then without each block.
        size: ``(g,)`` size of each block, in any unit.
    """
    full, without = values[0], values[1:]
    if len(size) < 2:
        return float("nan")
    weight = size.sum() / size
    centre = len(size) * full - np.sum((1 - 1 / weight) * without)
    pseudo = weight * full - (weight - 1) * without
    return float(np.sqrt(np.mean((pseudo - centre) ** 2 / (weight - 1))))


def paired(values_a: np.ndarray, values_b: np.ndarray, blocks: np.ndarray) -> PairedDifference:
    """Compare two models on the same realizations, ``values`` and ``blocks`` of shape ``(n,)``."""
    difference = np.asarray(values_a, dtype=np.float64) - np.asarray(values_b, dtype=np.float64)
    if difference.ndim != 1:
        raise ValueError(f"paired values have shape {difference.shape}, expected (n,)")
    mean, sem = block_jackknife(difference, blocks)
    wins = int(np.count_nonzero(difference > 0))
    return PairedDifference(float(mean), float(sem), _ratio(float(mean), float(sem)), wins, difference.size)


def _sum_by_block(values: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of values ``(g, 1 or nothing)`` and their sums ``(g, ...)`` in every block."""
    _, label = np.unique(blocks, return_inverse=True)
    size = np.bincount(label).astype(np.float64)
    total = np.zeros((len(size), *values.shape[1:]))
    np.add.at(total, label, values)
    return size.reshape(-1, *[1] * (values.ndim - 1)), total


def _ratio(mean: float, sem: float) -> float:
    if sem > 0:
        return mean / sem
    return float(np.copysign(np.inf, mean)) if mean and not np.isnan(sem) else (0.0 if mean == 0 else float("nan"))
