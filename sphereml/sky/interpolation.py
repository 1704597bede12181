"""Bilinear interpolation of HEALPix maps at any direction, as four pixels and four weights.

Conventions: pixels are NEST; maps are pixel-major ``(npix, nchan)`` or a single map ``(npix,)``; the four weights of a
direction are non-negative and sum to one.  The stencil is HEALPix's own (two neighbours on each of two rings), so
constants are reproduced exactly; it smooths by about ``(ell * pixel)^2 / 12`` in amplitude, 10 % at ``ell = nside``.
"""

from __future__ import annotations

from dataclasses import dataclass

import healpy
import numpy as np
from scipy.sparse import csr_array

from sphereml.sky.grid import HealpixGrid


@dataclass(frozen=True)
class Interpolation:
    """Where to read and with what weights: ``pixels`` int64 and ``weights`` float32, both ``(..., 4)``, on ``grid``."""

    grid: HealpixGrid
    pixels: np.ndarray
    weights: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the set of directions."""
        return self.pixels.shape[:-1]


def bilinear(grid: HealpixGrid, vectors: np.ndarray) -> Interpolation:
    """Interpolation at unit vectors ``(..., 3)``; the same weights as ``healpy.get_interp_weights``, in float32."""
    x, y, z = np.moveaxis(np.asarray(vectors, dtype=np.float64), -1, 0)
    colatitude, longitude = np.arctan2(np.hypot(x, y), z), np.arctan2(y, x)
    pixels, weights = healpy.get_interp_weights(grid.nside, colatitude, longitude, nest=True)
    return Interpolation(
        grid,
        np.ascontiguousarray(np.moveaxis(pixels, 0, -1), dtype=np.int64),
        np.ascontiguousarray(np.moveaxis(weights, 0, -1), dtype=np.float32),
    )


def apply(interpolation: Interpolation, maps: np.ndarray) -> np.ndarray:
    """Values of maps at the directions of an interpolation.

    Args:
        maps: ``(npix, nchan)`` or ``(npix,)``, NEST.
    Returns:
        ``(..., nchan)`` or ``(...)``, in the dtype of the maps (float32 at least).
    Raises:
        ValueError: the maps are not on the interpolation's grid.
    """
    _check_size(interpolation, maps.shape[0])
    # A sparse product reads each pixel's channels once and makes no temporary (2-9 x faster than a loop over corners).
    starts = np.arange(0, interpolation.pixels.size + 1, 4)
    matrix = csr_array(
        (interpolation.weights.ravel(), interpolation.pixels.ravel(), starts), shape=(starts.size - 1, maps.shape[0])
    )
    return (matrix @ maps).reshape(*interpolation.shape, *maps.shape[1:])


def _check_size(interpolation: Interpolation, npix: int) -> None:
    if npix != interpolation.grid.npix:
        raise ValueError(f"maps have {npix} pixels, the interpolation is on Nside {interpolation.grid.nside}")
