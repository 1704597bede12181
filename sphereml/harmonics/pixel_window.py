"""The window that averaging over HEALPix pixels puts on the multipoles of a map.

``w_l^2 = < P_l(n . n') >`` over pairs of directions within one pixel, averaged over pixels: the power that is left of a
map of unit C_l (the definition behind healpy's tables, which are not part of its package but downloaded).  Pairs of the
centres of 16 x 16 children are taken; what is left within a child enters through its mean square separation.  Base
pixels are alike within the polar caps and along the equator, so one of each is enough, and shapes change so slowly over
them that one pixel stands for its surroundings on fine grids.  Right to 6e-4 up to
ell = 2 Nside where that was checked, at Nside 16.
"""

from __future__ import annotations

from functools import lru_cache

import healpy
import numpy as np
from scipy.special import j0

_CHILDREN = 16
# Pixels of a base pixel's side that are looked at.
_SIDE = 16
_BINS = 4000


@lru_cache(maxsize=8)
def pixel_window(nside: int, lmax: int) -> np.ndarray:
    """``w_l``, read-only float64 ``(lmax + 1,)``, one at ell = 0, for the averages over the pixels of ``nside``."""
    squared = np.zeros(lmax + 1)
    separation, weight, spread = _separations(nside)
    order = np.arange(lmax + 1) + 0.5
    for first in range(0, lmax + 1, 512):
        some = order[first : first + 512, None]
        # P_l(cos t) = J_0((l + 1/2) 2 sin(t / 2)) to order t^2; chords are what is histogrammed.
        squared[first : first + 512] = j0(some * separation) @ weight
    ell = order - 0.5
    # Pairs of children n squared apart have lost the part 1 / n^2 of the mean square separation.
    squared *= np.exp(-ell * (ell + 1) / 4 * spread / (_CHILDREN**2 - 1))
    window = np.sqrt(np.maximum(squared, 0) / squared[0])
    window.setflags(write=False)
    return window


def _separations(nside: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Chords between children of one pixel, their share of all pairs, and the mean square of the chords."""
    pixels, share = _sample(nside)
    fine, count = nside * _CHILDREN, _CHILDREN**2
    top = 2 * healpy.max_pixrad(nside) * 1.01
    histogram = np.zeros(_BINS)
    for pixel, times in zip(pixels, share, strict=True):
        centres = np.stack(healpy.pix2vec(fine, pixel * count + np.arange(count), nest=True), axis=-1)
        chord = np.sqrt(np.maximum(2 - 2 * centres @ centres.T, 0))
        histogram += times * np.histogram(chord, _BINS, (0, top))[0]
    middle = (np.arange(_BINS) + 0.5) * top / _BINS
    middle[0] = 0.0  # a child with itself
    weight = histogram / histogram.sum()
    return middle, weight, float(weight @ middle**2)


def _sample(nside: int) -> tuple[np.ndarray, np.ndarray]:
    """NEST pixels of one polar and one equatorial base pixel, and how often each counts (8 to 4)."""
    coarse = min(nside, _SIDE) ** 2
    within = np.arange(coarse) * (nside**2 // coarse) + (nside**2 // coarse) // 2
    return np.concatenate([within, 4 * nside**2 + within]), np.repeat([2.0, 1.0], coarse)
