"""From a HEALPix binary table to full maps in NEST order: pixel lists, pixel order, signs, missing pixels.

Conventions: as in :mod:`sphereml.data.healpix_fits`, which adds units to what is read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sphereml.config.bounds import refuse_beyond_memory
from sphereml.data.column_names import ColumnReference, flips_with_convention, is_intensity, stokes
from sphereml.data.file_checksums import refuse_damaged_product
from sphereml.data.fits_cards import galactic_frame, integer_card, is_iau, is_nested, sky_frame
from sphereml.data.fits_checksums import refuse_stale
from sphereml.data.fits_files import open_fits
from sphereml.data.fits_tables import BinaryTable, read_layout
from sphereml.data.pixel_order import refuse_wrong_order
from sphereml.data.stored_values import mark_absurd
from sphereml.errors import UserError
from sphereml.sky.grid import LARGEST_NSIDE, HealpixGrid
from sphereml.sky.ordering import ring_to_nest

_PIXEL_COLUMNS = ("PIXEL", "HPXINDEX", "PIX")


@dataclass(frozen=True)
class UnsaidCards:
    """What is known of a file that its header does not say; a card in the file always decides.

    Args:
        order: RING or NESTED; empty: not known, so a silent file is refused.
        frame: a COORDSYS value, or empty in the same sense.
        edited: the file was changed on purpose after its checksums were written, so they are not looked at.
        polcconv: COSMO or IAU; a file of which neither is known is COSMO's.
    """

    order: str = ""
    frame: str = ""
    edited: bool = False
    polcconv: str = ""


SILENT = UnsaidCards()


@dataclass(frozen=True, eq=False)
class RawMaps:
    """What a file holds, missing pixels NaN, units as written; ``values``, ``names``, ... as in HealpixMaps."""

    values: np.ndarray
    names: tuple[str, ...]
    units: tuple[str, ...]
    frame: str
    grid: HealpixGrid

    def refuse_missing(self, name: str) -> None:
        """Raise UserError when any pixel is missing."""
        bad = np.flatnonzero(np.isnan(self.values).any(axis=1))
        if bad.size:
            raise UserError(
                f"{name} has {bad.size} pixels that are NaN, infinite, UNSEEN or what its cards call missing (first: "
                f"NEST pixel {bad[0]})",
                "fill them (data.nside=NSIDE in a configuration does), or choose a map without gaps",
            )


def list_columns(reference: ColumnReference) -> dict[int, str]:
    """Number and name of the columns that hold values of the sky: numbers, not pixel numbers; reads the header only."""
    with open_fits(reference.path) as file:
        table = read_layout(file.table(reference.unit))
        return {i: table.names[i] for i in _value_columns(table, _pixel_column(table))}


def read_raw(
    reference: ColumnReference,
    fields: Sequence[int],
    unsaid: UnsaidCards = SILENT,
    any_frame: bool = False,
    allow_partial: bool = True,
) -> RawMaps:
    """Maps as ``read_healpix`` reads them, without a look at units and missing pixels."""
    with open_fits(reference.path) as file:
        unit, name = file.table(reference.unit), file.name
        if not unsaid.edited:
            refuse_stale(file.primary)
            refuse_stale(unit)
            refuse_damaged_product(reference.path)
        table = read_layout(unit)
        listed = _pixel_column(table)
        if not allow_partial:
            _refuse_partial(table, listed)
        frame = (sky_frame if any_frame else galactic_frame)(table.header, name, unsaid.frame)
        nested = is_nested(table.header, name, unsaid.order)
        columns = _choose(table, list(fields) or reference.find(table.names), listed)
        grid = _grid(table, columns, listed)
        refuse_beyond_memory(grid.npix * len(columns) * 8, name)
        values = _values(table, columns, listed, grid)
        names = tuple(table.names[i] for i in columns)
        if is_iau(table.header, unsaid.polcconv):
            values[:, _flipped(table, columns)] *= -1
        units = tuple(table.columns[i].unit for i in columns)
    refuse_wrong_order(values[:, 0], nested, name)
    return RawMaps(values if nested else ring_to_nest(values), names, units, frame, grid)


def _values(table: BinaryTable, columns: Sequence[int], listed: int | None, grid: HealpixGrid) -> np.ndarray:
    """Columns ``(npix, nfield)`` in the file's own order, NaN where missing or not listed."""
    values = np.stack([mark_absurd(table.values(i)) for i in columns], axis=-1)
    if listed is None:
        return values
    pixels = table.integers(listed)
    refuse_bad_pixels(pixels, grid, table.name)
    full = np.full((grid.npix, values.shape[1]), np.nan, dtype=values.dtype)
    full[pixels] = values
    return full


def _flipped(table: BinaryTable, columns: Sequence[int]) -> list[bool]:
    """Which columns of an IAU file change their sign.

    Raises:
        UserError: nothing says which column of the file is U.
    """
    names = [table.names[i] for i in columns]
    unclear = [name for name in names if not is_intensity(name) and stokes(name) != "Q"]
    if unclear and not any(stokes(name) == "U" for name in table.names):
        raise UserError(
            f"{table.name} says POLCCONV=IAU and no column of it is called U",
            "name its columns (TTYPE), or remove the card if it holds no polarization",
        )
    return [flips_with_convention(name) for name in names]


def _pixel_column(table: BinaryTable) -> int | None:
    """Which column lists the pixels, None where pixels are implied by the rows."""
    scheme = str(table.header.get("INDXSCHM", "IMPLICIT")).strip().upper()
    if table.names[0].upper() in _PIXEL_COLUMNS:
        return 0
    if scheme == "EXPLICIT":
        raise UserError(
            f"{table.name} holds an explicit list of pixels but no first column {' or '.join(_PIXEL_COLUMNS[:2])}",
            "write it as an implicit full-sky map (healpy.write_map)",
        )
    return None


def _refuse_partial(table: BinaryTable, listed: int | None) -> None:
    coverage = str(table.header.get("OBJECT", "FULLSKY")).strip().upper()
    # A list of every pixel is a full sky, whatever its cards say.
    full = coverage != "PARTIAL" if listed is None else table.rows == _listed_grid(table).npix
    if not full:
        raise UserError(
            f"{table.name} holds an explicit list of pixels, not the whole sky",
            "allow missing pixels, or write it as an implicit full-sky map (healpy.write_map)",
        )


def _stated_nside(header: Mapping[str, Any], name: str) -> int:
    return integer_card(header, "NSIDE", name, (1, LARGEST_NSIDE))


def _listed_grid(table: BinaryTable) -> HealpixGrid:
    if "NSIDE" in table.header:
        return HealpixGrid(_stated_nside(table.header, table.name))
    try:
        return HealpixGrid.of_size(table.rows)
    except UserError:
        raise UserError(f"{table.name} lists {table.rows} pixels without NSIDE", "add the NSIDE card") from None


def refuse_bad_pixels(pixels: np.ndarray, grid: HealpixGrid, name: str) -> None:
    """Raise UserError when a list of pixel numbers leaves the grid or names a pixel twice."""
    outside = pixels[(pixels < 0) | (pixels >= grid.npix)]
    if outside.size:
        raise UserError(
            f"{name} lists pixel {outside[0]}, which Nside {grid.nside} does not have",
            "check its Nside, or fetch it again",
        )
    counts = np.bincount(pixels, minlength=1)
    if counts.max() > 1:
        raise UserError(f"{name} lists pixel {counts.argmax()} {counts.max()} times", "fetch the file again")


def _value_columns(table: BinaryTable, listed: int | None) -> list[int]:
    return [i for i, column in enumerate(table.columns) if i != listed and column.is_numeric]


def _choose(table: BinaryTable, fields: Sequence[int], listed: int | None) -> list[int]:
    available = len(table.columns)
    absent = [i for i in fields if not 0 <= i < available]
    if absent:
        raise UserError(f"{table.name} has no field {absent[0]}", f"its fields are 0 to {available - 1}")
    if listed is not None and listed in fields:
        raise UserError(f"field {listed} of {table.name} holds pixel numbers", "choose another field")
    columns = list(fields) or _value_columns(table, listed)
    if not columns:
        raise UserError(f"{table.name} has no column of numbers", "choose another file")
    repeats = {table.columns[i].repeat for i in columns}
    if len(repeats) > 1 or (listed is not None and repeats != {1}):
        raise UserError(f"columns of {table.name} have {sorted(repeats)} values a row", "choose columns that are maps")
    return columns


def _grid(table: BinaryTable, columns: Sequence[int], listed: int | None) -> HealpixGrid:
    if listed is not None:
        return _listed_grid(table)
    npix = table.rows * table.columns[columns[0]].repeat
    try:
        grid = HealpixGrid.of_size(npix)
    except UserError as error:
        raise UserError(f"{table.name} holds {npix} pixels, not a full-sky HEALPix map", error.mend) from None
    if "NSIDE" in table.header and _stated_nside(table.header, table.name) != grid.nside:
        raise UserError(
            f"{table.name} says NSIDE={table.header['NSIDE']} but holds {npix} pixels (Nside {grid.nside})",
            "mend its header",
        )
    return grid
