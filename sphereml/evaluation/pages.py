"""What the HTML pages of all studies share: embedded pictures and numbers."""

from __future__ import annotations

import base64
import math
import zlib
from pathlib import Path
from typing import Any

from sphereml.errors import UserError

ABSENT = "–"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def picture(path: Path, mend: str) -> dict[str, Any]:
    """``source`` (data URI), ``width`` and ``height`` of a PNG; raises UserError when it is none or missing."""
    content = path.read_bytes() if path.is_file() else None
    if content is None or not content.startswith(_SIGNATURE):
        raise UserError(f"{path} is {'missing' if content is None else 'no PNG picture'}", mend)
    if not _is_whole(content):
        raise UserError(f"{path} is damaged", mend)
    # Width and height stand at fixed places of the first chunk; stating them keeps the page from jumping as it loads.
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    source = "data:image/png;base64," + base64.b64encode(content).decode()
    return {"source": source, "width": width, "height": height}


def _is_whole(content: bytes) -> bool:
    """Whether every chunk of a PNG (length, name, data, CRC-32 of name and data) is as it was written."""
    place, name = len(_SIGNATURE), b""
    while name != b"IEND" and place < len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        name, end = content[place + 4 : place + 8], place + 8 + size
        if zlib.crc32(content[place + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return False
        place = end + 4
    return name == b"IEND" and place == len(content)


def is_finite(value: Any) -> bool:
    """Whether it is a number that can be printed."""
    return isinstance(value, int | float) and math.isfinite(value)


def number(value: Any, digits: int = 3) -> str:
    """A number with a true minus sign, or a dash for none."""
    return f"{value:.{digits}f}".replace("-", "−") if is_finite(value) else ABSENT
