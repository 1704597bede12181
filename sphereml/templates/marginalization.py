"""Marginalize foreground templates: fit their amplitudes on the masked sky and subtract them.

Conventions: maps are NEST, ``(npix,)``; templates template-major ``(nt, npix)``; the mask weighs 0..1.  An amplitude
has the unit of the sky over that of its template.  Spectra are pseudo-spectra over ``fsky(mask)``, C_ell.

Estimator (template fitting, i.e. generalized least squares: Jaffe et al. 2004, ApJ 615, 55; Dodelson and Schmidt 2020,
Modern Cosmology, ch. 14).  With d~ and t~_i the coefficients of the masked sky and templates, their means over the mask
taken away,

    a = A^-1 b,   A_ij = sum_l w_l (2l+1) C^{t_i t_j}_l,   b_i = sum_l w_l (2l+1) C^{t_i d}_l,   w_l = f / N_l,

where f is the share of independent modes (it cancels in a) and N_l the smoothed pseudo-spectrum of the residual
d~ - a t~, iterated from an unweighted pixel fit with a monopole.  It is unbiased for a residual sky independent of the
templates and symmetric in sign: the opposite sky gives the same weights and the opposite error.  The weights take the
modes of the masked sky as uncorrelated, which costs some variance and no bias.  The covariance does not need that:
``b`` is linear in the sky, ``b_i = int g_i M (d - <d>)`` with g_i the map of w_l t~_i, so

    Cov(a) = A^-1 V A^-1,   V_ij = sum_lm h_i,lm h*_j,lm N_l / fsky,   h_i = M (g_i - <g_i>),

for an isotropic residual sky.  Measured on 400 CMB-like skies at Nside 32 with a masked plane: errors are 4 to 11 %
below the scatter, most with an unapodized mask.  Beams and mode coupling are not corrected here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.spectra import (
    band_power,
    check_mask,
    cross_spectrum,
    fsky,
    masked_alms,
    masked_spectra,
)
from sphereml.harmonics.transforms import synthesis
from sphereml.sky.grid import HealpixGrid
from sphereml.templates.amplitudes import covariance, filtered, fit_amplitudes, solve, solve_correlated


@dataclass(frozen=True)
class Marginalization:
    """Amplitudes and what they leave.

    Attributes:
        amplitudes, errors, covariance: ``(nt,)``, ``(nt,)``, ``(nt, nt)``.
        cleaned: ``(npix,)`` sky - sum_i a_i t_i, over the whole sphere; its monopole is arbitrary.
        lmin, weights: first multipole of the fit and ``w_l`` ``(lmax+1,)``, as relative weights.
        before, after: ``(lmax+1,)`` spectra of the masked sky and of the cleaned one, over ``fsky``.
        bands: clipped to lmin..lmax; bands that hold no multipole are dropped.
    """

    amplitudes: np.ndarray
    errors: np.ndarray
    covariance: np.ndarray
    cleaned: np.ndarray
    lmin: int
    weights: np.ndarray
    before: np.ndarray
    after: np.ndarray
    bands: Bands

    @property
    def ell(self) -> np.ndarray:
        return np.arange(len(self.before))


def marginalize(
    sky: np.ndarray,
    templates: np.ndarray,
    mask: np.ndarray,
    *,
    lmax: int | None = None,
    lmin: int = 2,
    bands: Bands | None = None,
) -> Marginalization:
    """Fit and subtract templates from a sky map; see the module's docstring for the estimator.

    Args:
        sky: ``(npix,)``; values where the mask is zero are not used.
        templates: ``(nt, npix)`` or ``(npix,)``.
        mask: ``(npix,)`` weights in 0..1, apodized or not.
        lmax: highest multipole of the fit, ``2 nside`` when None.
        bands: in which powers are reported.
    Raises:
        UserError: lengths differ, the mask is empty, values on the mask are not finite, a template is constant on the
            mask, or the templates are linearly dependent there.
    """
    sky, templates, mask = _checked(sky, templates, mask)
    if np.ptp(sky[mask > 0]) == 0:
        raise UserError("the sky is constant on the mask", "choose another column of it, or a mask that keeps more")
    lmax = checked_lmax(HealpixGrid.of_size(sky.size), lmin, lmax)
    alms = masked_alms(np.vstack([sky[None], templates]), mask, lmax=lmax)
    fit = fit_amplitudes(alms[:, None], _pixel_fit(sky, templates, mask), lmin, lmax)
    amplitudes, (weights,) = fit.values, fit.weights
    smoothed = synthesis(filtered(alms[1:, None], fit.weights)[:, 0], HealpixGrid.of_size(sky.size).nside, lmax)
    scatter = covariance(alms[1:, None], masked_alms(smoothed, mask, lmax=lmax)[:, None], fit, fsky(mask))
    cleaned = sky - amplitudes @ templates
    left = np.stack([alms[0], alms[0] - amplitudes @ alms[1:]])
    before, after = cross_spectrum(left, left, lmax) / fsky(mask)
    kept = (bands or Bands()).clipped(lmax, lmin)
    errors = np.sqrt(np.diag(scatter))
    return Marginalization(amplitudes, errors, scatter, cleaned, lmin, weights, before, after, kept)


def clean_component(
    result: Marginalization, component: np.ndarray, templates: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """What the same linear cleaning leaves of one component of the sky, ``(npix,)``.

    With its weights held fixed the cleaning is linear: the cleaned sky is the sum of its cleaned components.  So this
    says how much of the CMB is lost by chance alignment with the templates.
    """
    component, templates, mask = _checked(component, templates, mask)
    lmax = len(result.weights) - 1
    alms = masked_alms(np.vstack([component[None], templates]), mask, lmax=lmax)
    return component - solve(alms[:, None], result.weights[None]) @ templates


def power_left(true_dust: np.ndarray, residual: np.ndarray, mask: np.ndarray, bands: Bands) -> dict[str, float]:
    """Share of the dust's power that remains in each band, ``sum (2l+1) C^res_l / sum (2l+1) C^dust_l`` on the mask.

    Args:
        true_dust: ``(npix,)`` the dust in the sky.
        residual: ``(npix,)`` what is left of it, e.g. the cleaned sky minus the true CMB.
    """
    lmax = HealpixGrid.of_size(true_dust.size).safe_lmax
    kept = bands.clipped(lmax, lmin=2)
    spectra = masked_spectra(np.stack([true_dust, residual]), mask, lmax=lmax)
    share = band_power(spectra[1, 1], kept) / band_power(spectra[0, 0], kept)
    return dict(zip(kept, share.tolist(), strict=True))


def signal_loss(cmb: np.ndarray, cleaned_cmb: np.ndarray, mask: np.ndarray, bands: Bands) -> dict[str, float]:
    """Power of the signal after over before, by band: 1 is unharmed.

    Args:
        cmb: ``(npix,)`` the true signal.
        cleaned_cmb: ``(npix,)`` what cleaning leaves of it (:func:`clean_component`).
    """
    return power_left(cmb, cleaned_cmb, mask, bands)


def _checked(sky: np.ndarray, templates: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sky, templates = np.asarray(sky, dtype=np.float64), np.atleast_2d(np.asarray(templates, dtype=np.float64))
    if templates.shape[-1] != sky.size:
        raise UserError(f"templates of {templates.shape[-1]} pixels, sky of {sky.size}", "bring both to one Nside")
    mask = check_mask(mask, sky.size)
    if not np.isfinite(sky[mask > 0]).all() or not np.isfinite(templates[:, mask > 0]).all():
        raise UserError("the sky or a template has missing values on the mask", "set the mask to 0 there")
    return sky, templates, mask


def checked_lmax(grid: HealpixGrid, lmin: int, lmax: int | None) -> int:
    """``lmax``, ``2 nside`` when None; raises UserError when the multipoles are no range of the grid."""
    lmax = grid.safe_lmax if lmax is None else lmax
    if not 0 < lmin <= lmax < 3 * grid.nside:
        raise UserError(f"lmin={lmin}, lmax={lmax} at Nside {grid.nside}", f"keep 1 <= lmin <= lmax < {3 * grid.nside}")
    return lmax


def _pixel_fit(sky: np.ndarray, templates: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mask-weighted least squares in pixels with a monopole: the start, and the check that a solution exists."""
    kept = mask > 0
    weight = mask[kept] / mask.sum()
    centred = templates[:, kept] - (templates[:, kept] @ weight)[:, None]
    gram = (centred * weight) @ centred.T
    scale = np.sqrt(np.diag(gram))
    for index in np.flatnonzero(scale <= 1e-12 * np.abs(templates[:, kept]).max(axis=1)):
        raise UserError(f"template {index + 1} is constant on the mask", "give a template that varies there")
    return solve_correlated(gram, centred @ (weight * sky[kept]))
