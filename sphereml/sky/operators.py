"""Sparse symmetric operators on the pixels of a region, as tables with the same number of entries in every row.

Conventions: ``index`` holds places in the region's pixel list, the pixel itself first; an entry that is missing has
weight 0 and the index of the pixel itself, so it may be read like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count

import numpy as np
import scipy.sparse

from sphereml.sky.faces import orbits, quarter_turns, representatives, turned
from sphereml.sky.regions import Region


@dataclass(frozen=True, eq=False)
class NeighbourOperator:
    """A sparse symmetric operator with a fixed number of entries a row.

    ``index`` ``(npix, width)`` int32 places within the region; ``weight`` ``(npix, width)`` float64, 0 for missing
    entries, whose index is the pixel itself.
    """

    index: np.ndarray
    weight: np.ndarray

    @classmethod
    def from_matrix(cls, matrix: scipy.sparse.spmatrix) -> NeighbourOperator:
        """The table of a square scipy matrix: as wide as its fullest row needs."""
        rows = scipy.sparse.csr_matrix(matrix)
        rows.sum_duplicates()
        diagonal = rows.diagonal()
        rest = (rows - scipy.sparse.diags(diagonal)).tocsr()
        rest.eliminate_zeros()
        count = np.diff(rest.indptr)
        filled = np.arange(-1, count.max(initial=0)) < count[:, None]
        filled[:, 0] = False
        index = np.repeat(np.arange(len(count), dtype=np.int32)[:, None], filled.shape[1], axis=1)
        weight = np.zeros(filled.shape)
        weight[:, 0] = diagonal
        index[filled], weight[filled] = rest.indices, rest.data
        return cls(index, weight)

    def matrix(self) -> scipy.sparse.csr_matrix:
        """The same operator as a scipy matrix, for checks and eigenvalues."""
        rows = np.repeat(np.arange(len(self.index)), self.index.shape[1])
        shape = (len(self.index),) * 2
        return scipy.sparse.coo_matrix((self.weight.ravel(), (rows, self.index.ravel())), shape=shape).tocsr()


@dataclass(frozen=True)
class Unfolding:
    """Where in a region the pixels of faces 0, 4 and 8 and their turned copies lie.

    The region's blocks of ``side2`` pixels are turned copies of fewer ones; ``blocks`` ``(ndistinct, 4)`` has the
    number in the region of each copy by its quarter turns, -1 where the region does not hold it.
    """

    region: Region
    side2: int
    blocks: np.ndarray

    @classmethod
    def of(cls, region: Region, first: np.ndarray) -> tuple[Unfolding, np.ndarray]:
        """For the blocks that begin at pixels ``first``; also the first pixels of the distinct blocks."""
        distinct, copy_of = np.unique(orbits(region.nside, first), return_inverse=True)
        blocks = np.full((distinct.size, 4), -1)
        blocks[copy_of, quarter_turns(region.nside, first)] = np.arange(first.size)
        return cls(region, region.npix // first.size, blocks), representatives(region.nside, distinct)

    def operator(self, parts: Sequence[NeighbourOperator]) -> NeighbourOperator:
        """The region's operator from the rows of the distinct blocks, in parts, with NEST pixels for ``index``."""
        shape = self.region.npix, max(part.index.shape[1] for part in parts)
        whole = NeighbourOperator(np.empty(shape, dtype=np.int32), np.empty(shape))
        starts = np.cumsum([0, *(len(part.index) for part in parts[:-1])])
        with ThreadPoolExecutor(cpu_count()) as pool:
            list(pool.map(lambda part, start: self._copy(part, start, whole), parts, starts))
        return whole

    def _copy(self, part: NeighbourOperator, start: int, whole: NeighbourOperator) -> None:
        block, child = np.divmod(np.arange(start, start + len(part.index)), self.side2)
        columns = part.index.shape[1]
        for turns in range(4):
            place = self.blocks[block, turns] * self.side2 + child
            here = np.flatnonzero(self.blocks[block, turns] >= 0)
            own = place[here]
            pixels, weight = turned(self.region.nside, part.index[here], turns), part.weight[here]
            if not self.region.is_full:
                pixels = self.region.locate(pixels)
                weight = np.where(pixels >= 0, weight, 0.0)
                pixels = np.where(pixels >= 0, pixels, own[:, None])
            whole.index[own, :columns], whole.index[own, columns:] = pixels, own[:, None]
            whole.weight[own, :columns], whole.weight[own, columns:] = weight, 0
