"""What the channel axis of a tensor holds: even and odd scalars, spin-1 and spin-2 fields.

Conventions: columns stand in the order even scalars, odd scalars, spin 1, spin 2; a channel with a spin takes two
adjacent real columns (see :mod:`sphereml.sky.fields`).  A bare number of channels means even scalars.

Rules that keep a network equivariant: whatever acts on a channel with a spin acts on both its columns alike, as a
multiplication by one real number, and neither it nor an odd scalar ever gets a constant added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from functools import lru_cache

import torch

from sphereml.errors import UserError
from sphereml.sky.fields import Field

_ORDER = ("even", "odd", "spin1", "spin2")


@dataclass(frozen=True)
class Channels:
    """Numbers of channels of each type.

    Example:
        >>> Channels(even=3, spin2=1).columns
        5
    """

    even: int = 0
    odd: int = 0
    spin1: int = 0
    spin2: int = 0

    @classmethod
    def of(cls, channels: int | Channels) -> Channels:
        """The channels themselves, or so many even scalars."""
        return channels if isinstance(channels, Channels) else cls(even=channels)

    @classmethod
    def of_fields(cls, fields: Iterable[Field]) -> Channels:
        """Channels that hold these fields, whose types must stand in the order of the columns.

        Raises:
            UserError: a field stands after one of a later type.
        """
        kinds = [_kind(field) for field in fields]
        if kinds != sorted(kinds, key=_ORDER.index):
            raise UserError(f"fields of the types {', '.join(kinds)}", f"give them in the order {', '.join(_ORDER)}")
        return cls(**{kind: kinds.count(kind) for kind in _ORDER})

    @property
    def columns(self) -> int:
        """Number of real columns."""
        return self.scalars + 2 * (self.spin1 + self.spin2)

    @property
    def count(self) -> int:
        """Number of channels."""
        return self.scalars + self.spin1 + self.spin2

    @property
    def scalars(self) -> int:
        """Number of even and odd scalars."""
        return self.even + self.odd

    @property
    def spins(self) -> tuple[int, ...]:
        """Spin of every channel."""
        return (0,) * self.scalars + (1,) * self.spin1 + (2,) * self.spin2

    @property
    def are_even(self) -> bool:
        """Whether there is nothing but even scalars, which need no care."""
        return self.count == self.even

    def of_spin(self, spin: int) -> int:
        """Number of channels of spin 0 (even and odd), 1 or 2."""
        return (self.scalars, self.spin1, self.spin2)[spin]

    def span(self, spin: int) -> slice:
        """The columns of the channels of spin 0 (even and odd), 1 or 2."""
        ends = (0, self.scalars, self.scalars + 2 * self.spin1, self.columns)
        return slice(ends[spin], ends[spin + 1])

    def widened(self, factor: int, most: int) -> Channels:
        """So many times as many of each type, in the same proportions up to ``most`` of the type with the most.

        Example:
            >>> Channels(even=16, spin2=8).widened(4, most=32)
            Channels(even=32, odd=0, spin1=0, spin2=16)
        """
        share = min(float(factor), most / max(astuple(self)))
        return Channels(*(round(share * number) for number in astuple(self)))

    def __add__(self, other: Channels) -> Channels:
        return Channels(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def concatenate(self, x: torch.Tensor, other: Channels, y: torch.Tensor) -> torch.Tensor:
        """``x`` ``(..., columns)`` and ``y`` with the columns of ``other``, type by type: those of ``self + other``."""
        if self.are_even and other.are_even:
            return torch.cat([x, y], dim=-1)
        parts = zip(x.split(self._widths, -1), y.split(other._widths, -1), strict=True)
        return torch.cat([part for pair in parts for part in pair], dim=-1)

    def expand(self, values: torch.Tensor) -> torch.Tensor:
        """One number a channel ``(..., count)`` as one a column ``(..., columns)``."""
        if self.count == self.columns:
            return values
        return values.index_select(-1, _channel_of_column(self).to(values.device))

    def activate(
        self, x: torch.Tensor, gates: torch.Tensor | None, function: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """The function of even scalars; odd scalars and spins times twice the sigmoid of their gate.

        Args:
            x: ``(..., columns)``.
            gates: ``(..., count - even)``, even scalars themselves; None where there is nothing to gate.
        """
        if gates is None:
            return function(x)
        even, rest = x.split([self.even, self.columns - self.even], -1)
        factors = Channels(0, self.odd, self.spin1, self.spin2).expand(2 * torch.sigmoid(gates))
        return torch.cat([function(even), rest * factors], dim=-1)

    def drop(self, x: torch.Tensor, probability: float, pixelwise: bool = False) -> torch.Tensor:
        """Channels of a sample ``(B, ..., columns)`` set to 0 with this probability, the others scaled up for it.

        One decision a channel, or with ``pixelwise`` one a channel and pixel; a spin's two columns fall together.
        """
        keep = 1 - probability
        pixels = x.shape[1:-1] if pixelwise else (1,) * (x.ndim - 2)
        kept = torch.rand((len(x), *pixels, self.count), device=x.device) < keep
        return x * self.expand(kept.to(x.dtype).div_(keep))

    def turn(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        """Spin s times ``exp(i s angle)``: ``x`` ``(..., columns)``, one angle (radians) a pixel, ``(...)``.

        So is a field carried along a geodesic whose bearing turns by these angles against the frames; frames that turn
        themselves by psi, from south towards east, see it with the angle -psi.
        """
        parts = [x[..., self.span(0)]]
        for spin in (1, 2):
            real, imaginary = x[..., self.span(spin)].unflatten(-1, (-1, 2)).unbind(-1)
            cosine, sine = (part[..., None].to(x) for part in (torch.cos(spin * angles), torch.sin(spin * angles)))
            pair = [cosine * real - sine * imaginary, sine * real + cosine * imaginary]
            parts.append(torch.stack(pair, dim=-1).flatten(-2))
        return torch.cat(parts, dim=-1)

    def power(self, x: torch.Tensor) -> torch.Tensor:
        """Mean square of every channel, of a spin that of both its columns: ``(..., columns)`` to ``(count,)``."""
        squares = x.reshape(-1, self.columns).square().mean(dim=0)
        scalars, pairs = squares.split([self.scalars, self.columns - self.scalars])
        return torch.cat([scalars, pairs.view(-1, 2).mean(dim=1)])

    @property
    def _widths(self) -> list[int]:
        return [self.even, self.odd, 2 * self.spin1, 2 * self.spin2]


@lru_cache(maxsize=64)
def _channel_of_column(channels: Channels) -> torch.Tensor:
    with torch.inference_mode(False):  # kept, and used in training steps too
        repeats = torch.ones(channels.count, dtype=torch.int64)
        repeats[channels.scalars :] = 2
        return torch.arange(channels.count).repeat_interleave(repeats)


def _kind(field: Field) -> str:
    return f"spin{field.spin}" if field.spin else field.parity
