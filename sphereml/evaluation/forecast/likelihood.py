"""r from cleaned bandpowers: a Gaussian likelihood, linear in r.

Conventions: bandpowers are ``(nsky, nbin)``; their model is ``r s_b + o_b``, s the bandpowers of tensors with r = 1
and o those of the lensed CMB.  The covariance is the scatter of the skies, its inverse debiased (Hartlap et al. 2007,
astro-ph/0608064): r and its error are

    r = (s^T C^-1 (x - o)) / (s^T C^-1 s),   sigma = (s^T C^-1 s)^(-1/2).

What a template is expected to leave, R_b, enters with an amplitude of prior 1 +- p that is marginalized over: R is
subtracted, and ``p^2 R R^T`` added to C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class TensorRatio:
    """Estimates ``(nsky,)`` of r with their error as the likelihood states it."""

    values: np.ndarray
    sigma: float

    def to_json(self, truth: float) -> dict[str, Any]:
        """Bias with its standard error, stated error, and scatter of the skies."""
        scatter = float(self.values.std(ddof=1))
        error = scatter / np.sqrt(len(self.values))
        return {"bias": float(self.values.mean() - truth), "error": float(error),
                "sigma": self.sigma, "scatter": scatter}  # fmt: skip


def estimate_ratio(
    bandpowers: np.ndarray,
    signal: np.ndarray,
    offset: np.ndarray,
    residual: np.ndarray | None = None,
    prior: float = 0,
    scatter: np.ndarray | None = None,
) -> TensorRatio:
    """r of every sky.

    Args:
        bandpowers: ``(nsky, nbin)``, cleaned.
        signal, offset: ``(nbin,)``.
        residual: ``(nbin,)`` power that the template is expected to leave, with ``prior`` its relative error.
        scatter: skies whose scatter is the covariance, where it is not that of ``bandpowers``.
    """
    skies = bandpowers if scatter is None else scatter
    count, bins = skies.shape
    covariance = np.cov(skies.T)
    if residual is not None:
        offset, covariance = offset + residual, covariance + prior**2 * np.outer(residual, residual)
    inverse = np.linalg.inv(covariance) * (count - bins - 2) / (count - 1)
    weights = inverse @ signal
    information = float(weights @ signal)
    return TensorRatio((bandpowers - offset) @ weights / information, information**-0.5)
