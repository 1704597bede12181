"""Covariance of bandpowers by leaving out blocks of the sky.

Conventions: a block is a superpixel's part of the mask.  Each time one is left out the mask changes, and so does its
mode coupling: everything is computed again.  Blocks of unequal weight are treated as in the delete-group jackknife of
Busing, Meijer and van der Leeden (1999, Statistics and Computing 9, 3): with h_j the whole weight over that of block j,

    tau_j = h_j x - (h_j - 1) x_(j),   x_J = n x - sum (1 - 1/h_j) x_(j),   Cov = 1/n sum (tau_j - x_J)^2 / (h_j - 1).

Blocks must be larger than the scales of interest, more than the bands whose covariance is to be inverted, and alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.bandpowers import Bandpowers
from sphereml.harmonics.estimator import Options, estimate
from sphereml.harmonics.workspace import Workspace
from sphereml.sky.masks import superpixels

# Shares of the whole weight below which a block is left to no sample: its pseudo-value would be noise.
_LEAST_SHARE = 1e-4


def jackknife(
    workspace: Workspace, maps: tuple[np.ndarray, ...], block_nside: int, **options: Unpack[Options]
) -> Bandpowers:
    """Bandpowers with the covariance of a jackknife over superpixels of ``block_nside``.

    Raises:
        UserError: purification (blocks have hard edges), fewer than two blocks, or as :func:`~.estimator.estimate`.
    """
    if workspace.purify_b or workspace.purify_e:
        raise UserError("blocks have hard edges, which purification cannot take", "use the Gaussian covariance")
    options.pop("covariance", None)
    whole = estimate(workspace, maps, **options)
    first, second = (field.mask for field in workspace.fields)
    label = superpixels(first * second, workspace.fields[0].grid.nside, block_nside)
    share = np.bincount(label[label >= 0], (first * second)[label >= 0] ** 2)
    share = share / share.sum()
    blocks = np.flatnonzero(share > _LEAST_SHARE)
    if len(blocks) < 2:
        raise UserError(f"{len(blocks)} block of Nside {block_nside} under the mask", "choose a higher --jackknife")
    left = [_without(workspace, maps, label == block, options) for block in blocks]
    return whole.with_covariance(delete_group_covariance(whole.values, np.stack(left), share[blocks]), "jackknife")


def _without(workspace: Workspace, maps: tuple[np.ndarray, ...], block: np.ndarray, options: Options) -> np.ndarray:
    masks = tuple(np.where(block, 0.0, field.mask) for field in workspace.fields)
    return estimate(replace(workspace, mask=(masks[0], masks[1])), maps, **options).values


def delete_group_covariance(whole: np.ndarray, left: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Covariance, ``whole.shape * 2``, of a statistic from its values without each group.

    Args:
        whole: the statistic of all, ``(...)``.
        left: without each of n groups, ``(n, ...)``.
        share: of each group in the whole weight, ``(n,)``.
    """
    count = len(left)
    share = share.reshape(-1, *[1] * whole.ndim)
    pseudo = (whole - (1 - share) * left) / share
    centre = count * whole - np.sum((1 - share) * left, axis=0)
    scaled = (pseudo - centre) * np.sqrt(share / (1 - share) / count)
    return np.asarray(np.tensordot(scaled, scaled, axes=(0, 0)))
