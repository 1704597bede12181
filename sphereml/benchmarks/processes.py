"""Peaks of memory that mean something: each measured in a process of its own.

What a process has held once it may hand out again without the system seeing it; so every case starts in a fresh one,
and counts how far resident memory rises over what it is when the case begins.  The figures come from Linux's /proc.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_fresh_process(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """The result of a module's function, called in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _resident_mb(entry: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (the peak) of this process, 10^6 bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith(entry))
    return int(kibibytes) * 1024 / 1e6


@dataclass(frozen=True)
class Cost:
    """Wall time, and how far resident memory rose at most, 10^6 bytes."""

    seconds: float
    peak_mb: float

    @classmethod
    def of(cls, function: Callable[[], object]) -> Cost:
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        before, started = _resident_mb("VmRSS"), time.perf_counter()
        function()
        return cls(time.perf_counter() - started, _resident_mb("VmHWM") - before)

    def json(self) -> dict[str, float]:
        return {"seconds": self.seconds, "peak_mb": self.peak_mb}
