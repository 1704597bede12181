"""The header and data units of a FITS file, found by reading headers alone, within bounds.

Layout (FITS standard 4.0): units of 2880-byte blocks, a header of 80-byte cards up to END, then the data, whose length
the header states.  Nothing is allocated, and nothing is skipped over, before what a header claims has been held against
the length of the file and the memory of the machine.  Every way in which a file can be broken becomes a one-line
:class:`~sphereml.errors.UserError`.  Whether a file is compressed is told by its first bytes, whatever its name.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import stat
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyError
from astropy.utils.exceptions import AstropyWarning

from sphereml.config.bounds import refuse_beyond_memory
from sphereml.data.fits_cards import integer_card
from sphereml.errors import UserError

BLOCK = 2880
# Longer headers and longer lists of units than any archive's are taken for damage, or for malice.
_MOST_BLOCKS, _MOST_UNITS = 2000, 1000
_CHUNK = 2**24
_OPENERS: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_UNREAD_PACKINGS = {b"PK\x03\x04": "unzip", b"\x1f\x9d": "uncompress", b"\x28\xb5\x2f\xfd": "unzstd"}
_FAULTS = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, TypeError, KeyError, OverflowError, VerifyError)


@dataclass(frozen=True, eq=False)
class Unit:
    """One header and its data.

    Args:
        number: from 0, the primary one.
        header: its cards.
        header_start, start: bytes from the file's (unpacked) start to the header and to the data.
        size: bytes of data that the header states, without padding.
    """

    file: FitsFile
    number: int
    header: fits.Header
    header_start: int
    start: int
    size: int

    @property
    def is_table(self) -> bool:
        return str(self.header.get("XTENSION", "")).strip() == "BINTABLE" and not self.is_packed

    @property
    def is_packed(self) -> bool:
        """Whether the data are compressed inside of the file (fpack; FITS standard 4.0, section 10)."""
        return bool(self.header.get("ZIMAGE", False)) or bool(self.header.get("ZTABLE", False))

    @property
    def is_image(self) -> bool:
        return self.number == 0 or str(self.header.get("XTENSION", "")).strip() == "IMAGE"

    def raw_bytes(self) -> Iterator[bytes]:
        """Header and data as they stand in the file, padding included, in pieces."""
        end = self.start + _padded(self.size)
        with self.file.stream() as stream:
            stream.seek(self.header_start)
            left = end - self.header_start
            while left and (piece := stream.read(min(_CHUNK, left))):
                left -= len(piece)
                yield piece

    def data(self) -> np.ndarray:
        """The data as uint8 ``(size,)``: memory-mapped, or unpacked in memory when the file is compressed."""
        self.refuse_truncated()
        if not self.size:
            return np.zeros(0, dtype=np.uint8)
        if not self.file.packing:
            return np.memmap(self.file.path, dtype=np.uint8, mode="r", offset=self.start, shape=(self.size,))
        refuse_beyond_memory(self.size, self.file.name)
        unpacked = bytearray()
        with self.file.stream() as stream:
            stream.seek(self.start)
            while len(unpacked) < self.size and (piece := stream.read(min(_CHUNK, self.size - len(unpacked)))):
                unpacked += piece
        if len(unpacked) < self.size:
            raise _truncated(self.file, self.start + len(unpacked), self.start + self.size)
        return np.frombuffer(unpacked, dtype=np.uint8)

    def refuse_truncated(self) -> None:
        """Raise UserError when the file ends before the data do (a compressed file shows it when it is unpacked)."""
        length = self.file.path.stat().st_size
        if not self.file.packing and length < self.start + self.size:
            raise _truncated(self.file, length, self.start + self.size)


@dataclass(eq=False)
class FitsFile:
    """An existing regular file; made by :func:`open_fits`.  Units are looked for only as far as they are asked for."""

    path: Path
    packing: bytes
    _found: list[Unit] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.name

    @contextmanager
    def stream(self) -> Iterator[IO[bytes]]:
        """The file's bytes, unpacked."""
        with _OPENERS[self.packing](self.path) if self.packing else self.path.open("rb") as stream:
            yield stream

    @cached_property
    def primary(self) -> Unit:
        return next(self.units())

    def units(self) -> Iterator[Unit]:
        """Header and data units from the first on; ends with the file, or at bytes that are no further unit."""
        yield from self._found
        with self.stream() as stream:
            while len(self._found) < _MOST_UNITS:
                last = self._found[-1] if self._found else None
                place = last.start + _padded(last.size) if last else 0
                unit = self._read_unit(stream, place)
                if unit is None:
                    return
                self._found.append(unit)
                yield unit

    def table(self, number: int | None = None) -> Unit:
        """The first binary table, or the unit of that number.

        Raises:
            UserError: there is none, it is no binary table, it is compressed, or the file ends within it.
        """
        refusal = UserError(f"{self.name} has no binary table", "give a complete HEALPix FITS file")
        for unit in self.units():
            wanted = unit.number == number if number is not None else unit.is_table or unit.is_packed
            if wanted and unit.is_packed:
                raise UserError(f"{self.name} is compressed (fpack)", "unpack it first (funpack)")
            if wanted and unit.is_table:
                unit.refuse_truncated()
                return unit
            if wanted:
                refusal = UserError(f"HDU {number} of {self.name} is no binary table", "name another, e.g. FILE+1")
        raise refusal

    def _read_unit(self, stream: IO[bytes], place: int) -> Unit | None:
        if not self.packing and place >= self.path.stat().st_size:
            return None
        stream.seek(place)
        cards = bytearray()
        for _ in range(_MOST_BLOCKS):
            block = stream.read(BLOCK)
            if not self._found and not cards and not block.startswith(b"SIMPLE  ="):
                raise UserError(f"{self.name} is not a readable FITS file (no SIMPLE card)", "fetch it again")
            if len(block) < BLOCK or (self._found and not cards and not block.startswith(b"XTENSION")):
                if cards or not self._found:
                    raise UserError(f"{self.name} is truncated (within a header)", "fetch it again")
                return None
            cards += block
            if any(block[i : i + 80].rstrip() == b"END" for i in range(0, BLOCK, 80)):
                return self._unit(bytes(cards), place)
        raise UserError(f"{self.name} has a header without END", "fetch it again")

    def _unit(self, cards: bytes, place: int) -> Unit:
        header = fits.Header.fromstring(cards.decode("ascii", "replace").replace("\ufffd", "?"))
        return Unit(self, len(self._found), header, place, place + len(cards), _data_size(header, self.name))


@contextmanager
def open_fits(path: Path) -> Iterator[FitsFile]:
    """A FITS file, of which nothing is read yet; what goes wrong inside of the block becomes a UserError."""
    try:
        with warnings.catch_warnings(action="ignore", category=AstropyWarning):
            yield FitsFile(path, _packing(path))
    except _FAULTS as error:
        raise unreadable(path, error) from None


def refuse_compressed(path: Path) -> None:
    """Raise UserError for a file that cannot be read at any offset without being unpacked."""
    try:
        packed = bool(_packing(path))
    except OSError as error:
        raise unreadable(path, error) from None
    if packed:
        raise UserError(f"{path.name} is compressed and cannot be read channel by channel", "unpack it first (gunzip)")


def unreadable(path: Path, error: Exception) -> UserError:
    """What kept a file from being read, in one line."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"no file {path}", "check the file name and the data folder")
    if isinstance(error, IsADirectoryError | PermissionError):
        return UserError(f"cannot read {path} ({error.strerror})", "give a readable FITS file")
    return UserError(f"{path.name} is not a readable FITS file ({error})", "fetch it again")


def _packing(path: Path) -> bytes:
    """The first bytes of a known compression, or empty."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(0, "it is a folder")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is no regular file", "give a FITS file")
    with path.open("rb") as stream:
        head = stream.read(6)
    for sign, tool in _UNREAD_PACKINGS.items():
        if head.startswith(sign):
            raise UserError(f"{path.name} is compressed in a way that is not read here", f"unpack it first ({tool})")
    return next((sign for sign in _OPENERS if head.startswith(sign)), b"")


def _data_size(header: fits.Header, name: str) -> int:
    """Bytes of data that a header states (FITS standard 4.0, section 7.1 and 4.4.1)."""
    axes = integer_card(header, "NAXIS", name, (0, 999))
    if not axes:
        return 0
    lengths = [integer_card(header, f"NAXIS{i}", name, (0, 2**62)) for i in range(1, axes + 1)]
    if lengths[0] == 0 and header.get("GROUPS") is True:
        lengths = lengths[1:]
    bits = abs(integer_card(header, "BITPIX", name, (-64, 64)))
    if bits not in (8, 16, 32, 64):
        raise UserError(f"{name} has the impossible BITPIX {bits}", "mend its header, or fetch it again")
    groups = integer_card(header, "GCOUNT", name, (0, 2**62), 1)
    extra = integer_card(header, "PCOUNT", name, (0, 2**62), 0)
    return bits // 8 * groups * (extra + math.prod(lengths))


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _truncated(file: FitsFile, length: int, needed: int) -> UserError:
    return UserError(f"{file.name} is truncated ({length} of {needed} bytes)", "fetch it again")
