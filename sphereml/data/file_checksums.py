"""Checksums of whole files: SHA-256, those that the manifests know, and digests of files too large to read twice."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from sphereml.config.bounds import refuse_special
from sphereml.data.fits_files import unreadable
from sphereml.data.manifests import UNKNOWN, ProductFile, list_products
from sphereml.errors import UserError

_SAMPLES, _SAMPLE_BYTES = 32, 65536


def file_checksum(path: Path, algorithm: str = "sha256") -> str:
    """Checksum of a file, hexadecimal; raises UserError when it cannot be read."""
    refuse_special(path)
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, algorithm).hexdigest()
    except OSError as error:
        raise unreadable(path, error) from None


def sampled_digest(path: Path) -> str:
    """``sampled:`` and the SHA-256 of a file's size and of 32 pieces of 64 KiB from its start to its end."""
    refuse_special(path)
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as stream:
            for place in np.unique(np.linspace(0, max(0, size - _SAMPLE_BYTES), _SAMPLES).astype(np.int64)):
                stream.seek(int(place))
                digest.update(stream.read(_SAMPLE_BYTES))
    except OSError as error:
        raise unreadable(path, error) from None
    return f"sampled:{digest.hexdigest()}"


def refuse_damaged_product(path: Path) -> None:
    """Raise UserError when a file has the name and the size of a product's but not its checksum.

    A file of another size is someone's own under the same name.
    """
    known = _known_files().get(path.name)
    if known is None or path.stat().st_size != known.size:
        return
    algorithm, _, expected = known.checksum.partition(":")
    if file_checksum(path, algorithm) != expected:
        raise UserError(
            f"{path.name} is damaged: its {algorithm} is not that of the product's file",
            "fetch it again, or rename it if it is a file of your own",
        )


@lru_cache(maxsize=1)
def _known_files() -> dict[str, ProductFile]:
    """Files of the shipped manifests whose size and sure checksum are known."""
    single = (one for product in list_products() for file in product.files for one in file.each())
    return {
        file.name: file
        for file in single
        if isinstance(file.size, int) and file.checksum != UNKNOWN and not file.checksum_provisional
    }
