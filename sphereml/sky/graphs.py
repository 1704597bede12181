"""Neighbour graphs of HEALPix grids and their Laplacians, as fixed-width tables.

Conventions: the eight neighbours of a pixel come in the order SW, W, NW, N, NE, E, SE, S (healpy's); -1 marks the one
that the corners of base pixels lack.  Weights are ``w_ij = exp(-log 2 d_ij^2 / width^2)`` with d the chord length, the
kernel of deepsphere; the combinatorial Laplacian is ``L = D - W``, the normalized one ``1 - D^-1/2 W D^-1/2``, and
either is rescaled to ``2 L / lambda_max - 1``.  The operator of a region is the block of the full sphere's: degrees
count the neighbours outside, whose values are taken as zero, so a tile with a halo reproduces the full sphere exactly.
Who is a neighbour, and why ties are not broken, is told in :mod:`sphereml.sky.nearest`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import healpy
import numpy as np
from scipy.sparse.linalg import eigsh

from sphereml.sky.blocks import Blocks
from sphereml.sky.faces import orbits, representatives
from sphereml.sky.nearest import REACH, Adjacent, MutualNearest, Neighbourhood
from sphereml.sky.operators import NeighbourOperator, Unfolding
from sphereml.sky.regions import Region

__all__ = ["Graph", "Kind", "NeighbourOperator", "graph_reach", "laplacian", "largest_eigenvalue", "rescaled_laplacian"]

Graph = Literal["adjacent", "nearest8", "nearest20", "nearest40", "nearest60"]
Kind = Literal["combinatorial", "normalized"]

# Kernel widths at Nside 32 .. 1024 by number of neighbours (deepsphere); they halve and double beyond the table.
_KERNEL_WIDTHS = {
    8: (0.025, 0.01228, 0.00614, 0.00307, 0.00154, 0.00077),
    20: (0.03185, 0.01564, 0.00782, 0.00391, 0.00196, 0.00098),
    40: (0.042432, 0.021354, 0.010595, 0.005551),
    60: (0.05172, 0.025403, 0.012695, 0.006351),
}
_FIRST_TABULATED = 32
# Above this Nside the spectrum depends on the kernel's width in units of the pixel only, to within the margin.
_EIGENVALUE_NSIDE = 64
_EIGENVALUE_MARGIN = 1.02
# Up to this Nside every eigenvalue is found: Lanczos wants room.
_DENSE_NSIDE = 2


def neighbour_count(graph: Graph) -> int:
    """The k of a graph."""
    return 8 if graph == "adjacent" else int(graph.removeprefix("nearest"))


def graph_reach(graph: Graph) -> int:
    """Most steps to pixels that share a side or corner from a pixel to its neighbours in a graph."""
    return 1 if graph == "adjacent" else REACH[neighbour_count(graph)]


def kernel_width(nside: int, graph: Graph = "adjacent") -> float:
    """Width of a graph's Gaussian kernel, in units of the sphere's radius."""
    widths = _KERNEL_WIDTHS[neighbour_count(graph)]
    octave = (nside // _FIRST_TABULATED).bit_length() - 1 if nside >= _FIRST_TABULATED else 0
    octave = min(octave, len(widths) - 1)
    return widths[octave] * 2**octave * _FIRST_TABULATED / nside


def neighbours(nside: int, pixels: np.ndarray) -> np.ndarray:
    """NEST indices of the eight neighbours of NEST ``pixels``: ``(npix, 8)``, -1 where there is none."""
    table: np.ndarray = healpy.get_all_neighbours(nside, pixels, nest=True).T
    return np.ascontiguousarray(table)


def laplacian(region: Region, graph: Graph = "adjacent", kind: Kind = "combinatorial") -> NeighbourOperator:
    """Laplacian of a graph on a region: ``D - W``, or ``1 - D^-1/2 W D^-1/2`` (``kind="normalized"``).

    In the adjacent graph the eight neighbours stand in the order of :func:`neighbours`, the missing one in its place.
    """
    return _laplacian(region, graph, kind, kernel_width(region.nside, graph))


@lru_cache(maxsize=64)
def largest_eigenvalue(nside: int, graph: Graph = "adjacent", kind: Kind = "combinatorial") -> float:
    """Upper end of the spectrum of the full sphere's Laplacian, with a margin of 2 %.

    The Lanczos iteration starts from a fixed vector, so the value is the same on every machine.  Above Nside 64 it is
    that of Nside 64 with the kernel as many pixels wide as it is at ``nside``.  The normalized Laplacian's is still
    growing there (its top mode sits where pixels are longest and contracts onto that place, so that the gain falls by
    sqrt 2 with every octave: 1.714, 1.736, 1.752 at Nside 64, 128, 256); the rest of that series is added.
    """
    small = min(nside, _EIGENVALUE_NSIDE)
    pixel_width = kernel_width(nside, graph) * nside
    value = _top_eigenvalue(small, graph, kind, pixel_width / small)
    if kind == "normalized" and nside > small:
        gain = value - _top_eigenvalue(small // 2, graph, kind, 2 * pixel_width / small)
        value = min(value + gain / (2**0.5 - 1), 2 / _EIGENVALUE_MARGIN)  # 2 bounds it on any graph
    return _EIGENVALUE_MARGIN * value


def rescaled_laplacian(region: Region, graph: Graph = "adjacent", kind: Kind = "combinatorial") -> NeighbourOperator:
    """``2 L / lambda_max - 1``, whose spectrum lies in [-1, 1]: the argument of the Chebyshev polynomials."""
    operator = laplacian(region, graph, kind)
    weight = operator.weight
    weight *= 2 / largest_eigenvalue(region.nside, graph, kind)
    weight[:, 0] -= 1
    return NeighbourOperator(operator.index, weight)


def _top_eigenvalue(nside: int, graph: Graph, kind: Kind, width: float) -> float:
    matrix = _laplacian(Region(nside), graph, kind, width).matrix()
    if nside <= _DENSE_NSIDE:
        return float(np.linalg.eigvalsh(matrix.toarray())[-1])
    start = np.random.default_rng(0).standard_normal(matrix.shape[0])
    return float(eigsh(matrix, k=1, which="LA", v0=start, tol=1e-3, return_eigenvectors=False)[0])


def _laplacian(region: Region, graph: Graph, kind: Kind, width: float) -> NeighbourOperator:
    """The Laplacian with a kernel of any width; rows of pixels that are turned copies of each other are made once."""
    side = region.nside if region.is_full else region.nside // region.coarse_nside
    first = np.arange(12) if region.coarse_pixels is None else np.asarray(region.coarse_pixels, dtype=np.int64)
    unfolding, first = Unfolding.of(region, first * side**2)
    rows = _rows(_neighbourhood(region.nside, graph, width), Blocks(region.nside, first, side), kind)
    return unfolding.operator(rows)


def _neighbourhood(nside: int, graph: Graph, width: float) -> Neighbourhood:
    return Adjacent(width) if graph == "adjacent" else MutualNearest(nside, neighbour_count(graph), width)


def _rows(neighbourhood: Neighbourhood, blocks: Blocks, kind: Kind) -> list[NeighbourOperator]:
    """Rows of the Laplacian for blocks in faces 0, 4 and 8, in parts; ``index`` holds NEST pixels."""
    parts = neighbourhood.rows(blocks)
    degrees = [_degree(part) for part in parts]
    around = _DegreesAround(neighbourhood, blocks.nside, parts, degrees) if kind == "normalized" else None
    for part, degree in zip(parts, degrees, strict=True):
        np.negative(part.weight, out=part.weight)
        if around is not None:
            part.weight[...] /= np.sqrt(degree[:, None] * around(part.index))
        part.weight[:, 0] = degree if around is None else 1
    return parts


class _DegreesAround:
    """Degrees of all pixels that rows name, those outside the rows' own blocks found as well."""

    def __init__(
        self,
        neighbourhood: Neighbourhood,
        nside: int,
        parts: Sequence[NeighbourOperator],
        degrees: Sequence[np.ndarray],
    ) -> None:
        self._nside, self._degree = nside, np.zeros(3 * nside**2)
        for part, degree in zip(parts, degrees, strict=True):
            self._degree[orbits(nside, part.index[:, 0])] = degree
        named = [orbits(nside, part.index) for part in parts]
        outside = np.unique(np.concatenate([one[self._degree[one] == 0] for one in named]).astype(np.int64))
        for part in neighbourhood.rows(Blocks(nside, representatives(nside, outside), 1)):
            self._degree[orbits(nside, part.index[:, 0])] = _degree(part)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        degrees: np.ndarray = self._degree[orbits(self._nside, pixels)]
        return degrees


def _degree(rows: NeighbourOperator) -> np.ndarray:
    """Sums term by term in the order of the row, so that zeros at its end, of which tables differ, change no bit."""
    total = np.zeros(len(rows.weight))
    for column in np.ascontiguousarray(rows.weight.T):
        total += column
    return total
