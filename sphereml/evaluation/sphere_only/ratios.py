"""Ratios of summed squared errors, with their standard errors over blocks of sky and their spread over seeds.

Conventions: a quantity is ``(seed, n)`` over pixels or patches, or ``(n,)`` where all seeds share it; a statistic takes
sums ``(quantity, ...)`` and gives ``(...)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sphereml.evaluation.statistics import jackknife_error


def ratio(sums: np.ndarray) -> np.ndarray:
    """``a / b`` of the sums a, b."""
    return np.asarray(sums[0] / sums[1])


def double_ratio(sums: np.ndarray) -> np.ndarray:
    """``(a / b) / (c / d)`` of the sums a, b, c, d."""
    return np.asarray(sums[0] / sums[1] / (sums[2] / sums[3]))


def estimate(
    statistic: Callable[[np.ndarray], np.ndarray], quantities: Sequence[np.ndarray], blocks: np.ndarray
) -> dict[str, Any]:
    """A statistic of the sums over all blocks and seeds: ``mean``, block-jackknife ``sem``, ``spread`` over the seeds.

    Args:
        quantities: see the module's conventions.
        blocks: ``(n,)``, the block of sky that each entry lies in.

    Returns:
        JSON values; null for an error without two blocks, a spread without two seeds, and all without an entry.
    """
    if not blocks.size:
        return {"mean": None, "sem": None, "spread": None}
    index = np.unique(blocks, return_inverse=True)[1]
    rows = np.stack(np.broadcast_arrays(*(np.atleast_2d(one) for one in quantities)))
    sums = rows @ (index[:, None] == np.arange(index.max() + 1)).astype(np.float64)
    pooled, size = sums.sum(axis=1), np.bincount(index)
    total = pooled.sum(axis=1, keepdims=True)
    mean, seeds = float(statistic(total)[0]), statistic(sums.sum(axis=2))
    sem = None
    if len(size) > 1:
        sem = float(jackknife_error(statistic(np.concatenate([total, total - pooled], axis=1)), size))
    return {"mean": mean, "sem": sem, "spread": float(seeds.std(ddof=1)) if len(seeds) > 1 else None}
