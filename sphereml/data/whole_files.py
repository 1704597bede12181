"""Files that are there complete or not at all, alone or as a set, and JSON files that carry their own checksum.

What is being written stands beside its place as ``.NAME.<machine>-<process>.scratch``; what a killed process left of
that is swept by the next one that writes into the folder.  Permissions follow the umask.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sphereml.config.bounds import refuse_special
from sphereml.errors import UserError

_MEND = "choose a folder you may write to"
_CHECKSUM = "checksum"
_DIGEST_BYTES = 32


def write_atomically(path: Path, content: bytes, mend: str = _MEND) -> Path:
    """Write a whole file or nothing: a temporary sibling first, then a rename.

    Raises:
        UserError: the folder cannot be made or written; it says ``mend``.
    """
    write_together({path: content}, mend)
    return path


def write_together(contents: Mapping[Path, bytes], mend: str = _MEND) -> None:
    """Write files that belong together: what stood in their places stays until all of them are whole.

    Raises:
        UserError: a folder cannot be made or written; it says ``mend``.
    """
    scratches: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            refuse_special(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            scratches[path] = scratch_beside(path)
            # Opened by hand, as tempfile's files are for their owner alone whatever the umask says.
            descriptor = os.open(scratches[path], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
        for path, scratch in scratches.items():
            scratch.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})", mend) from None
    finally:
        for scratch in scratches.values():
            scratch.unlink(missing_ok=True)


@contextmanager
def appearing_together(folder: Path, mend: str = _MEND) -> Iterator[Path]:
    """A scratch folder whose files all take their places below ``folder`` at the end, or none of them on any failure.

    Raises:
        UserError: the folder cannot be made or written; it says ``mend``.
    """
    scratch = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = scratch_beside(folder)
        scratch.mkdir()
        yield scratch
        if folder.exists():
            for file in [path for path in sorted(scratch.rglob("*")) if path.is_file()]:
                place = folder / file.relative_to(scratch)
                place.parent.mkdir(parents=True, exist_ok=True)
                file.replace(place)
        else:
            scratch.rename(folder)
    except OSError as error:
        raise UserError(f"cannot write into {folder} ({error.strerror or error})", mend) from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def scratch_beside(path: Path) -> Path:
    """Where this process may build ``path``; nothing stands there, and strays of dead processes are swept."""
    sweep(path.parent)
    scratch = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.scratch")
    _remove(scratch)  # of an earlier process of the same number, as containers have
    return scratch


def sweep(folder: Path) -> list[Path]:
    """Remove what killed processes of this machine left half-written in a folder; returns what is gone."""
    swept = []
    for stray in folder.glob(".*.scratch"):
        owner, _, number = stray.name.removesuffix(".scratch").rpartition("-")
        if owner.endswith(f".{platform.node()}") and number.isdigit() and not _is_alive(int(number)):
            _remove(stray)
            swept.append(stray)
    return swept


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sealed_json(values: Mapping[str, Any]) -> bytes:
    """A JSON object with a checksum over all its other entries."""
    return (json.dumps({**values, _CHECKSUM: json_digest(values)}, indent=1) + "\n").encode()


def read_sealed_json(path: Path) -> dict[str, Any]:
    """The entries of a JSON object; its checksum is looked at where it has one.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no JSON object, or not the one that was written.
    """
    if not path.is_file() and path.exists():
        raise ValueError("it is no regular file")
    try:
        values = json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("it holds no JSON object")
    stated = values.pop(_CHECKSUM, None)
    if stated is not None and stated != json_digest(values):
        raise ValueError("its checksum is not that of its content")
    return values


def json_digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, hexadecimal, whatever the order of its entries."""
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()


def seal(content: bytes) -> bytes:
    """The content behind its SHA-256 (32 bytes)."""
    return hashlib.sha256(content).digest() + content


def unseal(sealed: bytes) -> bytes | None:
    """What :func:`seal` was given; None when a bit of it changed."""
    digest, content = sealed[:_DIGEST_BYTES], sealed[_DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def tell_rebuilt(path: Path) -> None:
    """Say on the error stream that a damaged file of ours is made anew; standard output may be a machine's."""
    print(f"sphereml: {path} is damaged: it is made anew", file=sys.stderr, flush=True)


def refuse_unwritable(folder: Path) -> None:
    """Raise UserError if ``folder`` could not be made or written; touches nothing."""
    nearest = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"cannot write into {folder}", "choose a folder that can be written")
