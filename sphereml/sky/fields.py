"""What a column of a map is: its name, unit, spin and parity, and the real columns that it takes.

Conventions: a field of spin 0 is one real column.  A field of spin 1 or 2 is two adjacent real columns, the real and
imaginary part of a complex number that turns with the local frame: Stokes Q and U in the COSMO sign for spin 2, the
components towards south and towards east for spin 1.  Turning the frame by psi (from south towards east) multiplies it
by ``exp(-i spin psi)``.  Under a mirror of the sky an *odd* scalar (B) changes its sign, an *even* one (intensity, E,
kappa) does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Parity = Literal["even", "odd"]

_SUFFIXES = {1: ("S", "E"), 2: ("Q", "U")}
# A polarization that needs no name of its own: its columns are plainly Q and U.
_NAMELESS = ("", "P", "QU")


@dataclass(frozen=True)
class Field:
    """One field of a map.

    Args:
        name: of the field, e.g. ``"I"``, ``"kappa"``, ``"P"``.
        unit: as FITS spells it, e.g. ``"uK_CMB"``; empty for a pure number.
        spin: 0, 1 or 2.
        parity: of a scalar, ``"even"`` or ``"odd"``; a field with a spin holds both.

    Raises:
        ValueError: there is no such spin or parity.

    Example:
        >>> Field("P", "uK_CMB", spin=2).column_names
        ('Q', 'U')
    """

    name: str
    unit: str = ""
    spin: int = 0
    parity: Parity = "even"

    def __post_init__(self) -> None:
        if self.spin not in (0, 1, 2):
            raise ValueError(f"the field {self.name!r} has spin {self.spin}; fields have spin 0, 1 or 2")
        if self.parity not in ("even", "odd"):
            raise ValueError(f"the field {self.name!r} has parity {self.parity!r}; scalars are even or odd")

    @property
    def columns(self) -> int:
        """Number of real columns."""
        return 2 if self.spin else 1

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the real columns, as FITS files carry them."""
        if not self.spin:
            return (self.name,)
        stem = "" if self.name in _NAMELESS else f"{self.name}_"
        return tuple(stem + suffix for suffix in _SUFFIXES[self.spin])

    @property
    def parity_names(self) -> tuple[str, ...]:
        """Names of the parts of a field with a spin that a mirror keeps and turns over: E and B."""
        return tuple(name[:-1] + part for name, part in zip(self.column_names, "EB", strict=False))


def count_columns(fields: Iterable[Field]) -> int:
    """Number of real columns that these fields take together."""
    return sum(field.columns for field in fields)
