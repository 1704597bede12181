"""The checksums that a FITS file carries: DATASUM and CHECKSUM of each unit (FITS standard 4.0, section 4.4.2.7).

A sum is the ones' complement sum of big-endian 32-bit words.  CHECKSUM makes that of the whole unit, header included,
all ones; DATASUM is that of the data alone, written in decimal.
"""

from __future__ import annotations

import io

import numpy as np
from astropy.io import fits

from sphereml.data.fits_files import Unit
from sphereml.errors import UserError

_ONES = 0xFFFFFFFF


def refuse_stale(unit: Unit) -> None:
    """Raise UserError when a checksum that the unit carries is not that of its bytes."""
    stated = {key: str(unit.header.get(key, "")).strip() for key in ("CHECKSUM", "DATASUM")}
    if not any(stated.values()):
        return
    whole, data = _sums(unit)
    damaged = stated["DATASUM"] and stated["DATASUM"] != str(data)
    # A unit of zeros has sum 0, which in ones' complement is also written as all ones.
    if damaged or (stated["CHECKSUM"].strip("0") and whole not in (0, _ONES)):
        name = unit.file.name
        what = "its data are damaged or were edited" if damaged else "its header is damaged or was edited"
        raise UserError(
            f"{name} is not what its {'DATASUM' if damaged else 'CHECKSUM'} card says ({what})",
            f"fetch it again; if you edited it, renew the card with `fitscheck --write {name}` (astropy) or give "
            "--no-checksum",
        )


def serialize(*tables: fits.BinTableHDU) -> bytes:
    """A FITS file of these tables, whose units carry both sums and no date."""
    stream = io.BytesIO()
    hdus = fits.HDUList([fits.PrimaryHDU(), *tables])
    for hdu in hdus:
        hdu.add_checksum(when="of the HDU")  # astropy's default comment is the time of writing
    hdus.writeto(stream)
    return stream.getvalue()


def _sums(unit: Unit) -> tuple[int, int]:
    """Sums of the whole unit and of its data."""
    before = unit.start - unit.header_start
    whole = data = place = 0
    for piece in unit.raw_bytes():
        whole = _add(whole, piece)
        # Pieces and headers are whole numbers of words.
        data = _add(data, piece[max(0, before - place) :])
        place += len(piece)
    return whole, data


def _add(total: int, piece: bytes) -> int:
    words = np.frombuffer(piece + bytes(-len(piece) % 4), dtype=">u4")
    total += int(words.sum(dtype=np.uint64))
    while total > _ONES:
        total = (total & _ONES) + (total >> 32)
    return total
