"""Layers that hold weights and ask the domain to act: the same modules run on a patch, a tile or the whole sphere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import nn
from torch.nn.functional import linear

from sphereml.domains import Domain
from sphereml.domains.channels import Channels
from sphereml.domains.mixing import Mixing
from sphereml.domains.protocol import Kernel, Stencil
from sphereml.errors import UserError
from sphereml.models.shared_statistics import SharedBatchNorm
from sphereml.models.typed import Activation, PowerNorm, Products, TypedWeights

Norm = Literal["batch", "none"]


@dataclass(frozen=True)
class BlockOptions:
    """What every block of a network shares.

    Args:
        kernel: side of a flat, oriented or spin kernel, number K of Chebyshev polynomials of a graph's.
        stencil: what a convolution on the sphere sums over (see ``sphereml.domains.protocol``).
        dropout: probability with which a channel is dropped in training.
        norm: ``"batch"`` normalizes every channel after each convolution, ``"none"`` does not.
        convolutions: number of convolutions in a block of the U-Net.
        products: whether products of typed channels are added before each activation.
        chiral: whether the weights of typed channels may tell left from right.
    """

    kernel: int = 3
    stencil: Stencil = "adjacent"
    dropout: float = 0.0
    norm: Norm = "batch"
    convolutions: int = 1
    products: bool = False
    chiral: bool = False

    def convolution(self, domain: Domain, channels_in: Channels, channels_out: Channels) -> Convolution:
        """A convolution that the normalization follows; where that subtracts the mean, its bias stays at zero.

        Training does not see such a bias, so that its gradient is rounding errors, which Adam scales up to whole steps:
        it would wander, and the running means that validate follow it late.
        """
        made = Convolution(domain, channels_in, channels_out, self.kernel, self.stencil, chiral=self.chiral)
        (made if made.typed is None else made.typed).bias.requires_grad_(self.norm == "none")
        return made

    def activation(self, channels: Channels, function: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
        """The function by type; where there are types, after their products if these are wanted."""
        own = Activation(channels, function)
        return nn.Sequential(Products(channels), own) if self.products and not channels.are_even else own


class Convolution(nn.Module):
    """Convolution with bias, ``(B, *shape, Cin) -> (B, *shape, Cout)``.

    With ``stencil="spin"`` channels have types, and the weights are a matrix ``(inputs, channels)`` for each of them.

    Args:
        domain: it is asked for the shapes of the weights, and not kept.
        channels_in, channels_out: numbers of channels, or :class:`~sphereml.domains.channels.Channels`.
        kernel, stencil: see :class:`BlockOptions`.
        zero: start at zero.
        chiral: complex weights, see :mod:`sphereml.domains.mixing`.
    Raises:
        UserError: there is no such kernel, or the stencil takes no types.

    Example:
        >>> import sphereml as sm, torch
        >>> sky = sm.HealpixSky(4)
        >>> sm.Convolution(sky, 3, 8, kernel=3)(torch.zeros(1, 192, 3), sky).shape
        torch.Size([1, 192, 8])
        >>> to_eb = sm.Convolution(sky, sm.Channels(spin2=1), sm.Channels(even=1, odd=1), 3, "spin")
        >>> to_eb(torch.zeros(1, 192, 2), sky).shape
        torch.Size([1, 192, 2])
    """

    depth = 0

    def __init__(
        self,
        domain: Domain,
        channels_in: int | Channels,
        channels_out: int | Channels,
        kernel: int = 3,
        stencil: Stencil = "adjacent",
        zero: bool = False,
        chiral: bool = False,
    ) -> None:
        super().__init__()
        self.stencil, self.taps = stencil, domain.taps(kernel, stencil)
        own, other = Channels.of(channels_in), Channels.of(channels_out)
        self.typed: TypedWeights | None = None
        if stencil == "spin":
            mixing = Mixing(own, other, kernel - 1, chiral)
            if mixing.missing:
                what = f"a {kernel}x{kernel} convolution from {own} makes no {' or '.join(mixing.missing)} channels"
                raise UserError(what, "give the widths before it such channels, or ask for none")
            self.typed = TypedWeights(mixing, zero)
            return
        if not (own.are_even and other.are_even):
            raise UserError(f"stencil {stencil!r} for {own} to {other}", "types need the stencil 'spin'")
        scale = 0.0 if zero else (2 / (self.taps * own.even)) ** 0.5  # He et al. 2015, for ReLU
        self.kernel = nn.Parameter(scale * torch.randn(self.taps, own.even, other.even))
        self.bias = nn.Parameter(torch.zeros(other.even))

    def reach(self, domain: Domain) -> int:
        """Pixels beyond its own that an output sees, to every side."""
        return domain.reach(self.taps, self.stencil)

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        return domain.convolve(x, *self._weights(), self.stencil)

    def descend(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        """The convolution on ``domain`` as the coarser domain sees it."""
        return domain.convolve_down(x, *self._weights(), self.stencil)

    def _weights(self) -> tuple[Kernel, torch.Tensor]:
        return (self.kernel, self.bias) if self.typed is None else (self.typed.kernel(), self.typed.full_bias())


class Upsampling(nn.Module):
    """From the coarser domain to ``domain``: transposed convolution flat, shared by the four children on the sphere.

    Typed channels (``stencil="spin"``) are shared by the children everywhere, which see them in their own frames.
    """

    def __init__(self, domain: Domain, channels_in: Channels, channels_out: Channels, options: BlockOptions) -> None:
        super().__init__()
        self.channels = channels_out
        self.typed: TypedWeights | None = None
        if options.stencil == "spin":
            self.typed = TypedWeights(Mixing(channels_in, channels_out, 0, options.chiral))
            return
        scale = channels_in.even**-0.5
        self.kernel = nn.Parameter(scale * torch.randn(domain.upsampling_taps, channels_in.even, channels_out.even))
        self.bias = nn.Parameter(torch.zeros(channels_out.even))

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        if self.typed is None:
            return domain.upsample(x, self.kernel) + self.bias
        return domain.spread(linear(x, self.typed.kernel().dense().T, self.typed.full_bias()), self.channels)


class ChannelNorm(nn.Module):
    """Batch normalization over everything but the channel, or nothing (``kind="none"``).

    Odd scalars and spins keep their mean and have one scale a channel (:class:`~sphereml.models.typed.PowerNorm`).
    """

    def __init__(self, channels: int | Channels, kind: Norm) -> None:
        super().__init__()
        channels = Channels.of(channels)
        self.even = channels.even
        self.norm = SharedBatchNorm(channels.even) if kind == "batch" else nn.Identity()
        others = kind == "batch" and not channels.are_even
        self.others = PowerNorm(Channels(0, channels.odd, channels.spin1, channels.spin2)) if others else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.others is None:
            return self._normalized(x)
        even, others = x[..., : self.even], x[..., self.even :]
        return torch.cat([self._normalized(even), self.others(others)], dim=-1)

    def _normalized(self, x: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = self.norm(x.reshape(-1, x.shape[-1]))
        return rows.view(x.shape)


class ChannelDropout(nn.Module):
    """Drops whole channels of a sample, so that neighbouring pixels cannot stand in for each other.

    With ``pixelwise`` every pixel decides for itself.
    """

    def __init__(self, probability: float, channels: Channels | None = None, pixelwise: bool = False) -> None:
        super().__init__()
        self.probability, self.channels, self.pixelwise = probability, channels, pixelwise

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.probability == 0:
            return x
        return (self.channels or Channels(x.shape[-1])).drop(x, self.probability, self.pixelwise)


class ConvolutionBlock(nn.Module):
    """Several times convolution, normalization, ReLU, dropout; from ``channels[0]`` to ``channels[1]`` at the first."""

    def __init__(self, domain: Domain, channels: tuple[Channels, Channels], options: BlockOptions) -> None:
        super().__init__()
        widths = pairwise([channels[0], *[channels[1]] * options.convolutions])
        self.convolutions = nn.ModuleList(options.convolution(domain, a, b) for a, b in widths)
        self.norms = nn.ModuleList(ChannelNorm(channels[1], options.norm) for _ in self.convolutions)
        self.activations = nn.ModuleList(options.activation(channels[1], torch.relu) for _ in self.convolutions)
        self.dropout = ChannelDropout(options.dropout, channels[1])

    def reach(self, domain: Domain) -> int:
        return sum(cast(Convolution, convolution).reach(domain) for convolution in self.convolutions)

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        for convolution, norm, activation in zip(self.convolutions, self.norms, self.activations, strict=True):
            x = self.dropout(activation(norm(convolution(x, domain))))
        return x
