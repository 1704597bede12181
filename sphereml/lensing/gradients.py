"""The lensing coupling of E on the curved sky: gradients of polarization times gradients of the potential, as curves.

Conventions: the lensed field is ``X(n + grad phi)``; to first order in phi the spin-2 field P = Q + iU changes by
``grad phi . grad P = (eth phi ethbar P + ethbar phi eth P) / 2``.  In multipoles (l of E, L of phi, k of the result)
its square is

    F^2 = L(L+1) (2l+1)(2L+1)(2k+1)/16pi [a_l (l L k; -1 -1 2) + b_l (l L k; -3 1 2)]^2,
    a_l = sqrt((l+2)(l-1)),  b_l = sqrt((l-2)(l+3)),

which is that of Okamoto & Hu 2003 (astro-ph/0301031) with the factor of multipoles written as spins.  It makes E
where l + L + k is even and B where it is odd; the change of sign of one row of 3j symbols, ``(-1)^{l+L+k}``, is the
change of ``d_{ms}`` into ``d_{m,-s}``.  Hence sums over two of the three multipoles are integrals of products of
correlation functions (Dvorkin & Smith 2009, arXiv:0812.1566; Smith et al. 2012, arXiv:1010.0048).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sphereml.lensing.wigner import Quadrature, wigner_integrals, wigner_series

# The sign (-1)^{l+L+k} of the wanted sums.
Parity = Literal[1, -1]
EVEN: Parity = 1
ODD: Parity = -1


@dataclass(frozen=True, eq=False)
class GradientCurves:
    """Correlations of the gradient of a polarization of pure E, its spin-1 and spin-3 parts, each ``(node,)``.

    ``same`` adds the two parts' own correlations, ``cross`` is that of one with the other; ``plus`` has ``d_{ms}``
    with s > 0, ``minus`` with s < 0.
    """

    same_plus: np.ndarray
    same_minus: np.ndarray
    cross_plus: np.ndarray
    cross_minus: np.ndarray


def gradient_curves(spectrum: np.ndarray, nodes: Quadrature) -> GradientCurves:
    """Gradient correlations of an E field with this C_ell ``(lmax + 1,)``."""
    a, b = _ladder(len(spectrum) - 1)
    one, three = wigner_series(spectrum * a**2, nodes, 1, 1), wigner_series(spectrum * b**2, nodes, 3, 3)
    cross = wigner_series(spectrum * a * b, nodes, 1, 3)
    return GradientCurves(one[0] + three[0], one[1] + three[1], *cross)


def couple_to_potential(
    gradient: GradientCurves, other: np.ndarray, nodes: Quadrature, parity: Parity, lmax: int
) -> np.ndarray:
    """``sum_{lk} w_l o_k F^2_{lLk} / (2L+1)`` over one parity of l + L + k, for every L: ``(lmax + 1,)``.

    Args:
        gradient: curves of the E leg's spectrum w.
        other: spectrum o of the leg that lensing changes, from k = 0.
    """
    plus, minus = wigner_series(other, nodes, 2, 2)
    same = gradient.same_plus * plus + 2 * parity * gradient.cross_minus * minus
    flipped = parity * gradient.same_minus * minus + 2 * gradient.cross_plus * plus
    return _square(lmax) * np.pi / 4 * wigner_integrals(same, flipped, nodes, 1, 1, lmax)


def couple_exchanged(v: np.ndarray, nodes: Quadrature, lmax: int) -> np.ndarray:
    """``sum_{lk} v_l v_k F_{lLk} F_{kLl} / (2L+1)`` over even l + L + k, for every L: ``(lmax + 1,)``.

    Two E legs lens into each other; this is the interference of the two ways.
    """
    a, b = _ladder(len(v) - 1)
    one_plus, one_minus = wigner_series(v * a, nodes, 1, 2)
    three_plus, three_minus = wigner_series(v * b, nodes, 3, 2)
    same = 2 * one_plus * three_plus - one_minus**2 - three_minus**2
    flipped = one_plus**2 + three_plus**2 - 2 * one_minus * three_minus
    return _square(lmax) * np.pi / 4 * wigner_integrals(same, flipped, nodes, 1, 1, lmax)


def lens_into_b(gradient: GradientCurves, potential: np.ndarray, nodes: Quadrature, lmax: int) -> np.ndarray:
    """First-order B power ``sum_{lL} C^EE_l C^phiphi_L F^2_{lLk} / (2k+1)`` for every k: ``(lmax + 1,)``.

    Args:
        gradient: curves of C^EE.
        potential: C^phiphi from L = 0.
    """
    plus, minus = wigner_series(potential * _square(len(potential) - 1), nodes, 1, 1)
    same = gradient.same_plus * plus + 2 * gradient.cross_plus * minus
    flipped = -gradient.same_minus * minus - 2 * gradient.cross_minus * plus
    return np.pi / 4 * wigner_integrals(same, flipped, nodes, 2, 2, lmax)


def _square(lmax: int) -> np.ndarray:
    ell = np.arange(lmax + 1.0)
    return ell * (ell + 1)


def _ladder(lmax: int) -> tuple[np.ndarray, np.ndarray]:
    """What ethbar and eth multiply spin-2 harmonics by; zero where there are none."""
    ell = np.arange(lmax + 1.0)
    a = np.sqrt(np.maximum((ell + 2) * (ell - 1), 0) * (ell > 1))
    b = np.sqrt(np.maximum((ell - 2) * (ell + 3), 0))
    return a, b
