"""Checksums of a zarr group's metadata, in the attributes of the group; its chunks have their own.

Conventions: ``checksums`` holds the SHA-256 of every array's ``zarr.json`` by the array's name, ``checksum`` that of
the group's own metadata without itself.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from sphereml.data.whole_files import json_digest

CHECKSUM = "checksum"


def seal_metadata(folder: Path) -> None:
    """Write the checksums of a group's metadata into the attributes of the group; chunks have their own."""
    path = folder / "zarr.json"
    root = json.loads(path.read_text())
    root["attributes"]["checksums"] = _array_checksums(folder)
    root["attributes"][CHECKSUM] = json_digest(root)
    path.write_text(json.dumps(root, indent=2))


def has_whole_metadata(folder: Path) -> bool:
    """Whether the metadata of a group are what :func:`seal_metadata` saw."""
    try:
        root = json.loads((folder / "zarr.json").read_bytes())
        stated = root["attributes"].pop(CHECKSUM)
        return bool(stated == json_digest(root) and root["attributes"]["checksums"] == _array_checksums(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _array_checksums(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("*/zarr.json"))
    return {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
