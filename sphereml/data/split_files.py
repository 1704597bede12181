"""Regions of one sky and the HEALPix maps of 0 to 3 that they are kept in.

Conventions: regions are bool ``(npix,)`` NEST, Galactic.  A split map holds 0 (not used), 1 (training), 2 (validation)
and 3 (test), so no pixel has two parts.  Our own files name their column ``PART`` and carry the cards ``SPLIT`` (name)
and ``MARGIN`` (degrees), and a second column ``WEIGHT`` where a mask keeps pixels in part; a map of anybody's may leave
all of that out.  Missing and unlisted pixels are not used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits

from sphereml.data.column_names import ColumnReference, parse_reference
from sphereml.data.fits_cards import number_card
from sphereml.data.fits_checksums import serialize
from sphereml.data.fits_files import open_fits
from sphereml.data.healpix_tables import list_columns, read_raw
from sphereml.data.whole_files import write_atomically
from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import regrade, to_galactic

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Disjoint regions of a sky, each bool ``(npix,)`` NEST.

    Args:
        margin: centres of patches and tiles keep this distance from the equator, degrees; 0 where the regions are not
            parted by it.
        weight: float32 ``(npix,)`` of a mask that keeps pixels in part, above 0 in every region; None: all count one.
    """

    name: str
    grid: HealpixGrid
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    margin: float
    weight: np.ndarray | None = None

    @property
    def parts(self) -> np.ndarray:
        """uint8 ``(npix,)``: 1 trains, 2 validates, 3 tests, 0 is not used."""
        return np.asarray(sum(np.uint8(i) * getattr(self, name) for i, name in enumerate(PARTS, start=1)))

    def weigh(self, region: np.ndarray) -> np.ndarray:
        """What each pixel of a region counts, float32 ``(npix,)``, 0 outside."""
        return region.astype(np.float32) if self.weight is None else np.where(region, self.weight, np.float32(0))


def write_split(path: Path, split: Split) -> Path:
    """Write the parts as a HEALPix FITS map that ``healpy.read_map`` reads; it appears whole or not at all."""
    columns = [fits.Column(name="PART", format="B", unit="1", array=split.parts)]
    if split.weight is not None:
        columns.append(fits.Column(name="WEIGHT", format="E", unit="1", array=split.weight))
    table = fits.BinTableHDU.from_columns(columns)
    table.header.update(
        {"PIXTYPE": "HEALPIX", "ORDERING": "NESTED", "COORDSYS": "G", "INDXSCHM": "IMPLICIT"}
        | {"NSIDE": split.grid.nside, "FIRSTPIX": 0, "LASTPIX": split.grid.npix - 1}
        | {"SPLIT": split.name, "MARGIN": split.margin}
    )
    table.header["COMMENT"] = "PART: 0 not used, 1 training, 2 validation, 3 test"
    return write_atomically(path, serialize(table))


def read_split(file: Path | str | ColumnReference) -> Split:
    """A map of 0 to 3 as a split: one that :func:`write_split` wrote, or any other, in any frame.

    Raises:
        UserError: the file cannot be read as a map, or holds other values.
    """
    reference = file if isinstance(file, ColumnReference) else parse_reference(file)
    held = list_columns(reference)
    first = min(held, default=0)
    raw = read_raw(reference if reference.columns else replace(reference, columns=(f"#{first}",)), (), any_frame=True)
    parts = np.nan_to_num(raw.values[:, 0], nan=0)
    if raw.values.shape[1] != 1 or not np.isin(parts, range(4)).all() or not parts.any():
        what = f"{reference.path.name} holds no split"
        raise UserError(what, "give one column of 0 (not used), 1 (training), 2 (validation) and 3 (test)")
    parts = to_galactic(parts, raw.frame)
    cards = _cards(reference)
    name = str(cards.get("SPLIT", "")).strip() or re.sub(r"[^\w.+-]+", "_", reference.path.name.split(".")[0])
    ours = "SPLIT" in cards and held.get(1) == "WEIGHT" and not reference.columns
    weight = read_raw(replace(reference, columns=("#1",)), ()).values[:, 0].astype(np.float32) if ours else None
    train, validation, test = (parts == i for i in (1, 2, 3))
    return Split(name, raw.grid, train, validation, test, number_card(cards, "MARGIN") or 0.0, weight)


def _cards(reference: ColumnReference) -> fits.Header:
    with open_fits(reference.path) as file:
        return file.table(reference.unit).header


def regrade_split(split: Split, grid: HealpixGrid) -> Split:
    """A split at another Nside: of coarser pixels those alone whose children all have one part are used."""
    if split.grid == grid:
        return split
    parts = {name: regrade(getattr(split, name).astype(np.float32), grid) == 1 for name in PARTS}
    weight = None if split.weight is None else regrade(split.weight, grid).astype(np.float32)
    return replace(split, grid=grid, weight=weight, **parts)
