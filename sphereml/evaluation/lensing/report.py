"""One self-contained HTML page of a lensing study: each figure beside the paper's statement, tables, notes.

It shows a result with ``figures/*.png`` and ``figures/captions.json`` of its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sphereml.data.whole_files import write_atomically
from sphereml.evaluation.lensing.labels import model_lines, sample, theory_lines
from sphereml.evaluation.lensing.noise import GOAL_SPAN
from sphereml.evaluation.lensing.results import LensingResult
from sphereml.evaluation.lensing.sentences import spelt_fit
from sphereml.evaluation.pages import ABSENT, facts, is_finite, links, number, open_environment, picture
from sphereml.evaluation.protocol import read_json

_REMAKE = LensingResult.remake
_UNIT = 1e-8


def write_lensing_report(content: Mapping[str, Any], folder: Path, home: Path | None = None) -> Path:
    """Write ``folder/report.html``.

    Raises:
        UserError: the captions are missing or no JSON, or a figure is gone.
    """
    path = folder / "figures" / "captions.json"
    captions = read_json(path, _REMAKE)
    figures = [picture(folder / "figures" / f"{name}.png", _REMAKE) | texts for name, texts in captions.items()]
    names = [
        "lensing.json",
        *(f"{model['run']}/config.json" for model in content["models"].values() if model.get("run")),
    ]
    return write_atomically(
        folder / "report.html", render(content, figures, links((folder, home or folder), names)).encode()
    )


def render(content: Mapping[str, Any], figures: list[dict[str, Any]], found: Mapping[str, str]) -> str:
    """The page as text; ``found`` are files beside it that it links to, by name."""
    filters: dict[str, Callable[..., Any]] = {"with_error": _with_error, "fit": spelt_fit, "probability": _probability}
    template = open_environment(**filters).get_template("lensing/report.html.j2")
    short = {name: " ".join(model_lines(name, model["label"])) for name, model in content["models"].items()}
    return template.render(
        content=content,
        sample=sample(content["experiment"]),
        tables=_tables(content, short),
        short=short,
        goal_span=GOAL_SPAN,
        networks={name: model for name, model in content["models"].items() if model["kind"] != "quadratic"},
        quadratic={name: model for name, model in content["models"].items() if model["kind"] == "quadratic"},
        figures=figures,
        found=found,
        done=facts(content.get("provenance")),
    )


def _tables(
    content: Mapping[str, Any], short: Mapping[str, str]
) -> list[tuple[str, Mapping[str, str], dict[str, Any], list[str]]]:
    """Title, heads, columns and names of the rows of what is told band by band."""
    models, reference = content["models"], content["experiment"]["reference"]
    theory = {key: " ".join(lines) for key, lines in theory_lines(content).items()}
    ratios = {name: m["ratio"][reference] for name, m in models.items() if m["kind"] != "quadratic"}

    def measured(key: str) -> dict[str, Any]:
        return {name: _column(model[key]) for name, model in models.items()}

    noise = {name: _column(model["noise"], _scaled) for name, model in models.items()}
    tables = [
        ("Theory", theory, {key: [_scaled(value) for value in content["theory"][key]] for key in theory}),
        ("Noise N_L", short, noise),
        (f"N_L over that of {short[reference]}", short, {name: _column(ratio) for name, ratio in ratios.items()}),
        ("Response R_L", short, measured("response")),
        ("Correlation with the truth", short, measured("correlation")),
    ]
    for what, found in content.get("responses", {}).items():
        slopes = {name: _column({"value": one["slope"], "error": one["error"]}) for name, one in found.items()}
        tables.append((f"Slope of recovered over true power, {what}", short, slopes))
    whole = [(*table, _spans(content["bands"])) for table in tables] + _templates(content.get("delensing"), short)
    return whole + _latitudes(content.get("latitude"), short)


def _templates(found: Mapping[str, Any] | None, short: Mapping[str, str]) -> list[Any]:
    """What templates leave by band of B, and what they follow below the cut."""
    if not found:
        return []
    heads, models = {**short, "truth": "true kappa"}, found["models"]

    def columns(*keys: str) -> dict[str, Any]:
        return {name: [cell for key in keys for cell in _column(model[key])] for name, model in models.items()}

    low, follows = f"template at ell < {found['cut']}", columns("follows_lensing", "follows_other")
    return [
        ("Lensing-B power left, over its own", heads, columns("left"), _spans(found["bands"])),
        (f"Left, over that of {short[found['reference']]}", heads, columns("ratio"), _spans(found["bands"])),
        (f"Correlation of the {low}", heads, follows, ["with lensing B", "with another B"]),
    ]


def _latitudes(found: Mapping[str, Any] | None, short: Mapping[str, str]) -> list[Any]:
    """Squared errors of kappa over the Wiener-filtered estimator's, by absolute latitude."""
    if not found:
        return []
    columns = {name: _column(model) for name, model in found["models"].items()}
    return [("Squared error of kappa by |latitude|, over the first pass's", short, columns, _spans(found))]


def _spans(bands: Mapping[str, Any]) -> list[str]:
    return [f"{lo:g}–{hi:g}" for lo, hi in pairwise(bands["edges"])]


def _column(measured: Mapping[str, Any], spell: Callable[[Any], str] = number) -> list[Markup | str]:
    pairs = zip(measured["value"], measured["error"], strict=True)
    return [_with_error({"value": value, "error": error}, spell) for value, error in pairs]


def _scaled(value: Any) -> str:
    """A power in units of 1e-8, three digits."""
    return f"{float(f'{value / _UNIT:.3g}'):g}" if is_finite(value) else ABSENT


def _probability(value: Any) -> str:
    return f"{value:.2g}" if is_finite(value) else ABSENT


def _with_error(measured: Any, spell: Callable[[Any], str] = number) -> Markup | str:
    """``{"value", "error"}``; an error that is not known is left out."""
    if not measured:
        return ABSENT
    value, error = spell(measured["value"]), measured["error"]
    return Markup('{}<span class="error"> ± {}</span>').format(value, spell(error)) if is_finite(error) else value
