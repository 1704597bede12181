"""Neighbour graphs of HEALPix grids and their Laplacians, as fixed-width tables.

Conventions: the eight neighbours of a pixel come in the order SW, W, NW, N, NE, E, SE, S (healpy's); -1 marks the one
that the corners of base pixels lack.  Weights are ``w_ij = exp(-log 2 d_ij^2 / width^2)`` with d the chord length, the
kernel of deepsphere; the Laplacian is the combinatorial ``L = D - W``, rescaled to ``2 L / lambda_max - 1``.  The
operator of a region is the block of the full sphere's: degrees count the neighbours outside, whose values are taken as
zero, so a tile with a halo reproduces the full sphere exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import healpy
import numpy as np
import scipy.sparse
from scipy.sparse.linalg import eigsh

from sphereml.sky.regions import Region

# Kernel widths of the 8-neighbour graph by Nside (deepsphere); they halve and double beyond the table.
KERNEL_WIDTH_8 = {32: 0.025, 64: 0.01228, 128: 0.00614, 256: 0.00307, 512: 0.00154, 1024: 0.00077}
# The spectrum is scale-free above this Nside to well within the margin kept on the largest eigenvalue.
_EIGENVALUE_NSIDE = 64
_EIGENVALUE_MARGIN = 1.02


def kernel_width(nside: int) -> float:
    """Width of the Gaussian kernel of the 8-neighbour graph, in units of the sphere's radius."""
    if nside < 32:
        return KERNEL_WIDTH_8[32] * 32 / nside
    if nside > 1024:
        return KERNEL_WIDTH_8[1024] * 1024 / nside
    return KERNEL_WIDTH_8[nside]


def neighbours(nside: int, pixels: np.ndarray) -> np.ndarray:
    """NEST indices of the eight neighbours of NEST ``pixels``: ``(npix, 8)``, -1 where there is none."""
    table: np.ndarray = healpy.get_all_neighbours(nside, pixels, nest=True).T
    return np.ascontiguousarray(table)


def edge_weights(nside: int, pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Gaussian weights ``(npix, 8)`` of a neighbour table; 0 where the neighbour is missing."""
    centre = np.stack(healpy.pix2vec(nside, pixels, nest=True), axis=-1)
    other = np.stack(healpy.pix2vec(nside, np.maximum(table, 0), nest=True), axis=-1)
    chord2 = ((other - centre[:, None]) ** 2).sum(axis=-1)
    return np.where(table >= 0, np.exp(-np.log(2) * chord2 / kernel_width(nside) ** 2), 0.0)


@dataclass(frozen=True, eq=False)
class NeighbourOperator:
    """A sparse symmetric operator with nine entries a row, the pixel itself first.

    ``index`` ``(npix, 9)`` int32 places within the region; ``weight`` ``(npix, 9)`` float64, 0 for missing neighbours,
    whose index is the pixel itself.
    """

    index: np.ndarray
    weight: np.ndarray

    def matrix(self) -> scipy.sparse.csr_matrix:
        """The same operator as a scipy matrix, for checks and eigenvalues."""
        rows = np.repeat(np.arange(len(self.index)), self.index.shape[1])
        shape = (len(self.index),) * 2
        return scipy.sparse.coo_matrix((self.weight.ravel(), (rows, self.index.ravel())), shape=shape).tocsr()


def laplacian(region: Region) -> NeighbourOperator:
    """Combinatorial Laplacian ``D - W`` of the 8-neighbour graph on a region."""
    table = neighbours(region.nside, region.pixels)
    weight = edge_weights(region.nside, region.pixels, table)
    place = region.locate(table)
    own = np.arange(region.npix)[:, None]
    entries = np.where(place >= 0, -weight, 0.0)
    index = np.concatenate([own, np.where(place >= 0, place, own)], axis=1).astype(np.int32)
    return NeighbourOperator(index, np.concatenate([weight.sum(axis=1, keepdims=True), entries], axis=1))


@lru_cache(maxsize=16)
def largest_eigenvalue(nside: int) -> float:
    """Upper end of the spectrum of the full sphere's Laplacian, with a margin of 2 %.

    The Lanczos iteration starts from a fixed vector, so the value is the same on every machine.  Above Nside 64 the
    value of Nside 64 is used.
    """
    if nside == 1:
        return 2 * float(laplacian(Region(1)).weight[:, 0].max())  # Gershgorin: too small for Lanczos
    matrix = laplacian(Region(min(nside, _EIGENVALUE_NSIDE))).matrix()
    start = np.random.default_rng(0).standard_normal(matrix.shape[0])
    value = eigsh(matrix, k=1, which="LA", v0=start, tol=1e-3, return_eigenvectors=False)[0]
    return _EIGENVALUE_MARGIN * float(value)


def rescaled_laplacian(region: Region) -> NeighbourOperator:
    """``2 L / lambda_max - 1``, whose spectrum lies in [-1, 1]: the argument of the Chebyshev polynomials."""
    operator = laplacian(region)
    weight = 2 / largest_eigenvalue(region.nside) * operator.weight
    weight[:, 0] -= 1
    return NeighbourOperator(operator.index, weight)
