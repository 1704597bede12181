"""Small files that are there complete or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from sphereml.errors import UserError


def write_atomically(path: Path, content: bytes, mend: str = "choose a folder you may write to") -> Path:
    """Write a whole file or nothing: a temporary sibling first, then a rename.  Permissions follow the umask.

    Raises:
        UserError: the folder cannot be made or written; it says ``mend``.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        # Opened by hand, as tempfile's files are for their owner alone whatever the umask says.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})", mend) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path
