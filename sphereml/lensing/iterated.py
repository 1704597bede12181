"""N0 of EB when the estimated lensing is taken out of B and estimated again (Smith et al. 2012, arXiv:1010.0048).

Conventions: C_ell in uK^2 from ell = 0, N0 is C_L of kappa.  What one step removes from B is, to first order and with
Wiener-filtered E and phi,

    C^est_k = 1/(2k+1) sum_{lL} W^E_l W^phi_L F^2_{lLk},
    W^E = (C^EE)^2 / (C^tot + N),  W^phi = (C^phiphi)^2 / (C^phiphi + N0^phiphi),

over odd l + L + k, with C^EE unlensed, l within the observation's band and 2 <= L <= lmax of the band.  The first-order
B of all of E and phi, ``C^full``, is the same sum without filters.  It differs from CAMB's lensed B by up to 0.4 %, so
codes differ in what they call the residual:

- ``ratio``  ``C^BB (1 - C^est / C^full)``: the share that is left of CAMB's lensed B (the default);
- ``camb``   ``C^BB - C^est``: what is left of CAMB's lensed B (tempura);
- ``first``  ``C^full - C^est``: first order throughout.

At 1 uK-arcmin the N0 of ``ratio`` is 0.5-2 % above that of ``camb``.  ``C^tot`` is the lensed E (``lensed``) or the
unlensed one (``unlensed``, N0 at 1 uK-arcmin higher by 1-4 %).  The lensed E is less than the unlensed at some
multipoles, so below 0.2-0.3 uK-arcmin ``lensed`` removes more B than there is; ``unlensed`` holds down to no noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sphereml.errors import UserError
from sphereml.lensing.gradients import GradientCurves, gradient_curves, lens_into_b
from sphereml.lensing.noise import NoiseModel
from sphereml.lensing.wigner import quadrature
from sphereml.simulate.cmb_spectra import CmbSpectra

Residual = Literal["ratio", "camb", "first"]
EFilter = Literal["lensed", "unlensed"]

_MEND = "raise the noise, or choose --e-filter unlensed with --residual ratio"


@dataclass(frozen=True)
class Iteration:
    """Which convention is iterated, until no N0 can change by more than ``tolerance`` of itself."""

    residual: Residual = "ratio"
    e_filter: EFilter = "lensed"
    tolerance: float = 1e-4
    most_steps: int = 100


@dataclass(frozen=True, eq=False)
class IteratedNoise:
    """Converged N0 of EB ``(lmax_kappa + 1,)`` and the steps taken."""

    n0: np.ndarray
    steps: int


def first_order_bb(spectra: CmbSpectra, lmax: int) -> np.ndarray:
    """B power of first-order lensing by all of E and phi that the spectra hold, ``(lmax + 1,)`` uK^2."""
    nodes = quadrature(2 * spectra.lmax + lmax)
    return lens_into_b(gradient_curves(spectra.ee, nodes), spectra.potential, nodes, lmax)


def iterate_eb(model: NoiseModel, iteration: Iteration = Iteration()) -> IteratedNoise:
    """Iterated N0 of EB of this model.

    Raises:
        UserError: a step would remove more B than there is, or the steps do not settle.
    """
    # N0 filters the potential up to the band's lmax, whatever L the caller wants.
    inner = replace(model, lmax_kappa=model.observation.lmax)
    gradient, full = _filtered_gradient(inner, iteration.e_filter), _full(inner, iteration.residual)
    band, noise = slice(model.observation.lmin, model.observation.lmax + 1), model.observation.noise_spectrum()
    bb = model.spectra.bb_lensed[: model.observation.lmax + 1]
    for step in range(1, iteration.most_steps + 1):
        before, bb = bb, _residual(inner, iteration.residual, full, _removed(inner, gradient, inner.eb(bb)))
        # 1 / N0 is a sum of positive terms, each over bb + noise: no N0 changes by more than the worst of them.
        change = np.abs(bb - before)[band] / (bb + noise)[band]
        if change.max() < iteration.tolerance:
            return IteratedNoise(model.eb(bb), step)
    raise UserError(f"the iterated N0 does not settle in {iteration.most_steps} steps", _MEND)


def delensed_bb(model: NoiseModel, noise: np.ndarray) -> np.ndarray:
    """Lensed B power that is left of the spectra's after subtracting a template, ``(spectra.lmax + 1,)`` uK^2.

    To first order, with the Wiener-filtered lensed E of the observation; beyond its lmax the share of lmax is left.

    Args:
        noise: C_L of the estimate's noise, ``(observation.lmax + 1,)`` from L = 0, infinite where nothing is measured.
    """
    inner = replace(model, lmax_kappa=model.observation.lmax)
    removed = _removed(inner, _filtered_gradient(inner, "lensed"), noise)
    full = first_order_bb(model.spectra, model.observation.lmax)
    left = np.divide(full - removed, full, out=np.ones(len(full)), where=full > 0)
    share = np.interp(np.arange(model.spectra.lmax + 1), np.arange(len(left)), left)
    return np.asarray(model.spectra.bb_lensed * share)


def _filtered_gradient(model: NoiseModel, e_filter: EFilter) -> GradientCurves:
    ee = model.spectra.ee
    power = model.spectra.ee_lensed if e_filter == "lensed" else ee
    return gradient_curves(model.observation.filtered(ee, power, 2), model.nodes)


def _full(model: NoiseModel, residual: Residual) -> np.ndarray:
    """First-order B where the convention asks for it."""
    if residual == "camb":
        return model.spectra.bb_lensed
    return first_order_bb(model.spectra, model.observation.lmax)


def _removed(model: NoiseModel, gradient: GradientCurves, n0: np.ndarray) -> np.ndarray:
    """``C^est``, ``(lmax + 1,)``."""
    ell = np.arange(len(n0), dtype=float)
    to_kappa = (ell * (ell + 1) / 2) ** 2
    potential = model.spectra.potential[: len(n0)]
    weights = np.zeros(len(n0))
    weights[2:] = to_kappa[2:] * potential[2:] ** 2 / (to_kappa[2:] * potential[2:] + n0[2:])
    return lens_into_b(gradient, weights, model.nodes, model.observation.lmax)


def _residual(model: NoiseModel, kind: Residual, full: np.ndarray, removed: np.ndarray) -> np.ndarray:
    band = slice(model.observation.lmin, model.observation.lmax + 1)
    left = np.zeros(model.observation.lmax + 1)
    left[band] = full[band] - removed[band]
    if not (left[band] > 0).all():
        ell = band.start + int(np.argmin(left[band] > 0))
        raise UserError(f"delensing would remove more B at ell={ell} than there is", _MEND)
    if kind == "ratio":
        left[band] *= model.spectra.bb_lensed[band] / full[band]
    return left
