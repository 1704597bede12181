"""RING <-> NEST: the only two places where the order of pixels changes."""

from __future__ import annotations

from functools import lru_cache

import ducc0
import numpy as np

from sphereml.sky.grid import HealpixGrid


@lru_cache(maxsize=16)
def nest_to_ring_index(nside: int) -> np.ndarray:
    """RING index of every NEST pixel, read-only ``(npix,)``."""
    index = ducc0.healpix.Healpix_Base(nside, "NEST").nest2ring(np.arange(12 * nside * nside))
    index.setflags(write=False)
    return index


@lru_cache(maxsize=16)
def ring_to_nest_index(nside: int) -> np.ndarray:
    """NEST index of every RING pixel, read-only ``(npix,)``."""
    index = ducc0.healpix.Healpix_Base(nside, "NEST").ring2nest(np.arange(12 * nside * nside))
    index.setflags(write=False)
    return index


def ring_to_nest(maps: np.ndarray, axis: int = 0) -> np.ndarray:
    """Reorder full-sky maps from RING to NEST along ``axis`` (a copy)."""
    grid = HealpixGrid.of_size(maps.shape[axis])
    return np.take(maps, nest_to_ring_index(grid.nside), axis=axis)


def nest_to_ring(maps: np.ndarray, axis: int = 0) -> np.ndarray:
    """Reorder full-sky maps from NEST to RING along ``axis`` (a copy)."""
    grid = HealpixGrid.of_size(maps.shape[axis])
    return np.take(maps, ring_to_nest_index(grid.nside), axis=axis)
