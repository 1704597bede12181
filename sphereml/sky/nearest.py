"""The weighted neighbours of HEALPix pixels: those that share a side or corner, or the k nearest made mutual.

Conventions: NEST pixels; distances are squared chords between centres on the unit sphere; weights
``exp(-log 2 d^2 / width^2)``.  Rows of neighbours start with the pixel itself at weight 0.

Two pixels are mutual neighbours if either is among the k nearest of the other.  Exactly tied distances are frequent
(1.3 % of the 20th neighbours at Nside 64), because the grid is symmetric.  A tie is never broken here: every pixel at
the distance of the k-th counts.  That keeps the sixteen symmetries of the grid, needs no arbitrary rule, and does not
hang on the last bits of a machine's sines, since squared distances within 1e-10 of each other are taken as equal
(rounding stays below 1e-11 up to Nside 8192).  With ``r_i`` the distance of the k-th neighbour of i, the mutual
neighbours are then just those with ``d_ij <= max(r_i, r_j)``.  deepsphere lets the rounding of a k-d tree break ties:
:mod:`sphereml.sky.kdtree` does the same where its graphs are wanted.

Only faces 0, 4 and 8 are worked on: pixels of the others are turned copies of theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from typing import Protocol, TypeVar

import numpy as np

from sphereml.sky.blocks import Blocks, Windows
from sphereml.sky.faces import orbits, representatives
from sphereml.sky.operators import NeighbourOperator

Part = TypeVar("Part")

# Half-width of the window that holds every mutual neighbour: tests count neighbours with a k-d tree on whole grids.
REACH = {8: 2, 20: 3, 40: 5, 60: 6}
_TIE = 1 + 1e-10
# SW, W, NW, N, NE, E, SE, S within a 3 x 3 window.
_COMPASS = [1, 2, 5, 8, 7, 6, 3, 0]
# Just below 32 MB, the most that glibc learns to keep.
_KEPT_BYTES = 31 * 2**20


class Neighbourhood(Protocol):
    """A rule that says which pixels are neighbours, and how much they weigh."""

    def rows(self, blocks: Blocks) -> list[NeighbourOperator]:
        """Weights of the neighbours of the pixels of blocks inside faces 0, 4 and 8, in parts.

        Their ``index`` holds NEST pixels.
        """


@dataclass(frozen=True)
class Adjacent:
    """The eight pixels that share a side or corner, in the order SW, W, NW, N, NE, E, SE, S; one may be missing."""

    width: float

    def rows(self, blocks: Blocks) -> list[NeighbourOperator]:
        return _for_each_chunk(blocks, 1, self._chunk)

    def _chunk(self, windows: Windows) -> NeighbourOperator:
        order, own = windows.blocks.nest_order, windows.blocks.pixels
        pixels = np.vstack([own, windows.cut(windows.framed)[_COMPASS]])
        weight = np.vstack([np.zeros(own.shape), _gaussian(windows.chord2()[_COMPASS], self.width)])
        return NeighbourOperator(np.where(pixels < 0, own, pixels).astype(np.int32).T[order], weight.T[order])


class MutualNearest:
    """Mutual neighbours among the k nearest pixels; all others where the grid has no more than k."""

    def __init__(self, nside: int, k: int, width: float) -> None:
        self.nside, self.k, self.width = nside, k, width
        # By orbit; 0 where not known yet.  Memory is only taken for the pages that are written.
        self._radius2 = np.zeros(3 * nside**2)
        self._wanted = np.zeros(3 * nside**2, dtype=bool)

    def rows(self, blocks: Blocks) -> list[NeighbourOperator]:
        reach = REACH[self.k]
        _for_each_chunk(blocks, reach, self._measure)
        outside = np.flatnonzero(self._wanted)
        outside = outside[self._radius2[outside] == 0]
        _for_each_chunk(Blocks(self.nside, representatives(self.nside, outside), 1), reach, self._measure)
        return _for_each_chunk(blocks, reach, self._chunk)

    def _measure(self, windows: Windows) -> None:
        """Find ``r_i^2`` of the blocks' pixels, and note the pixels around, whose own will be wanted."""
        rank = min(self.k, windows.size - 1)  # the pixel itself has rank 0
        chord2 = np.ascontiguousarray(windows.chord2().T)
        radius2 = np.partition(chord2, rank, axis=1)[:, rank] * _TIE
        self._radius2[orbits(self.nside, windows.blocks.pixels)] = radius2
        self._wanted[orbits(self.nside, windows.framed[windows.framed >= 0])] = True

    def _chunk(self, windows: Windows) -> NeighbourOperator:
        order, own, chord2 = windows.blocks.nest_order, windows.blocks.pixels, windows.chord2()
        radius2 = windows.cut(self._radius2[orbits(self.nside, np.maximum(windows.framed, 0))])
        # Only the pixel itself is at distance zero; what a corner lacks is infinitely far.
        near = (chord2 <= np.maximum(radius2, self._radius2[orbits(self.nside, own)])) & (chord2 > 0)
        row, step = np.nonzero(near.T[order])
        count = np.bincount(row, minlength=len(order))[:, None]
        filled = np.arange(-1, count.max()) < count
        filled[:, 0] = False
        pixels, weight = np.repeat(own[order, None].astype(np.int32), filled.shape[1], axis=1), np.zeros(filled.shape)
        pixels[filled] = windows.cut(windows.framed.astype(np.int32))[step, order[row]]
        weight[filled] = _gaussian(chord2[step, order[row]], self.width)
        return NeighbourOperator(pixels, weight)


def _gaussian(chord2: np.ndarray, width: float) -> np.ndarray:
    exponent = np.multiply(chord2, -np.log(2) / width**2, out=chord2)
    return np.exp(exponent, out=exponent)


def _for_each_chunk(blocks: Blocks, reach: int, function: Callable[[Windows], Part]) -> list[Part]:
    """Results in the order of the pixels; chunks run on all cores, since numpy lets go of the interpreter."""
    # glibc hands blocks larger than any freed before back to the system, and page faults would take half the time.
    np.empty(_KEPT_BYTES, dtype=np.uint8)
    chunks = blocks.chunks(Windows(blocks, reach).size)
    with ThreadPoolExecutor(cpu_count()) as pool:
        return list(pool.map(function, (Windows(chunk, reach) for chunk in chunks)))
