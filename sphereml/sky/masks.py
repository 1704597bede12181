"""Masks of the full sphere and their apodization.

Conventions: masks are ``(npix,)`` NEST, True (or 1) = keep; angles are degrees in the frame of the map.
"""

from __future__ import annotations

import healpy
import numpy as np
from scipy.spatial import cKDTree

from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.ordering import nest_to_ring, ring_to_nest


def latitude_cut(grid: HealpixGrid, lower: float, upper: float) -> np.ndarray:
    """Pixels with ``lower < lat < upper``, bool ``(npix,)``."""
    _, lat = grid.lonlat()
    return (lat > lower) & (lat < upper)


def longitude_cut(grid: HealpixGrid, start: float, stop: float) -> np.ndarray:
    """Pixels with longitude in ``[start, stop)``, running east through 360 when ``start > stop``; bool ``(npix,)``."""
    lon, _ = grid.lonlat()
    if start <= stop:
        return (lon >= start) & (lon < stop)
    return (lon >= start) | (lon < stop)


def disc(grid: HealpixGrid, lon: float, lat: float, radius: float) -> np.ndarray:
    """Pixels whose centre is nearer than ``radius`` to ``(lon, lat)``, bool ``(npix,)``."""
    centre = healpy.ang2vec(lon, lat, lonlat=True)
    return np.asarray(grid.vectors() @ centre > np.cos(np.radians(radius)))


def threshold_mask(values: np.ndarray, grid: HealpixGrid, sky_fraction: float, smoothing: float) -> np.ndarray:
    """The faintest ``sky_fraction`` of a map smoothed by a Gaussian of FWHM ``smoothing``, bool ``(npix,)``.

    Args:
        values: ``(npix,)`` NEST.
    Raises:
        UserError: ``sky_fraction`` outside (0, 1] or a negative ``smoothing``.
    """
    if not 0 < sky_fraction <= 1:
        raise UserError(f"sky_fraction={sky_fraction:g} is impossible", "choose it above 0 and up to 1")
    if smoothing < 0:
        raise UserError(f"smoothing={smoothing:g} degrees is impossible", "choose 0 or more")
    smooth = _smoothed(values, grid, smoothing) if smoothing > 0 else values
    kept = round(sky_fraction * grid.npix)
    mask = np.zeros(grid.npix, dtype=bool)
    mask[np.argsort(smooth, kind="stable")[:kept]] = True
    return mask


def apodize(mask: np.ndarray, grid: HealpixGrid, width: float) -> np.ndarray:
    """Taper a mask inside its edge: float64 ``(npix,)``, 0 where masked, 1 farther than ``width`` from there.

    ``f = x - sin(2 pi x) / (2 pi)``, ``x = sqrt((1 - cos d) / (1 - cos w))`` with d the distance to the nearest masked
    pixel: the "C2" taper of Grain et al. 2009 as in NaMaster (arXiv:1809.09603).

    Raises:
        UserError: ``width`` outside [0, 180].
    """
    if not 0 <= width <= 180:
        raise UserError(f"apodization={width:g} degrees is impossible", "choose 0 to 180")
    keep = np.asarray(mask) > 0
    if width == 0 or keep.all() or not keep.any():
        return keep.astype(np.float64)
    vectors = grid.vectors()
    # 1 - cos d is half the squared chord, so x is a ratio of chords: no arc cosines, exact for small d.
    reach = 2 * np.sin(np.radians(width) / 2)
    # Beyond reach the tree answers infinity, which spares the search through the far sky.
    chord, _ = cKDTree(vectors[~keep]).query(vectors[keep], distance_upper_bound=reach)
    x = np.minimum(chord / reach, 1.0)
    taper = np.zeros(grid.npix)
    taper[keep] = x - np.sin(2 * np.pi * x) / (2 * np.pi)
    return taper


def superpixels(mask: np.ndarray, nside: int, block_nside: int) -> np.ndarray:
    """Label of the block (NEST pixel at ``block_nside``) of every pixel, -1 where masked; int64 ``(npix,)``.

    Raises:
        UserError: ``block_nside`` is above ``nside`` or no power of two.
    """
    grid, blocks = HealpixGrid(nside), HealpixGrid(block_nside)
    if block_nside > nside:
        raise UserError(f"block_nside={block_nside} is above the map's Nside {nside}", "choose a smaller one")
    label = np.arange(grid.npix) // (grid.npix // blocks.npix)
    return np.where(np.asarray(mask) > 0, label, -1)


def _smoothed(values: np.ndarray, grid: HealpixGrid, fwhm: float) -> np.ndarray:
    rings = nest_to_ring(np.asarray(values, dtype=np.float64))
    return ring_to_nest(healpy.smoothing(rings, fwhm=np.radians(fwhm), lmax=grid.safe_lmax))
