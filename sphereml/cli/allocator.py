"""Memory that a training step frees is kept for the next one.

glibc gives large blocks back to the system and asks for them anew, and every page of theirs is then cleared again: half
of the time of a step of many medium-sized arrays.  Other C libraries are left as they are.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
# Blocks up to 32 MiB, the most glibc allows, come from the heap; the heap keeps up to 2 GiB at its end.
_SETTINGS = {_M_MMAP_THRESHOLD: 2**25, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 2**28}


def keep_freed_memory() -> None:
    """Tell the allocator, before the first large array."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for parameter, value in _SETTINGS.items():
        mallopt(parameter, value)
