"""What the channel axis of a tensor holds: even and odd scalars, spin-1 and spin-2 fields.

Conventions: columns stand in the order even scalars, odd scalars, spin 1, spin 2; a channel with a spin takes two
adjacent real columns (see :mod:`sphereml.sky.fields`).  A bare number of channels means even scalars.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sphereml.errors import UserError
from sphereml.sky.fields import Field


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
        return self.even + self.odd + 2 * (self.spin1 + self.spin2)


_ORDER = ("even", "odd", "spin1", "spin2")


def _kind(field: Field) -> str:
    return f"spin{field.spin}" if field.spin else field.parity
