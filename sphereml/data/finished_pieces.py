"""Pieces of a long computation that are kept on disk while the others are made, so that a killed one goes on.

Conventions: what makes ``FOLDER/NAME`` keeps its pieces in ``FOLDER/.NAME.partial``.  A piece is a file: the SHA-256
of what follows (32 bytes) and an array as ``.npy``; it is there whole or not at all, and a damaged one is made again.
``identity.json`` says what the pieces are of: those of anything else are removed.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sphereml.data.holdings import lock
from sphereml.data.whole_files import refuse_unwritable, seal, tell_rebuilt, unseal, write_atomically
from sphereml.errors import UserError


@dataclass(frozen=True)
class FinishedPieces:
    """The pieces in a folder; without one, nothing is kept."""

    folder: Path | None = None

    def get(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The piece, from its file where that is whole, else made and kept."""
        if self.folder is None:
            return make()
        path = self.folder / f"{name}.piece"
        values = _read(path)
        if values is None:
            values = make()
            stream = io.BytesIO()
            np.save(stream, values)
            write_atomically(path, seal(stream.getvalue()))
        return values


def _read(path: Path) -> np.ndarray | None:
    if not path.is_file():
        return None
    content = unseal(path.read_bytes())
    if content is None:
        tell_rebuilt(path)
        return None
    values: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return values


@contextmanager
def pieces_of(path: Path, identity: Mapping[str, object]) -> Iterator[FinishedPieces]:
    """The pieces that ``path`` is made of, held against other processes; gone when the block ends well.

    Args:
        identity: JSON values that decide what the pieces are.
    Raises:
        UserError: the folder cannot be written, or another process makes the same file.
    """
    folder = path.with_name(f".{path.name}.partial")
    stated = json.dumps(identity, sort_keys=True).encode()
    refuse_unwritable(path.parent)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not lock(descriptor, wait=False):
            raise UserError(f"another process makes {path}", "wait for it, or stop it")
        known = folder / "identity.json"
        if not known.is_file() or known.read_bytes() != stated:
            for piece in folder.glob("*.piece"):
                piece.unlink()
            write_atomically(known, stated)
        try:
            yield FinishedPieces(folder)
        except UserError:  # what the user must mend leaves nothing behind
            shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
    finally:
        os.close(descriptor)
