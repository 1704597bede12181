"""Layers that hold weights and ask the domain to act: the same modules run on a patch, a tile or the whole sphere."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import nn

from sphereml.domains import Domain
from sphereml.domains.protocol import Stencil

Norm = Literal["batch", "none"]


@dataclass(frozen=True)
class BlockOptions:
    """What every block of a network shares.

    Args:
        kernel: side of a flat or oriented kernel, number K of Chebyshev polynomials of a graph's.
        stencil: what a convolution on the sphere sums over (see ``sphereml.domains.protocol``).
        dropout: probability with which a channel is dropped in training.
        norm: ``"batch"`` normalizes every channel after each convolution, ``"none"`` does not.
        convolutions: number of convolutions in a block of the U-Net.
    """

    kernel: int = 3
    stencil: Stencil = "adjacent"
    dropout: float = 0.0
    norm: Norm = "batch"
    convolutions: int = 1


class Convolution(nn.Module):
    """Convolution with bias, ``(B, *shape, Cin) -> (B, *shape, Cout)``; ``zero=True`` starts it at zero.

    Example:
        >>> import sphereml as sm, torch
        >>> sky = sm.HealpixSky(4)
        >>> sm.Convolution(sky, 3, 8, kernel=3)(torch.zeros(1, 192, 3), sky).shape
        torch.Size([1, 192, 8])
    """

    depth = 0

    def __init__(
        self,
        domain: Domain,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stencil: Stencil = "adjacent",
        zero: bool = False,
    ) -> None:
        super().__init__()
        self.stencil = stencil
        taps = domain.taps(kernel, stencil)
        scale = 0.0 if zero else (2 / (taps * channels_in)) ** 0.5  # He et al. 2015, for ReLU
        self.kernel = nn.Parameter(scale * torch.randn(taps, channels_in, channels_out))
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def reach(self, domain: Domain) -> int:
        """Pixels beyond its own that an output sees, to every side."""
        return domain.reach(len(self.kernel), self.stencil)

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        return domain.convolve(x, self.kernel, self.bias, self.stencil)

    def descend(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        """The convolution on ``domain`` as the coarser domain sees it."""
        return domain.convolve_down(x, self.kernel, self.bias, self.stencil)


class Upsampling(nn.Module):
    """From the coarser domain to ``domain``: transposed convolution flat, shared by the four children on the sphere."""

    def __init__(self, domain: Domain, channels_in: int, channels_out: int) -> None:
        super().__init__()
        scale = channels_in**-0.5
        self.kernel = nn.Parameter(scale * torch.randn(domain.upsampling_taps, channels_in, channels_out))
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        return domain.upsample(x, self.kernel) + self.bias


class ChannelNorm(nn.Module):
    """Batch normalization over everything but the channel, or nothing (``kind="none"``)."""

    def __init__(self, channels: int, kind: Norm) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels) if kind == "batch" else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = self.norm(x.reshape(-1, x.shape[-1]))
        return rows.view(x.shape)


class ChannelDropout(nn.Module):
    """Drops whole channels of a sample, so that neighbouring pixels cannot stand in for each other."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        shape = (x.shape[0], *[1] * (x.ndim - 2), x.shape[-1])
        return x * (torch.rand(shape, device=x.device) < keep).to(x.dtype).div_(keep)


class ConvolutionBlock(nn.Module):
    """Several times convolution, normalization, ReLU, dropout; from ``channels[0]`` to ``channels[1]`` at the first."""

    def __init__(self, domain: Domain, channels: tuple[int, int], options: BlockOptions) -> None:
        super().__init__()
        widths = pairwise([channels[0], *[channels[1]] * options.convolutions])
        self.convolutions = nn.ModuleList(Convolution(domain, a, b, options.kernel, options.stencil) for a, b in widths)
        self.norms = nn.ModuleList(ChannelNorm(channels[1], options.norm) for _ in self.convolutions)
        self.dropout = ChannelDropout(options.dropout)

    def reach(self, domain: Domain) -> int:
        return sum(cast(Convolution, convolution).reach(domain) for convolution in self.convolutions)

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = self.dropout(torch.relu(norm(convolution(x, domain))))
        return x
