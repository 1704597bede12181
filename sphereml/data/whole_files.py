"""Small files that are there complete or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sphereml.errors import UserError


def write_atomically(path: Path, content: bytes, mend: str = "choose a folder you may write to") -> Path:
    """Write a whole file or nothing: a temporary sibling first, then a rename.

    Raises:
        UserError: the folder cannot be made or written; it says ``mend``.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
            temporary = Path(stream.name)
            stream.write(content)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})", mend) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path
