"""What the HTML pages of all studies share: embedded pictures and numbers."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

from sphereml.errors import UserError

ABSENT = "–"


def picture(path: Path, mend: str) -> dict[str, Any]:
    """``source`` (data URI), ``width`` and ``height`` of a PNG; raises UserError when it is none or missing."""
    content = path.read_bytes() if path.is_file() else None
    if content is None or not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise UserError(f"{path} is {'missing' if content is None else 'no PNG picture'}", mend)
    # Width and height stand at fixed places of the first chunk; stating them keeps the page from jumping as it loads.
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    source = "data:image/png;base64," + base64.b64encode(content).decode()
    return {"source": source, "width": width, "height": height}


def is_finite(value: Any) -> bool:
    """Whether it is a number that can be printed."""
    return isinstance(value, int | float) and math.isfinite(value)


def number(value: Any, digits: int = 3) -> str:
    """A number with a true minus sign, or a dash for none."""
    return f"{value:.{digits}f}".replace("-", "−") if is_finite(value) else ABSENT
