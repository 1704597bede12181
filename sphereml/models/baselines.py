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


def fit_linear(
    inputs: np.ndarray,
    target: np.ndarray,
    pixels: np.ndarray,
    weight: np.ndarray | None = None,
    comparable: bool = True,
) -> LinearModel:
    """Least-squares weights of ``inputs`` ``(npix, nchan)`` and a constant on the chosen pixels.

    Channels are scaled to unit standard deviation first (columns of 1e20 beside a constant lose all precision).  A
    channel that is dark on the chosen pixels cannot be weighed there, yet may shine elsewhere (the inner Galaxy's rings
    do, in the plane): it gets the weight of the sum of all channels.

    Args:
        weight: ``(npix,)`` in 0..1, what each pixel counts; None: all alike.
        comparable: whether the channels' amounts can be compared (one unit, one physics), so that one can be dark; else
            only a constant channel is left out, with weight 0.
    Raises:
        UserError: fewer pixels than channels, or nothing but constant channels.
    """
    chosen = inputs[pixels].astype(np.float64)
    if chosen.shape[0] <= chosen.shape[1]:
        raise UserError(
            f"{chosen.shape[0]} training pixels cannot fix {chosen.shape[1]} weights", "use a larger training region"
        )
    share = None if weight is None else weight[pixels].astype(np.float64) / weight[pixels].sum(dtype=np.float64)
    mean, scale = _moments(chosen, share)
    if not scale.max() > 0:
        raise UserError("the inputs are constant over the training region", "check the maps and the split")
    lit = scale > (_DARK * scale.max() if comparable else 0)
    wanted = target[pixels]
    level = float(wanted.mean(dtype=np.float64) if share is None else share @ wanted)
    weights = np.zeros(len(scale))
    weights[lit] = _least_squares(chosen[:, lit], wanted - level, share)
    if comparable and not lit.all():
        weights[~lit] = _least_squares(chosen.sum(axis=1, keepdims=True), wanted - level, share)
    return LinearModel(weights, level - float(mean @ weights))


def _moments(values: np.ndarray, share: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of columns ``(n, nchan)`` of which each row counts ``share`` (sum 1)."""
    if share is None:
        return values.mean(axis=0), values.std(axis=0)
    mean = share @ values
    return mean, np.sqrt(share @ np.square(values - mean))


def _least_squares(inputs: np.ndarray, target: np.ndarray, share: np.ndarray | None) -> np.ndarray:
    """Weights of ``(n, nchan)`` inputs for a target of zero mean; exactly repeated channels share theirs."""
    mean, scale = _moments(inputs, share)
    rows = (inputs - mean) / scale
    if share is not None:
        rows, target = rows * np.sqrt(share)[:, None], target * np.sqrt(share)
    weights: np.ndarray = np.linalg.lstsq(rows, target, rcond=1e-10)[0] / scale
    return weights
