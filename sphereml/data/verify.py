"""Is a file what its manifest says: the right kind, the right size, the right checksum.

Conventions: a file is ``right`` (the known checksum), ``new`` (no checksum is known), ``changed`` (not the pinned or
provisional checksum, which the user may accept), ``wrong`` (not the kind, size or sure checksum that it must have) or
``missing``.  Kinds are told by the first bytes, because archives answer 200 with an HTML page for what they lost.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sphereml.data.file_checksums import file_checksum
from sphereml.data.holdings import Holdings
from sphereml.data.manifests import UNKNOWN, Product, ProductFile
from sphereml.errors import UserError

FITS_BLOCK = 2880
_GZIP = b"\x1f\x8b"
State = Literal["right", "new", "changed", "wrong", "missing"]


@dataclass(frozen=True)
class Finding:
    """What was found of one file; ``fault`` says in words why it is neither right nor new."""

    name: str
    state: State
    path: Path | None = None
    checksum: str = UNKNOWN
    fault: str = ""


def inspect(path: Path, file: ProductFile, holdings: Holdings) -> Finding:
    """Read a whole file and compare it with its manifest and its pin.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            fault = foreign(file.name, stream.read(FITS_BLOCK)) or _wrong_size(path, file)
        if fault:
            return Finding(file.name, "wrong", path, fault=fault)
        expected, sure = holdings.expected(file)
        algorithm = "sha256" if expected == UNKNOWN else expected.partition(":")[0]
        checksum = f"{algorithm}:{file_checksum(path, algorithm)}"
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})", "mend its permissions or its disc") from None
    if expected in (UNKNOWN, checksum):
        return Finding(file.name, "new" if expected == UNKNOWN else "right", path, checksum)
    fault = f"its checksum is {checksum}, not {'' if sure else _doubt(file, holdings)}{expected}"
    return Finding(file.name, "wrong" if sure else "changed", path, checksum, fault)


def verify_products(products: Sequence[Product], holdings: Holdings) -> list[Finding]:
    """A finding for each file of the products, where it lies; a glob with no file here is missing."""
    return [finding for product in products for file in product.files for finding in _verify_entry(file, holdings)]


def count_present(product: Product, holdings: Holdings) -> tuple[int, int | None]:
    """How many files of a product are here, unread, and of how many (None where only the archive knows)."""
    files = [file for entry in product.files for file in holdings.files(entry)]
    unknown = any(entry.is_glob for entry in product.files)
    return sum(holdings.find(file.name) is not None for file in files), None if unknown else len(files)


def foreign(name: str, head: bytes) -> str:
    """Why a file that begins with ``head`` cannot be the FITS file its name promises; empty when it may be."""
    page = "it is a web page" if head.lstrip()[:1] == b"<" else ""
    if name.endswith(".gz"):
        if not head.startswith(_GZIP):
            return page or "it is not gzipped"
        try:
            # 31: the largest window, with a gzip header.
            head = zlib.decompressobj(31).decompress(head, FITS_BLOCK)
        except zlib.error:
            return "its gzip data are damaged"
    if name.removesuffix(".gz").endswith((".fits", ".fit")) and not head.startswith(b"SIMPLE  ="):
        return page or "it is not a FITS file"
    return ""


def _wrong_size(path: Path, file: ProductFile) -> str:
    size = path.stat().st_size
    return f"it has {size} bytes, not {file.size}" if isinstance(file.size, int) and size != file.size else ""


def _doubt(file: ProductFile, holdings: Holdings) -> str:
    return "the pinned " if file.name in holdings.pins() else "the manifest's provisional "


def _verify_entry(entry: ProductFile, holdings: Holdings) -> list[Finding]:
    files = holdings.files(entry) or [entry]
    places = [holdings.find(file.name) for file in files]
    return [
        inspect(path, file, holdings) if path else Finding(file.name, "missing", fault="it is not here")
        for file, path in zip(files, places, strict=True)
    ]
