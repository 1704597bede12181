"""Caches of arrays: one ``npz`` with a checksum over all of them.  Who finds one damaged makes it anew."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sphereml.data.whole_files import tell_rebuilt, write_atomically
from sphereml.harmonics.workspace_file import digest_arrays

_CHECKSUM = "checksum"


def write_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], mend: str = "set SPHEREML_DATA to a folder of yours"
) -> Path:
    """Write arrays, below the data folder if nothing else is said; raises UserError when it cannot be written."""
    stream = io.BytesIO()
    np.savez(stream, **arrays, **{_CHECKSUM: np.array(digest_arrays(arrays))})  # type: ignore[arg-type]
    return write_atomically(path, stream.getvalue(), mend)


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """What :func:`write_arrays` wrote; None when there is no file, or a damaged one, which is said."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        if str(arrays.pop(_CHECKSUM)) == digest_arrays(arrays):
            return arrays
    except Exception:  # zip and npy headers that changed raise whatever they lead to
        pass
    tell_rebuilt(path)
    return None
