"""What the program prints: answers on standard output, progress beside them.

``say`` prints an answer: what was asked for, where it was written.  ``tell`` prints progress: nothing with ``--quiet``,
on the error stream where the answer is JSON, and with the seconds since the start where ``--verbose`` asks for them.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import Any

from sphereml.progress import BARS


@dataclass
class Manner:
    """How the program prints; one of a process, set by each command line."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    start: float = 0.0


MANNER = Manner()


def settle_manner(quiet: bool, verbose: bool, json: bool) -> None:
    """Print in this manner from now on."""
    MANNER.quiet, MANNER.verbose, MANNER.json, MANNER.start = quiet, verbose, json, time.monotonic()
    BARS.set(not (quiet or json))


def say(line: str) -> None:
    """An answer, at once also in a pipe."""
    print(line, flush=True)


def say_json(value: Any) -> None:
    """An answer as one JSON document (numbers that JSON cannot hold must have been replaced)."""
    say(json.dumps(value, allow_nan=False))


def tell(line: str) -> None:
    """A line of progress."""
    if MANNER.quiet:
        return
    since = f"[{time.monotonic() - MANNER.start:7.1f} s] " if MANNER.verbose else ""
    print(f"{since}{line}", file=sys.stderr if MANNER.json else sys.stdout, flush=True)
