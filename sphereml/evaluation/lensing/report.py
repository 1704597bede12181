"""One self-contained HTML page of a lensing study: each figure beside the paper's statement, tables, notes.

Reads ``lensing.json``, ``figures/*.png`` and ``figures/captions.json`` of a folder.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from sphereml.data.whole_files import write_atomically
from sphereml.errors import UserError

ABSENT = "–"
_REMAKE = "run `sphereml study lensing` again"
_UNIT = 1e-8
_THEORY = {"kappa": "C_L of kappa", "N0_EB": "N0 EB", "N0_MV": "N0 EB + EE", "N0_iterated": "N0 EB iterated"}


def write_lensing_report(folder: Path) -> Path:
    """Write ``folder/report.html``.

    Raises:
        UserError: ``lensing.json`` or the captions are missing or no JSON, or a figure is gone.
    """
    content = _read(folder / "lensing.json")
    captions = _read(folder / "figures" / "captions.json")
    figures = [_figure(folder / "figures" / f"{name}.png", texts) for name, texts in captions.items()]
    return write_atomically(folder / "report.html", render(content, figures).encode())


def render(content: Mapping[str, Any], figures: list[dict[str, Any]]) -> str:
    """The page as text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(scaled=_scaled, with_error=_with_error, number=_number)
    package = files("sphereml.evaluation")
    template = environment.from_string(package.joinpath("lensing_report.html.j2").read_text())
    edges = content["bands"]["edges"]
    return template.render(
        style=Markup(package.joinpath("report.css").read_text()),
        content=content,
        bands=[f"{lo:g}–{hi:g}" for lo, hi in pairwise(edges)],
        theory={key: name for key, name in _THEORY.items() if key in content["theory"]},
        networks={name: model for name, model in content["models"].items() if model["kind"] != "quadratic"},
        quadratic={name: model for name, model in content["models"].items() if model["kind"] == "quadratic"},
        reference=content["experiment"]["reference"],
        figures=figures,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist", _REMAKE) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})", _REMAKE) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object", _REMAKE)
    return content


def _figure(path: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} is missing", _REMAKE)
    picture = path.read_bytes()
    # Width and height stand at fixed places of a PNG's first chunk; stating them keeps the page from jumping.
    width, height = int.from_bytes(picture[16:20], "big"), int.from_bytes(picture[20:24], "big")
    source = "data:image/png;base64," + base64.b64encode(picture).decode()
    return {"source": source, "width": width, "height": height, **texts}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _scaled(value: Any) -> str:
    """A power in units of 1e-8, three digits."""
    return f"{value / _UNIT:.3g}" if _finite(value) else ABSENT


def _number(value: Any, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if _finite(value) else ABSENT


def _with_error(measured: Any, band: int | None = None) -> Markup | str:
    """``{"value", "error"}``, of a band where they are lists."""
    if not measured:
        return ABSENT
    value, error = (measured[key] if band is None else measured[key][band] for key in ("value", "error"))
    if not (_finite(value) and _finite(error)):
        return _number(value)
    return Markup('{}<span class="error"> ± {}</span>').format(_number(value), _number(error))
