"""Oriented convolution: nine weights on a pixel and its neighbours SW, W, NW, N, NE, E, SE, S on the HEALPix face grid.

``y_i = b + sum_j x_{n_j(i)} W_j``, the sphere's counterpart of a 3x3 ``Conv2d``: every pixel uses the axes of its own
base face, also for neighbours on another one; a neighbour that does not exist (24 pixels at the corners of base faces
have seven) or lies outside the region counts as zero.

A piece is a stack of square blocks with their borders, laid out row by row.  A step on the grid is then a shift in the
list of rows, so every tap is one matrix product on a slice: no neighbour is gathered more than once.  The products run
over the borders' rows too and what they give there is not read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from sphereml.domains.convolution import Gradients
from sphereml.sky.faces import face_coordinates, gather_bits, pixels_beyond
from sphereml.sky.regions import Region

# Steps (x, y) on the face grid to the pixel itself and its neighbours SW, W, NW, N, NE, E, SE, S.
NEIGHBOUR_STEPS = ((0, 0), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
_BLOCK_SIDE = 64


@dataclass(frozen=True, eq=False)
class OrientedPiece:
    """Blocks of ``side x side`` pixels, rows ``start:stop``.

    ``gather`` ``(nblock * (side + 2)^2,)`` are the rows of the bordered blocks, 0 for those listed in ``missing``;
    ``own`` are the places of rows ``start:stop`` after the first inner one, ``border`` those of existing border rows.
    """

    start: int
    stop: int
    side: int
    gather: torch.Tensor
    missing: torch.Tensor
    own: torch.Tensor
    border: torch.Tensor

    def apply(self, rows: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, out: torch.Tensor) -> None:
        bordered = self._bordered(rows)
        taps = self._taps(bordered)
        inside = torch.addmm(bias, taps[0], kernel[0])
        for tap, weights in zip(taps[1:], kernel[1:], strict=True):
            inside.addmm_(tap, weights)
        torch.index_select(inside, 0, self.own, out=out[self.start : self.stop])

    def pull_back(self, rows: torch.Tensor, grad: torch.Tensor, kernel: torch.Tensor, sums: Gradients) -> None:
        taps = self._taps(self._bordered(rows))
        inside = grad.new_zeros(len(taps[0]), grad.shape[1])
        inside.index_copy_(0, self.own, grad[self.start : self.stop])
        for tap, weights in zip(taps, sums.kernel, strict=True):
            weights.addmm_(tap.T, inside)
        if sums.rows is None:
            return
        spread = rows.new_zeros(len(self.gather), rows.shape[1])
        for target, weights in zip(self._taps(spread), kernel, strict=True):
            target.addmm_(inside, weights.T)
        sums.rows[self.start : self.stop] += spread[self._first :].index_select(0, self.own)
        sums.beyond.append((self.gather[self.border], spread.index_select(0, self.border)))

    @property
    def _first(self) -> int:
        """Place of the first row that is no border."""
        return self.side + 3

    def _bordered(self, rows: torch.Tensor) -> torch.Tensor:
        bordered = rows.index_select(0, self.gather)
        return bordered.index_fill_(0, self.missing, 0) if len(self.missing) else bordered

    def _taps(self, bordered: torch.Tensor) -> list[torch.Tensor]:
        """The rows from the first inner pixel to the last one, seen from each of the nine steps."""
        length = len(bordered) - 2 * self._first
        starts = [self._first + dy * (self.side + 2) + dx for dx, dy in NEIGHBOUR_STEPS]
        return [bordered[start : start + length] for start in starts]


@dataclass(frozen=True, eq=False)
class OrientedLayout:
    """Blocks of a region, as large as it allows up to 64 pixels a side."""

    region: Region
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _made: dict[tuple[int, int], tuple[OrientedPiece, ...]] = field(default_factory=dict)

    @property
    def npix(self) -> int:
        return self.region.npix

    def copies(self, rows: int) -> int:
        return rows // self.npix

    @cached_property
    def _blocks(self) -> np.ndarray:
        side = min(self.region.nside // self.region.coarse_nside, _BLOCK_SIDE)
        return bordered_blocks(self.region, side)

    def pieces(self, taps: int, copies: int, rows: int) -> tuple[OrientedPiece, ...]:
        if (copies, rows) not in self._made:
            own = [np.where(self._blocks < 0, -1, self._blocks + copy * self.npix) for copy in range(copies)]
            blocks = np.concatenate(own)
            at_once = max(1, rows // (blocks.shape[1] - 2) ** 2)
            starts = range(0, len(blocks), at_once)
            self._made[copies, rows] = tuple(self._piece(start, blocks[start : start + at_once]) for start in starts)
        return self._made[copies, rows]

    def _piece(self, start: int, blocks: np.ndarray) -> OrientedPiece:
        width = blocks.shape[1]
        inside = np.arange((width - 2) ** 2)
        x, y = gather_bits(inside), gather_bits(inside >> 1)
        own = (np.arange(len(blocks))[:, None] * width**2 + y * width + x).ravel()
        border = blocks >= 0
        border[:, 1:-1, 1:-1] = False
        tables = (
            np.maximum(blocks, 0).ravel().astype(np.int32),
            np.flatnonzero(blocks < 0),
            own,
            np.flatnonzero(border),
        )
        first = start * (width - 2) ** 2
        on_device = (torch.from_numpy(table).to(self.device) for table in tables)
        return OrientedPiece(first, first + len(own), width - 2, *on_device)


def bordered_blocks(region: Region, side: int) -> np.ndarray:
    """Places in the region of the pixels of its blocks and their borders, ``(nblock, side + 2, side + 2)`` by y and x.

    -1 marks pixels outside the region, and those that corners of base faces lack.

    Args:
        side: power of two; the region is a union of whole blocks, ``side <= nside / coarse_nside``.
    """
    corners = face_coordinates(region.nside, region.pixels[:: side * side])
    face, x, y = (part[:, None, None] for part in corners)
    steps = np.arange(-1, side + 1)
    return region.locate(pixels_beyond(region.nside, face, x + steps, y + steps[:, None]))
