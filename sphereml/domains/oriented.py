"""Oriented convolution: nine weights on a pixel and its neighbours SW, W, NW, N, NE, E, SE, S on the HEALPix face grid.

``y_i = b + sum_j x_{n_j(i)} W_j``, the sphere's counterpart of a 3x3 ``Conv2d``: every pixel uses the axes of its own
base face, also for neighbours on another one; a neighbour that does not exist (24 pixels at the corners of base faces
have seven) or lies outside the region counts as zero.

A piece is a stack of square blocks with their borders, laid out row by row: images, on which the sums are an ordinary
convolution, channels last.  No neighbour is gathered more than once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch.nn.functional import conv2d

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
    ``nest`` are the places of rows ``start:stop`` in the blocks without borders, row by row, and ``rowwise`` the places
    of these in rows ``start:stop``; ``inner`` are the places of rows ``start:stop`` in the bordered blocks, and
    ``border`` those of existing border rows.
    """

    start: int
    stop: int
    side: int
    gather: torch.Tensor
    missing: torch.Tensor
    nest: torch.Tensor
    rowwise: torch.Tensor
    inner: torch.Tensor
    border: torch.Tensor

    def apply(self, rows: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, out: torch.Tensor) -> None:
        images = conv2d(self._bordered(rows), _filters(kernel), bias)
        torch.index_select(_rows_of(images), 0, self.nest, out=out[self.start : self.stop])

    def pull_back(self, rows: torch.Tensor, grad: torch.Tensor, kernel: torch.Tensor, sums: Gradients) -> None:
        images = _images_of(grad[self.start : self.stop].index_select(0, self.rowwise), self.side)
        wanted = [sums.rows is not None, True, False]
        unit, zero = [1, 1], [0, 0]
        bordered, filters, _ = torch.ops.aten.convolution_backward(
            images, self._bordered(rows), _filters(kernel), None, unit, zero, unit, False, zero, 1, wanted
        )
        for (dx, dy), weights in zip(NEIGHBOUR_STEPS, sums.kernel, strict=True):
            weights += filters[:, :, dy + 1, dx + 1].T
        if sums.rows is None:
            return
        spread = _rows_of(bordered)
        torch.index_select(spread, 0, self.inner, out=sums.rows[self.start : self.stop])
        sums.beyond.append((self.gather[self.border], spread.index_select(0, self.border)))

    def _bordered(self, rows: torch.Tensor) -> torch.Tensor:
        bordered = rows.index_select(0, self.gather)
        if len(self.missing):
            bordered.index_fill_(0, self.missing, 0)
        return _images_of(bordered, self.side + 2)


def _filters(kernel: torch.Tensor) -> torch.Tensor:
    """Torch's filters ``(out, in, 3, 3)`` of nine taps, in channels_last."""
    filters = kernel.new_empty(kernel.shape[2], 3, 3, kernel.shape[1])
    for (dx, dy), weights in zip(NEIGHBOUR_STEPS, kernel, strict=True):
        filters[:, dy + 1, dx + 1] = weights.T
    return filters.permute(0, 3, 1, 2)


def _images_of(rows: torch.Tensor, side: int) -> torch.Tensor:
    """Blocks ``(nblock, channel, side, side)`` of their rows, one after the other: channels_last, no copy."""
    return rows.view(-1, side, side, rows.shape[1]).permute(0, 3, 1, 2)


def _rows_of(images: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`_images_of`."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


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
        block = np.arange(len(blocks))[:, None]
        nest = (block * inside.size + y * (width - 2) + x).ravel()
        own = block * width**2 + (y + 1) * width + x + 1
        border = blocks >= 0
        border[:, 1:-1, 1:-1] = False
        tables = (
            np.maximum(blocks, 0).ravel().astype(np.int32),
            np.flatnonzero(blocks < 0),
            nest,
            np.argsort(nest),
            own.ravel(),
            np.flatnonzero(border),
        )
        first = start * (width - 2) ** 2
        on_device = (torch.from_numpy(table).to(self.device) for table in tables)
        return OrientedPiece(first, first + len(nest), width - 2, *on_device)


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
