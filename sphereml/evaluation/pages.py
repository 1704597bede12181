"""What the HTML pages of all studies share: templates, pictures for light and dark pages, numbers, links, provenance.

A page is one file: style, script and pictures stand in it.  Links lead to files beside it (JSON, CSV, FITS, run
folders), where they are there.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sphereml.errors import UserError

ABSENT = "–"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def open_environment(**filters: Callable[..., Any]) -> Environment:
    """Templates of ``sphereml.evaluation`` by their names, with the shared style and script as globals."""
    settings: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined}
    settings |= {"trim_blocks": True, "lstrip_blocks": True, "loader": PackageLoader("sphereml", "evaluation")}
    environment = Environment(**settings)
    folder = files("sphereml.evaluation")
    environment.globals |= {
        "style": Markup(folder.joinpath("report.css").read_text()),
        "script": Markup(folder.joinpath("report.js").read_text()),
    }
    environment.filters.update(number=number, **filters)
    return environment


def picture(path: Path, mend: str) -> dict[str, Any]:
    """``source`` (data URI), ``width`` and ``height`` of a PNG, and ``dark``, its twin of ``dark/`` or None.

    Raises:
        UserError: it is no PNG, missing or damaged, or its twin is.
    """
    twin = path.parent / "dark" / path.name
    return embedded(_whole_picture(path, mend), _whole_picture(twin, mend) if twin.is_file() else None)


def _whole_picture(path: Path, mend: str) -> bytes:
    content = path.read_bytes() if path.is_file() else None
    if content is None or not content.startswith(_SIGNATURE):
        raise UserError(f"{path} is {'missing' if content is None else 'no PNG picture'}", mend)
    if not _is_whole(content):
        raise UserError(f"{path} is damaged", mend)
    return content


def embedded(content: bytes, dark: bytes | None = None) -> dict[str, Any]:
    """The same of the bytes of a PNG and of its twin."""
    # Width and height stand at fixed places of the first chunk; stating them keeps the page from jumping as it loads.
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    return {"source": _uri(content), "dark": dark and _uri(dark), "width": width, "height": height}


def _uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def links(folders: Iterable[Path], names: Iterable[str]) -> dict[str, str]:
    """Name -> relative address of the files and folders that stand below one of ``folders``."""
    folders = list(folders)
    return {name: quote(name) for name in names if any((folder / name).exists() for folder in folders)}


def facts(*groups: Mapping[str, Any] | None) -> dict[str, str]:
    """Rows of a table of facts: the plain entries of mappings, absent ones left out."""
    return {
        str(key).replace("_", " "): str(value)
        for group in groups
        for key, value in (group or {}).items()
        if isinstance(value, str | int | float)
    }


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
