"""The full-sphere HEALPix grid as a frozen value object.

Pixels are in NEST order, so that the four children of pixel ``p`` at twice the Nside are ``4p .. 4p+3``.  healpy, which
brings matplotlib along, is imported where directions are first asked for: most verbs that read a map never do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sphereml.errors import UserError

# Pixel numbers of finer grids do not fit into 64 bits with the bits that their order needs.
LARGEST_NSIDE = 2**29


@dataclass(frozen=True)
class HealpixGrid:
    """HEALPix pixelization of the whole sphere.

    Args:
        nside: resolution parameter, a power of two.

    Raises:
        UserError: ``nside`` is not a power of two.
    """

    nside: int

    def __post_init__(self) -> None:
        if not 1 <= self.nside <= LARGEST_NSIDE or self.nside & (self.nside - 1):
            raise UserError(f"nside={self.nside} is not a power of two", "choose 1, 2, 4, ..., 8192")

    @classmethod
    def of_size(cls, npix: int) -> HealpixGrid:
        """The grid with ``npix`` pixels; raises UserError when no grid has that many."""
        nside = round((npix / 12) ** 0.5)
        if nside < 1 or 12 * nside * nside != npix:
            raise UserError(f"{npix} pixels make no HEALPix map", "a map has 12 nside^2 pixels")
        return cls(nside)

    @property
    def npix(self) -> int:
        return 12 * self.nside * self.nside

    @property
    def pixel_area(self) -> float:
        """Solid angle of a pixel, sr."""
        return 4 * np.pi / self.npix

    @property
    def resolution(self) -> float:
        """Square root of the pixel area, degrees."""
        return float(np.degrees(np.sqrt(self.pixel_area)))

    @property
    def safe_lmax(self) -> int:
        """Highest multipole at which analysis with 3 iterations is good to 1e-6 (see ``harmonics``)."""
        return 2 * self.nside

    def vectors(self) -> np.ndarray:
        """Unit vectors of the pixel centres, shape ``(npix, 3)``."""
        import healpy

        return np.stack(healpy.pix2vec(self.nside, np.arange(self.npix), nest=True), axis=-1)

    def lonlat(self) -> tuple[np.ndarray, np.ndarray]:
        """Longitude in [0, 360) and latitude of the pixel centres, degrees, each ``(npix,)``."""
        import healpy

        lon, lat = healpy.pix2ang(self.nside, np.arange(self.npix), nest=True, lonlat=True)
        return lon, lat

    def pixels_at(self, vectors: np.ndarray) -> np.ndarray:
        """NEST pixels that hold the directions ``(..., 3)``: int64 ``(...)``."""
        import healpy

        pixels: np.ndarray = healpy.vec2pix(self.nside, *np.moveaxis(vectors, -1, 0), nest=True)
        return pixels
