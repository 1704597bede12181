"""Wigner's small d as tables over colatitude, for the few orders that masks and their derivatives need.

Conventions: ``d^l_{ms}(theta)`` as in Varshalovich et al. 1988 (``d_{ms} = (-1)^{m-s} d_{sm} = d_{-s,-m}``); tables are
``(lmax + 1, node)`` float64, zero below ``max(|m|, |s|)``.  Orders are small (0, 1, 2), so that nothing underflows and
the plain recursion in l, which is stable upward, will do; :mod:`sphereml.harmonics.legendre` is for all orders.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import comb

import ducc0
import numpy as np


@dataclass(frozen=True, eq=False)
class Quadrature:
    """Gauss-Legendre nodes ``theta`` (radians) and weights of ``dcos``, each ``(node,)``; the weights add up to 2."""

    theta: np.ndarray
    weights: np.ndarray

    def __getitem__(self, part: slice) -> Quadrature:
        return Quadrature(self.theta[part], self.weights[part])


@lru_cache(maxsize=4)
def quadrature(degree: int) -> Quadrature:
    """The smallest quadrature that is exact for polynomials of ``degree`` in ``cos(theta)``."""
    nodes = degree // 2 + 1
    theta = np.asarray(ducc0.misc.GL_thetas(nodes))
    return Quadrature(theta, np.asarray(ducc0.misc.GL_weights(nodes, 1)) / (2 * np.pi))


def wigner_d(lmax: int, m: int, s: int, theta: np.ndarray) -> np.ndarray:
    """``d^l_{ms}(theta)`` for all l up to ``lmax``: float64 ``(lmax + 1, node)``.

    Three-term recursion in l (Varshalovich et al. 1988, sec. 4.8.2), started at ``l = max(|m|, |s|)`` by the closed
    form for a highest order.
    """
    table = np.zeros((lmax + 1, len(theta)))
    lowest = max(abs(m), abs(s))
    if lowest > lmax:
        return table
    table[lowest] = _lowest(m, s, theta)
    x = np.cos(theta)
    for ell in range(lowest, lmax):
        above = np.sqrt(float(((ell + 1) ** 2 - m**2) * ((ell + 1) ** 2 - s**2)))
        below = np.sqrt(float((ell**2 - m**2) * (ell**2 - s**2))) * (ell + 1) / max(ell, 1)
        row = np.subtract(x, m * s / max(ell * (ell + 1), 1), out=table[ell + 1])
        row *= table[ell]
        row *= (2 * ell + 1) * (ell + 1) / above
        if below:
            row -= below / above * table[ell - 1]
    return table


def _lowest(m: int, s: int, theta: np.ndarray) -> np.ndarray:
    """``d^l_{ms}`` at ``l = max(|m|, |s|)``, brought by the symmetries of d to the order ``m = l``."""
    ell, sign = max(abs(m), abs(s)), 1
    if abs(m) < ell:
        m, s, sign = s, m, (-1) ** (m - s)
    if m < 0:
        m, s, sign = -m, -s, sign * (-1) ** (m - s)
    cosine, sine = np.cos(theta / 2), np.sin(theta / 2)
    value: np.ndarray = np.sqrt(float(comb(2 * ell, ell + s))) * cosine ** (ell + s) * (-sine) ** (ell - s)
    return sign * value
