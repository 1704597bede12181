"""Reconstruction noise N0 of the quadratic estimators EB and EE on the curved sky, and of both together.

Conventions
-----------
* N0 is C_L of kappa, kappa = L(L+1)/2 phi, from L = 0.  It is infinite where nothing is measured: below L = 2 (a dipole
  of phi has no shear, hence makes no B) and where noise and beam leave no pair of multipoles.
* The response holds the lensed E spectrum; what B there was before lensing, and the lensed B, are left out of it:
  ``f^EB = C^EE_l F_{lLk}`` (l + L + k odd), ``f^EE = C^EE_l F_{lLk} + C^EE_k F_{kLl}`` (even), with F of
  :mod:`sphereml.lensing.gradients`.  This is eq. 6 of arXiv:1810.01483 on the curved sky.
* ``1 / N0^phiphi_L = 1/(2L+1) sum_{lk} |f|^2 / (g C^tot_l C^tot_k)``, g = 1 for EB and 2 for EE, both legs within the
  observation's band (Okamoto & Hu 2003, astro-ph/0301031; eq. 8 of arXiv:1810.01483 prints its inverse).

Cost: ten transforms of order lmax^2 instead of the double sum for every L.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sphereml.errors import UserError
from sphereml.lensing.gradients import EVEN, ODD, GradientCurves, couple_exchanged, couple_to_potential, gradient_curves
from sphereml.lensing.observation import Observation
from sphereml.lensing.wigner import Quadrature, quadrature
from sphereml.simulate.cmb_spectra import CmbSpectra

# N_L of an estimate of lensed skies over its N0, about (1.5 to 1.1 from L = 100 to 2000): what the next pass expects.
EXCESS = 1.3

# Below this share of the largest response of kappa the integrals may hold only rounding.
_ROUNDING = 1e-11


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """The estimators of one observation; what all of them need of E is computed once.

    Args:
        lmax_kappa: highest L of the results, at most ``2 observation.lmax - 1``.
    """

    spectra: CmbSpectra
    observation: Observation
    lmax_kappa: int = 3000

    def __post_init__(self) -> None:
        highest = 2 * self.observation.lmax - 1
        if not 2 <= self.lmax_kappa <= highest:
            what = f"L {self.lmax_kappa} is out of the reach of E and B up to ell={self.observation.lmax}"
            raise UserError(what, f"give an L of 2 to {highest}, or raise lmax")

    @cached_property
    def nodes(self) -> Quadrature:
        return quadrature(2 * self.observation.lmax + self.lmax_kappa)

    @cached_property
    def _gradient(self) -> GradientCurves:
        ee = self.spectra.ee_lensed
        return gradient_curves(self.observation.filtered(ee, ee, 2), self.nodes)

    def eb(self, bb: np.ndarray | None = None) -> np.ndarray:
        """N0 of EB, ``(lmax_kappa + 1,)``.

        Args:
            bb: B power without noise in place of the lensed one, e.g. what delensing leaves, ``(>= lmax + 1,)``.
        """
        bb = self.spectra.bb_lensed if bb is None else bb
        weights = self.observation.filtered_b(bb)
        return _noise(couple_to_potential(self._gradient, weights, self.nodes, ODD, self.lmax_kappa))

    def ee(self) -> np.ndarray:
        """N0 of EE, ``(lmax_kappa + 1,)``."""
        ee = self.spectra.ee_lensed
        weights = self.observation.filtered(ee, ee, 0)
        own = couple_to_potential(self._gradient, weights, self.nodes, EVEN, self.lmax_kappa)
        exchanged = couple_exchanged(self.observation.filtered(ee, ee, 1), self.nodes, self.lmax_kappa)
        return _noise(own + exchanged)

    def minimum_variance(self) -> np.ndarray:
        """N0 of EB and EE together: without EB power, and by parity, their noises are uncorrelated."""
        return combined(self.eb(), self.ee())


def combined(*noises: np.ndarray) -> np.ndarray:
    """Noise of the inverse-variance sum of estimators whose noises are uncorrelated."""
    with np.errstate(divide="ignore"):
        total: np.ndarray = 1 / np.sum([1 / noise for noise in noises], axis=0)
    return total


def _noise(response: np.ndarray) -> np.ndarray:
    """N0 of kappa from the response to phi."""
    ell = np.arange(2.0, len(response))
    kappa_response = response[2:] / (ell * (ell + 1) / 2) ** 2
    measured = kappa_response > _ROUNDING * kappa_response.max()
    noise = np.full(len(response), np.inf)
    noise[2:][measured] = 1 / kappa_response[measured]
    return noise
