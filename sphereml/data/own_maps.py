"""Files of a user's own maps, as a configuration of ``kind: healpix`` names them.

Conventions: values are NEST, pixel-major.  Q followed by its U is one field of spin 2; whoever asks for Q alone gets
its U with it, because half of it means nothing in another frame; U alone is refused.  Q and U are COSMO's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sphereml.config.schema import DataConfig, MapField
from sphereml.data.column_names import ColumnReference, parse_reference, stem, stokes
from sphereml.data.healpix_fits import HealpixMaps, UnsaidCards, read_healpix
from sphereml.data.healpix_tables import list_columns
from sphereml.data.manifests import product_facts
from sphereml.data.unit_conversion import conversion_factor
from sphereml.data.units import parse_unit
from sphereml.errors import UserError, refuse_all
from sphereml.sky.fields import Field


@dataclass(frozen=True, eq=False)
class OwnMap:
    """Columns of one file.

    Args:
        role: ``input``, ``target`` or ``total``.
        columns: their numbers in the file.
        maps: their values, in the unit that the configuration asks for.
        history: what is known of the file and was done to its values; see :func:`describe`.
    """

    role: str
    config: MapField
    columns: tuple[int, ...]
    maps: HealpixMaps
    history: dict[str, Any]

    @property
    def fields(self) -> tuple[Field, ...]:
        return self.maps.fields

    def field_values(self) -> list[tuple[Field, np.ndarray]]:
        """Every field with its values, ``(npix,)`` or ``(2, npix)``."""
        rows, first, found = self.maps.values.T, 0, []
        for one in self.fields:
            found.append((one, rows[first : first + 2] if one.spin else rows[first]))
            first += one.columns
        return found


def configured_files(data: DataConfig) -> list[tuple[str, MapField]]:
    """Role and file of every map: inputs, targets, and the total if there is one.

    Raises:
        UserError: there are no inputs or no target, or one is without a file.
    """
    if not data.inputs:
        raise UserError(f"the data {data.name!r} have no inputs", "list FITS files under data.inputs")
    targets = [*([data.target] if data.target else []), *data.targets]
    if not targets:
        raise UserError(f"the data {data.name!r} have no target", "give data.target.file")
    named = [("input", one) for one in data.inputs] + [("target", one) for one in targets]
    named += [("total", data.total)] if data.total else []
    if not all(one.file for _, one in named):
        raise UserError("a map is configured without a file", "give its `file`")
    return named


def locate(folder: Path, map_field: MapField) -> ColumnReference:
    """The file of a configuration, relative to the data folder, and the columns that its name asks for."""
    return parse_reference(folder / Path(map_field.file).expanduser())


def read_own_maps(data: DataConfig, folder: Path, tolerant: bool) -> list[OwnMap]:
    """All maps of a configuration.

    Args:
        tolerant: take any frame and leave missing pixels NaN, rather than refuse them.
    Raises:
        UserError: what is wrong with all of the files, in one line; a target that is among the inputs.
    """
    found, faults = [], []
    for role, one in configured_files(data):
        try:
            found.append(_read(role, one, folder, tolerant))
        except UserError as error:
            faults.append(error)
    refuse_all([*faults, *_targets_among_inputs(found)])
    return found


def _read(role: str, config: MapField, folder: Path, tolerant: bool) -> OwnMap:
    reference = locate(folder, config)
    columns = stokes_columns(reference, config.fields)
    unsaid = UnsaidCards(config.order, config.frame, polcconv=config.polcconv)
    maps = read_healpix(replace(reference, columns=()), columns, config.unit, tolerant, unsaid, any_frame=tolerant)
    unit = parse_unit(config.convert_to) if config.convert_to else maps.unit
    factor = conversion_factor(maps.unit, unit, config.frequency_ghz)
    scalars = np.repeat([not one.spin for one in maps.fields], [one.columns for one in maps.fields])
    if config.zero_level and not scalars.any():
        raise UserError(f"{config.file}: a zero level of Q and U", "give data's zero_level to an intensity")
    values = maps.values
    if config.zero_level or factor != 1:
        values = ((values - config.zero_level * scalars) * factor).astype(values.dtype)
    history = describe(reference.path.name, maps, config, factor)
    return OwnMap(role, config, tuple(columns), replace(maps, values=values, unit=unit), history)


def describe(name: str, maps: HealpixMaps, config: MapField, factor: float) -> dict[str, Any]:
    """What whoever uses the values must know; JSON values.

    ``unit`` of the file and the ``factor`` that made it the map's own (at ``frequency_ghz``, no band integrated over),
    the ``zero_level_removed``, the sign of U where there is one; and of a product of the manifests its name, when it
    was ``released`` and what its ``zero_level`` is.
    """
    said: dict[str, Any] = {"unit": maps.unit}
    if factor != 1:
        said |= {"factor": factor, "frequency_ghz": config.frequency_ghz}
    if config.zero_level:
        said["zero_level_removed"] = config.zero_level
    if any(one.spin for one in maps.fields):
        said["polcconv"] = "COSMO"
    return said | product_facts(name)


def stokes_columns(reference: ColumnReference, fields: Sequence[int] = ()) -> list[int]:
    """The columns asked for, with the U of every Q.

    Raises:
        UserError: a column is not there, a Q has no U behind it in the file, or U is asked for without Q.
    """
    held = list_columns(reference)
    names = [held.get(number, "") for number in range(max(held, default=-1) + 1)]
    asked = list(fields) or reference.find(names) or list(held)
    name, found = reference.path.name, []
    for number in asked:
        kind = stokes(held.get(number, ""))
        if kind == "U" and number in found:
            continue
        found.append(number)
        if kind == "U":
            raise UserError(f"{name}: {held[number]} is asked for without its Q", "ask for Q, which brings its U")
        if kind == "Q":
            follows = held.get(number + 1, "")
            if stokes(follows) != "U" or stem(follows) != stem(held[number]):
                raise UserError(f"{name} has no U behind {held[number]}", "put U into the column behind Q")
            found.append(number + 1)
    return found


def _targets_among_inputs(maps: Sequence[OwnMap]) -> list[UserError]:
    known = {(one.maps.checksum, column) for one in maps if one.role == "input" for column in one.columns}
    return [
        UserError(f"the target {one.config.file} is among the inputs", "take it out: it would predict itself")
        for one in maps
        if one.role == "target" and any((one.maps.checksum, column) in known for column in one.columns)
    ]
