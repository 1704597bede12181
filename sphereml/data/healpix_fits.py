"""HEALPix maps and masks from FITS binary tables: Galactic, full-sky or a list of pixels.

Conventions: files may be RING or NESTED, arrays are NEST and pixel-major ``(npix, nfield)``.  Fields count all columns
of the file from 0, a column of pixel numbers included, as in the archives' documents.  A list of pixels (``INDXSCHM =
EXPLICIT``, or a first column PIXEL or HPXINDEX) becomes a full map, NaN outside the list.  Stokes U leaves with the
COSMO sign: a file with ``POLCCONV = IAU`` has its U columns negated; one without the card is COSMO, HEALPix's own
convention.  Whatever else a file leaves unsaid (order, frame, unit) is asked for, never guessed, because a wrong guess
gives a plausible map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from sphereml.data.fits_files import file_checksum, galactic_frame, is_nested, open_table, sky_frame
from sphereml.data.pixel_order import refuse_wrong_order
from sphereml.data.units import reconcile_units
from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.ordering import ring_to_nest

UNSEEN = -1.6375e30
_PIXEL_COLUMNS = ("PIXEL", "HPXINDEX", "PIX")


@dataclass(frozen=True, eq=False)
class HealpixMaps:
    """Columns of one file.

    Args:
        values: ``(npix, nfield)`` float32 or float64, NEST, in ``unit``; NaN where missing (only if allowed).
        names: column names (TTYPE), or ``field_<i>`` where the file gives none.
        unit: one of ``units.KNOWN_UNITS``.
        frame: ``"G"``, Galactic; ``"C"`` or ``"E"`` only if other frames are allowed.
        grid: the pixelization.
        checksum: SHA-256 of the file, hexadecimal.
    """

    values: np.ndarray
    names: tuple[str, ...]
    unit: str
    frame: str
    grid: HealpixGrid
    checksum: str


@dataclass(frozen=True, eq=False)
class _Table:
    """What the file holds, checked but not yet given a unit; ``values`` as in :class:`HealpixMaps`."""

    values: np.ndarray
    names: tuple[str, ...]
    units: tuple[str, ...]
    frame: str
    grid: HealpixGrid


@dataclass(frozen=True)
class UnsaidCards:
    """What the archive's documentation says where a file's header is silent; a card in the file always decides.

    ``order`` is RING or NESTED, ``frame`` a COORDSYS value; empty: not known, so a silent file is refused.
    """

    order: str = ""
    frame: str = ""


_SILENT = UnsaidCards()


def read_healpix(
    path: str | Path,
    fields: Sequence[int] = (),
    unit: str = "",
    allow_missing: bool = False,
    unsaid: UnsaidCards = _SILENT,
    any_frame: bool = False,
) -> HealpixMaps:
    """Read maps.

    Args:
        path: FITS file, may be gzipped.
        fields: columns to read, from 0; all (but the pixel numbers) when empty.
        unit: used when the file states none, must agree when it does.
        allow_missing: turn UNSEEN, non-finite and unlisted pixels into NaN rather than refuse them.
        unsaid: order and frame of files without such cards.
        any_frame: also take equatorial and ecliptic maps, as they are, rather than refuse them.
    Raises:
        UserError: the file is absent, not FITS, truncated or not Galactic; a column, the order or the unit is missing
            or contradictory; pixels are missing, listed twice or do not exist; every pixel is missing.
    """
    path = Path(path)
    table = _read_table(path, fields, allow_missing, unsaid, any_frame)
    units = {reconcile_units(stated, unit, path.name) for stated in table.units}
    if len(units) > 1:
        raise UserError(f"columns of {path.name} have different units ({', '.join(sorted(units))})", "choose `fields`")
    values = _mark_missing(table, path.name, allow_missing)
    return HealpixMaps(values, table.names, units.pop(), table.frame, table.grid, file_checksum(path))


def read_mask(path: str | Path, grid: HealpixGrid, field: int = 0) -> np.ndarray:
    """Read a mask, 1 = keep: ``(npix,)`` bool NEST; pixels above one half are kept.

    Raises:
        UserError: as :func:`read_healpix`; also another Nside than ``grid``, values outside 0..1, or nothing kept.
    """
    path = Path(path)
    table = _read_table(path, (field,))
    if table.grid != grid:
        raise UserError(
            f"mask {path.name} has Nside {table.grid.nside} but the maps have {grid.nside}",
            "give a mask at the Nside of the maps",
        )
    values = _mark_missing(table, path.name, allow_missing=False)[:, 0]
    if values.min() < 0 or values.max() > 1:
        raise UserError(
            f"mask {path.name} has values from {values.min():g} to {values.max():g}",
            "a mask holds 0 (drop) to 1 (keep)",
        )
    mask: np.ndarray = values > 0.5
    if not mask.any():
        raise UserError(f"mask {path.name} is empty", "it must keep some pixels (1 = keep)")
    return mask


def _read_table(
    path: Path,
    fields: Sequence[int],
    allow_missing: bool = False,
    unsaid: UnsaidCards = _SILENT,
    any_frame: bool = False,
) -> _Table:
    name = path.name
    with open_table(path) as hdu:
        header = hdu.header
        listed = _pixel_column(hdu, name)
        if not allow_missing:
            _refuse_partial(header, listed, len(hdu.data), name)
        frame = (sky_frame if any_frame else galactic_frame)(header, name, unsaid.frame)
        nested = is_nested(header, name, unsaid.order)
        columns = _columns(len(hdu.columns), fields, listed, name)
        values = np.stack([_native(hdu.data.field(i)) for i in columns], axis=-1)
        pixels = None if listed is None else np.array(hdu.data.field(listed), dtype=np.int64).reshape(-1)
        names = tuple(hdu.columns[i].name or f"field_{i}" for i in columns)
        units = tuple(hdu.columns[i].unit or "" for i in columns)
        convention = str(header.get("POLCCONV", "COSMO")).strip().upper()
    if pixels is not None:
        values = _spread(values, pixels, _listed_grid(header, pixels.size, name), name)
    grid = _grid(header, len(values), name)
    refuse_wrong_order(values[:, 0], nested, name)
    if convention == "IAU":
        values[:, [name.upper().split("_")[0] == "U" for name in names]] *= -1
    return _Table(values if nested else ring_to_nest(values), names, units, frame, grid)


def _pixel_column(hdu: fits.BinTableHDU, name: str) -> int | None:
    """Which column lists the pixels, None where pixels are implied by the rows."""
    scheme = str(hdu.header.get("INDXSCHM", "IMPLICIT")).strip().upper()
    first = (hdu.columns[0].name or "").upper()
    if first in _PIXEL_COLUMNS:
        return 0
    if scheme == "EXPLICIT":
        raise UserError(
            f"{name} holds an explicit list of pixels but no first column {' or '.join(_PIXEL_COLUMNS[:2])}",
            "write it as an implicit full-sky map (healpy.write_map)",
        )
    return None


def _refuse_partial(header: fits.Header, listed: int | None, rows: int, name: str) -> None:
    coverage = str(header.get("OBJECT", "FULLSKY")).strip().upper()
    # A list of every pixel is a full sky, whatever its cards say.
    full = coverage != "PARTIAL" if listed is None else rows == _listed_grid(header, rows, name).npix
    if not full:
        raise UserError(
            f"{name} holds an explicit list of pixels, not the whole sky",
            "allow missing pixels, or write it as an implicit full-sky map (healpy.write_map)",
        )


def _listed_grid(header: fits.Header, rows: int, name: str) -> HealpixGrid:
    if "NSIDE" in header:
        return HealpixGrid(int(header["NSIDE"]))
    try:
        return HealpixGrid.of_size(rows)
    except UserError:
        raise UserError(f"{name} lists {rows} pixels without NSIDE", "add the NSIDE card") from None


def _spread(values: np.ndarray, pixels: np.ndarray, grid: HealpixGrid, name: str) -> np.ndarray:
    """Full map ``(npix, nfield)`` from listed pixels, in the file's order, NaN elsewhere."""
    refuse_bad_pixels(pixels, grid, name)
    full = np.full((grid.npix, values.shape[1]), np.nan, dtype=values.dtype)
    full[pixels] = values
    return full


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


def _columns(available: int, fields: Sequence[int], listed: int | None, name: str) -> list[int]:
    absent = [i for i in fields if not 0 <= i < available]
    if absent:
        raise UserError(f"{name} has no field {absent[0]}", f"its fields are 0 to {available - 1}")
    if listed is not None and listed in fields:
        raise UserError(f"field {listed} of {name} holds pixel numbers", "choose another field")
    return list(fields) or [i for i in range(available) if i != listed]


def _native(column: np.ndarray) -> np.ndarray:
    """A column as a flat native float array; files pack 1 or 1024 pixels per row."""
    dtype = np.result_type(column.dtype.newbyteorder("="), np.float32)
    return np.asarray(column).astype(dtype, copy=False).reshape(-1)


def _grid(header: fits.Header, npix: int, name: str) -> HealpixGrid:
    try:
        grid = HealpixGrid.of_size(npix)
    except UserError as error:
        raise UserError(f"{name} holds {npix} pixels, not a full-sky HEALPix map", error.mend) from None
    stated = header.get("NSIDE", grid.nside)
    if stated != grid.nside:
        raise UserError(f"{name} says NSIDE={stated} but holds {npix} pixels (Nside {grid.nside})", "mend its header")
    return grid


def _mark_missing(table: _Table, name: str, allow_missing: bool) -> np.ndarray:
    missing = ~np.isfinite(table.values) | (np.abs(table.values - UNSEEN) < 1e-5 * abs(UNSEEN))
    if not missing.any():
        return table.values
    if missing.all():
        raise UserError(f"{name} has no data: every pixel is NaN, infinite or UNSEEN", "choose another file or field")
    if not allow_missing:
        bad = np.flatnonzero(missing.any(axis=1))
        raise UserError(
            f"{name} has {bad.size} pixels that are NaN, infinite or UNSEEN (first: NEST pixel {bad[0]})",
            "fill them or choose a map without gaps",
        )
    return np.where(missing, np.nan, table.values).astype(table.values.dtype)
