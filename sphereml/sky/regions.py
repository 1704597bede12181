"""A region: the whole sphere or any union of coarse HEALPix pixels, closed under pooling by construction.

The pixels of a region are stored coarse pixel by coarse pixel in NEST order, so every four consecutive ones are the
children of one parent, and the coarser region is the list of those parents.  A U-Net of depth d therefore runs on any
region whose coarse pixels have ``coarse_nside <= nside / 2**d``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import healpy
import numpy as np

from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid


@dataclass(frozen=True)
class Region:
    """Pixels of ``nside`` inside the coarse pixels (sorted, unique) of ``coarse_nside``; None means the whole sphere.

    Raises:
        UserError: coarse pixels outside the grid, doubled or unsorted, or a coarse Nside above the fine one.
    """

    nside: int
    coarse_pixels: tuple[int, ...] | None = None
    coarse_nside: int = 1

    def __post_init__(self) -> None:
        grid, coarse = HealpixGrid(self.nside), HealpixGrid(self.coarse_nside)
        if coarse.nside > grid.nside:
            raise UserError(
                f"coarse_nside={coarse.nside} is finer than nside={grid.nside}", "give coarse pixels of a lower Nside"
            )
        if self.coarse_pixels is None:
            return
        pixels = np.asarray(self.coarse_pixels)
        if pixels.size == 0 or pixels[0] < 0 or pixels[-1] >= coarse.npix or (np.diff(pixels) <= 0).any():
            raise UserError(
                f"coarse_pixels are no sorted set of pixels of Nside {coarse.nside}",
                f"give each of 0..{coarse.npix - 1} at most once, in rising order",
            )

    @property
    def grid(self) -> HealpixGrid:
        return HealpixGrid(self.nside)

    @property
    def is_full(self) -> bool:
        return self.coarse_pixels is None

    @property
    def _children(self) -> int:
        return (self.nside // self.coarse_nside) ** 2

    @cached_property
    def pixels(self) -> np.ndarray:
        """NEST indices of the region's pixels, shape ``(npix,)``."""
        if self.coarse_pixels is None:
            return np.arange(self.grid.npix)
        coarse = np.asarray(self.coarse_pixels, dtype=np.int64)
        return (coarse[:, None] * self._children + np.arange(self._children)).reshape(-1)

    @property
    def npix(self) -> int:
        return self.grid.npix if self.coarse_pixels is None else len(self.coarse_pixels) * self._children

    def locate(self, pixels: np.ndarray) -> np.ndarray:
        """Place of NEST pixels in this region's list, -1 for those outside (and for -1 itself)."""
        if self.coarse_pixels is None:
            return pixels
        coarse = np.asarray(self.coarse_pixels)
        parent, child = np.divmod(pixels, self._children)
        place = np.minimum(np.searchsorted(coarse, parent), len(coarse) - 1)
        return np.where(coarse[place] == parent, place * self._children + child, -1)

    def coarser(self) -> Region:
        """The region of the parents, at half the Nside.

        Raises:
            UserError: the parents of the coarse pixels are not whole: pool no further.
        """
        if self.nside // 2 < self.coarse_nside:
            raise UserError(
                f"a region of Nside {self.coarse_nside} pixels cannot be pooled below Nside {self.nside}",
                "use larger tiles (lower tile_nside) or a smaller depth",
            )
        return Region(self.nside // 2, self.coarse_pixels, self.coarse_nside)

    def grown(self, pixels: int) -> Region:
        """This region and every coarse pixel within ``pixels`` of its own pixels, side to side or corner to corner.

        The halo of a tile: the result of any chain of convolutions that see ``pixels`` in all is exact on the tile.
        """
        if self.coarse_pixels is None:
            return self
        grown = np.asarray(self.coarse_pixels)
        for _ in range(-(-pixels // (self.nside // self.coarse_nside))):
            around = healpy.get_all_neighbours(self.coarse_nside, grown, nest=True)
            grown = np.union1d(grown, around[around >= 0])
        return Region(self.nside, tuple(grown.tolist()), self.coarse_nside)

    def split(self, coarse_nside: int) -> Region:
        """The same pixels as a union of the finer coarse pixels of ``coarse_nside``."""
        parents = np.arange(12 * self.coarse_nside**2) if self.coarse_pixels is None else np.asarray(self.coarse_pixels)
        pixels = Region(coarse_nside, tuple(parents.tolist()), self.coarse_nside).pixels
        return Region(self.nside, tuple(pixels.tolist()), coarse_nside)
