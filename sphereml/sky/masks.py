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

# Pixels whose neighbours are searched at once.
_CHUNK = 2**20


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


def threshold_mask(
    values: np.ndarray, grid: HealpixGrid, sky_fraction: float, smoothing: float, known: np.ndarray | None = None
) -> np.ndarray:
    """The faintest ``sky_fraction`` of a map smoothed by a Gaussian of FWHM ``smoothing``, bool ``(npix,)``.

    Args:
        values: ``(npix,)`` NEST.
        known: bool ``(npix,)``; where given, the share is that of the known pixels, and what is kept of them does not
            depend on the others (``smooth(known values) / smooth(known)``); None: all are known.
    Raises:
        UserError: ``sky_fraction`` outside (0, 1] or a negative ``smoothing``.
    """
    if not 0 < sky_fraction <= 1:
        raise UserError(f"sky_fraction={sky_fraction:g} is impossible", "choose it above 0 and up to 1")
    if smoothing < 0:
        raise UserError(f"smoothing={smoothing:g} degrees is impossible", "choose 0 or more")
    smooth = _smoothed(values, grid, smoothing) if smoothing > 0 else np.asarray(values)
    if known is not None:
        share = _smoothed(known, grid, smoothing) if smoothing > 0 else known
        alone = _smoothed(np.where(known, values, 0), grid, smoothing) if smoothing > 0 else values
        smooth = np.where(known, alone / np.where(known, share, 1), smooth)
    counted = np.arange(grid.npix) if known is None else np.flatnonzero(known)
    order = counted[np.argsort(smooth[counted], kind="stable")]
    kept = order[: round(sky_fraction * len(order))]
    mask = np.zeros(grid.npix, dtype=bool)
    mask[kept] = True
    return mask if known is None or not len(kept) else mask | (~known & (smooth <= smooth[kept[-1]]))


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
    # 1 - cos d is half the squared chord, so x is a ratio of chords: no arc cosines, exact for small d.
    x = np.minimum(_chords_to(~keep, grid, width) / _chord(width), 1.0)
    return np.asarray(x - np.sin(2 * np.pi * x) / (2 * np.pi))


def near(region: np.ndarray, grid: HealpixGrid, distance: float) -> np.ndarray:
    """Pixels whose centre is nearer than ``distance`` degrees to the centre of one of the region's: bool ``(npix,)``.

    The region itself is near, unless ``distance`` is zero; pixel centres at exactly the distance are not.
    """
    region = np.asarray(region) > 0
    if distance <= 0 or not region.any():
        return np.zeros(grid.npix, dtype=bool)
    return np.asarray(_chords_to(region, grid, distance) < _chord(distance))


def regrade_mask(mask: np.ndarray, grid: HealpixGrid) -> np.ndarray:
    """A mask at another Nside, bool ``(npix,)``: kept where more than half of a pixel's area is.

    Harmonic filters ring around the edges of a mask, so averages over NEST children are taken instead.

    Args:
        mask: ``(npix_in,)`` weights in 0..1.
    """
    return regrade(np.asarray(mask, dtype=np.float64), grid) > 0.5


def regrade_weights(weights: np.ndarray, grid: HealpixGrid) -> np.ndarray:
    """A mask at another Nside, float64 ``(npix,)``: 0 and 1 stay so (:func:`regrade_mask`), weights are averaged."""
    if np.isin(weights, (0, 1)).all():
        return regrade_mask(weights, grid).astype(np.float64)
    return regrade(np.asarray(weights, dtype=np.float64), grid)


def regrade(values: np.ndarray, grid: HealpixGrid) -> np.ndarray:
    """Means over the children of each pixel, or copies into them: float ``(npix,)`` NEST."""
    old = HealpixGrid.of_size(values.size)
    if old.nside >= grid.nside:
        return np.asarray(values.reshape(grid.npix, -1).mean(axis=1))
    return np.repeat(values, grid.npix // old.npix)


def to_galactic(mask: np.ndarray, frame: str) -> np.ndarray:
    """A mask ``(npix,)`` of frame G, C or E seen in the Galactic frame, by nearest pixels (no value is blended)."""
    if frame == "G":
        return mask
    grid = HealpixGrid.of_size(mask.size)
    # Row vectors: v_frame = R v_galactic is v_galactic @ R.T.
    return mask[grid.pixels_at(grid.vectors() @ healpy.Rotator(coord=["G", frame]).mat.T)]


def fill_gaps(values: np.ndarray) -> np.ndarray:
    """NaN pixels of ``(npix,)`` NEST take the mean of what is known of the smallest coarse pixel that knows anything.

    An interpolation good enough to keep a transform from ringing; filled pixels are to be masked afterwards.

    Raises:
        ValueError: every pixel is NaN.
    """
    missing = np.isnan(values)
    if not missing.any():
        return values
    if missing.all():
        raise ValueError("nothing is known")
    if values.size == 12 or values.size % 4:
        return np.where(missing, np.nanmean(values), values)
    known = ~missing.reshape(-1, 4)
    count = known.sum(axis=1)
    total = np.where(known, values.reshape(-1, 4), 0).sum(axis=1, dtype=np.float64)
    coarse = np.divide(total, count, out=np.full(count.size, np.nan), where=count > 0)
    return np.where(missing, np.repeat(fill_gaps(coarse), 4), values).astype(values.dtype)


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


def _chord(angle: float) -> float:
    return float(2 * np.sin(np.radians(min(angle, 180.0)) / 2))


def _chords_to(region: np.ndarray, grid: HealpixGrid, reach: float) -> np.ndarray:
    """Chord from every pixel's centre to the nearest one of the region: float64 ``(npix,)``, infinite beyond ``reach``.

    The nearest pixel of a region is on its rim, so only the rim is searched.
    """
    chord = np.where(region, 0.0, np.inf)
    rim = _rim(region, grid)
    if not rim.size:
        return chord
    tree = cKDTree(np.stack(healpy.pix2vec(grid.nside, rim, nest=True), axis=-1))
    # Just beyond reach the tree answers infinity, which spares the search through the far sky.
    bound = _chord(reach) * (1 + 1e-9)
    for some in _chunks(np.flatnonzero(~region)):
        vectors = np.stack(healpy.pix2vec(grid.nside, some, nest=True), axis=-1)
        chord[some] = tree.query(vectors, distance_upper_bound=bound)[0]
    return chord


def _rim(region: np.ndarray, grid: HealpixGrid) -> np.ndarray:
    """Pixels of a region that have a neighbour outside of it."""
    found = []
    for some in _chunks(np.flatnonzero(region)):
        neighbours = healpy.get_all_neighbours(grid.nside, some, nest=True)
        # Where a corner of base pixels has no neighbour (-1) the sky's last pixel stands in: a rim may be too wide.
        found.append(some[~region[neighbours].all(axis=0)])
    return np.concatenate(found)


def _chunks(pixels: np.ndarray) -> list[np.ndarray]:
    return np.array_split(pixels, 1 + pixels.size // _CHUNK)


def _smoothed(values: np.ndarray, grid: HealpixGrid, fwhm: float) -> np.ndarray:
    rings = nest_to_ring(np.asarray(values, dtype=np.float64))
    return ring_to_nest(healpy.smoothing(rings, fwhm=np.radians(fwhm), lmax=grid.safe_lmax))
