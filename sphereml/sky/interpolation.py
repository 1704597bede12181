"""Bilinear interpolation of HEALPix maps at any direction, as four pixels and four weights.

Conventions: pixels are NEST; maps are pixel-major ``(npix, nchan)`` or a single map ``(npix,)``; the four weights of a
direction are non-negative and sum to one.  The stencil is HEALPix's own (two neighbours on each of two rings), so
constants are reproduced exactly; it smooths by about ``(ell * pixel)^2 / 12`` in amplitude, 10 % at ``ell = nside``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import healpy
import numpy as np
from scipy.sparse import csr_array

from sphereml.sky.grid import HealpixGrid
from sphereml.sky.tangent import Basis, LocalFrames, geodesics


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


@dataclass(frozen=True, eq=False)
class Rows:
    """What the rows of maps are: those of ``pixels`` of the grid, NEST, rising and distinct."""

    grid: HealpixGrid
    pixels: np.ndarray

    def places(self, pixels: np.ndarray) -> np.ndarray:
        """The rows of some of the pixels."""
        return np.searchsorted(self.pixels, pixels)


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


def apply(interpolation: Interpolation, maps: np.ndarray, rows: Rows | None = None) -> np.ndarray:
    """Values of maps at the directions of an interpolation.

    Args:
        maps: ``(npix, nchan)`` or ``(npix,)``, NEST.
        rows: which pixels the rows of the maps are of, where they are a part that holds all pixels that are read.
    Returns:
        ``(..., nchan)`` or ``(...)``, in the dtype of the maps (float32 at least).
    Raises:
        ValueError: the maps are not on the interpolation's grid.
    """
    if rows is None:
        _check_size(interpolation, maps.shape[0])
    places = interpolation.pixels if rows is None else rows.places(interpolation.pixels)
    # A sparse product reads each pixel's channels once and makes no temporary (2-9 x faster than a loop over corners).
    starts = np.arange(0, interpolation.pixels.size + 1, 4)
    matrix = csr_array((interpolation.weights.ravel(), places.ravel(), starts), shape=(starts.size - 1, maps.shape[0]))
    return (matrix @ maps).reshape(*interpolation.shape, *maps.shape[1:])


def sample(
    maps: np.ndarray, vectors: np.ndarray, south: np.ndarray, spins: Sequence[int], rows: Rows | None = None
) -> np.ndarray:
    """Values of maps with spins at any directions, in any frames there.

    Each of the four pixels' values is first carried in parallel along the great circle to the direction, so that it is
    as exact at the poles as elsewhere.

    Args:
        maps: ``(npix, columns)`` NEST, in the frames (south, east) of their pixels.
        vectors: unit vectors ``(..., 3)``.
        south: the first axes of the frames to give spins in, unit tangent vectors ``(..., 3)``: those of
            :func:`sphereml.sky.stokes.tangent_basis` for a map's usual frames, a patch's ``-y``.
        spins: of the maps' fields, in the order of their columns; a field with a spin takes two.
        rows: see :func:`apply`.
    Returns:
        ``(..., columns)``, in the dtype of the maps (float32 at least).
    """
    interpolation = bilinear(HealpixGrid.of_size(len(maps)) if rows is None else rows.grid, vectors)
    places = interpolation.pixels if rows is None else rows.places(interpolation.pixels)
    here = Basis.along(vectors[..., None, :], south[..., None, :])
    phase = geodesics(here, LocalFrames(interpolation.grid.nside).basis(interpolation.pixels)).phase
    result = np.empty((*interpolation.shape, maps.shape[1]), dtype=np.result_type(maps.dtype, np.float32))
    first = np.cumsum([0, *(2 if spin else 1 for spin in spins)])[:-1]
    scalars = first[np.array(spins) == 0]
    result[..., scalars] = apply(interpolation, maps[:, scalars], rows)
    for spin in sorted({*spins} - {0}):
        south_part = first[np.array(spins) == spin]
        near = maps[:, [south_part, south_part + 1]][places]
        values = np.einsum(
            "...k,...kf->...f", interpolation.weights * phase**spin, near[..., 0, :] + 1j * near[..., 1, :]
        )
        result[..., south_part], result[..., south_part + 1] = values.real, values.imag
    return result


def _check_size(interpolation: Interpolation, npix: int) -> None:
    if npix != interpolation.grid.npix:
        raise ValueError(f"maps have {npix} pixels, the interpolation is on Nside {interpolation.grid.nside}")
