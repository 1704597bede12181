"""Angular power spectra on the sphere and the correlation coefficient r(ell), numpy float64.

Conventions
-----------
* Spectra are C_ell (never D_ell), indexed by integer ell from 0 to ``lmax`` along the last axis, in the product of the
  units of the two maps.  Alms are healpy's triangular m-major order, as in :mod:`sphereml.harmonics.transforms`.
* Maps are full-sky NEST, ``(..., npix)``; for spin 2 they are (Q, U) in COSMO sign and spectra carry a (E, B) axis.
* Spectra of masked maps are pseudo-spectra: neither divided by f_sky nor freed of mode coupling.  Correlations do not
  need it (the factor cancels); compare powers under one mask, or divide by :func:`fsky`.
* A band holds the integers ``lo <= ell < hi``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.transforms import alm_size, analysis


def cross_spectrum(alm_a: np.ndarray, alm_b: np.ndarray, lmax: int) -> np.ndarray:
    """``C_l = (2l+1)^-1 sum_m a_lm b*_lm`` over -l <= m <= l, of real fields.

    Args:
        alm_a, alm_b: complex ``(..., nalm)``; leading axes broadcast.
    Returns:
        float64 ``(..., lmax+1)``.
    """
    _check_alms(alm_a, alm_b, lmax)
    product = (alm_a * np.conj(alm_b)).real
    spectrum = np.zeros((*product.shape[:-1], lmax + 1))
    start = 0
    for m in range(lmax + 1):
        count = lmax + 1 - m
        spectrum[..., m:] += (2.0 if m else 1.0) * product[..., start : start + count]
        start += count
    return spectrum / (2 * np.arange(lmax + 1) + 1)


def all_spectra(alms: np.ndarray, lmax: int) -> np.ndarray:
    """Auto and cross spectra ``(n, n, lmax+1)`` of coefficients ``(n, nalm)``, symmetric in the first two axes."""
    return cross_spectrum(alms[:, None], alms[None, :], lmax)


def spectrum(
    map_a: np.ndarray, map_b: np.ndarray | None = None, *, lmax: int, iterations: int = 3, spin: int = 0
) -> np.ndarray:
    """Auto or cross spectrum of full-sky maps, equal to ``healpy.anafast`` at the same ``iterations``.

    Args:
        map_a, map_b: ``(..., npix)`` NEST, or ``(..., 2, npix)`` (Q, U) for ``spin=2``.
    Returns:
        ``(..., lmax+1)``, or ``(..., 2, lmax+1)`` (EE, BB) for ``spin=2``.
    """
    alm_a = analysis(map_a, lmax, spin, iterations)
    alm_b = alm_a if map_b is None else analysis(map_b, lmax, spin, iterations)
    return cross_spectrum(alm_a, alm_b, lmax)


def masked_spectra(maps: np.ndarray, mask: np.ndarray, *, lmax: int, iterations: int = 3) -> np.ndarray:
    """All auto and cross pseudo-spectra of maps under one mask, their mask-weighted means subtracted first.

    Args:
        maps: ``(nmap, npix)`` NEST; values where the mask is zero are never read, so NaN is allowed there.
        mask: ``(npix,)`` weights in 0..1.
    Returns:
        float64 ``(nmap, nmap, lmax+1)``, symmetric in the first two axes, divided by nothing (see :func:`fsky`).
    Raises:
        UserError: the mask is empty, out of range or of another length.
    """
    return all_spectra(masked_alms(maps, mask, lmax=lmax, iterations=iterations), lmax)


def masked_alms(maps: np.ndarray, mask: np.ndarray, *, lmax: int, iterations: int = 3) -> np.ndarray:
    """Harmonic coefficients ``(nmap, nalm)`` of ``mask * (map - <map>)``; see :func:`masked_spectra`."""
    maps = np.asarray(maps, dtype=np.float64)
    mask = check_mask(mask, maps.shape[-1])
    seen = np.where(mask > 0, maps, 0.0)
    seen -= (seen @ mask / mask.sum())[..., None]
    seen *= mask
    return analysis(seen, lmax, iterations=iterations)


def check_mask(mask: np.ndarray, npix: int) -> np.ndarray:
    """The mask as float64 ``(npix,)``; raises UserError when it is unusable."""
    mask = np.asarray(mask, dtype=np.float64)
    if mask.shape != (npix,):
        raise UserError(f"the mask has shape {mask.shape} but the maps have {npix} pixels", "bring both to one Nside")
    if not np.isfinite(mask).all() or mask.min() < 0 or mask.max() > 1:
        raise UserError("the mask has values outside 0..1", "give weights between 0 (cut) and 1 (keep)")
    if not mask.any():
        raise UserError("the mask is empty: it keeps no pixel", "give a mask with 1 where the sky is to be used")
    return mask


def fsky(mask: np.ndarray) -> float:
    """``<mask^2>``: the factor by which a mask lowers the pseudo-spectrum of a smooth spectrum."""
    return float(np.mean(np.square(mask, dtype=np.float64)))


def correlation(cl_ab: np.ndarray, cl_aa: np.ndarray, cl_bb: np.ndarray) -> np.ndarray:
    """``r_l = C^ab_l / sqrt(C^aa_l C^bb_l)``; zero where either map has no power."""
    norm = np.sqrt(np.maximum(np.asarray(cl_aa) * cl_bb, 0.0))
    return np.divide(cl_ab, norm, out=np.zeros(np.broadcast(cl_ab, norm).shape), where=norm > 0)


def band_mean(curve: np.ndarray, bands: Bands) -> np.ndarray:
    """Mean of a curve ``(..., lmax+1)`` over the integer multipoles of every band; ``(..., nband)``.

    Raises:
        ValueError: a band reaches above ``lmax`` or holds no multipole (see :meth:`Bands.clipped`).
    """
    return _by_band([np.mean(curve[..., members], axis=-1) for members in _members(bands, curve)], curve)


def band_power(cl: np.ndarray, bands: Bands) -> np.ndarray:
    """Band powers ``(..., nband)`` of spectra ``(..., lmax+1)`` with the weights 2l+1, the numbers of modes.

    So bands of noise keep their expectation.

    Raises:
        ValueError: a band reaches above ``lmax`` or holds no multipole (see :meth:`Bands.clipped`).
    """
    modes = 2.0 * np.arange(cl.shape[-1]) + 1
    sums = ((modes[members] * cl[..., members]).sum(axis=-1) for members in _members(bands, cl))
    return _by_band([total / modes[members].sum() for total, members in zip(sums, bands.slices, strict=True)], cl)


def _members(bands: Bands, curve: np.ndarray) -> tuple[slice, ...]:
    for name, members in zip(bands, bands.slices, strict=True):
        if not members.start < members.stop <= curve.shape[-1]:
            raise ValueError(f"band {name} is not within 0..{curve.shape[-1] - 1}")
    return bands.slices


def _by_band(values: Sequence[np.ndarray], curve: np.ndarray) -> np.ndarray:
    return np.stack(values, axis=-1) if values else np.empty((*curve.shape[:-1], 0))


def _check_alms(alm_a: np.ndarray, alm_b: np.ndarray, lmax: int) -> None:
    for alm in (alm_a, alm_b):
        if alm.shape[-1] != alm_size(lmax):
            raise ValueError(f"{alm.shape[-1]} coefficients are not those of lmax={lmax}")
