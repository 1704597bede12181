"""What the process finds around it: streams, their encodings, and variables that other programs set for themselves.

A closed or full pipe, a terminal without Unicode, a notebook's plotting backend or a cluster's warnings filter must not
decide whether the work is done.  A reader that goes away (``| head``) ends the printing, not the work: the exit code
still says whether it was done.
"""

from __future__ import annotations

import codecs
import locale
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from sphereml.errors import UserError

_SPELLINGS = {"±": "+-", "×": "x", "µ": "u", "μ": "u", "–": "-", "—": "-", "…": "...", "κ": "kappa", "°": " deg"}
# What Python itself starts with when nobody asks for other filters.
_DEFAULT_FILTERS = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


class EnduringStream:
    """A text stream that swallows what is written after its reader has gone; otherwise the stream it is made from."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._enduring():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._enduring():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _enduring(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._discard()
        except OSError as error:
            self._discard()
            raise UserError(f"cannot write to {self._stream.name} ({error.strerror})", "send it elsewhere") from None

    def _discard(self) -> None:
        """Send what is still buffered, and all that follows, nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextmanager
def usable_streams() -> Iterator[None]:
    """Standard streams that are open, can spell every character and outlive their readers, while the block runs."""
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    # Streams that a caller put there (tests, notebooks) are theirs.
    sys.stdout, sys.stderr = (
        _enduring(stream) if stream is original else stream
        for stream, original in zip(before, (sys.__stdout__, sys.__stderr__), strict=True)
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def restart_in_utf8() -> None:
    """Start the program again in Python's UTF-8 mode where the locale's encoding is another one; else return.

    Files of the package and of the libraries below it are UTF-8, and are read in the locale's encoding otherwise.
    """
    if sys.flags.utf8_mode or codecs.lookup(locale.getpreferredencoding(False)).name == "utf-8":
        return
    # The terminal's own encoding stays what it was.
    stream = {"PYTHONIOENCODING": sys.stdout.encoding} if sys.stdout is not None else {}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], stream | os.environ | {"PYTHONUTF8": "1"})


def settle_environment() -> None:
    """Take back what variables of other programs decide: the plotting backend, and warnings as errors."""
    # A notebook's or a desktop's backend may not even exist here; the program writes files only.
    if "MPLBACKEND" in os.environ:
        os.environ["MPLBACKEND"] = "agg"
    if any(option.startswith("e") for option in sys.warnoptions):
        warnings.resetwarnings()
        for category in _DEFAULT_FILTERS:
            warnings.simplefilter("ignore", category)


def _enduring(stream: TextIO | None) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123  (it lives as long as the process)
    codecs.register_error("spelled", _spelled)
    cast(Any, stream).reconfigure(errors="spelled")
    return cast(TextIO, EnduringStream(stream))


def _open_closed_descriptors() -> None:
    """Nothing else may become descriptor 0, 1 or 2: libraries print to those."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """Characters that an encoding lacks: spelled out, else as escapes."""
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    escaped = (_SPELLINGS.get(one) or one.encode("ascii", "backslashreplace").decode() for one in missing)
    return "".join(escaped), error.end
