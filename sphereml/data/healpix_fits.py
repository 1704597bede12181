"""HEALPix maps from FITS binary tables: full-sky or a list of pixels.

Conventions: files may be RING or NESTED, arrays are NEST and pixel-major ``(npix, nfield)``.  Fields count all columns
of the file from 0, a column of pixel numbers included, as in the archives' documents; they may also be asked for by
name (:mod:`sphereml.data.column_names`).  A list of pixels (``INDXSCHM = EXPLICIT``, or a first column PIXEL or
HPXINDEX) becomes a full map, NaN outside the list.  Stokes U leaves with the COSMO sign: a file with ``POLCCONV = IAU``
has its U columns negated; one without the card is COSMO, HEALPix's own convention.  Whatever else a file leaves unsaid
(order, frame, unit) is asked for, never guessed, because a wrong guess gives a plausible map.  Checksums that a file
carries, and those of the manifests' products, are checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sphereml.data.column_names import ColumnReference, group_fields, parse_reference
from sphereml.data.file_checksums import file_checksum
from sphereml.data.healpix_tables import SILENT, UnsaidCards, list_columns, read_raw
from sphereml.data.stored_values import UNSEEN
from sphereml.data.units import reconcile_units
from sphereml.errors import UserError
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid

__all__ = ["UNSEEN", "HealpixMaps", "UnsaidCards", "file_checksum", "read_healpix", "read_mask", "read_weights"]

# Masks of other programs leave 0..1 by their arithmetic: NaMaster's by 1.7e-6 (float32 sums).
_ROUNDING, _LEAST_WEIGHT = 1e-4, 1e-10


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

    @property
    def fields(self) -> tuple[Field, ...]:
        """What the columns are: Q followed by its U is one field of spin 2."""
        return group_fields(self.names, self.unit)


def read_healpix(
    path: str | Path | ColumnReference,
    fields: Sequence[int] = (),
    unit: str = "",
    allow_missing: bool = False,
    unsaid: UnsaidCards = SILENT,
    any_frame: bool = False,
) -> HealpixMaps:
    """Read maps.

    Args:
        path: FITS file, may be compressed; ``FILE[NAME]`` and the like choose columns.
        fields: columns to read, from 0; those of the reference, or all (but the pixel numbers), when empty.
        unit: used when the file states none, must agree when it does.
        allow_missing: leave missing and unlisted pixels NaN rather than refuse them.
        unsaid: what the header does not say.
        any_frame: also take equatorial and ecliptic maps, as they are, rather than refuse them.
    Raises:
        UserError: the file is absent, not FITS, truncated, damaged or not Galactic; a column, the order or the unit is
            missing or contradictory; pixels are missing, listed twice or do not exist; every pixel is missing.
    """
    reference = path if isinstance(path, ColumnReference) else parse_reference(path)
    name = reference.path.name
    raw = read_raw(reference, fields, unsaid, any_frame, allow_missing)
    units = {reconcile_units(stated, unit, name) for stated in raw.units}
    if len(units) > 1:
        raise UserError(
            f"columns of {name} have different units ({', '.join(sorted(units))})", f"choose them, e.g. {name}[#0]"
        )
    if np.isnan(raw.values).all():
        raise UserError(f"{name} has no data: every pixel is NaN, infinite or UNSEEN", "choose another file or field")
    if not allow_missing:
        raw.refuse_missing(name)
    return HealpixMaps(raw.values, raw.names, units.pop(), raw.frame, raw.grid, file_checksum(reference.path))


def read_weights(
    path: str | Path | ColumnReference, grid: HealpixGrid | None = None, unsaid: UnsaidCards = SILENT
) -> np.ndarray:
    """Read a mask as weights: float64 ``(npix,)`` NEST, 0 (drop) to 1 (keep), apodized where the file is.

    Missing and unlisted pixels are dropped, rounding beyond 0 and 1 is clipped, and the column may have any unit.

    Args:
        path: file, or a reference to one of its columns; the first that holds values otherwise.
        grid: what the mask must have, None for any.
    Raises:
        UserError: as :func:`read_healpix`; also another Nside than ``grid``, values outside 0..1, or nothing kept.
    """
    return read_sky_weights(path, grid, unsaid).values


def read_mask(
    path: str | Path | ColumnReference, grid: HealpixGrid, field: int | None = None, threshold: float = 0.5
) -> np.ndarray:
    """Read a mask as 0 and 1, bool ``(npix,)`` NEST: pixels whose weight is above ``threshold`` are kept.

    Raises:
        UserError: as :func:`read_weights`, with nothing above the threshold too.
    """
    reference = path if isinstance(path, ColumnReference) else parse_reference(path)
    if field is not None:
        reference = replace(reference, columns=(f"#{field}",))
    mask: np.ndarray = read_weights(reference, grid) > threshold
    if not mask.any():
        raise UserError(f"no weight of mask {reference.path.name} is above {threshold:g}", "lower the threshold")
    return mask


@dataclass(frozen=True, eq=False)
class SkyWeights:
    """A mask: ``values`` float64 ``(npix,)`` NEST in 0..1, in its own ``frame`` (G, C or E)."""

    values: np.ndarray
    frame: str


def read_sky_weights(
    path: str | Path | ColumnReference,
    grid: HealpixGrid | None = None,
    unsaid: UnsaidCards = SILENT,
    any_frame: bool = False,
) -> SkyWeights:
    """A mask as :func:`read_weights` reads it, in any frame if ``any_frame``; raises UserError as that does."""
    reference = path if isinstance(path, ColumnReference) else parse_reference(path)
    name = reference.path.name
    if not reference.columns:
        first = min(list_columns(reference), default=0)
        reference = replace(reference, columns=(f"#{first}",))
    raw = read_raw(reference, (), unsaid, any_frame)
    if raw.values.shape[1] != 1:
        raise UserError(f"{name} is asked for {raw.values.shape[1]} columns", "a mask is one column")
    if grid is not None and raw.grid != grid:
        raise UserError(
            f"mask {name} has Nside {raw.grid.nside} but the maps have {grid.nside}",
            "give a mask at the Nside of the maps",
        )
    weights = np.nan_to_num(raw.values[:, 0].astype(np.float64), nan=0.0)
    if weights.min() < -_ROUNDING or weights.max() > 1 + _ROUNDING:
        raise UserError(
            f"mask {name} has values from {weights.min():g} to {weights.max():g}", "a mask holds 0 (drop) to 1 (keep)"
        )
    weights = weights.clip(0, 1)
    # Beside ones, weights of the size of rounding are zeros.
    weights[weights < _LEAST_WEIGHT] = 0
    if not weights.any():
        raise UserError(f"mask {name} is empty", "it must keep some pixels (1 = keep)")
    return SkyWeights(weights, raw.frame)
