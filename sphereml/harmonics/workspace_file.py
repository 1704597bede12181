"""Workspaces on disk: one ``npz`` of masks, beams, bands and the coupling, with a checksum over all of them.

The file is complete or absent (a temporary sibling, then a rename), holds plain arrays and no pickles, and is refused
when a bit of it changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sphereml.config.bounds import refuse_special
from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.workspace import Workspace

_FORMAT = "sphereml workspace 1"
_SETTINGS = ("spins", "purify_e", "purify_b", "lmax", "dl")


def fingerprint(workspace: Workspace) -> str:
    """SHA-256 of everything that decides a workspace's numbers, hexadecimal; equal workspaces have equal ones."""
    return digest_arrays(_arrays(workspace))


def save(workspace: Workspace, path: Path) -> Path:
    """Write a workspace with its coupling; raises UserError when the folder cannot be written."""
    arrays = _arrays(workspace)
    kept = arrays | {"rows": workspace.rows}
    stream = io.BytesIO()
    digests = {"fingerprint": np.array(digest_arrays(arrays)), "checksum": np.array(digest_arrays(kept))}
    np.savez(stream, **(kept | digests))  # type: ignore[arg-type]  # numpy 2 has a keyword allow_pickle as well
    # Named as data.whole_files names scratch files, which sweeps those of killed processes.
    temporary = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.scratch")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(stream.getvalue())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path} ({error.strerror or error})", "choose a folder you may write to"
        ) from None
    return path


def load(path: Path) -> Workspace:
    """Read a workspace; raises UserError when the file is absent, damaged or something else."""
    arrays = _read(path)
    checksum = str(arrays.pop("checksum", ""))
    arrays.pop("fingerprint", None)
    if checksum != digest_arrays(arrays):
        raise UserError(f"{path} is no workspace, or damaged", "remove it; it is computed again")
    settings = json.loads(str(arrays["settings"]))
    limits = dict(zip(settings.pop("bands"), arrays["bands"].tolist(), strict=True))
    masks, beams = tuple(arrays["masks"]), tuple(arrays["beams"])
    workspace = Workspace(
        masks[0] if len(masks) == 1 else (masks[0], masks[1]),
        Bands(**limits),
        None if not beams else (beams[0], beams[-1]),
        spins=tuple(settings.pop("spins")),
        **settings,
    )
    workspace.__dict__["rows"] = arrays["rows"]  # where the cached property keeps it
    return workspace


def read_fingerprint(path: Path) -> str:
    """The fingerprint of a kept workspace; raises UserError as :func:`load`, but for damage elsewhere in the file."""
    return str(_read(path).get("fingerprint", ""))


def _arrays(workspace: Workspace) -> dict[str, np.ndarray]:
    first, second = workspace.fields
    settings = {name: getattr(workspace, name) for name in _SETTINGS} | {"lmax": first.lmax}
    masks = [first.mask] if np.array_equal(first.mask, second.mask) else [first.mask, second.mask]
    beams = workspace.beams
    return {
        "format": np.array(_FORMAT),
        "settings": np.array(json.dumps(settings | {"bands": list(workspace.bands)}, sort_keys=True)),
        "bands": np.array(list(workspace.bands.values())),
        "masks": np.stack(masks),
        "beams": np.stack(beams),
    }


def _read(path: Path) -> dict[str, Any]:
    refuse_special(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        raise UserError(f"no file {path}", "check its name") from None
    except Exception:  # zip and npy headers that changed raise whatever they lead to
        raise UserError(f"{path} is no workspace, or damaged", "remove it; it is computed again") from None


def digest_arrays(arrays: Mapping[str, Any]) -> str:
    """SHA-256 of names, types, shapes and values of arrays, hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
