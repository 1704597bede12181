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

from sphereml.config.schema import ModelConfig
from sphereml.domains import Domain
from sphereml.models.layers import Convolution, ConvolutionBlock, Upsampling


class UNet(nn.Module):
    """Maps ``(B, *shape, channels_in)`` to ``(B, *shape, channels_out)`` on any domain of the given domain's kind.

    The last layer starts at zero when ``zero_output`` is set, so that a gain network starts as its baseline.
    """

    def __init__(
        self, domain: Domain, channels_in: int, config: ModelConfig, channels_out: int = 1, zero_output: bool = False
    ) -> None:
        super().__init__()
        widths = [min(config.width * 2**level, config.max_width) for level in range(config.depth + 1)]

        def block(channels: tuple[int, int]) -> ConvolutionBlock:
            return ConvolutionBlock(domain, channels, config)

        self.down = nn.ModuleList(block(pair) for pair in zip([channels_in, *widths[:-1]], widths, strict=True))
        self.upsampling = nn.ModuleList(Upsampling(domain, coarse, fine) for fine, coarse in pairwise(widths))
        self.up = nn.ModuleList(block((2 * width, width)) for width in widths[:-1])
        self.output = Convolution(domain, widths[0], channels_out, 1, zero=zero_output)

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
                x = levels[-2].pool(x)
            x = block(x, levels[-1])
        for step in reversed(range(len(self.up))):
            x = torch.cat([skipped[step], self.upsampling[step](x, levels[step])], dim=-1)
            x = self.up[step](x, levels[step])
        output: torch.Tensor = self.output(x, domain)
        return output
