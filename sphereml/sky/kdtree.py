"""Nearest-neighbour graphs as deepsphere builds them, for networks trained on its graphs.

Conventions as in :mod:`sphereml.sky.graphs`, on the whole sphere only.  Exactly k neighbours are taken from a k-d tree
and symmetrized by the maximum, so where the k-th is tied the tree's order and the last bits of the pixel centres
decide; no rule of geometry gives the same choice.  The graph lies within ours and lacks the grid's symmetries.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import eigsh
from scipy.spatial import cKDTree

from sphereml.sky.graphs import Graph, Kind, NeighbourOperator, kernel_width, neighbour_count
from sphereml.sky.grid import HealpixGrid

# deepsphere adds twice the tolerance of its estimate to the largest eigenvalue.
_EIGENVALUE_MARGIN = 1.01


def kdtree_weights(nside: int, graph: Graph = "nearest20") -> scipy.sparse.csr_matrix:
    """Weights ``exp(-log 2 d^2 / width^2)`` of the edges to the k nearest pixels, ``(npix, npix)``."""
    grid = HealpixGrid(nside)
    k = min(neighbour_count(graph), grid.npix - 1)
    distance, index = cKDTree(grid.vectors()).query(grid.vectors(), k + 1)
    weight = np.exp(-np.log(2) * distance[:, 1:] ** 2 / kernel_width(nside, graph) ** 2)
    rows = np.repeat(np.arange(grid.npix), k)
    directed = scipy.sparse.coo_matrix((weight.ravel(), (rows, index[:, 1:].ravel())), shape=(grid.npix,) * 2).tocsr()
    return directed.maximum(directed.T).tocsr()


def kdtree_laplacian(nside: int, graph: Graph = "nearest20", kind: Kind = "combinatorial") -> scipy.sparse.csr_matrix:
    """Laplacian of :func:`kdtree_weights`, ``(npix, npix)``."""
    weights = kdtree_weights(nside, graph)
    degree = np.asarray(weights.sum(axis=1)).ravel()
    if kind == "combinatorial":
        return (scipy.sparse.diags(degree) - weights).tocsr()
    scale = scipy.sparse.diags(degree**-0.5)
    return (scipy.sparse.identity(len(degree)) - scale @ weights @ scale).tocsr()


def kdtree_rescaled_laplacian(
    nside: int, graph: Graph = "nearest20", kind: Kind = "combinatorial"
) -> NeighbourOperator:
    """``2 L / lambda_max - 1`` with 1.01 times the largest eigenvalue.

    deepsphere's own estimate of the eigenvalue starts at random and stops within 0.5 % of it, so its operator can only
    be met to that: give the one a network was trained with where there is one.
    """
    matrix = kdtree_laplacian(nside, graph, kind)
    start = np.random.default_rng(0).standard_normal(matrix.shape[0])
    value = eigsh(matrix, k=1, which="LA", v0=start, tol=1e-3, return_eigenvectors=False)[0]
    identity = scipy.sparse.identity(matrix.shape[0])
    return NeighbourOperator.from_matrix(2 / (_EIGENVALUE_MARGIN * value) * matrix - identity)
