"""HEALPix rings: their geometry, the rings a set of pixels touches, and where every pixel lies on them.

Conventions: pixels are NEST; a packed ring array holds the touched rings from north to south, each from its first
azimuth eastward, without gaps between rings.  Pixels of a touched ring that are not in the set count as zero.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache

import ducc0
import numpy as np

from sphereml.sky.ordering import nest_to_ring_index

# Thousands of threads exhaust the process's memory, and it dies without a word.
_MOST_THREADS = 512


def threads() -> int:
    """Threads given to ducc0: ``OMP_NUM_THREADS`` when it is a number (or a list, ``4,2``), else all cores."""
    stated = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    number = int(stated) if stated.isascii() and stated.isdigit() else 0
    return min(number, _MOST_THREADS) or os.cpu_count() or 1


@lru_cache(maxsize=16)
def ring_geometry(nside: int) -> dict[str, np.ndarray]:
    """ducc0's description of the HEALPix rings (theta, nphi, phi0, ringstart)."""
    geometry: dict[str, np.ndarray] = ducc0.healpix.Healpix_Base(nside, "RING").sht_info()
    return geometry


def alm_size(lmax: int) -> int:
    """Number of (ell, m >= 0) coefficients up to ``lmax``."""
    return (lmax + 1) * (lmax + 2) // 2


def alm_index(lmax: int) -> tuple[np.ndarray, np.ndarray]:
    """Multipole and order of every stored coefficient: two int arrays of length ``alm_size(lmax)``."""
    ell = np.concatenate([np.arange(m, lmax + 1) for m in range(lmax + 1)])
    order = np.repeat(np.arange(lmax + 1), lmax + 1 - np.arange(lmax + 1))
    return ell, order


def alm_lmax(alm: np.ndarray) -> int:
    """Highest multipole of coefficients ``(..., nalm)``."""
    return (math.isqrt(8 * alm.shape[-1] + 1) - 3) // 2


def resize_alm(alm: np.ndarray, lmax: int) -> np.ndarray:
    """Coefficients ``(..., nalm)`` cut at ``lmax``, or filled up to it with zeros; itself where it ends there."""
    own = alm_lmax(alm)
    if own == lmax:
        return alm
    low, high = sorted((own, lmax))
    ell, order = alm_index(low)
    place = order * (2 * high + 1 - order) // 2 + ell
    if lmax < own:
        return np.asarray(alm[..., place])
    result = np.zeros((*alm.shape[:-1], alm_size(lmax)), alm.dtype)
    result[..., place] = alm
    return result


@dataclass(frozen=True, eq=False)
class RingLayout:
    """The rings of a grid that the NEST ``pixels`` (None: all) touch, packed one after the other."""

    nside: int
    pixels: np.ndarray | None = None

    @cached_property
    def _touched(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the touched rings, and the place of every pixel in the packed array."""
        geometry = ring_geometry(self.nside)
        index = nest_to_ring_index(self.nside)
        if self.pixels is None:
            return np.arange(len(geometry["nphi"])), index
        index = index[self.pixels]
        start, count = geometry["ringstart"].astype(np.int64), geometry["nphi"].astype(np.int64)
        ring = np.searchsorted(start, index, side="right") - 1
        used = np.unique(ring)
        packed = np.cumsum(count[used]) - count[used]
        return used, index - start[ring] + packed[np.searchsorted(used, ring)]

    @property
    def rings(self) -> np.ndarray:
        """Numbers of the touched rings, 0 the northernmost of ``4 nside - 1``."""
        return self._touched[0]

    @property
    def place(self) -> np.ndarray:
        """Place of every pixel in the packed array ``(npix,)``."""
        return self._touched[1]

    @cached_property
    def geometry(self) -> dict[str, np.ndarray]:
        """ducc0's description of the touched rings, as packed."""
        whole = ring_geometry(self.nside)
        part = {key: whole[key][self.rings] for key in ("theta", "nphi", "phi0")}
        count = part["nphi"].astype(np.uint64)
        part["ringstart"] = np.cumsum(count) - count
        return part

    @cached_property
    def size(self) -> int:
        """Length of the packed array."""
        return int(self.geometry["nphi"].sum())
