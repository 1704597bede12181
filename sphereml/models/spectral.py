"""A network of single pixels: one-dimensional convolutions along velocity, the baseline of HI work.

What a pixel's channels say of its own dust and no more: the spectrum is convolved, halved ``depth`` times by strides of
two with the width doubling, and joined to the outputs by two dense layers.  Neighbours are never seen, so it runs on
any domain and equals itself on tiles.
"""

from __future__ import annotations

import torch
from torch import nn

from sphereml.domains import Domain
from sphereml.domains.channels import Channels


class SpectralNetwork(nn.Module):
    """Maps ``(B, *shape, channels_in)``, in the order of velocity, to ``(B, *shape, channels_out)`` pixel by pixel.

    Args:
        domain: not asked for anything.
        channels_in, channels_out: numbers of channels, even scalars.
        width: channels of the first convolution; they double with each of the ``depth`` strides, up to ``max_width``.
        kernel: channels of velocity that a convolution sees, odd.
        dropout: probability, before each dense layer.
        zero_output: the last layer starts at zero.

    Example:
        >>> from sphereml.domains import HealpixSky
        >>> network = SpectralNetwork(HealpixSky(4), 16, 1, width=4, depth=2)
        >>> network(torch.zeros(2, 192, 16), HealpixSky(4)).shape
        torch.Size([2, 192, 1])
    """

    depth = 0

    def __init__(
        self,
        domain: Domain,
        channels_in: int | Channels,
        channels_out: int | Channels = 1,
        *,
        width: int | Channels = 8,
        depth: int = 2,
        max_width: int = 64,
        kernel: int = 5,
        dropout: float = 0.0,
        zero_output: bool = False,
    ) -> None:
        super().__init__()
        length, outputs = Channels.of(channels_in).columns, Channels.of(channels_out).columns
        layers: list[nn.Module] = []
        narrow = 1
        for level in range(depth + 1):
            wide = min(Channels.of(width).even * 2**level, max_width)
            stride = 2 if level else 1
            layers += [nn.Conv1d(narrow, wide, kernel, stride, kernel // 2), nn.ReLU()]
            length, narrow = -(-length // stride), wide
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Sequential(nn.Dropout(dropout), nn.Linear(length * narrow, 4 * narrow), nn.ReLU())
        self.output = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * narrow, outputs))
        if zero_output:
            for parameter in self.output[1].parameters():
                nn.init.zeros_(parameter)

    def reach(self, domain: Domain) -> int:
        return 0

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        spectra = self.convolutions(x.reshape(-1, 1, x.shape[-1])).flatten(1)
        output: torch.Tensor = self.output(self.dense(spectra))
        return output.reshape(*x.shape[:-1], -1)
