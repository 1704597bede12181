"""The residual U-Net of DeepCMB (Caldeira et al. 2019, arXiv:1810.01483, figure 3), written for every domain.

A *residual* is one or two times convolution, normalization, SELU and dropout, to which its input is added, through a
convolution of one tap where width or resolution differ.  With width w and ``depth`` halvings:

* two convolutions to w channels;
* at each step down, one that keeps the width and one that doubles it while it halves the resolution;
* at the bottom one convolution more; at each step up, one that halves the width, whose result is spread over the finer
  pixels, added to what the way down left there, and refined by two convolutions;
* a last convolution to the outputs.

With width 64, depth 2 and 5x5 kernels that is 64 -> 128 -> 256 channels and back in 14 convolutions, 5.4 million
parameters, and a receptive field of 101 pixels by the usual count (4 pixels a 5x5 convolution, times the spacing of its
pixels).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import nn
from torch.nn.functional import selu

from sphereml.domains import Domain
from sphereml.domains.channels import Channels
from sphereml.domains.mixing import Mixing
from sphereml.domains.protocol import Stencil
from sphereml.models.layers import BlockOptions, ChannelDropout, ChannelNorm, Convolution, Norm


class Residual(nn.Module):
    """Convolutions through ``widths`` with their input added; the last one halves the resolution with ``down``."""

    def __init__(self, domain: Domain, widths: Sequence[Channels], options: BlockOptions, down: bool = False) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(options.convolution(domain, a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(ChannelNorm(width, options.norm) for width in widths[1:])
        self.activations = nn.ModuleList(options.activation(width, selu) for width in widths[1:])
        self.dropout = nn.ModuleList(_dropout(options.dropout, width) for width in widths[1:])
        self.down = down
        changes = down or widths[0] != widths[-1]
        # One tap makes no type of another.
        kernel = 1 if options.stencil != "spin" or not Mixing(widths[0], widths[-1], 0).missing else options.kernel
        self.shortcut = Convolution(domain, widths[0], widths[-1], kernel, options.stencil) if changes else None

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        """``(B, *shape, Cin)`` to ``(B, *shape, Cout)``, of the coarser domain with ``down``."""
        result, last = x, len(self.convolutions) - 1
        layers = zip(self.convolutions, self.norms, self.activations, self.dropout, strict=True)
        for step, (convolution, norm, activation, dropout) in enumerate(layers):
            act = cast(Convolution, convolution).descend if self.down and step == last else convolution
            result = dropout(activation(norm(act(result, domain))))
        return result + self._around(x, domain)

    def reach(self, domain: Domain) -> int:
        """Pixels beyond its own that an output sees, to every side."""
        return sum(cast(Convolution, convolution).reach(domain) for convolution in self.convolutions)

    def _around(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        if self.shortcut is None:
            return x
        around: torch.Tensor = self.shortcut.descend(x, domain) if self.down else self.shortcut(x, domain)
        return around


def _dropout(probability: float, channels: Channels) -> nn.Module:
    """Single values dropped, of a spin both columns."""
    if channels.are_even:
        return nn.Dropout(probability)
    return ChannelDropout(probability, channels, pixelwise=True)


class ResUNet(nn.Module):
    """Maps ``(B, *shape, channels_in)`` to ``(B, *shape, channels_out)`` on any domain of the given domain's kind.

    Args:
        domain: of the maps, or another of its kind; it is asked for the shapes of the weights and not kept.
        channels_in, channels_out: numbers of channels; with ``stencil="spin"`` also by type, as ``Channels``.
        width: channels of the finest level, by type too; they double with each of the ``depth`` halvings, up to
            ``max_width``.
        kernel, stencil, dropout, norm, products, chiral: of every residual, see
            :class:`~sphereml.models.layers.BlockOptions`.
        zero_output: the last layer starts at zero, so that a network that corrects a first guess starts as that.

    Example:
        >>> from sphereml.domains import FlatPatch
        >>> network = ResUNet(FlatPatch(16), 2, 2, width=4, depth=1)
        >>> network(torch.zeros(1, 16, 16, 2), FlatPatch(16)).shape
        torch.Size([1, 16, 16, 2])
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
        options = BlockOptions(kernel, stencil, dropout, norm, products=products, chiral=chiral)

        def residual(*path: Channels, down: bool = False) -> Residual:
            return Residual(domain, path, options, down)

        self.stem = residual(Channels.of(channels_in), widths[0], widths[0])
        self.down = nn.ModuleList(residual(fine, fine, coarse, down=True) for fine, coarse in pairwise(widths))
        # The deepest step up brings the bottom's own convolution.
        narrowing = [[coarse, fine] for fine, coarse in pairwise(widths)]
        for path in narrowing[-1:]:
            path.insert(0, path[0])
        self.up = nn.ModuleList(residual(*path) for path in narrowing)
        self.refine = nn.ModuleList(residual(own, own, own) for own in widths[:-1])
        self.output = Convolution(domain, widths[0], channels_out, kernel, stencil, zero_output, chiral)
        self.widths = widths

    @property
    def depth(self) -> int:
        return len(self.up)

    def reach(self, domain: Domain) -> int:
        """Pixels of ``domain`` that an output sees beyond the pixel of the coarsest level it lies in, to every side."""
        stem, down, up, refine = (
            [cast(Residual, residual).reach(domain) for residual in path]
            for path in ([self.stem], self.down, self.up, self.refine)
        )
        seen = self.output.reach(domain)
        for narrowed, refined in zip(up, refine, strict=True):
            seen = -(-(seen + refined) // 2) + narrowed
        for own in reversed(down):
            seen = 2 * seen + own
        return seen + stem[0]

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        levels, kept = [domain], [self.stem(x, domain)]
        for step in self.down:
            kept.append(step(kept[-1], levels[-1]))
            levels.append(levels[-1].coarser())
        x = kept.pop()
        for level in reversed(range(len(self.up))):
            x = levels[level].spread(self.up[level](x, levels[level + 1]), self.widths[level]) + kept[level]
            x = self.refine[level](x, levels[level])
        output: torch.Tensor = self.output(x, domain)
        return output
