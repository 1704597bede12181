"""Full-sky templates as FITS files: one map a column, with what is needed to trust and repeat them.

Conventions
-----------
* In memory maps are NEST, Q/U in COSMO sign, missing pixels NaN; in the file they are RING, Galactic (``COORDSYS=G``)
  unless a SkyMap says another frame, float32, missing pixels ``UNSEEN`` (-1.6375e30), ``POLCCONV=COSMO`` where Q and U
  are present.
* A file has one unit, stated by every column (``TUNITn``).  Who made the file stands in the
  cards ``RUNID``, ``WEIGHTS`` (hash) and ``MODEL``.
* Equal input gives equal bytes: no dates are written, ``DATASUM`` and ``CHECKSUM`` are present and checked on reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from sphereml.data.column_names import stokes
from sphereml.data.fits_checksums import serialize
from sphereml.data.healpix_fits import UNSEEN
from sphereml.data.units import parse_unit
from sphereml.data.whole_files import write_atomically
from sphereml.errors import UserError
from sphereml.harmonics.filters import FRAMES
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.maps import SkyMap
from sphereml.sky.ordering import nest_to_ring

CARDS = {
    "run_id": ("RUNID", "run that made these maps"),
    "weights_hash": ("WEIGHTS", ""),  # a SHA-256 leaves no room for a comment in the card
    "model": ("MODEL", "model that made these maps"),
    "code_version": ("CODEVER", "version of sphereml"),
    "fitted": ("FITTED", "in-sample, cross-fitted or other sky"),
    "trained": ("TRAINED", "share of this sky whose target trained"),
    "chosen": ("CHOSEN", "share whose target chose the epoch"),
    "held_out": ("HELDOUT", "share kept apart to test"),
    "folds": ("FOLDS", "regions predicted by runs that never saw them"),
    "buffer": ("BUFFER", "deg from a region to its nearest training pixel"),
    "join": ("JOIN", "deg over which regions pass into each other"),
    "recfield": ("RECFIELD", "deg, receptive field of the network"),
    "seeds": ("SEEDS", "runs averaged in every region"),
}


def write_template(
    path: Path | str,
    maps: Mapping[str, np.ndarray],
    unit: str,
    header: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    lone_stokes: bool = False,
) -> Path:
    """Write full-sky maps as columns of one FITS table that ``healpy.read_map`` reads.

    Args:
        path: file to write; its folder is made when absent.
        maps: column name -> ``(npix,)`` NEST map; names say which are Stokes Q and U (``data.column_names``).
        unit: unit of all columns, one of ``sphereml.data.units.KNOWN_UNITS`` in any accepted spelling.
        header: provenance; the names in ``CARDS`` become those cards, others are written under their own name.
        overwrite: replace an existing file.
        lone_stokes: Q may come without U; else that is taken for a mistake.
    Returns:
        The path written.
    Raises:
        UserError: the file exists, its folder cannot be written, the unit is missing or unknown, Q comes without U.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists", "choose another name or allow overwriting")
    if not unit.strip():
        raise UserError("the maps have no unit", "state it, e.g. uK_RJ")
    table = map_table(maps, unit, lone_stokes)
    _add_cards(table, header or {})
    return write_atomically(path, serialize(table))


def write_sky_map(
    path: Path | str, maps: SkyMap, *, overwrite: bool = False, tables: Sequence[fits.BinTableHDU] = ()
) -> Path:
    """Write maps with the names, units, spins and frame of their fields; see :func:`write_template`.

    Args:
        tables: further ones of the same file, behind the maps.

    Raises:
        UserError: as :func:`write_template`, or the fields have different units.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists", "choose another name or allow overwriting")
    return write_atomically(path, serialize_sky_map(maps, tables))


def serialize_sky_map(maps: SkyMap, tables: Sequence[fits.BinTableHDU] = ()) -> bytes:
    """The bytes of the file that :func:`write_sky_map` writes."""
    nested = maps.nested()
    if not nested.unit.strip():
        raise UserError("the maps have no unit", "state it, e.g. uK_RJ")
    columns = dict(zip(nested.column_names, nested.values.T, strict=True))
    table = map_table(columns, nested.unit, frame=nested.frame)
    _add_cards(table, nested.header)
    return serialize(table, *tables)


def refuse_standing(paths: Iterable[Path], overwrite: bool) -> None:
    """Raise UserError when one of these files stands already and may not be replaced."""
    standing = next((path for path in paths if path.exists()), None)
    if standing and not overwrite:
        raise UserError(f"{standing} exists", "add --overwrite, or choose another folder with --out")


def write_mask(path: Path | str, mask: np.ndarray, *, overwrite: bool = False) -> Path:
    """Write a mask ``(npix,)`` NEST, 1 = keep, as a FITS file that ``healpy.read_map`` and ``data.read_mask`` read.

    Raises:
        UserError: the file exists, or its folder cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists", "choose another name or allow overwriting")
    return write_atomically(path, serialize(map_table({"MASK": mask.astype(np.float32)}, "")))


def map_table(
    maps: Mapping[str, np.ndarray], unit: str, lone_stokes: bool = False, *, frame: str = "G", name: str = "TEMPLATE"
) -> fits.BinTableHDU:
    """A table of HEALPix maps ``(npix,)`` NEST, in a file RING, with the cards that readers need."""
    sizes = {name: np.shape(values) for name, values in maps.items()}
    if len(set(sizes.values())) != 1 or len(next(iter(sizes.values()))) != 1:
        raise UserError(f"the maps of one template file have shapes {sizes}", "give full-sky maps of one Nside")
    grid = HealpixGrid.of_size(next(iter(sizes.values()))[0])
    stated = parse_unit(unit) if unit else ""
    columns = [fits.Column(n, "E", unit=stated or None, array=_column_values(n, values)) for n, values in maps.items()]
    table = fits.BinTableHDU.from_columns(columns, name=name)
    table.header.update(_sky_cards(grid, frame))
    found = {stokes(name) for name in maps} - {None}
    if len(found) == 1 and not lone_stokes:
        raise UserError(f"Stokes {found.pop()} comes alone", "write Q and U together: their frame is one")
    if found:
        table.header["POLCCONV"] = ("COSMO", "sign of U: COSMO (healpy) or IAU")
    return table


def curve_table(name: str, columns: Mapping[str, np.ndarray]) -> fits.BinTableHDU:
    """A table of curves ``(n,)``, integers as such, everything else in double precision."""
    codes = {key: "J" if np.issubdtype(values.dtype, np.integer) else "D" for key, values in columns.items()}
    listed = [fits.Column(key, codes[key], array=values) for key, values in columns.items()]
    return fits.BinTableHDU.from_columns(listed, name=name)


def _sky_cards(grid: HealpixGrid, frame: str) -> dict[str, tuple[Any, str]]:
    return {
        "PIXTYPE": ("HEALPIX", "HEALPix pixelization"),
        "ORDERING": ("RING", "pixel order"),
        "COORDSYS": (frame, f"{FRAMES[frame]} coordinates"),
        "NSIDE": (grid.nside, "resolution parameter"),
        "FIRSTPIX": (0, "first pixel"),
        "LASTPIX": (grid.npix - 1, "last pixel"),
        "INDXSCHM": ("IMPLICIT", "pixels are all present, in order"),
        "OBJECT": ("FULLSKY", "sky coverage"),
        "BAD_DATA": (UNSEEN, "value of missing pixels"),
    }


def _column_values(name: str, values: np.ndarray) -> np.ndarray:
    if np.isinf(values).any():
        raise ValueError(f"map {name} has infinite values")
    ring = nest_to_ring(np.asarray(values))
    return np.where(np.isnan(ring), UNSEEN, ring).astype(np.float32)


def _card_name(key: str) -> str:
    # FITS keywords longer than eight characters need the HIERARCH convention, said explicitly to avoid a warning.
    return key.upper() if len(key) <= 8 else f"HIERARCH {key.upper()}"


def _add_cards(table: fits.BinTableHDU, header: Mapping[str, Any]) -> None:
    for key, value in header.items():
        card, comment = CARDS.get(key, (_card_name(key), ""))
        table.header[card] = (value, comment)
