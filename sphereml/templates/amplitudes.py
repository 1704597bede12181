"""Amplitudes of templates by generalized least squares in multipoles, for fields of any number of components.

Conventions: coefficients are ``(1 + nt, c, nalm)``, the masked sky's first, with c = 1 (a scalar) or 2 (E and B);
weights and noise are ``(c, lmax + 1)``.  The estimators are stated in :mod:`sphereml.templates.marginalization` and
:mod:`sphereml.templates.polarization`, which say what is seen through the mask and what is fitted first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.filters import multiply
from sphereml.harmonics.spectra import cross_spectrum

ITERATIONS = 3
MAX_CONDITION = 1e10  # of the templates' correlation matrix; beyond it amplitudes are differences of rounding errors


@dataclass(frozen=True)
class Amplitudes:
    """Amplitudes ``(nt,)`` with the weights and the smoothed residual power ``(c, lmax + 1)`` they were fitted with."""

    values: np.ndarray
    weights: np.ndarray
    noise: np.ndarray


def solve_correlated(gram: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Least squares in pixels; raises UserError when the templates depend on each other."""
    scale = np.sqrt(np.diag(gram))
    if np.linalg.cond(gram / np.outer(scale, scale)) > MAX_CONDITION:
        raise UserError("the templates are linearly dependent on the mask", "leave out the redundant ones")
    return np.asarray(np.linalg.solve(gram, right))


def fit_amplitudes(alms: np.ndarray, start: np.ndarray, lmin: int, lmax: int) -> Amplitudes:
    """The fit from ``lmin`` on, iterated from the amplitudes ``start`` with the power that they leave."""
    return fit_spectra(cross_spectrum(alms[:, None], alms[None], lmax), start, lmin)


def fit_spectra(spectra: np.ndarray, start: np.ndarray, lmin: int) -> Amplitudes:
    """:func:`fit_amplitudes` from the cross spectra ``(1 + nt, 1 + nt, c, lmax + 1)`` of sky and templates."""
    values, ell = start, np.arange(spectra.shape[-1])
    for _ in range(ITERATIONS):
        weighed = np.concatenate([[1.0], -values])
        left = np.einsum("i,ijcl,j->cl", weighed, spectra, weighed)
        noise = np.stack([smooth_spectrum(cl) for cl in left])
        if not noise.any():  # the templates are the whole sky: any weights fit
            return Amplitudes(values, np.where(ell < lmin, 0.0, np.ones_like(noise)), noise)
        floor = np.maximum(noise, 1e-12 * noise.max())
        weights = np.where(ell < lmin, 0.0, noise.max() / floor)
        products = _weighed(spectra, weights)
        values = np.asarray(np.linalg.solve(products[1:, 1:], products[1:, 0]))
    return Amplitudes(values, weights, noise)


def solve(alms: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Amplitudes ``A^-1 b`` with given weights."""
    products = _products(alms, weights)
    return np.asarray(np.linalg.solve(products[1:, 1:], products[1:, 0]))


def filtered(templates: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``w_l t_lm`` of coefficients ``(nt, c, nalm)``, whose maps through the mask are the ``h`` of the covariance."""
    found = templates.copy()
    for component, gain in enumerate(weights):
        multiply(found[:, component], gain)
    return found


def covariance(templates: np.ndarray, seen: np.ndarray, fit: Amplitudes, share: float) -> np.ndarray:
    """``A^-1 V A^-1`` ``(nt, nt)`` from coefficients of the templates and of ``h``, both ``(nt, c, nalm)``.

    Args:
        share: fsky of the mask.
    """
    inverse = np.linalg.inv(_products(templates, fit.weights))
    return np.asarray(inverse @ (_products(seen, fit.noise) / share) @ inverse)


def _products(alms: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``sum_X sum_l w^X_l (2l+1) C^{iX, jX}_l`` of coefficients ``(n, c, nalm)``: ``(n, n)``."""
    return _weighed(cross_spectrum(alms[:, None], alms[None], weights.shape[1] - 1), weights)


def _weighed(spectra: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("ijxl,xl->ij", spectra, weights * (2 * np.arange(weights.shape[1]) + 1)))


def smooth_spectrum(cl: np.ndarray) -> np.ndarray:
    """Mode-weighted running mean over +-20 % in ell (at least +-2) of ``l(l+1) C_l``, flat for a CMB-like spectrum."""
    ell = np.arange(len(cl))
    modes = 2.0 * ell[1:] + 1
    half = np.maximum(2, ell[1:] // 5)
    first, last = np.maximum(ell[1:] - half, 1) - 1, np.minimum(ell[1:] + half, ell[-1])
    sums = [np.concatenate([[0.0], np.cumsum(x)]) for x in (modes * ell[1:] * (ell[1:] + 1) * cl[1:], modes)]
    smooth = np.array((sums[0][last] - sums[0][first]) / (sums[1][last] - sums[1][first])) / (ell[1:] * (ell[1:] + 1))
    return np.concatenate([smooth[:1], smooth])
