"""Square flat patches as FITS images, planes (Q and U) or one scalar, with the sign and the unit that they state.

Conventions: values are float64 ``(plane, n, n)`` with columns that grow east and rows that grow north, as in
:mod:`sphereml.harmonics.flat_polarization`; a file whose ``CDELT1`` is below zero (east to the left, as astronomers
draw) is turned over.  Q and U refer to the patch's own north and leave with the COSMO sign; ``POLCCONV = IAU`` turns U.
The side of a pixel is ``CDELT2`` in degrees.  Files hold float32 images, one an HDU, planes first.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from sphereml.config.bounds import refuse_beyond_memory
from sphereml.data.fits_cards import is_iau, number_card
from sphereml.data.fits_checksums import refuse_stale
from sphereml.data.fits_files import Unit, open_fits
from sphereml.data.unit_conversion import conversion_factor
from sphereml.data.units import reconcile_units
from sphereml.data.whole_files import write_atomically
from sphereml.errors import UserError
from sphereml.sky.plane import SquareGrid


@dataclass(frozen=True, eq=False)
class PatchImage:
    """Planes ``(plane, n, n)`` float64 on a square grid."""

    values: np.ndarray
    grid: SquareGrid


def holds_patch(path: Path | str) -> bool:
    """Whether the first data of a FITS file are an image, not a table."""
    with open_fits(Path(path)) as file:
        return next((not unit.is_table for unit in file.units() if unit.size), False)


def read_patch(
    path: Path | str, planes: int, unit: str, name: str = "", checksum: bool = True, silent: str = ""
) -> PatchImage:
    """The first image of a file, in ``unit``, or the one of this name.

    Args:
        planes: how many it must have; an image without a third axis has one.
        unit: of the result; a file that states none, or ``"1"``, is taken to be in it, or in ``silent``.
        checksum: refuse a file that is not what its checksum cards say.
        silent: unit of a file that states none, empty for ``unit``; another one than a file states is refused.

    Raises:
        UserError: no such image, one that is not square, has no pixel size, has missing pixels, or units that disagree.
    """
    with open_fits(Path(path)) as file:
        found = next((one for one in file.units() if one.is_image and one.size and _is_called(one, name)), None)
        if found is None:
            raise UserError(f"{path} holds no image {name}".rstrip(), "give a FITS image of a square patch")
        if checksum:
            refuse_stale(found)
        values = _planes(found, planes)
        header = found.header
    stated = str(header.get("BUNIT", "")).strip()
    stated = "" if stated == "1" else stated
    if stated or silent:
        values *= conversion_factor(reconcile_units(stated, silent, str(path)), unit)
    if not np.isfinite(values).all():
        raise UserError(f"{path} has missing pixels", "cut a patch that is whole")
    side = number_card(header, "CDELT2")
    if not side or not math.isfinite(side):
        raise UserError(f"{path} has no CDELT2, the side of a pixel in degrees", "set it")
    if (number_card(header, "CDELT1") or abs(side)) < 0:
        values = values[..., ::-1]
    if side < 0:
        values = values[:, ::-1]
    if planes == 2 and is_iau(header):
        values[1] *= -1
    return PatchImage(np.ascontiguousarray(values), SquareGrid(values.shape[-1], 60 * abs(side)))


def write_patch(
    path: Path | str,
    images: Mapping[str, np.ndarray],
    grid: SquareGrid,
    units: Mapping[str, str],
    header: Mapping[str, Any],
    tables: Sequence[fits.BinTableHDU] = (),
) -> Path:
    """Write images ``(n, n)`` or ``(plane, n, n)``, one an HDU under its name, and tables behind them."""
    hdus = fits.HDUList()
    for name, values in images.items():
        kind = fits.ImageHDU if len(hdus) else fits.PrimaryHDU
        hdu = kind(values.astype(">f4"))
        side = grid.pixel_arcmin / 60
        cards = {"EXTNAME": name, "BUNIT": units[name], "CDELT1": side, "CDELT2": side}
        if values.ndim == 3:
            cards["POLCCONV"] = "COSMO"
        hdu.header.update(cards | dict(header))
        hdus.append(hdu)
    hdus.extend(tables)
    stream = io.BytesIO()
    for hdu in hdus:
        hdu.add_checksum(when="of the HDU")
    hdus.writeto(stream)
    return write_atomically(Path(path), stream.getvalue())


def _is_called(unit: Unit, name: str) -> bool:
    return not name or str(unit.header.get("EXTNAME", "")).strip().upper() == name.upper()


def _planes(unit: Unit, planes: int) -> np.ndarray:
    """The data as float64 ``(planes, n, n)``."""
    header, name = unit.header, unit.file.name
    shape = [int(header[f"NAXIS{axis}"]) for axis in range(int(header["NAXIS"]), 0, -1)]
    kept = shape if len(shape) > 2 else [1, *shape]
    if kept[0] != planes or len(kept) != 3 or kept[1] != kept[2]:
        spelt = " x ".join(map(str, shape[::-1]))
        raise UserError(f"{name} is an image of {spelt} pixels", f"give {planes} plane(s) of a square patch")
    refuse_beyond_memory(8 * math.prod(shape), name)
    kinds = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
    raw = unit.data()[: unit.size].view(kinds[int(header["BITPIX"])]).reshape(kept)
    scaled = raw.astype(np.float64) * float(header.get("BSCALE", 1)) + float(header.get("BZERO", 0))
    return np.asarray(scaled)
