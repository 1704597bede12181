"""Explicit templates of polarization: one amplitude each for Q and U together, fitted on the masked sky and subtracted.

Conventions: maps are NEST ``(2, npix)`` (Q, U) in COSMO sign, templates ``(nt, 2, npix)``; the mask weighs 0..1.
Spectra have an (E, B) axis, C_ell, and are pseudo-spectra over ``fsky(mask)``.

The estimator is that of :mod:`sphereml.templates.marginalization` with the sums taken over E and B, each with the
weights ``w^X_l = f / N^X_l`` of its own residual:

    a = A^-1 b,   A_ij = sum_X sum_l w^X_l (2l+1) C^{t_i X, t_j X}_l,   b_i = sum_X sum_l w^X_l (2l+1) C^{t_i X, d X}_l,

    Cov(a) = A^-1 V A^-1,   V_ij = sum_X sum_lm h^X_i,lm h^X*_j,lm N^X_l / fsky,   h_i = M g_i,

g_i the map (Q, U) of ``w^X_l t~^X_i``.  Nothing is taken off first: polarization has no monopole.  Deprojection inside
a spectrum (*implicit* templates: modes are marginalized, none of their amplitudes is believed) is in
:mod:`sphereml.harmonics.deprojection`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.spectra import check_mask, cross_spectrum, fsky
from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.sky.grid import HealpixGrid
from sphereml.templates.amplitudes import covariance, filtered, fit_amplitudes, solve_correlated
from sphereml.templates.marginalization import checked_lmax


@dataclass(frozen=True)
class PolarizationFit:
    """Amplitudes and what they leave.

    Attributes:
        amplitudes, errors, covariance: ``(nt,)``, ``(nt,)``, ``(nt, nt)``, in the unit of the sky over the template's.
        cleaned: ``(2, npix)`` sky - sum_i a_i t_i.
        lmin, weights: first multipole of the fit and ``w^X_l`` ``(2, lmax + 1)``, as relative weights.
        before, after: ``(2, lmax + 1)`` EE and BB of the masked sky and of the cleaned one, over ``fsky``.
    """

    amplitudes: np.ndarray
    errors: np.ndarray
    covariance: np.ndarray
    cleaned: np.ndarray
    lmin: int
    weights: np.ndarray
    before: np.ndarray
    after: np.ndarray


def marginalize_polarization(
    sky: np.ndarray, templates: np.ndarray, mask: np.ndarray, *, lmax: int | None = None, lmin: int = 2
) -> PolarizationFit:
    """Fit and subtract templates from Q and U; see the module's docstring for the estimator.

    Args:
        sky: ``(2, npix)``; values where the mask is zero are not used.
        templates: ``(nt, 2, npix)`` or ``(2, npix)``.
        mask: ``(npix,)`` weights in 0..1, apodized or not.
        lmax: highest multipole of the fit, ``2 nside`` when None.
    Raises:
        UserError: shapes differ, the mask is empty, values on the mask are not finite, a template is zero on the mask,
            or the templates are linearly dependent there.
    """
    sky, templates, mask = _checked(sky, templates, mask)
    lmax = checked_lmax(HealpixGrid.of_size(mask.size), lmin, lmax)
    seen = np.where(mask > 0, np.concatenate([sky[None], templates]), 0.0)
    alms = analysis(mask * seen, lmax, spin=2)
    fit = fit_amplitudes(alms, _pixel_fit(seen, mask), lmin, lmax)
    amplitudes = fit.values
    smoothed = synthesis(filtered(alms[1:], fit.weights), HealpixGrid.of_size(mask.size).nside, lmax, spin=2)
    scatter = covariance(alms[1:], analysis(mask * smoothed, lmax, spin=2), fit, fsky(mask))
    left = np.stack([alms[0], alms[0] - np.tensordot(amplitudes, alms[1:], axes=1)])
    before, after = cross_spectrum(left, left, lmax) / fsky(mask)
    cleaned = sky - np.tensordot(amplitudes, templates, axes=1)
    return PolarizationFit(amplitudes, np.sqrt(np.diag(scatter)), scatter, cleaned, lmin, fit.weights, before, after)


def _checked(sky: np.ndarray, templates: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sky, templates = np.asarray(sky, dtype=np.float64), np.asarray(templates, dtype=np.float64)
    templates = templates[None] if templates.ndim == 2 else templates
    if sky.ndim != 2 or len(sky) != 2 or templates.ndim != 3 or templates.shape[1:] != sky.shape:
        raise UserError(
            f"a sky of shape {sky.shape} and templates of {templates.shape}", "give (2, npix), Q and U, of one Nside"
        )
    mask = check_mask(mask, sky.shape[1])
    if not np.isfinite(sky[:, mask > 0]).all() or not np.isfinite(templates[..., mask > 0]).all():
        raise UserError("the sky or a template has missing values on the mask", "set the mask to 0 there")
    return sky, templates, mask


def _pixel_fit(seen: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mask-weighted least squares in the pixels of Q and U: the start, and the check that a solution exists."""
    flat = seen.reshape(len(seen), -1)
    products = (flat * np.tile(mask / mask.sum(), 2)) @ flat.T
    scale = np.sqrt(np.diag(products)[1:])
    for index in np.flatnonzero(scale == 0):
        raise UserError(f"template {index + 1} is zero on the mask", "give a template that is not")
    return solve_correlated(products[1:, 1:], products[1:, 0])
