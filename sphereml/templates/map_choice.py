"""Which columns of which files are a sky map and its templates, and what their user should be told.

Conventions: files are named as in :mod:`sphereml.data.column_names`.  A fit of scalars takes scalars: Stokes Q and U
are components of a field of spin 2, so they are used only where they were asked for by name or number, or where a file
holds nothing else, and it is said that they are treated as scalars.  ``FILE[Q,U]`` is the field itself, whose templates
are Q and U too.  A template file without a choice of columns gives every scalar map that it holds; for a sky that is Q
or U, the columns of the same Stokes parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sphereml.data.column_names import ColumnReference, parse_reference, stokes
from sphereml.data.healpix_fits import HealpixMaps, UnsaidCards, read_healpix
from sphereml.data.healpix_tables import SILENT, list_columns
from sphereml.errors import UserError


@dataclass(frozen=True, eq=False)
class ChosenMaps:
    """Maps as read from one file, and ``said``: lines for the user about what was chosen."""

    path: Path
    maps: HealpixMaps
    said: tuple[str, ...]

    @property
    def spin(self) -> int:
        """2 when the columns are Q and U of fields, else 0."""
        return 2 if all(one.spin == 2 for one in self.maps.fields) else 0

    @property
    def labels(self) -> list[str]:
        """A name for each field: that of the file, with the column's where there are several."""
        file = self.path.name.split(".fits")[0] if ".fits" in self.path.name else self.path.stem
        names = [one.name for one in self.maps.fields] if self.spin else self.maps.names
        return [f"{file}:{name}" if len(names) > 1 else file for name in names]


def choose_sky(text: str | Path, field: int | None = None, unit: str = "", unsaid: UnsaidCards = SILENT) -> ChosenMaps:
    """The one field to be cleaned: the column, or Q and U, asked for, else the first column of its file.

    Args:
        text: ``FILE``, ``FILE[NAME]``, ...
        field: number of the column, where ``text`` does not choose one.
        unit: of a file that states none.
    Raises:
        UserError: as ``read_healpix``; several fields are asked for, or the column in two ways.
    """
    reference = parse_reference(text)
    if field is not None and reference.columns:
        raise UserError(f"{text} chooses a column and --field {field} another", "give one of them")
    if field is not None:
        reference = replace(reference, columns=(f"#{field}",))
    held = list_columns(reference)
    if not reference.columns and held:
        reference = replace(reference, columns=(f"#{min(held)}",))
    maps = read_healpix(reference, (), unit, True, unsaid)
    if len(maps.fields) > 1:
        raise UserError(
            f"{text} is {len(maps.names)} columns ({', '.join(maps.names)})",
            "a sky to be cleaned is one scalar map, or Q and its U",
        )
    said = [_as_scalar(reference.path, one.name) for one in maps.fields if not one.spin and stokes(one.name)]
    if len(held) > len(maps.names):
        said.append(f"{reference.path.name}: column {', '.join(maps.names)} of {', '.join(held.values())}")
    return ChosenMaps(reference.path, maps, tuple(said))


def choose_templates(text: str | Path, sky: HealpixMaps, unit: str = "", unsaid: UnsaidCards = SILENT) -> ChosenMaps:
    """The templates that one file gives for a sky of one field.

    Raises:
        UserError: as ``read_healpix``; the file has no column that suits the sky.
    """
    reference = parse_reference(text)
    held = list_columns(reference)
    asked = bool(reference.columns)
    if not asked:
        reference = _suiting(reference, held, sky.names)
    maps = read_healpix(reference, (), unit, True, unsaid)
    if len(sky.names) == 2:
        _refuse_scalars(reference, maps)
    scalars = [one.name for one in maps.fields if not one.spin] if len(sky.names) == 2 else maps.names
    said = [_as_scalar(reference.path, name) for name in scalars if stokes(name)]
    if not asked and len(held) > 1:
        left = [name for name in held.values() if name not in maps.names]
        rest = f"; not used: {', '.join(left)}" if left else ""
        number = len(maps.names) // len(sky.names)
        count = f"{number} templates" if number > 1 else "one template"
        said.append(f"{reference.path.name} gives {count}: {', '.join(maps.names)}{rest}")
    return ChosenMaps(reference.path, maps, tuple(said))


def refuse_unfit(chosen: ChosenMaps, sky: HealpixMaps, mask: np.ndarray) -> None:
    """Raise UserError when maps have another grid than the sky, or miss pixels that the mask ``(npix,)`` keeps."""
    if chosen.maps.grid != sky.grid:
        raise UserError(
            f"{chosen.path} has Nside {chosen.maps.grid.nside}, the sky has {sky.grid.nside}",
            "bring all maps to one Nside",
        )
    missing = np.isnan(chosen.maps.values[mask > 0]).any(axis=1)
    if missing.any():
        raise UserError(f"{chosen.path} misses {missing.sum()} pixels that the mask keeps", "set the mask to 0 there")


def _suiting(reference: ColumnReference, held: dict[int, str], sky: tuple[str, ...]) -> ColumnReference:
    """The file's scalar columns, or for a sky that is Q, U or both the columns of those names."""
    wanted = {stokes(name) for name in sky}
    chosen = [i for i, name in held.items() if stokes(name) in wanted]
    if not chosen and len(held) == len(sky) == 1:
        return reference
    if not chosen:
        raise UserError(
            f"{reference.path.name} has no {f'Stokes {stokes(sky[0])}' if None not in wanted else 'scalar column'} for "
            f"the sky's {', '.join(sky)} ({', '.join(held.values())})",
            f"name a column to use it as a scalar, e.g. '{reference.path.name}[#{min(held, default=0)}]'"
            if len(sky) == 1
            else "give a file with Q and U",
        )
    return replace(reference, columns=tuple(f"#{i}" for i in chosen))


def _refuse_scalars(reference: ColumnReference, maps: HealpixMaps) -> None:
    """Raise UserError unless all columns are Q followed by its U."""
    scalar = next((one.name for one in maps.fields if not one.spin), None)
    if scalar is not None:
        raise UserError(f"column {scalar} of {reference.path.name} is no Q with its U", "name both, as FILE[Q,U]")


def _as_scalar(path: Path, name: str) -> str:
    return f"{path.name}: {name} is one component of a field of spin 2 and is treated as a scalar: no E and B"
