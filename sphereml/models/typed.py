"""What layers do by type: weights between types, normalization, gates, products of two channels.

Conventions: typed channels as in :mod:`sphereml.domains.channels`.  Where there is nothing but even scalars these
modules hold no weights that plain layers do not, and do what those do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import linear, pad

from sphereml.domains.channels import Channels
from sphereml.domains.mixing import Mixing, TypedKernel
from sphereml.errors import UserError
from sphereml.models.shared_statistics import mean_over_processes


class TypedWeights(nn.Module):
    """The weights of a mixing: a matrix ``(inputs, channels)`` for every output type, and a bias for even scalars.

    The terms have unit response to white noise; the ReLU of even scalars takes half of their power, a gate takes none.
    """

    def __init__(self, mixing: Mixing, zero: bool = False) -> None:
        super().__init__()
        self.mixing = mixing
        self.matrices = nn.ParameterDict()
        for name, shape in mixing.shapes.items():
            power = 0.0 if zero else (2 if name == "even" else 1) / shape[0]
            self.matrices[name] = nn.Parameter(power**0.5 * torch.randn(shape))
        self.bias = nn.Parameter(torch.zeros(mixing.channels_out.even))

    def kernel(self) -> TypedKernel:
        return self.mixing.kernel(dict(self.matrices.items()))

    def full_bias(self) -> torch.Tensor:
        """The bias of every column, 0 for all but even scalars."""
        return pad(self.bias, (0, self.mixing.channels_out.columns - len(self.bias)))


class PowerNorm(nn.Module):
    """Odd scalars and spins over the root of their mean square, times a learnt scale; no mean is subtracted.

    Like a batch normalization it takes the batch's mean square in training, and a running mean of it else.
    """

    running_power: torch.Tensor

    def __init__(self, channels: Channels, momentum: float = 0.1, floor: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.momentum, self.floor = channels, momentum, floor
        self.scale = nn.Parameter(torch.ones(channels.count))
        self.register_buffer("running_power", torch.ones(channels.count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        power = self.running_power
        if self.training:
            power = mean_over_processes(self.channels.power(x))
            self.running_power.lerp_(power.detach().to(self.running_power.dtype), self.momentum)
        return x * self.channels.expand(self.scale * (power + self.floor).rsqrt())


class Activation(nn.Module):
    """A function of even scalars; odd scalars and spins times gates, twice the sigmoid of learnt sums of those.

    Raises:
        UserError: there is something to gate and no even scalar to do it.
    """

    def __init__(self, channels: Channels, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.channels, self.function = channels, function
        gated = channels.count - channels.even
        if gated and not channels.even:
            raise UserError(f"{channels} have no even scalar to gate the others", "give the network a model.width")
        self.gates = nn.Linear(channels.even, gated) if gated else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gates = None if self.gates is None else self.gates(x[..., : self.channels.even])
        return self.channels.activate(x, gates, self.function)


class Products(nn.Module):
    """Products of two channels whose spins add up, mixed by weights that start at zero, and added to the input.

    Channels are first made tame, ``u = z / sqrt(1 + |z|^2)``.  With the next channel of a type written u', and pairs of
    equal number where types meet:

    * even: ``o o'``, ``|u1|^2``, ``|u2|^2``; odd: ``e o``, ``Im(u1 u1'*)``, ``Im(u2 u2'*)``;
    * spin 1: ``e u1``, ``i o u1``, ``u2 u1*``; spin 2: ``e u2``, ``i o u2``, ``u1 u1'``.

    These keep parity.  There is no other way from odd scalars to even ones.
    """

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self.channels = channels
        widths = [part.shape[-1] for part in self._products(torch.zeros(1, channels.columns))]
        made = Channels(widths[0], widths[1], widths[2] // 2, widths[3] // 2)
        self.weights = TypedWeights(Mixing(made, channels, 0), zero=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        products = torch.cat(self._products(x), dim=-1)
        return x + linear(products, self.weights.kernel().dense().T, self.weights.full_bias())

    def _products(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Real columns of the products: even, odd, spin 1, spin 2."""
        scalars = _tame(x[..., self.channels.span(0)])
        even, odd = scalars.split([self.channels.even, self.channels.odd], dim=-1)
        one, two = (_tame(_complex(x[..., self.channels.span(spin)])) for spin in (1, 2))
        cross = [(u * _next(u).conj()).imag for u in (one, two)]
        return [
            torch.cat([odd * _next(odd), *((u * u.conj()).real for u in (one, two))], dim=-1),
            torch.cat([_matched(even, odd), *cross], dim=-1),
            _columns(_matched(even, one), _matched(1j * odd, one), _matched(two, one.conj())),
            _columns(_matched(even, two), _matched(1j * odd, two), one * _next(one)),
        ]


def _complex(columns: torch.Tensor) -> torch.Tensor:
    return torch.complex(columns[..., 0::2], columns[..., 1::2])


def _columns(*parts: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(torch.cat(parts, dim=-1)).flatten(-2)


def _tame(z: torch.Tensor) -> torch.Tensor:
    return z * (1 + (z * z.conj()).real).rsqrt()


def _next(z: torch.Tensor) -> torch.Tensor:
    return z.roll(1, dims=-1)


def _matched(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Products of channels of the same number, as many as both have."""
    number = min(a.shape[-1], b.shape[-1])
    return a[..., :number] * b[..., :number]
