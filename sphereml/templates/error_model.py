"""How far a template is from the truth: what an ensemble shows of it, and what held-out residuals add.

Conventions
-----------
* One sigma a field and pixel; both columns of a field with a spin have the same, which no turn of the frame changes.
* ``sigma^2 = s^2 + m(b)``: s^2 the variance over the ensemble's members, b the brightness, the modulus of the predicted
  field, and m what the scatter misses: in bins of b the number that makes ``|residual| < sigma`` true of 68.27 % of the
  held-out values, which is that quantile of ``residual^2 - s^2``.  Between bins m is linear in b, beyond the
  brightest it grows with b^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

_ONE_SIGMA = 0.6827
_MOST_BINS = 8
_LEAST_PIXELS = 200


@dataclass(frozen=True, eq=False)
class ErrorModel:
    """Errors of one field.

    Args:
        brightness: of the bins, their medians, rising, ``(nbin,)`` in the field's unit.
        missed: m of the bins, ``(nbin,)`` in its square.
    """

    brightness: np.ndarray
    missed: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray, scatter: np.ndarray, target: np.ndarray, weight: np.ndarray) -> Self:
        """From held-out pixels: predictions, squared scatter and targets, each ``(n, columns of the field)``.

        Args:
            weight: what each pixel counts, ``(n,)``.
        """
        bright, seen = modulus(values), scatter.mean(axis=1, keepdims=True)
        excess = np.square(values - target) - seen
        count = int(np.clip(len(values) // _LEAST_PIXELS, 1, _MOST_BINS))
        order = np.argsort(bright, kind="stable")
        bins = np.array_split(order, count)
        missed = [max(_quantile(excess[some], weight[some], _ONE_SIGMA), 0.0) for some in bins]
        return cls(np.array([np.median(bright[some]) for some in bins]), np.array(missed))

    def variance(self, values: np.ndarray, scatter: np.ndarray) -> np.ndarray:
        """``sigma^2`` ``(n,)`` of predictions and squared scatter ``(n, columns of the field)``."""
        bright, last = modulus(values), self.brightness[-1]
        beyond = np.square(np.maximum(bright / last, 1)) if last > 0 else 1.0
        missed = np.interp(bright, self.brightness, self.missed) * beyond
        return np.asarray(scatter.mean(axis=1) + missed)


def _quantile(values: np.ndarray, weight: np.ndarray, share: float) -> float:
    """Of ``(n, columns)`` values, each row counting its weight: the least that so large a share does not exceed."""
    order = np.argsort(values, axis=None)
    total = np.cumsum(np.repeat(weight, values.shape[1])[order])
    return float(values.ravel()[order[np.searchsorted(total, share * total[-1])]])


def modulus(values: np.ndarray) -> np.ndarray:
    """Of ``(n, columns of one field)``: ``(n,)``."""
    return np.asarray(np.sqrt(np.square(values, dtype=np.float64).sum(axis=1)))


def coverage(residual: np.ndarray, sigma: np.ndarray, pixels: np.ndarray) -> dict[str, float]:
    """Shares of ``residual`` ``(npix, columns of one field)`` within one and two ``sigma`` ``(npix,)`` on pixels."""
    deviation = np.abs(residual[pixels]) / sigma[pixels, None]
    return {"within_1_sigma": float((deviation < 1).mean()), "within_2_sigma": float((deviation < 2).mean())}
