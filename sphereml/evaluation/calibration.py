"""Is the error that goes with a map the right one?  By bin of pixels or of modes, on patches and on the sphere.

Conventions: residuals (estimate minus truth) are ``(sky, value)``, one row a patch or a sky; ``bins`` ``(value,)`` says
to which bin each value belongs: pixels at one distance from the mask's edge, or modes of one range of multipoles.  A
complex mode counts as two values, real and imaginary part, each with half of its variance.  Fit on skies that are held
out, judge on others: calibrated means that 68.3 and 95.4 % lie within one and two standard deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class BinnedError:
    """Standard deviation of the residual in every bin, ``(bin,)``, NaN where a bin was empty.

    Example:
        >>> import numpy as np
        >>> rng, bins = np.random.default_rng(1), np.repeat([0, 1], 500)
        >>> residual = rng.standard_normal((8, 1000)) * np.array([1.0, 3.0])[bins]
        >>> error = BinnedError.fit(residual[:4], bins)
        >>> [round(share, 2) for share in coverage(residual[4:], error.sigma(bins))]
        [0.68, 0.96]
    """

    deviation: np.ndarray

    @classmethod
    def fit(cls, residual: np.ndarray, bins: np.ndarray) -> BinnedError:
        """From real or complex residuals ``(sky, value)``."""
        squares = (np.abs(residual).astype(np.float64) ** 2).mean(axis=0) / (2 if np.iscomplexobj(residual) else 1)
        counts = np.bincount(bins)
        with np.errstate(invalid="ignore"):
            return cls(np.sqrt(np.bincount(bins, squares) / counts))

    def sigma(self, bins: np.ndarray) -> np.ndarray:
        """Of every value, ``(value,)``."""
        return np.asarray(self.deviation[bins])


def coverage(residual: np.ndarray, sigma: np.ndarray) -> tuple[float, float]:
    """Shares of residuals ``(sky, value)`` within one and two ``sigma``, which is ``(value,)`` or ``(sky, value)``."""
    parts = (residual.real, residual.imag) if np.iscomplexobj(residual) else (residual,)
    pulls = [np.abs(part) / sigma for part in parts]
    one, two = (float(np.mean([(pull < limit).mean() for pull in pulls])) for limit in (1.0, 2.0))
    return one, two
