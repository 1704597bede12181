"""The lensing-B template of the sky: the B that a given kappa makes of a given E, as a_lm.

Conventions: a_lm in the triangular order of :mod:`sphereml.harmonics.rings`, E in uK, COSMO; ``kappa = L(L+1)/2 phi``,
``P~(n) = P(n + grad phi)``.  E and kappa should be the most likely ones (Wiener-filtered): noise in them makes B too.

Two expansions, for the two kinds of E there are (Baleato Lizancos et al. 2021, arXiv:2010.14286):

* ``gradient``: ``B of grad phi . grad P_E``, the first order.  With the *observed*, hence lensed E, higher orders
  cancel to about a per cent of the lensing-B power; with an unlensed E they do not.
* ``all``: E remapped by ducc0 to all orders.  With an *unlensed* E nothing is left; a lensed E would be lensed twice.
"""

from __future__ import annotations

from typing import Literal

import ducc0
import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.filters import multiply
from sphereml.harmonics.rings import alm_lmax, resize_alm, threads
from sphereml.simulate.lensed_sky import LensedSky, lensed_alm

Expansion = Literal["gradient", "all"]
EXPANSIONS: tuple[Expansion, ...] = ("gradient", "all")


def lensed_b(alm_e: np.ndarray, kappa: np.ndarray, lmax: int, expansion: Expansion = "gradient") -> np.ndarray:
    """B up to ``lmax``, complex128 ``(alm_size(lmax),)``.

    Args:
        alm_e: E ``(alm_size(lmax_e),)``, lensed for ``gradient``, unlensed for ``all``.
        kappa: ``(alm_size(lmax_kappa),)``.

    Raises:
        UserError: an expansion that does not exist.
    """
    if expansion not in EXPANSIONS:
        raise UserError(f"there is no expansion {expansion!r}", f"choose from {', '.join(EXPANSIONS)}")
    potential = multiply(kappa.astype(np.complex128), potential_of_kappa(alm_lmax(kappa)))
    chosen = _gradient_order if expansion == "gradient" else _all_orders
    return chosen(alm_e.astype(np.complex128), potential, lmax)


def potential_of_kappa(lmax: int) -> np.ndarray:
    """``2 / (L (L + 1))``, 0 below L = 1: ``(lmax + 1,)``."""
    ell = np.arange(lmax + 1.0)
    return np.divide(2.0, ell * (ell + 1), out=np.zeros(lmax + 1), where=ell > 0)


def _gradient_order(alm_e: np.ndarray, potential: np.ndarray, lmax: int) -> np.ndarray:
    """B of ``(eth phi ethbar P + ethbar phi eth P) / 2`` on a Gauss-Legendre grid that integrates it exactly."""
    top_e, top = alm_lmax(alm_e), alm_lmax(potential)
    degree = top_e + top + lmax
    grid = {"ntheta": max(degree // 2, lmax) + 1, "nphi": ducc0.fft.good_size(degree + 1, True)}
    common = {"geometry": "GL", "nthreads": threads(), **grid}
    ell = np.arange(top_e + 1.0)
    below, above = np.sqrt(np.maximum((ell + 2) * (ell - 1), 0)), np.sqrt(np.maximum((ell - 2) * (ell + 3), 0))
    change = _complex(ducc0.sht.synthesis_2d(alm=potential[None], spin=1, lmax=top, mode="DERIV1", **common))
    other = np.conj(change)
    # In ducc0's signs ethbar P is minus the spin-1 field and eth P the spin-3 field, eth phi minus its gradient.
    for part, spin, sign, weights in ((change, 1, 0.5, below), (other, 3, -0.5, above)):
        alm = multiply(alm_e.copy(), sign * weights)[None]
        part *= _complex(ducc0.sht.synthesis_2d(alm=alm, spin=spin, lmax=top_e, mode="GRAD_ONLY", **common))
    change += other
    maps = np.stack([change.real, change.imag])
    alm = ducc0.sht.analysis_2d(map=maps, spin=2, lmax=lmax, geometry="GL", nthreads=threads())
    return np.asarray(alm[1])


def _all_orders(alm_e: np.ndarray, potential: np.ndarray, lmax: int) -> np.ndarray:
    top = max(alm_lmax(alm_e), alm_lmax(potential))
    # Single precision errs by 2e-7 of E, far below any B.
    sky = LensedSky(top, *(resize_alm(alm, top).astype(np.complex64) for alm in (alm_e, potential)))
    return np.asarray(lensed_alm(sky, lmax)[1], dtype=np.complex128)


def _complex(pair: np.ndarray) -> np.ndarray:
    return np.asarray(pair[0] + 1j * pair[1])
