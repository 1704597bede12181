"""Full-sky maps that know what they are: fields with units, pixel order and frame, for people and for files.

Conventions: values are pixel-major ``(npix, columns)``; the order of pixels is a word, ``"nest"`` or ``"ring"``, and
goes with the values wherever they go.  Q and U have the COSMO sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sphereml.errors import UserError
from sphereml.sky.fields import Field, count_columns
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.ordering import nest_to_ring, ring_to_nest

Order = Literal["nest", "ring"]


@dataclass(frozen=True, eq=False)
class SkyMap:
    """Maps of one sky.

    Args:
        values: ``(npix,)`` or ``(npix, columns)``; missing pixels NaN.
        fields: what the columns are; a string, or several, are names of scalars.
        order: of the pixels; there is no default, because a wrong one gives a plausible map.
        frame: ``"G"``, ``"C"`` or ``"E"``.
        header: facts for a file's header.

    Raises:
        UserError: an order that does not exist, a number of pixels that no Nside has, or of columns that is not the
            fields'.

    Example:
        >>> import numpy as np
        >>> import sphereml as sm
        >>> dust = sm.SkyMap(np.arange(48.0), sm.Field("I", "uK_RJ"), order="ring")
        >>> dust.nested().values[:4, 0].astype(int).tolist()
        [13, 5, 4, 0]
    """

    values: np.ndarray
    fields: tuple[Field, ...]
    order: Order
    frame: str = "G"
    header: dict[str, Any] = field(default_factory=dict)

    def __init__(
        self,
        values: np.ndarray,
        fields: Field | str | Sequence[Field | str],
        order: Order,
        frame: str = "G",
        header: dict[str, Any] | None = None,
    ) -> None:
        values = np.asarray(values)
        listed = [fields] if isinstance(fields, Field | str) else list(fields)
        chosen = tuple(one if isinstance(one, Field) else Field(one) for one in listed)
        if str(order).lower() not in ("nest", "ring"):
            raise UserError(f"there is no pixel order {order!r}", "say order='ring' (healpy's own) or order='nest'")
        parts = {"values": values[:, None] if values.ndim == 1 else values, "fields": chosen}
        for name, part in (parts | {"order": str(order).lower(), "frame": frame, "header": header or {}}).items():
            object.__setattr__(self, name, part)
        if self.values.shape != (self.grid.npix, count_columns(chosen)):
            what = f"values of shape {values.shape} for the fields {', '.join(one.name for one in chosen)}"
            raise UserError(what, "give (npix, columns), two columns for a field with a spin")

    @property
    def grid(self) -> HealpixGrid:
        return HealpixGrid.of_size(len(self.values))

    @property
    def nside(self) -> int:
        return self.grid.nside

    @property
    def unit(self) -> str:
        """The unit that the fields share; raises UserError where they do not."""
        units = {one.unit for one in self.fields}
        if len(units) != 1:
            raise UserError(f"the maps have the units {', '.join(sorted(units))}", "choose one field")
        return units.pop()

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(name for one in self.fields for name in one.column_names)

    def __getitem__(self, name: str) -> np.ndarray:
        """One column ``(npix,)`` by its name; raises UserError where there is none."""
        if name not in self.column_names:
            raise UserError(f"there is no map {name!r}", f"choose {', '.join(self.column_names)}")
        return self.values[:, self.column_names.index(name)]

    def nested(self) -> SkyMap:
        """The maps in NEST order."""
        return self if self.order == "nest" else replace_values(self, ring_to_nest(self.values), "nest")

    def to_healpy(self) -> np.ndarray:
        """What healpy takes: RING, ``(npix,)`` for one column, else ``(columns, npix)``."""
        rows = (self.values if self.order == "ring" else nest_to_ring(self.values)).T
        return rows[0] if len(rows) == 1 else rows

    def plot(self, **options: Any) -> Any:
        """A Mollweide figure (matplotlib) of every column; options as :func:`sphereml.plot.sky`."""
        from sphereml.plotting.maps import sky_panels

        return sky_panels(self, **options)

    def __repr__(self) -> str:
        spins = [f" spin {one.spin}" if one.spin else "" for one in self.fields]
        shown = ", ".join(f"{one.name} [{one.unit or '1'}]{spin}" for one, spin in zip(self.fields, spins, strict=True))
        return f"SkyMap({shown}; nside={self.nside}, {self.order.upper()}, frame {self.frame})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td>{np.nanmin(column):.4g}</td><td>{np.nanmax(column):.4g}</td></tr>"
            for name, column in zip(self.column_names, self.values.T, strict=True)
        )
        return f"<p>{self!r}</p><table><tr><th>map</th><th>least</th><th>largest</th></tr>{rows}</table>"


Maps = SkyMap | np.ndarray


def nest_rows(maps: Maps) -> np.ndarray:
    """Rows in NEST order, ``(npix,)`` of one column, else ``(columns, npix)``; a bare array is taken as it is."""
    if not isinstance(maps, SkyMap):
        return np.asarray(maps)
    rows = maps.nested().values.T
    return rows[0] if len(rows) == 1 else rows


def nest_columns(maps: Maps, order: Order | None, name: str) -> np.ndarray:
    """Values ``(npix, columns)`` in NEST order of maps, or of a bare array ``(npix,)``, rows or columns.

    Args:
        order: of the pixels of a bare array.
        name: of the maps, for the message.

    Raises:
        UserError: a bare array whose order is not said.
    """
    if isinstance(maps, SkyMap):
        return np.asarray(maps.nested().values)
    if order is None:
        raise UserError(
            f"{name} is an array, which does not carry the order of its pixels",
            "say order='ring' (as healpy reads maps) or order='nest', or give a SkyMap",
        )
    values = np.asarray(maps)
    columns = values if values.ndim == 1 or values.shape[0] >= values.shape[-1] else values.T
    return np.asarray(
        SkyMap(columns, [f"column {i}" for i in range(columns.size // len(columns))], order).nested().values
    )


def replace_values(maps: SkyMap, values: np.ndarray, order: Order) -> SkyMap:
    """The same fields with other values."""
    return SkyMap(values, maps.fields, order, maps.frame, maps.header)
