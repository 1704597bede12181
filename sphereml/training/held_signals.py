"""Signals that ask a training to stop wait for the end of the running step.

A handler that raises does so between any two instructions of the main thread, also in the middle of handing a line to
another thread: TensorBoard's writer then waits for ever for what was lost, and the program with it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch.callbacks import Callback

_HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_Handler = Callable[[int, FrameType | None], Any]


class HeldSignals(Callback):
    """Hands the first signal to its handler between two steps; a second one at once."""

    def __init__(self) -> None:
        self._handlers: dict[int, _Handler] = {}
        self._arrived: int | None = None

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold inside of the block; outside of the main thread, where no handler runs, nothing changes."""
        main = threading.current_thread() is threading.main_thread()
        before = {number: signal.getsignal(number) for number in _HELD} if main else {}
        self._handlers = {number: handler for number, handler in before.items() if callable(handler)}
        for number in self._handlers:
            signal.signal(number, self._hold)
        try:
            yield
        except SystemExit:  # how Lightning ends at a SIGTERM of which it knows
            if self._arrived is None:
                raise
        finally:
            # Lightning leaves Ctrl-C ignored after an interrupted training.
            for number, handler in before.items():
                signal.signal(number, handler)
        self._hand_on()

    def on_train_batch_start(self, *given: Any, **more: Any) -> None:
        self._hand_on()

    def on_validation_batch_start(self, *given: Any, **more: Any) -> None:
        self._hand_on()

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self._arrived is not None:
            self._handlers[number](number, frame)
        self._arrived = number

    def _hand_on(self) -> None:
        if self._arrived is not None:
            self._handlers[self._arrived](self._arrived, None)
