"""Mode coupling of masked skies: which multipoles of the sky a pseudo-spectrum mixes (MASTER, Hivon et al. 2002).

Conventions
-----------
* ``<C~_l> = sum_l' M_ll' C_l'`` with the pseudo-spectra C~ of masked maps; M holds the factor 2l'+1.
* Components of a field: one of spin 0 (T), two of spin 2 (E, B).  Spectra of a pair of fields are ordered component of
  the first, then of the second: TT; TE, TB; ET, BT; EE, EB, BE, BB.  M is ``(ncl, row, ncl, lmax + 1)``.
* The mask enters by its own pseudo-spectrum ``W_L`` ``(lmax_mask + 1,)``, auto or of two masks.

A masked field's coefficient at l is a sum over the sky's at l' and the mask's at L with the amplitude

    A(l, l', L) = sum_a r_a(l) g_a(L) (l l' L; a -s s-a),

which is the single term a = s (r = g = 1) for a plain field of spin s.  Purification (Smith 2006, astro-ph/0511629;
Grain et al. 2009, arXiv:0903.2350) adds the terms of the mask's first and second derivative,

    a = 1: r = 2 / sqrt((l+2)(l-1)),   g = sqrt(L(L+1));      a = 0: r = sqrt((l-2)!/(l+2)!),  g = sqrt((L+2)!/(L-2)!).

Products of two 3j symbols are integrals over three Wigner d, ``int dcos d^l_{ab} d^l'_{..} d^L_{..}``, polynomials that
a Gauss-Legendre quadrature integrates exactly; so sums over L become curves and the matrix one product of two tables,

    sum_L (2L+1)/4pi W_L A_1 A_2 = 1/2 int dcos [sum_ab r_a r_b d^l_{ab} X_{s1-a,s2-b}] d^l'_{s1,s2},
    X_{mn}(theta) = sum_L (2L+1)/4pi g_a g_b W_L d^L_{mn}(theta),

and the sign (-1)^(l+l'+L), which tells E from B, turns b, n, s2 round.  ducc0 has such matrices among its experimental
functions, under another name and signature in every other version (0.37 and 0.41 share none) and no longer purified;
this works with all, and needs no more than the binned rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from sphereml.harmonics.wigner_d import Quadrature, quadrature, wigner_d

# Entries of one table of Wigner d: 32 MB.
_CHUNK = 2**22


@dataclass(frozen=True)
class Component:
    """One component of a field, T, E or B: its spin, and whether it is purified."""

    spin: int
    pure: bool = False

    def row_factors(self, lmax: int) -> dict[int, np.ndarray]:
        """``r_a(l)`` by the order a, ``(lmax + 1,)`` each."""
        factors = {self.spin: np.ones(lmax + 1)}
        if self.pure:
            ell = np.arange(2.0, lmax + 1)
            first = 2 / np.sqrt((ell + 2) * (ell - 1))
            factors[1] = np.concatenate([[0, 0], first])
            factors[0] = np.concatenate([[0, 0], first / 2 / np.sqrt(ell * (ell + 1))])
        return factors

    def mask_factors(self, lmax: int) -> dict[int, np.ndarray]:
        """``g_a(L)`` by the order a, ``(lmax + 1,)`` each."""
        ell = np.arange(lmax + 1.0)
        once = np.sqrt(ell * (ell + 1))
        factors = {self.spin: np.ones(lmax + 1)}
        return factors | ({1: once, 0: once * np.sqrt(np.maximum((ell + 2) * (ell - 1), 0))} if self.pure else {})


@dataclass(frozen=True)
class Components:
    """The components of one field: T for spin 0, (E, B) for spin 2."""

    spin: int
    pure_e: bool = False
    pure_b: bool = False

    @property
    def members(self) -> tuple[Component, ...]:
        return (Component(self.spin, self.pure_e), Component(self.spin, self.pure_b))[: 2 if self.spin else 1]


def coupling_matrix(
    mask_spectrum: np.ndarray, first: Components, second: Components, lmax: int, rows: np.ndarray | None = None
) -> np.ndarray:
    """Coupling of the spectra of two fields of spin 0 or 2, float64 ``(ncl, nrow, ncl, lmax + 1)``.

    Args:
        mask_spectrum: ``W_L`` of the two fields' masks, ``(lmax_mask + 1,)``.
        rows: ``(nrow, lmax + 1)``, weights of the rows that are wanted (bins); every l when None.
    """
    # The kernels are symmetric in the two components.
    pairs = {frozenset((a, b)): (a, b) for a in first.members for b in second.members}
    kernels = {key: coupling_kernels(mask_spectrum, *pair, lmax, rows) for key, pair in pairs.items()}
    n1, n2 = len(first.members), len(second.members)
    count = lmax + 1 if rows is None else len(rows)
    matrix = np.zeros((n1, n2, count, n1, n2, lmax + 1))
    for i, a in enumerate(first.members):
        for j, b in enumerate(second.members):
            even, odd = kernels[frozenset((a, b))]
            matrix[i, j, :, i, j] = even
            if n1 == n2 == 2:  # the odd part turns E into B and B into -E, in both fields
                matrix[i, j, :, 1 - i, 1 - j] = odd if i == j else -odd
    return matrix.reshape(n1 * n2, count, n1 * n2, lmax + 1)


def coupling_kernels(
    mask_spectrum: np.ndarray, first: Component, second: Component, lmax: int, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The parts of ``(2l'+1) sum_L (2L+1)/4pi W_L A_1 A_2`` with even and with odd l + l' + L, each ``(nrow, lmax+1)``.

    Odd sums are zero when one of the spins is.
    """
    nodes = quadrature(2 * lmax + len(mask_spectrum) - 1)
    plain = np.zeros((lmax + 1 if rows is None else len(rows), lmax + 1))
    turned = np.zeros_like(plain)
    size = max(1, _CHUNK // (lmax + 1))
    for start in range(0, len(nodes.theta), size):
        part = nodes[start : start + size]
        overlap = partial(_overlap, mask_spectrum, first, second, lmax, part, rows=rows)
        plain += overlap(sign=1)
        if first.spin and second.spin:
            turned += overlap(sign=-1)
    if not (first.spin and second.spin):
        return plain, turned
    return (plain + turned) / 2, (plain - turned) / 2


def _overlap(
    mask_spectrum: np.ndarray,
    first: Component,
    second: Component,
    lmax: int,
    nodes: Quadrature,
    *,
    sign: int,
    rows: np.ndarray | None,
) -> np.ndarray:
    """``(2l'+1)/2 int dcos`` over some nodes; ``sign`` -1 turns the second field's orders round."""
    lmax_mask = len(mask_spectrum) - 1
    weight = (2 * np.arange(lmax_mask + 1) + 1) / (4 * np.pi) * mask_spectrum
    of_mask = first.mask_factors(lmax_mask), second.mask_factors(lmax_mask)
    left = np.zeros((lmax + 1, len(nodes.theta)))
    for a, row_a in first.row_factors(lmax).items():
        for b, row_b in second.row_factors(lmax).items():
            orders = first.spin - a, sign * (second.spin - b)
            curve = (weight * of_mask[0][a] * of_mask[1][b]) @ wigner_d(lmax_mask, *orders, nodes.theta)
            left += (row_a * row_b)[:, None] * wigner_d(lmax, a, sign * b, nodes.theta) * curve
    left *= nodes.weights / 2
    right = wigner_d(lmax, first.spin, sign * second.spin, nodes.theta)
    return (left if rows is None else rows @ left) @ right.T * (2 * np.arange(lmax + 1) + 1)
