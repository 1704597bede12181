"""Statistics of a batch that several processes hold parts of: each has as many samples, and all see the whole batch's.

A training of one process is left as torch does it.  Means over processes have gradients: with the loss of the whole
batch on every process, what one process gets back is its part of the gradient (see :mod:`sphereml.training.processes`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed, nn


class _Sum(torch.autograd.Function):
    """The sum over the processes; its adjoint is itself."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return _Sum.apply(gradient)


def process_count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean of what every process has, with gradients."""
    count = process_count()
    total: torch.Tensor = values if count == 1 else _Sum.apply(values) / count
    return total


class SharedBatchNorm(nn.BatchNorm1d):
    """Batch normalization of rows ``(n, channels)`` by the mean and variance over all processes' rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or process_count() == 1:
            return super().forward(x)
        mean = mean_over_processes(x.mean(dim=0))
        variance = mean_over_processes((x - mean).square().mean(dim=0))
        self._follow(mean.detach(), variance.detach(), len(x) * process_count())
        return (x - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias

    @torch.no_grad()
    def _follow(self, mean: torch.Tensor, variance: torch.Tensor, rows: int) -> None:
        """Let the running statistics follow, as torch does: with the unbiased variance."""
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        for kept, found in ((self.running_mean, mean), (self.running_var, variance * (rows / (rows - 1)))):
            assert kept is not None
            kept.lerp_(found.to(kept.dtype), self.momentum)
