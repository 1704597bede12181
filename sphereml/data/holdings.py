"""The local data folder: which files of the manifests are here, and the checksum each had when it came.

Conventions: files lie flat under their own names, so that the folder serves as ``data.folder``.  ``checksums.json``
beside them pins, at the first download, the checksum of every file: ``NAME: {checksum, size, source}``, size in bytes.
A pin outweighs a provisional checksum of a manifest but never a sure one.  ``NAME.partial`` is a download under way.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pooch

from sphereml.data.manifests import PINS, UNKNOWN, ProductFile
from sphereml.data.whole_files import read_sealed_json, sealed_json, write_atomically
from sphereml.errors import UserError

FOLDER_VARIABLE = "SPHEREML_DATA"
SAMPLE_VARIABLE = "SPHEREML_REAL_SKY"
# Some network file systems cannot lock; there two processes at once are the user's to avoid.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@dataclass(frozen=True)
class Pin:
    """A file as it first came: ``checksum`` as in a manifest, ``size`` in bytes, ``source`` a URL or a path."""

    checksum: str
    size: int
    source: str


@dataclass(frozen=True)
class Holdings:
    """The files below ``folder``, and those of the sample below ``sample`` (read only) when it is given."""

    folder: Path
    sample: Path | None = None

    def path(self, name: str) -> Path:
        return self.folder / name

    def find(self, name: str) -> Path | None:
        """Where the file lies, in the data folder first."""
        return next((place / name for place in self._places() if (place / name).is_file()), None)

    def files(self, file: ProductFile) -> list[ProductFile]:
        """The single files that an entry of a manifest stands for; a glob's are those that are here."""
        if not file.is_glob:
            return list(file.each())
        here = {path.name for place in self._places() if place.is_dir() for path in place.glob(file.name)}
        return [file.called(name) for name in sorted(here)]

    def pins(self) -> dict[str, Pin]:
        """Every pinned file; raises UserError when the list of pins is damaged."""
        path = self.folder / PINS
        try:
            entries = read_sealed_json(path) if path.exists() else {}
            return {name: Pin(**entry) for name, entry in entries.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            raise UserError(f"{path} is damaged", "restore it, or remove it to pin the files anew") from None

    def expected(self, file: ProductFile) -> tuple[str, bool]:
        """The checksum a file must have (or ``unknown``), and whether it is sure rather than provisional or pinned."""
        if file.checksum != UNKNOWN and not file.checksum_provisional:
            return file.checksum, True
        pin = self.pins().get(file.name)
        return (pin.checksum if pin else file.checksum), False

    def pin(self, name: str, pin: Pin) -> None:
        """Record a file; other threads and processes may be recording theirs."""
        # The folder itself is locked, for a lock file would stay behind.
        with locked(self.folder):
            entries = {key: asdict(one) for key, one in self.pins().items()} | {name: asdict(pin)}
            write_atomically(self.folder / PINS, sealed_json(dict(sorted(entries.items()))))

    def _places(self) -> list[Path]:
        return [self.folder] if self.sample is None else [self.folder, self.sample]


def open_holdings(folder: Path | None = None) -> Holdings:
    """The given folder, else ``$SPHEREML_DATA``, else the user's cache; the sample is at ``$SPHEREML_REAL_SKY``."""
    chosen = folder or Path(os.environ.get(FOLDER_VARIABLE) or pooch.os_cache("sphereml"))
    sample = os.environ.get(SAMPLE_VARIABLE)
    return Holdings(chosen.expanduser(), Path(sample).expanduser() if sample else None)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the one lock of an existing file or folder; waits for whoever has it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int, wait: bool = True) -> bool:
    """Lock an open file; False when someone else has it and ``wait`` is not asked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def refuse_full(folder: Path, needed: int, what: str, choose: str = "--to FOLDER") -> None:
    """Raise UserError unless the disc of an existing ``folder`` has ``needed`` bytes; ``choose`` names another."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{what} needs {spell_bytes(needed)} and {folder} has {spell_bytes(free)} of room",
            f"free some, or choose another disc with {choose}",
        )


def spell_bytes(count: float) -> str:
    """``318 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
