"""Opening FITS files and reading the cards that decide what their numbers mean.

Every way in which a file can be broken becomes a one-line :class:`~sphereml.errors.UserError`.  A card that is absent
is never guessed: the caller may bring what the archive's documentation says, and is asked for it otherwise.
"""

from __future__ import annotations

import hashlib
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from sphereml.errors import UserError

_FRAMES = {"G": "G", "C": "C", "E": "E", "Q": "C"}
_FRAME_NAMES = {"C": "equatorial", "E": "ecliptic"}
_COMPRESSED = (".gz", ".bz2")


@dataclass(frozen=True)
class Scaling:
    """From stored numbers to physical ones: ``zero + scale * stored``, with ``blank`` (integers only) for no data.

    FITS standard 4.0, sections 4.4.2 (BSCALE, BZERO, BLANK) and 7.3.2 (TSCAL, TZERO, TNULL).
    """

    scale: float = 1.0
    zero: float = 0.0
    blank: int | None = None

    def apply(self, stored: np.ndarray) -> np.ndarray:
        """Physical values, native float32 (no copy where nothing changes), NaN for blank and infinite ones."""
        values = stored.astype(np.float32, copy=False)
        if (self.scale, self.zero) != (1.0, 0.0):
            values = (self.zero + self.scale * stored.astype(np.float64)).astype(np.float32)
        missing = ~np.isfinite(values)
        if self.blank is not None and stored.dtype.kind in "iu":
            missing |= stored == self.blank
        return np.where(missing, np.float32(np.nan), values) if missing.any() else values


@contextmanager
def open_fits(path: Path) -> Iterator[fits.HDUList]:
    """A FITS file, data read lazily; every way a file can be broken becomes a UserError."""
    try:
        # astropy warns about a truncated file and goes on; `refuse_truncated` looks at the lengths itself.
        with (
            warnings.catch_warnings(action="ignore", category=AstropyWarning),
            fits.open(path, memmap=True) as hdus,
        ):
            yield hdus
    except (OSError, EOFError, zlib.error, ValueError, TypeError) as error:
        raise _unreadable(path, error) from None


@contextmanager
def open_table(path: Path) -> Iterator[fits.BinTableHDU]:
    """First binary table of a file, columns read lazily; raises UserError as :func:`open_fits`, or without a table."""
    with open_fits(path) as hdus:
        yield first_table(hdus, path)


def first_table(hdus: fits.HDUList, path: Path) -> fits.BinTableHDU:
    """First binary table of an open file; raises UserError when there is none or the file ends within it."""
    tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)]
    if not tables:
        raise UserError(f"{path.name} has no binary table", "give a complete HEALPix FITS file")
    refuse_truncated(path, tables[0])
    return tables[0]


def refuse_truncated(path: Path, hdu: fits.BinTableHDU | fits.ImageHDU | fits.PrimaryHDU) -> None:
    """Raise UserError when the file ends before the data of ``hdu`` do."""
    info = hdu.fileinfo()
    needed = info["datLoc"] + hdu.size
    # A gzipped file has no simple length; reading it to the end fails by itself when it is cut.
    if path.suffix not in _COMPRESSED and path.stat().st_size < needed:
        raise UserError(f"{path.name} is truncated ({path.stat().st_size} of {needed} bytes)", "fetch it again")


def refuse_compressed(path: Path) -> None:
    """Raise UserError for a file that cannot be read at any offset without being unpacked."""
    if path.suffix in _COMPRESSED:
        raise UserError(f"{path.name} is compressed and cannot be read channel by channel", "unpack it first (gunzip)")


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; raises UserError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


def sky_frame(header: Mapping[str, Any], name: str, otherwise: str = "") -> str:
    """``"G"``, ``"C"`` or ``"E"``, from the COORDSYS card, or from ``otherwise`` where there is none.

    Raises:
        UserError: neither says the frame.
    """
    stated = str(header.get("COORDSYS", "")).strip().upper() or otherwise.upper()
    frame = _FRAMES.get("C" if stated.startswith("EQ") else stated[:1])
    if frame is None:
        raise UserError(f"{name} does not say its frame (COORDSYS={stated!r})", "set COORDSYS to 'G' if it is Galactic")
    return frame


def galactic_frame(header: Mapping[str, Any], name: str, otherwise: str = "") -> str:
    """``"G"``, as :func:`sky_frame`; raises UserError for every other frame."""
    frame = sky_frame(header, name, otherwise)
    if frame != "G":
        raise UserError(
            f"{name} is in the {_FRAME_NAMES[frame]} frame (COORDSYS={header.get('COORDSYS', otherwise)!r})",
            f"rotate it to Galactic, healpy.Rotator(coord=['{frame}', 'G']).rotate_map_alms, and write it again",
        )
    return frame


def is_nested(header: Mapping[str, Any], name: str, otherwise: str = "") -> bool:
    """The order of pixels, from the ORDERING card, or from ``otherwise`` (RING or NESTED) where there is none.

    Raises:
        UserError: neither says the order.
    """
    stated = str(header.get("ORDERING", "")).strip().upper() or otherwise.upper()
    if stated not in ("RING", "NEST", "NESTED"):
        raise UserError(
            f"{name} has no valid ORDERING card ({stated!r})", "set it, or the reader's `order`, to 'RING' or 'NESTED'"
        )
    return stated != "RING"


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"no file {path}", "check the file name and the data folder")
    if isinstance(error, IsADirectoryError | PermissionError):
        return UserError(f"cannot read {path} ({error.strerror})", "give a readable FITS file")
    return UserError(f"{path.name} is not a readable FITS file ({error})", "fetch it again")
