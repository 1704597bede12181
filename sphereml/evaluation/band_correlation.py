"""Correlation of a template with a target in bands and in pixels, without the bias of the target's noise, with errors.

Conventions: maps are NEST, ``(npix,)``, or ``(2, npix)`` (Q, U; COSMO) whose correlations are those of E and B in bands
and of Q and U in pixels; a band holds ``lo <= ell < hi``.  The target comes as two halves of the same sky whose noises
are independent (half missions, odd and even rings), or as one map twice.  With t the template and 1, 2 the halves,

    r = sum (2l+1) (C^t1 + C^t2) / 2 / sqrt(sum (2l+1) C^tt  sum (2l+1) C^12),

sums over the band: noise has no part in C^12, so that r is that of the template and the noiseless target; it is NaN
where noise leaves no power in C^12.  Errors are a jackknife over superpixels of the sky (``evaluation.statistics``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sphereml.errors import UserError
from sphereml.evaluation.statistics import jackknife_error
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.spectra import band_power, check_mask, cross_spectrum
from sphereml.harmonics.transforms import analysis
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import superpixels

Halves = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Correlation:
    """Correlations and what their errors are made of.

    Args:
        r: ``(ncomp,)``, or ``(ncomp, nband)``; components E, B in bands and Q, U in pixels, or the one of a scalar.
        samples: of the whole mask and without each block, ``(1 + nblock, *r.shape)``.
        size: weight of every block, ``(nblock,)``.
    """

    r: np.ndarray
    samples: np.ndarray
    size: np.ndarray

    @property
    def sem(self) -> np.ndarray:
        """Standard errors, as ``r``."""
        return np.asarray(jackknife_error(self.samples, self.size))

    def __sub__(self, other: Correlation) -> Correlation:
        """The paired difference of two templates under one mask."""
        return replace(self, r=self.r - other.r, samples=self.samples - other.samples)


def correlate_bands(
    template: np.ndarray, halves: Halves, mask: np.ndarray, bands: Bands, block_nside: int = 2
) -> Correlation:
    """r of every band; the jackknife's samples use no iterations, since only their differences matter.

    Args:
        mask: ``(npix,)`` weights in 0..1; maps are not read where it is zero.
    Raises:
        UserError: an unusable mask, or one that lies in one block of sky.
        ValueError: a band beyond ``2 nside``.
    """
    maps = np.stack([np.asarray(one, dtype=np.float64) for one in (template, *halves)])
    lmax = HealpixGrid.of_size(maps.shape[-1]).safe_lmax
    mask, masks, size = _blocks(mask, maps.shape[-1], block_nside)
    maps = np.where(mask > 0, maps, 0.0)
    samples = [_band_ratio(maps, kept, bands, lmax, iterations=0) for kept in masks]
    return Correlation(_band_ratio(maps, mask, bands, lmax, iterations=3), np.stack(samples), size)


def correlate_pixels(template: np.ndarray, halves: Halves, mask: np.ndarray, block_nside: int = 2) -> Correlation:
    """r of pixels under a mask, as weights, their means subtracted; arguments and errors as :func:`correlate_bands`."""
    maps = np.stack([np.atleast_2d(np.asarray(one, dtype=np.float64)) for one in (template, *halves)])
    mask, masks, size = _blocks(mask, maps.shape[-1], block_nside)
    maps = np.where(mask > 0, maps, 0.0)
    samples = np.stack([_pixel_ratio(maps, kept) for kept in masks])
    return Correlation(samples[0], samples, size)


def _blocks(mask: np.ndarray, npix: int, block_nside: int) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """The mask, the mask and what is left of it without each block, and the weights of the blocks."""
    mask = check_mask(mask, npix)
    block = superpixels(np.ones(npix), HealpixGrid.of_size(npix).nside, block_nside)
    size = np.bincount(block, mask)
    used = np.flatnonzero(size > 0)
    if len(used) < 2:
        raise UserError("the mask lies in one block of sky: no standard error", "choose smaller blocks")
    return mask, [mask, *(np.where(block == one, 0.0, mask) for one in used)], size[used]


def _band_ratio(maps: np.ndarray, mask: np.ndarray, bands: Bands, lmax: int, iterations: int) -> np.ndarray:
    spin = 2 * (maps.ndim - 2)
    if not spin:
        maps = maps - (maps @ mask / mask.sum())[:, None]
    t, one, two = analysis(mask * maps, lmax, spin, iterations).reshape(3, maps[0].size // mask.size, -1)
    cross = (cross_spectrum(t, one, lmax) + cross_spectrum(t, two, lmax)) / 2
    powers = (band_power(cl, bands) for cl in (cross, cross_spectrum(t, t, lmax), cross_spectrum(one, two, lmax)))
    return _ratio(*powers)


def _pixel_ratio(maps: np.ndarray, mask: np.ndarray) -> np.ndarray:
    t, one, two = maps - (maps @ mask / mask.sum())[..., None]
    return _ratio(t * (one + two) / 2 @ mask, t * t @ mask, one * two @ mask)


def _ratio(cross: np.ndarray, own: np.ndarray, target: np.ndarray) -> np.ndarray:
    power = own * target
    return np.divide(cross, np.sqrt(np.maximum(power, 0)), out=np.full_like(cross, np.nan), where=power > 0)
