"""Fields of spin 0 and 2 from FITS files: which columns are I, Q and U, and what their user should be told.

Conventions: arrays are NEST, ``(ncomp, npix)`` with one component for spin 0 and (Q, U), COSMO, for spin 2; missing
pixels are NaN.  Files are named as in :mod:`sphereml.data.column_names`; ``FILE[NAME]`` of a field of spin 2 names its
Q or what Q and U have in common.  Spectra do not depend on the frame, so that it may be any, or unsaid; nor on the unit
but as a label, so that a file without one is read as a pure number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sphereml.data.column_names import ColumnReference, group_fields, is_intensity, parse_reference, stokes
from sphereml.data.healpix_tables import UnsaidCards, list_columns, read_raw
from sphereml.data.units import reconcile_units
from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid


@dataclass(frozen=True, eq=False)
class FieldMaps:
    """Maps of one spin from one file.

    Args:
        values: ``(nmap, ncomp, npix)``.
        names: of the maps, ``nmap``.
        unit: of all of them, empty for a pure number.
        frame: G, C or E; that of a silent file is taken for G.
        grid: the pixelization.
    """

    values: np.ndarray
    names: tuple[str, ...]
    unit: str
    frame: str
    grid: HealpixGrid

    @property
    def missing(self) -> np.ndarray:
        """Pixels that any of the maps lacks, bool ``(npix,)``."""
        return np.asarray(np.isnan(self.values).any(axis=(0, 1)))


def read_field(text: str | Path, spin: int, unit: str = "", edited: bool = False) -> FieldMaps:
    """One field: I (the first scalar of a file without a choice), or Q and U.

    Args:
        text: ``FILE`` or ``FILE[COLUMN]``.
        unit: of a file that states none.
        edited: do not look at checksums.
    Raises:
        UserError: as :func:`~sphereml.data.healpix_fits.read_healpix`; the file has no such field, or has several.
    """
    return _read(parse_reference(text), spin, unit, edited, single=True)


def read_fields(text: str | Path, spin: int, unit: str = "", edited: bool = False) -> FieldMaps:
    """Every field of one spin that a file holds, or those asked for; otherwise as :func:`read_field`."""
    return _read(parse_reference(text), spin, unit, edited, single=False)


def _read(reference: ColumnReference, spin: int, unit: str, edited: bool, single: bool) -> FieldMaps:
    name = reference.path.name
    held = list_columns(reference)
    groups = (_pairs if spin else _scalars)(reference, held)
    groups = groups[:1] if single and not reference.columns else groups
    if not groups or (single and len(groups) > 1):
        what = "Q and U" if spin else "intensity"
        raise UserError(
            f"{name} has {len(groups) or 'no'} fields of {what} ({', '.join(held.values())})",
            f"name the column, e.g. '{name}[#{min(held, default=0)}]'",
        )
    numbers = [number for group in groups for number in group]
    raw = read_raw(reference, numbers, UnsaidCards(frame="G", edited=edited), True, True)
    stated = {one.strip() for one in raw.units}
    if len(stated) > 1:
        raise UserError(f"columns of {name} have different units ({', '.join(sorted(stated))})", "choose one of them")
    said = stated.pop()
    values = np.moveaxis(raw.values.astype(np.float64), -1, 0).reshape(len(groups), -1, raw.grid.npix)
    return FieldMaps(
        values,
        tuple(_label(name, [held[number] for number in group], len(groups)) for group in groups),
        reconcile_units(said, unit, name) if said or unit else "",
        raw.frame,
        raw.grid,
    )


def _scalars(reference: ColumnReference, held: dict[int, str]) -> list[list[int]]:
    if reference.columns:
        return [[number] for number in reference.find(_all_names(held))]
    scalars = [number for number, name in held.items() if stokes(name) is None]
    # A file of polarization has one intensity among covariances and counts.
    if any(stokes(name) for name in held.values()):
        scalars = [number for number in scalars if is_intensity(held[number])]
    return [[number] for number in scalars]


def _pairs(reference: ColumnReference, held: dict[int, str]) -> list[list[int]]:
    numbers = list(held)
    fields = group_fields(list(held.values()), "")
    starts = np.cumsum([0] + [field.columns for field in fields])
    pairs = {numbers[start]: field.name for field, start in zip(fields, starts, strict=False) if field.spin}
    if not reference.columns:
        if not pairs and len(held) == 2:
            return [numbers]
        if not pairs and len(held) == 3 and not any(stokes(name) for name in held.values()):
            return [numbers[1:]]
        return [[q, q + 1] for q in pairs]
    if len(reference.columns) == 1:
        asked = reference.columns[0].upper()
        common = [[q, q + 1] for q, name in pairs.items() if name.upper() == asked]
        if common:
            return common
    chosen = reference.find(_all_names(held))
    if len(chosen) == 1:
        chosen = [chosen[0], chosen[0] + 1]
    if len(chosen) != 2 or not set(chosen) <= set(held):
        raise UserError(f"{reference.path.name}: {len(chosen)} columns are asked for", "name Q, or Q and U")
    return [chosen]


def _all_names(held: dict[int, str]) -> list[str]:
    return [held.get(number, "") for number in range(max(held, default=-1) + 1)]


def _label(name: str, columns: list[str], count: int) -> str:
    stem = name.split(".fits")[0] if ".fits" in name else Path(name).stem
    return f"{stem}:{columns[0]}" if count > 1 else stem
