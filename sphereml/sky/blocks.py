"""Squares of HEALPix pixels inside a face, and the window of pixels around each of them.

Conventions: NEST pixels; a block is named by its first pixel; windows run along x, then y, of the pixel's own face
(see :mod:`sphereml.sky.faces`); -1 marks what a corner where three faces meet lacks.  Distances are squared chords
between pixel centres on the unit sphere: differences of shifted views of one array, with no look-up by pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sphereml.sky.faces import face_coordinates, gather_bits, pixels_beyond, spread_bits, unit_vectors

# On smaller grids a wide window would wrap around a face; there every pixel is in every window.
_SMALLEST_FRAMED = 16
# Window entries handled at once: their squared chords fill 2 MB, so that they stay in cache.
_CHUNK = 2**18


@dataclass(frozen=True)
class Blocks:
    """Squares of ``side x side`` pixels (a power of two), named by their first NEST pixels ``first`` ``(nblock,)``."""

    nside: int
    first: np.ndarray
    side: int

    @property
    def npix(self) -> int:
        return self.first.size * self.side**2

    @property
    def nest_order(self) -> np.ndarray:
        """Where the pixels in NEST order stand in ``pixels``, ``(npix,)``."""
        child = np.arange(self.side**2)
        inside = gather_bits(child) * self.side + gather_bits(child >> 1)
        return (np.arange(self.first.size)[:, None] * self.side**2 + inside).reshape(-1)

    @property
    def pixels(self) -> np.ndarray:
        """NEST pixels, block by block, along x and then y, ``(npix,)``."""
        steps = spread_bits(np.arange(self.side))
        return (self.first[:, None, None] + steps[:, None] + 2 * steps).reshape(-1)

    def chunks(self, window: int) -> Iterator[Blocks]:
        """The same pixels in the same order, in pieces of about ``_CHUNK`` entries of windows of so many pixels."""
        side, first = self.side, self.first
        while side > 1 and side**2 * window > _CHUNK:
            side //= 2
            first = (first[:, None] + np.arange(4) * side**2).reshape(-1)
        step = max(1, _CHUNK // (side**2 * window))
        for start in range(0, first.size, step):
            yield Blocks(self.nside, first[start : start + step], side)


@dataclass(frozen=True)
class Windows:
    """The pixels within ``reach`` steps of each pixel of blocks; all pixels where the grid is small for that."""

    blocks: Blocks
    reach: int

    @property
    def _is_whole(self) -> bool:
        return self.reach > 1 and self.blocks.nside < _SMALLEST_FRAMED

    @property
    def size(self) -> int:
        """Pixels in a window."""
        return 12 * self.blocks.nside**2 if self._is_whole else (2 * self.reach + 1) ** 2

    @cached_property
    def framed(self) -> np.ndarray:
        """NEST pixels of each block and a frame around it, ``(nblock, side + 2 reach, side + 2 reach)``; -1: none."""
        if self._is_whole:
            return np.arange(self.size)
        face, x, y = (own[:, None, None] for own in face_coordinates(self.blocks.nside, self.blocks.first))
        steps = np.arange(-self.reach, self.blocks.side + self.reach)
        return pixels_beyond(self.blocks.nside, face, x + steps[:, None], y + steps)

    def cut(self, values: np.ndarray) -> np.ndarray:
        """The window of each pixel, cut from values on ``framed``: ``(size, npix)``."""
        if self._is_whole:
            return np.repeat(values[:, None], self.blocks.npix, axis=1)
        view = np.lib.stride_tricks.sliding_window_view(values, (2 * self.reach + 1,) * 2, axis=(1, 2))
        return view.transpose(3, 4, 0, 1, 2).reshape(self.size, self.blocks.npix)

    def chord2(self) -> np.ndarray:
        """Squared distance of each pixel to those of its window, ``(size, npix)``; infinite where there is none."""
        vectors = unit_vectors(self.blocks.nside, np.maximum(self.framed, 0))
        vectors[:, self.framed < 0] = np.inf
        total = np.zeros((self.size, self.blocks.npix))
        for centre, plane in zip(unit_vectors(self.blocks.nside, self.blocks.pixels), vectors, strict=True):
            difference = self.cut(plane) - centre
            difference *= difference
            total += difference
        return total
