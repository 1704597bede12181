"""Is a mean of band powers what it should be?  Hotelling's test, with the covariance measured on patches.

Conventions: powers are ``(patch, band)``, or one row a jackknife group (``statistics.pseudovalues``) where patches
of a sky are not independent.  With m the mean difference, S the covariance of one row's powers from n rows, c the
factor that makes it the covariance of m, and p bands,

    chi^2 = (n - p - 2) / (n - 1)  m S^-1 m / c        (Hartlap et al. 2007, astro-ph/0608064: its mean is p)

and the probability to exceed it is exact for Gaussian powers: ``m S^-1 m / c`` follows Hotelling's T^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from sphereml.errors import UserError


@dataclass(frozen=True)
class ChiSquare:
    """chi^2, the number of bands, and the probability of one so large; None where it is no probability."""

    value: float
    bands: int
    probability: float | None

    def to_json(self) -> dict[str, Any]:
        return {"chi2": self.value, "bands": self.bands, "probability": self.probability}


@dataclass(frozen=True, eq=False)
class Covariance:
    """Covariance of one patch's band powers.

    Raises:
        UserError: too few patches for its inverse.
    """

    powers: np.ndarray

    def __post_init__(self) -> None:
        patches, bands = self.powers.shape
        if patches < bands + 3:
            what = f"{patches} patches (or groups of them) give no covariance of {bands} bands that could be inverted"
            raise UserError(what, f"raise evaluation.patches to {bands + 3} or more, better to {10 * bands}")

    def squared(self, difference: np.ndarray, share: float) -> np.ndarray:
        """Unbiased ``m (share S)^-1 m`` of differences ``(..., band)``."""
        patches, bands = self.powers.shape
        # Scaled to unit variances: band powers span orders of magnitude.
        deviation = self.powers.std(axis=0, ddof=1)
        scaled = difference / deviation
        inverse = np.linalg.inv(np.cov(self.powers.T / deviation[:, None]))
        hartlap = (patches - bands - 2) / (patches - 1)
        result: np.ndarray = hartlap / share * np.einsum("...i,ij,...j->...", scaled, inverse, scaled)
        return result

    def test(self, difference: np.ndarray, share: float) -> ChiSquare:
        """Of one difference ``(band,)`` whose covariance is ``share`` times that of a patch."""
        patches, bands = self.powers.shape
        value = float(self.squared(difference, share))
        hotelling = value * (patches - 1) / (patches - bands - 2)
        ratio = hotelling * (patches - bands) / (bands * (patches - 1))
        return ChiSquare(value, bands, float(stats.f.sf(ratio, bands, patches - bands)))
