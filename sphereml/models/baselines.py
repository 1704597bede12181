"""The closed-form baselines every network is judged against: the integrated column, and linear channel weights.

Both are least squares over the training pixels with a constant: ``T' = g N + c`` and ``T' = sum_v w_v I_v + c``
(arXiv:1904.13265, section 4 and appendix A, scale-independent).  They have no other parameter, so they use the
validation region too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sphereml.errors import UserError


@dataclass(frozen=True)
class LinearModel:
    """``T' = inputs @ weights + offset``; weights ``(nchan,)`` float64, offset in the target's unit."""

    weights: np.ndarray
    offset: float

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Prediction ``(npix,)`` float64 of inputs ``(npix, nchan)``."""
        return inputs.astype(np.float64) @ self.weights + self.offset


def fit_linear(inputs: np.ndarray, target: np.ndarray, pixels: np.ndarray) -> LinearModel:
    """Least-squares weights of ``inputs`` ``(npix, nchan)`` and a constant on the chosen pixels.

    Channels are scaled to unit standard deviation first (columns of 1e20 beside a constant lose all precision), and
    directions without information (exactly repeated channels) get the smallest weights.

    Raises:
        UserError: fewer pixels than channels.
    """
    chosen = inputs[pixels].astype(np.float64)
    if chosen.shape[0] <= chosen.shape[1]:
        raise UserError(
            f"{chosen.shape[0]} training pixels cannot fix {chosen.shape[1]} weights", "use a larger training region"
        )
    mean, scale = chosen.mean(axis=0), chosen.std(axis=0)
    scale[scale == 0] = 1
    level = float(target[pixels].mean(dtype=np.float64))
    weights = np.linalg.lstsq((chosen - mean) / scale, target[pixels] - level, rcond=1e-10)[0] / scale
    return LinearModel(weights, level - float(mean @ weights))


def fit_integrated(column: np.ndarray, target: np.ndarray, pixels: np.ndarray) -> LinearModel:
    """The same for the column density alone, ``(npix,)``."""
    return fit_linear(column[:, None], target, pixels)
