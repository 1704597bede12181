"""The U-Net, written once for every domain (Ronneberger et al. 2015; the form of arXiv:1904.13265, section 3).

``depth`` pooling steps; the width doubles at each up to ``max_width``; every level has ``convs_per_level``
convolutions on the way down and up; features of the same resolution are concatenated.  ``configs/model/*_paper.yaml``
has the paper's: 4 steps, 64 -> 128 -> 256 -> 512 -> 512 channels, two 3x3 convolutions each.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import nn

from sphereml.domains import Domain
from sphereml.domains.channels import Channels
from sphereml.domains.protocol import Stencil
from sphereml.models.layers import BlockOptions, Convolution, ConvolutionBlock, Norm, Upsampling


class UNet(nn.Module):
    """Maps ``(B, *shape, channels_in)`` to ``(B, *shape, channels_out)`` on any domain of the given domain's kind.

    Args:
        domain: of the maps, or another of its kind; it is asked for the shapes of the weights and not kept.
        channels_in, channels_out: numbers of channels; with ``stencil="spin"`` also by type, as ``Channels``.
        width: channels of the finest level, by type too; they double with each of the ``depth`` poolings, up to
            ``max_width``.
        convs_per_level: convolutions of a level on the way down, and again on the way up.
        kernel, stencil, dropout, norm, products, chiral: of every block, see
            :class:`~sphereml.models.layers.BlockOptions`.
        zero_output: the last layer starts at zero, so that a gain network starts as its baseline.

    Example:
        >>> from sphereml.domains import HealpixSky
        >>> network = UNet(HealpixSky(8), 3, 1, width=4, depth=1)
        >>> network(torch.zeros(2, 768, 3), HealpixSky(8)).shape
        torch.Size([2, 768, 1])
    """

    def __init__(
        self,
        domain: Domain,
        channels_in: int | Channels,
        channels_out: int | Channels = 1,
        *,
        width: int | Channels = 32,
        depth: int = 3,
        max_width: int = 512,
        convs_per_level: int = 2,
        kernel: int = 3,
        stencil: Stencil = "adjacent",
        dropout: float = 0.3,
        norm: Norm = "batch",
        products: bool = False,
        chiral: bool = False,
        zero_output: bool = False,
    ) -> None:
        super().__init__()
        widths = [Channels.of(width).widened(2**level, max_width) for level in range(depth + 1)]
        options = BlockOptions(kernel, stencil, dropout, norm, convs_per_level, products, chiral)

        def block(channels: tuple[Channels, Channels]) -> ConvolutionBlock:
            return ConvolutionBlock(domain, channels, options)

        narrower = [Channels.of(channels_in), *widths[:-1]]
        self.down = nn.ModuleList(block(pair) for pair in zip(narrower, widths, strict=True))
        self.upsampling = nn.ModuleList(Upsampling(domain, coarse, fine, options) for fine, coarse in pairwise(widths))
        self.up = nn.ModuleList(block((own + own, own)) for own in widths[:-1])
        output_stencil: Stencil = "spin" if stencil == "spin" else "adjacent"
        self.output = Convolution(domain, widths[0], channels_out, 1, output_stencil, zero_output, chiral)
        self.widths = widths

    @property
    def depth(self) -> int:
        return len(self.up)

    def reach(self, domain: Domain) -> int:
        """Pixels of ``domain`` that an output sees beyond the pixel of the coarsest level it lies in, to every side."""
        down, up = ([cast(ConvolutionBlock, block).reach(domain) for block in path] for path in (self.down, self.up))
        seen = self.output.reach(domain)
        for own in up:
            seen = -(-(seen + own) // 2)
        seen += down[-1]
        for own in reversed(down[:-1]):
            seen = 2 * seen + own
        return seen

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        levels, skipped = [domain], []
        for step, block in enumerate(self.down):
            if step:
                skipped.append(x)
                levels.append(levels[-1].coarser())
                x = levels[-2].pool(x, self.widths[step - 1])
            x = block(x, levels[-1])
        for step in reversed(range(len(self.up))):
            own = self.widths[step]
            x = own.concatenate(skipped[step], own, self.upsampling[step](x, levels[step]))
            x = self.up[step](x, levels[step])
        output: torch.Tensor = self.output(x, domain)
        return output
