"""Spin-weighted associated Legendre functions as tables, by a scaled recursion that no order and latitude underflows.

Conventions
-----------
* ``lambda^s_lm(theta) = sqrt((2l+1)/4pi) d^l_{m,s}(theta)``, Wigner's small d, m >= 0, so that
  ``Y_lm = lambda^0_lm e^{i m phi}`` with the Condon-Shortley phase, as in healpy and ducc0.
* A table covers the orders ``first <= m < last`` and rises by the offset ``k = l - max(m, |s|)``.  It holds
  ``p = lambda / kappa``; the caller puts the factor ``kappa_k(m, s)`` on the coefficients.  With it one coefficient of
  the recursion is one, ``p_{k+1} = alpha_k (x - c_k) p_k + p_{k-1}``, and a step is one fused operation.
* Values carry an exponent in units of 2**400 while they are small; those below 2**-200 are stored as zero.

The recursion in l is Wigner's (Varshalovich et al. 1988, sec. 4.8.2); it is stable upward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

_UNIT = 400  # exponents count factors of 2**400
_STEPS = 16  # steps between two checks; a step grows by at most sqrt(2 m / k), 16 of them by 2**90 at m = 8192


@dataclass(frozen=True, eq=False)
class LegendreChunk:
    """Orders ``first <= m < last`` up to ``lmax`` for the given spins; what is needed to fill a table on any rings."""

    lmax: int
    first: int
    last: int
    spins: tuple[int, ...]

    @property
    def lowest(self) -> np.ndarray:
        """Lowest multipole ``max(m, |s|)`` of every order ``(nm,)``."""
        return np.maximum(np.arange(self.first, self.last), abs(self.spins[0]))

    @property
    def depth(self) -> int:
        """Number of offsets k of the table."""
        return max(self.lmax + 1 - int(self.lowest[0]), 1)

    def coefficients(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``alpha``, ``alpha c`` and ``kappa``, each ``(depth, nspin, nm)`` float64."""
        order = np.arange(self.first, self.last, dtype=float)
        spin = np.asarray(self.spins, dtype=float)[:, None]
        ell = self.lowest + np.arange(self.depth, dtype=float)[:, None, None]
        above = np.sqrt(((ell + 1) ** 2 - order**2) * ((ell + 1) ** 2 - spin**2))
        scale = np.sqrt((2 * ell + 1) * (2 * ell + 3)) * (ell + 1) / above
        shift = order * spin / np.maximum(ell * (ell + 1), 1)
        below = np.sqrt((ell**2 - order**2) * (ell**2 - spin**2)) / np.maximum(ell, 1)
        back = np.sqrt((2 * ell + 3) / np.maximum(2 * ell - 1, 1)) * (ell + 1) * below / above
        kappa = np.ones_like(scale)
        for start in (0, 1):
            kappa[start + 2 :: 2] = np.cumprod(-back[start + 1 : -1 : 2], axis=0)
        alpha = np.zeros_like(scale)  # the last offset has no successor
        alpha[:-1] = scale[:-1] * kappa[:-1] / kappa[1:]
        return alpha, alpha * shift, kappa

    def start(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``lambda`` at the lowest multipole: mantissa and exponent (<= 0), each ``(nspin, nm, nring)``."""
        order = np.arange(self.first, self.last)[:, None]
        spin = np.asarray(self.spins)[:, None, None]
        plus, minus = np.abs(order + spin), np.abs(order - spin)
        lowest = np.maximum(order, np.abs(spin))
        # cos^plus sin^minus of half the angle, with a factor sqrt(2) to each: large powers of sin(theta) alone remain.
        common = np.minimum(plus, minus)
        log2 = common * np.log2(np.sin(theta))
        log2 = log2 + (plus - common) * np.log2(np.sqrt(2) * np.cos(theta / 2))
        log2 = log2 + (minus - common) * np.log2(np.sqrt(2) * np.sin(theta / 2))
        log2 = log2 + 0.5 * np.log2(_central_binomial(lowest, (plus - minus) // 2) * (2 * lowest + 1) / (4 * np.pi))
        exponent = np.minimum(np.round(log2 / _UNIT), 0)
        sign = np.where((spin <= order) & ((order - spin) % 2 == 1), -1.0, 1.0)
        return sign * np.exp2(log2 - _UNIT * exponent), exponent.astype(np.int16)


def _central_binomial(half: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """``binomial(2 half, half + offset) / 4**half`` as a product: no large logarithms cancel.

    Offsets go to the spin, ``|offset| <= min(m, |s|) <= half``.
    """
    count = np.arange(1, int(half.max()) + 1)
    central = np.concatenate([[1.0], np.cumprod(1 - 0.5 / count)])[half]
    for step in range(1, int(np.abs(offset).max(initial=0)) + 1):
        central = central * np.where(np.abs(offset) >= step, (half + 1 - step) / (half + step), 1.0)
    return central


def legendre_table(chunk: LegendreChunk, theta: np.ndarray, alpha: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """``p_k`` for every offset, spin, order and ring: ``(depth, nspin, nm, nring)`` float64 on alpha's device.

    Args:
        theta: colatitudes ``(nring,)`` in radians.
        alpha, shift: the first two of :meth:`LegendreChunk.coefficients` as tensors.
    """
    mantissa, exponent = chunk.start(theta)
    x = torch.from_numpy(np.cos(theta)).to(alpha.device)
    scale = torch.from_numpy(exponent).to(alpha.device)
    table = torch.empty((chunk.depth, *mantissa.shape), dtype=torch.float64, device=alpha.device)
    table[0] = torch.from_numpy(mantissa).to(alpha.device)
    before, scaled = torch.zeros_like(table[0]), bool((exponent < 0).any())
    for low in range(0, chunk.depth - 1, _STEPS):
        high = min(low + _STEPS, chunk.depth - 1)
        factor = alpha[low:high, ..., None] * x - shift[low:high, ..., None]
        for k in range(low, high):
            torch.addcmul(before if k == low else table[k - 1], factor[k - low], table[k], out=table[k + 1])
        before = table[high - 1]
        if scaled:
            before = _settle(table, low, high, before, scale)
    if scaled:
        table[-1].masked_fill_(scale < 0, 0.0)
    return table


def _settle(table: torch.Tensor, low: int, high: int, before: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Zero the finished rows that are still scaled; move grown values up one unit.  Returns the row before the last."""
    before, last = before.clone(), table[high]
    table[low:high].masked_fill_(scale < 0, 0.0)
    grown = (scale < 0) & (torch.maximum(before.abs(), last.abs()) > 2.0 ** (_UNIT // 2))
    factor = torch.ones_like(last).masked_fill_(grown, 2.0**-_UNIT)
    last.mul_(factor)
    scale.add_(grown)
    return before.mul_(factor)
