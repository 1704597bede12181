"""Time left of a long piece of work, at the pace so far; seconds everywhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
# Whether bars may be drawn where somebody watches; lines of progress are the caller's own to take or to drop.
BARS: ContextVar[bool] = ContextVar("bars", default=True)


def spell_time(seconds: float) -> str:
    """A duration for people: seconds below a minute, then minutes, then hours and minutes.

    Example:
        >>> spell_time(12.4), spell_time(150), spell_time(7300)
        ('12 s', '2 min', '2 h 2 min')
    """
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


class TimeLeft:
    """Estimates what is left of ``total`` equal steps; the clock starts when it is made.

    Args:
        done: steps that were finished before, which say nothing of the pace.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self._before, self._start = total, done, time.monotonic()

    def seconds(self, done: int) -> float:
        """Seconds that are left after ``done`` of all steps; infinite before the first."""
        here = done - self._before
        if here <= 0:
            return float("inf")
        return (time.monotonic() - self._start) / here * (self.total - done)

    def __call__(self, done: int) -> str:
        """``", 3 min left"``, or nothing before the first step and after the last."""
        return f", {spell_time(self.seconds(done))} left" if self._before < done < self.total else ""


def counted(items: Sequence[T], what: str, say: Callable[[str], None], pause: float = 5.0) -> Iterator[T]:
    """The items, with a line of progress and of the time left after each, at most one in ``pause`` seconds.

    Example:
        >>> for sky in counted([1, 2], "sky", print, pause=0):
        ...     pass
        sky 1/2, 0 s left
        sky 2/2
    """
    left, told = TimeLeft(len(items)), time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - told >= pause:
            say(f"{what} {done}/{len(items)}{left(done)}")
            told = time.monotonic()
