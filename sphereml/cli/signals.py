"""Signals that ask the program to stop: what is done is kept, one line says how it goes on, the exit code is 128 + n.

A batch system sends SIGTERM before it kills, and some send SIGUSR1 to ask for a requeue; either must stop a chain of
models and a shell's ``&&``.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_CAUGHT = (signal.SIGTERM, signal.SIGUSR1)
_LINES = {signal.SIGINT: "interrupted", signal.SIGTERM: "stopped by SIGTERM", signal.SIGUSR1: "stopped by SIGUSR1"}


class Stopped(BaseException):
    """Raised in the main thread when a signal asks for a stop; no handler of faults takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(_LINES[signal.Signals(number)])
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGUSR1 raise :class:`Stopped` inside of the block; outside of the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in _CAUGHT}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)
