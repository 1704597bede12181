"""HEALPix maps and masks from FITS binary tables: implicit, full-sky, Galactic.

Conventions: files may be RING or NESTED, arrays are NEST and pixel-major ``(npix, nfield)``.  Fields count from 0, as
in ``healpy.read_map``.  Stokes U leaves with the COSMO sign: a file with ``POLCCONV = IAU`` has its U columns negated;
one without the card is COSMO, HEALPix's own convention.  Whatever else a file leaves unsaid (order, frame, unit) is
asked for, never guessed, because a wrong guess gives a plausible map.
"""

from __future__ import annotations

import hashlib
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from sphereml.data.pixel_order import refuse_wrong_order
from sphereml.data.units import reconcile_units
from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.ordering import ring_to_nest

UNSEEN = -1.6375e30
_FRAMES = {"G": "G", "C": "C", "E": "E", "Q": "C"}
_FRAME_NAMES = {"C": "equatorial", "E": "ecliptic"}


@dataclass(frozen=True, eq=False)
class HealpixMaps:
    """Columns of one file.

    Args:
        values: ``(npix, nfield)`` float32 or float64, NEST, in ``unit``; NaN where missing (only if allowed).
        names: column names (TTYPE), or ``field_<i>`` where the file gives none.
        unit: one of ``units.KNOWN_UNITS``.
        frame: ``"G"``, Galactic.
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


def read_healpix(
    path: str | Path, fields: Sequence[int] = (), unit: str = "", allow_missing: bool = False
) -> HealpixMaps:
    """Read full-sky maps.

    Args:
        path: FITS file, may be gzipped.
        fields: columns to read, from 0; all when empty.
        unit: used when the file states none, must agree when it does.
        allow_missing: turn UNSEEN and non-finite pixels into NaN rather than refuse them.
    Raises:
        UserError: the file is absent, not FITS, truncated, partial or not Galactic; a column, the order or the unit is
            missing or contradictory; pixels are missing.
    """
    path = Path(path)
    table = _read_table(path, fields)
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


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; raises UserError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


def _read_table(path: Path, fields: Sequence[int]) -> _Table:
    with _open_table(path) as hdu:
        header = hdu.header
        _refuse_partial(header, hdu.columns.names, path.name)
        frame, nested = _frame(header, path.name), _is_nested(header, path.name)
        columns = _columns(len(hdu.columns), fields, path.name)
        values = np.stack([_native(hdu.data.field(i)) for i in columns], axis=-1)
        names = tuple(hdu.columns[i].name or f"field_{i}" for i in columns)
        units = tuple(hdu.columns[i].unit or "" for i in columns)
        convention = str(header.get("POLCCONV", "COSMO")).strip().upper()
    grid = _grid(header, len(values), path.name)
    refuse_wrong_order(values[:, 0], nested, path.name)
    if convention == "IAU":
        values[:, [name.upper().split("_")[0] == "U" for name in names]] *= -1
    return _Table(values if nested else ring_to_nest(values), names, units, frame, grid)


@contextmanager
def _open_table(path: Path) -> Iterator[fits.BinTableHDU]:
    """First binary table of a file, columns read lazily; every way a file can be broken becomes a UserError."""
    try:
        # astropy warns about a truncated file and goes on; we look at the lengths ourselves.
        with (
            warnings.catch_warnings(action="ignore", category=AstropyWarning),
            fits.open(path, memmap=True) as hdus,
        ):
            tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)]
            if not tables:
                raise UserError(f"{path.name} has no binary table", "give a complete HEALPix FITS file")
            _refuse_truncated(path, tables[0])
            yield tables[0]
    except (OSError, EOFError, zlib.error, ValueError, TypeError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"no file {path}", "check the file name and the data folder")
    if isinstance(error, IsADirectoryError | PermissionError):
        return UserError(f"cannot read {path} ({error.strerror})", "give a readable FITS file")
    return UserError(f"{path.name} is not a readable FITS file ({error})", "fetch it again")


def _refuse_truncated(path: Path, hdu: fits.BinTableHDU) -> None:
    info = hdu.fileinfo()
    # A gzipped file has no simple length; reading it to the end fails by itself when it is cut.
    if path.suffix not in (".gz", ".bz2") and path.stat().st_size < info["datLoc"] + hdu.size:
        raise UserError(
            f"{path.name} is truncated ({path.stat().st_size} of {info['datLoc'] + hdu.size} bytes)", "fetch it again"
        )


def _refuse_partial(header: fits.Header, names: Sequence[str], name: str) -> None:
    scheme = str(header.get("INDXSCHM", "IMPLICIT")).strip().upper()
    coverage = str(header.get("OBJECT", "FULLSKY")).strip().upper()
    if scheme == "EXPLICIT" or coverage == "PARTIAL" or (names and names[0].upper() in ("PIXEL", "HPXINDEX")):
        raise UserError(
            f"{name} holds an explicit list of pixels", "write it as an implicit full-sky map (healpy.write_map)"
        )


def _frame(header: fits.Header, name: str) -> str:
    stated = str(header.get("COORDSYS", "")).strip().upper()
    frame = _FRAMES.get("C" if stated.startswith("EQ") else stated[:1])
    if frame is None:
        raise UserError(f"{name} does not say its frame (COORDSYS={stated!r})", "set COORDSYS to 'G' if it is Galactic")
    if frame != "G":
        raise UserError(
            f"{name} is in the {_FRAME_NAMES[frame]} frame (COORDSYS={stated!r})",
            f"rotate it to Galactic, healpy.Rotator(coord=['{frame}', 'G']).rotate_map_alms, and write it again",
        )
    return frame


def _is_nested(header: fits.Header, name: str) -> bool:
    stated = str(header.get("ORDERING", "")).strip().upper()
    if stated not in ("RING", "NEST", "NESTED"):
        raise UserError(f"{name} has no valid ORDERING card ({stated!r})", "set it to 'RING' or 'NESTED'")
    return stated != "RING"


def _columns(available: int, fields: Sequence[int], name: str) -> list[int]:
    absent = [i for i in fields if not 0 <= i < available]
    if absent:
        raise UserError(f"{name} has no field {absent[0]}", f"its fields are 0 to {available - 1}")
    return list(fields) or list(range(available))


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
    if not allow_missing:
        bad = np.flatnonzero(missing.any(axis=1))
        raise UserError(
            f"{name} has {bad.size} pixels that are NaN, infinite or UNSEEN (first: NEST pixel {bad[0]})",
            "fill them or choose a map without gaps",
        )
    return np.where(missing, np.nan, table.values).astype(table.values.dtype)
