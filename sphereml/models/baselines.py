"""The closed-form baselines every network is judged against: the integrated column, and linear channel weights.

Both are least squares over the training pixels with a constant: ``T' = g N + c`` and ``T' = sum_v w_v I_v + c``
(arXiv:1904.13265, section 4 and appendix A, scale-independent).  They have no other parameter, so they use the
validation region too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sphereml.domains import Domain
from sphereml.errors import UserError

# A channel whose standard deviation is below this share of the largest carries no signal.
_DARK = 1e-3


@dataclass(frozen=True, eq=False)
class LinearModel:
    """``T' = inputs @ weights + offset``; weights ``(nchan,)`` float64, offset in the target's unit."""

    weights: np.ndarray
    offset: float


class PointwiseLinear(nn.Module):
    """A linear model as a network: ``(B, *s, F)`` to ``(B, *s, O)`` pixel by pixel, in float64, on any domain."""

    depth = 0

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(channels_in, channels_out, dtype=torch.float64), requires_grad=False)
        self.offset = nn.Parameter(torch.zeros(channels_out, dtype=torch.float64), requires_grad=False)

    def assign(self, output: int, model: LinearModel) -> None:
        """Take the weights of one output."""
        self.weights[:, output] = torch.from_numpy(model.weights)
        self.offset[output] = model.offset

    def reach(self, domain: Domain) -> int:
        return 0

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        return x.double() @ self.weights + self.offset


def fit_linear(inputs: np.ndarray, target: np.ndarray, pixels: np.ndarray) -> LinearModel:
    """Least-squares weights of ``inputs`` ``(npix, nchan)`` and a constant on the chosen pixels.

    Channels are scaled to unit standard deviation first (columns of 1e20 beside a constant lose all precision).  A
    channel that is dark on the chosen pixels cannot be weighed there, yet may shine elsewhere (the inner Galaxy's rings
    do, in the plane): it gets the weight of the sum of all channels.

    Raises:
        UserError: fewer pixels than channels, or nothing but constant channels.
    """
    chosen = inputs[pixels].astype(np.float64)
    if chosen.shape[0] <= chosen.shape[1]:
        raise UserError(
            f"{chosen.shape[0]} training pixels cannot fix {chosen.shape[1]} weights", "use a larger training region"
        )
    scale = chosen.std(axis=0)
    if not scale.max() > 0:
        raise UserError("the inputs are constant over the training region", "check the maps and the split")
    lit = scale > _DARK * scale.max()
    level = float(target[pixels].mean(dtype=np.float64))
    weights = np.empty(len(scale))
    weights[lit] = _least_squares(chosen[:, lit], target[pixels] - level)
    if not lit.all():
        weights[~lit] = _least_squares(chosen.sum(axis=1, keepdims=True), target[pixels] - level)
    return LinearModel(weights, level - float(chosen.mean(axis=0) @ weights))


def _least_squares(inputs: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Weights of ``(n, nchan)`` inputs for a target of zero mean; exactly repeated channels share theirs."""
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0)
    weights: np.ndarray = np.linalg.lstsq((inputs - mean) / scale, target, rcond=1e-10)[0] / scale
    return weights
