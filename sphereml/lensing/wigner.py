"""Series in Wigner's small d and their integrals over the sphere: sums over three multipoles become products of curves.

Conventions
-----------
* ``d^l_{ms}(theta)`` as in Varshalovich et al. 1988, with ``d_{ms} = (-1)^{m-s} d_{sm} = d_{-s,-m}``; every function
  here treats the pair ``(d_{ms}, d_{m,-s})`` of one order m >= 0 and one spin s > 0 at once.
* Curves ``(node,)`` are values on the nodes of a Gauss-Legendre quadrature in ``cos(theta)``.
* ``int_{-1}^{1} dcos d^l_{ab} d^L_{AB} d^k_{cd} = 2 (l L k; a A c) (l L k; b B d)`` when a + A + c = b + B + d = 0: a
  polynomial of degree l + L + k, which the quadrature integrates exactly.
"""

from __future__ import annotations

import ducc0
import numpy as np

from sphereml.harmonics.rings import threads
from sphereml.harmonics.wigner_d import Quadrature, quadrature

__all__ = ["Quadrature", "quadrature", "wigner_integrals", "wigner_series"]


def wigner_series(coefficients: np.ndarray, nodes: Quadrature, m: int, s: int) -> tuple[np.ndarray, np.ndarray]:
    """``sum_l (2l+1)/4pi c_l d^l_{ms}`` and the same with ``d^l_{m,-s}``, each ``(node,)``.

    Args:
        coefficients: ``c_l`` from l = 0, ``(lmax + 1,)``; those below ``max(m, s)`` do not count.
    """
    coefficients = _reaching(coefficients, max(m, s))
    alm = np.zeros((2, len(coefficients)), dtype=np.complex128)
    alm[0] = coefficients * _norm(len(coefficients) - 1)
    leg = ducc0.sht.alm2leg(alm=alm, theta=nodes.theta, **_options(len(coefficients) - 1, m, s))
    even, odd = leg[0, :, 0].real, leg[1, :, 0].imag
    return -(even + odd), (-1) ** s * (odd - even)


def wigner_integrals(plus: np.ndarray, minus: np.ndarray, nodes: Quadrature, m: int, s: int, lmax: int) -> np.ndarray:
    """``int dcos (plus d^l_{ms} + minus d^l_{m,-s})`` for every l: ``(lmax + 1,)``, zero below ``max(m, s)``."""
    top = max(lmax, m, s)
    leg = np.empty((2, len(plus), 1), dtype=np.complex128)
    leg[0, :, 0] = -nodes.weights * (plus + (-1) ** s * minus)
    leg[1, :, 0] = 1j * nodes.weights * ((-1) ** s * minus - plus)
    alm = ducc0.sht.leg2alm(leg=leg, theta=nodes.theta, **_options(top, m, s))
    integrals: np.ndarray = alm[0].real / _norm(top)
    integrals[: max(m, s)] = 0
    return integrals[: lmax + 1]


def _reaching(coefficients: np.ndarray, lowest: int) -> np.ndarray:
    return np.pad(coefficients, (0, max(0, lowest + 1 - len(coefficients))))


def _norm(lmax: int) -> np.ndarray:
    """``lambda^s_lm = norm d^l_{ms}``: ducc0's functions carry the norm of spherical harmonics."""
    norm: np.ndarray = np.sqrt((2 * np.arange(lmax + 1) + 1) / (4 * np.pi))
    return norm


def _options(lmax: int, m: int, s: int) -> dict[str, object]:
    order, start = np.array([m]), np.array([0])
    return {"lmax": lmax, "spin": s, "mval": order, "mstart": start, "nthreads": threads()}
