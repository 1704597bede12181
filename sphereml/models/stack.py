"""Residual convolutions at one resolution, for what needs no large scales: its first guess has them already.

``layers`` times convolution, normalization, SELU and dropout, to each of which its input is added (through a
convolution where the width changes), and a last convolution to the outputs.  With 3x3 kernels an output sees
``layers + 1`` pixels to every side.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import nn

from sphereml.domains import Domain
from sphereml.domains.channels import Channels
from sphereml.domains.protocol import Stencil
from sphereml.models.layers import BlockOptions, Convolution, Norm
from sphereml.models.resunet import Residual


class ResidualStack(nn.Module):
    """Maps ``(B, *shape, channels_in)`` to ``(B, *shape, channels_out)`` on any domain of the given domain's kind.

    Args:
        domain: of the maps, or another of its kind; it is asked for the shapes of the weights and not kept.
        channels_in, channels_out: numbers of channels; with ``stencil="spin"`` also by type, as ``Channels``.
        width: channels of every layer, by type too.
        layers: number of convolutions before the last one.
        kernel, stencil, dropout, norm, products, chiral: of every block, see
            :class:`~sphereml.models.layers.BlockOptions`.
        zero_output: the last layer starts at zero, so that a network that corrects a first guess starts as that.

    Example:
        >>> from sphereml.domains import HealpixSky
        >>> network = ResidualStack(HealpixSky(8), 3, 1, width=4, layers=2)
        >>> network(torch.zeros(2, 768, 3), HealpixSky(8)).shape
        torch.Size([2, 768, 1])
    """

    depth = 0

    def __init__(
        self,
        domain: Domain,
        channels_in: int | Channels,
        channels_out: int | Channels = 1,
        *,
        width: int | Channels = 32,
        layers: int = 5,
        kernel: int = 3,
        stencil: Stencil = "adjacent",
        dropout: float = 0.0,
        norm: Norm = "batch",
        products: bool = False,
        chiral: bool = False,
        zero_output: bool = False,
    ) -> None:
        super().__init__()
        options = BlockOptions(kernel, stencil, dropout, norm, products=products, chiral=chiral)
        widths = [Channels.of(channels_in), *[Channels.of(width)] * layers]
        self.layers = nn.ModuleList(Residual(domain, pair, options) for pair in pairwise(widths))
        self.output = Convolution(domain, widths[-1], channels_out, kernel, stencil, zero_output, chiral)

    def reach(self, domain: Domain) -> int:
        """Pixels beyond its own that an output sees, to every side."""
        return self.output.reach(domain) + sum(cast(Residual, layer).reach(domain) for layer in self.layers)

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, domain)
        output: torch.Tensor = self.output(x, domain)
        return output
