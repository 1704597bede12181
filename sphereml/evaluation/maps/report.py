"""One self-contained HTML report of a comparison: tables, figures, notes; no file beside it is needed to read it.

Links lead to the files beside it: templates, JSON, CSV, configurations.

It shows a comparison (see :mod:`~sphereml.evaluation.maps.comparison`) and ``figures/*.png`` with their captions from
``figures/captions.json`` (``{"file name without .png": "caption"}``), or in a picture's place the SVG of
``figures/curves.json``, in which every model's curve can be switched.  Figures come in the order of the captions, then
by name.  Numbers are r averaged over a band (``lo <= ell < hi``) with standard errors; spectra are C_ell.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sphereml.data.whole_files import write_atomically
from sphereml.evaluation.maps.comparison import Comparison
from sphereml.evaluation.maps.table import QUANTITIES, shown_rows
from sphereml.evaluation.pages import ABSENT, facts, is_finite, links, number, open_environment, picture
from sphereml.evaluation.protocol import read_json

_REMAKE = Comparison.remake


def write_report(comparison: Comparison, folder: Path | str, home: Path | None = None) -> Path:
    """Write ``folder/report.html`` from a comparison and the figures that stand in the folder.

    Args:
        home: where the page will stand, when ``folder`` is taken there; it links to files of both.

    Returns:
        The path of the report.
    Raises:
        UserError: a figure is no PNG, or the folder cannot be written.
    """
    folder = Path(folder)
    content = comparison.content
    page = render(content, captioned_figures(folder / "figures", _REMAKE), _files(content, (folder, home or folder)))
    return write_atomically(folder / "report.html", page.encode())


def render(comparison: Mapping[str, Any], figures: list[dict[str, Any]], found: Mapping[str, str] | None = None) -> str:
    """The page as text, from a comparison and figures with ``source`` (data URI), ``caption`` and ``alt``.

    Args:
        found: files beside the page that it links to, by name.
    """
    filters = {"with_error": _with_error, "percent": _percent, "duration": _duration}
    template = open_environment(**filters).get_template("maps/report.html.j2")
    models = shown_rows(comparison)
    return template.render(
        split=comparison["split"],
        experiment=_experiment(comparison.get("experiment")),
        bands=comparison["ell_bands"],
        models=models,
        best=comparison.get("best") or {},
        sphere_bands=_sphere_bands(models),
        sphere_tables=_tables_by_target(comparison),
        polarization=_polarization(comparison),
        timed=any("seconds_train" in m or "seconds_predict" in m for m in models.values()),
        paired={name: pairs for name, pairs in (comparison.get("paired") or {}).items() if name in models},
        marginalization=_marginalization(comparison),
        notes=[str(note) for note in comparison.get("notes") or []],
        figures=[figure | {"model": _model_of(figure.get("name", ""), models)} for figure in figures],
        power={name: one for name, one in (comparison.get("power") or {}).items() if name in models},
        latitude=comparison.get("latitude") or {},
        covariance=comparison.get("covariance") or {},
        training=comparison.get("training") or {},
        done=facts(comparison.get("setting"), comparison.get("provenance")),
        found=found or {},
    )


def _model_of(figure: str, models: Mapping[str, Any]) -> str:
    """The model that a picture shows alone, by its name; empty for pictures of all."""
    return next((name for name in models if figure in (f"sky_{name}", f"residual_{name}")), "")


def _files(comparison: Mapping[str, Any], folders: Iterable[Path]) -> dict[str, str]:
    """Files beside the page: numbers, templates, and each run's configuration, card and weights."""
    names = ["comparison.json", "comparison.csv", "comparison.nc"]
    names += [f"templates/{name}.fits" for name in comparison["models"]]
    names += [f"{model.get('run')}/config.json" for model in comparison["models"].values() if model.get("run")]
    return links(folders, names)


def captioned_figures(folder: Path, mend: str) -> list[dict[str, Any]]:
    """Pictures of a folder with their captions, in the order of these; raises UserError where one is damaged."""
    captions, curves = _texts(folder / "captions.json"), _texts(folder / "curves.json")
    order = {name: index for index, name in enumerate(captions)}
    paths = sorted(folder.glob("*.png"), key=lambda path: (order.get(path.stem, len(order)), path.name))
    texts = {path: captions.get(path.stem, path.stem.replace("_", " ")) for path in paths}
    return [
        picture(path, mend)
        | {"name": path.stem, "caption": text, "alt": text, "svg": Markup(curves.get(path.stem, ""))}
        for path, text in texts.items()
    ]


def _texts(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    return {Path(name).stem: str(text) for name, text in read_json(path, "it maps figure names to texts").items()}


def _experiment(experiment: Any) -> dict[str, str]:
    """The experiment as rows of a table: a mapping's plain entries, or the one name given."""
    if not experiment:
        return {}
    if not isinstance(experiment, Mapping):
        return {"name": str(experiment)}
    return {str(k): str(v) for k, v in experiment.items() if isinstance(v, str | int | float | bool)}


_SPHERE_TITLES = {
    "sphere": ("test", "Correlation on the sphere"),
    "sphere_without_cuts": ("without_cuts", "Correlation on the sphere, without the cut discs"),
}


def _sphere_bands(models: Mapping[str, Any]) -> list[str]:
    """Bands of the sphere that some model resolves, lowest first."""
    found = {
        band for model in models.values() for band, value in (model.get("sphere") or {}).items() if value is not None
    }
    return [band for band in ("r_low", "r50", "r150") if band in found]


def _tables_by_target(comparison: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """:func:`_sphere_tables` of every target, its name before the title where there are several."""
    others = comparison.get("other_targets") or {}
    found = {} if others else _sphere_tables(comparison)
    for name, scores in ({comparison["target"]: {}} | others).items() if others else ():
        found |= {f"{name}: {title}": rows for title, rows in _sphere_tables({**comparison, **scores}).items()}
    return found


def _polarization(comparison: Mapping[str, Any], band: str = "r50") -> dict[str, Any] | None:
    """What else is known of predicted Q and U on the sphere in one band, a row a model."""
    models = {name: one["sphere"] for name, one in (comparison.get("polarization") or {}).items()}
    if not models:
        return None
    known = {key: heading for key, heading in QUANTITIES.items() if key in next(iter(models.values()))}
    rows = {name: [one[key].get(band) for key in known] for name, one in models.items()}
    return {"band": comparison["ell_bands"][band], "headings": list(known.values()), "rows": rows}


def _sphere_tables(comparison: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """One table a region: each model's r and its paired difference to the linear model, by band."""
    models, tables = shown_rows(comparison), {}
    bands = _sphere_bands(models)
    for key, (region, title) in _SPHERE_TITLES.items():
        rows = {}
        for name, model in models.items():
            if not model.get(key):
                continue
            errors = model.get(f"{key}_sem") or {}
            pairs = (comparison.get("paired_sphere") or {}).get(name, {}).get("linear", {}).get(region, {})
            spread, best = model.get(f"{key}_spread") or {}, (comparison.get("best") or {}).get(key) or {}
            rows[name] = {
                "r": [
                    {"mean": model[key].get(band), "sem": errors.get(band), "spread": spread.get(band)}
                    for band in bands
                ],
                "best": [best.get(band) == name for band in bands],
                "minus_linear": [pairs.get(band) for band in bands],
            }
        if rows:
            tables[title] = rows
    return tables


def _marginalization(comparison: Mapping[str, Any]) -> dict[str, Any] | None:
    """Rows of the marginalization table, every value under the band it belongs to."""
    content = comparison.get("marginalization")
    if not content or not content.get("models"):
        return None
    bands = content.get("bands") or {}
    names = list(bands) if isinstance(bands, Mapping) else [_band_name(band) for band in bands]
    rows = {
        model: {
            key: _with_errors(entry.get(key), entry.get(f"{key}_sem"), names) for key in ("power_left", "cmb_power")
        }
        | {
            "amplitude": _first(entry.get("amplitude")),
            "error": _first(entry.get("error")),
        }
        for model, entry in content["models"].items()
    }
    true = content.get("true_amplitude")
    return {"bands": names, "rows": rows, "realizations": content.get("realizations"), "true_amplitude": true}


def _band_name(band: Any) -> str:
    return band if isinstance(band, str) else f"{band[0]:g}–{band[1]:g}"


def _with_errors(values: Any, errors: Any, names: list[str]) -> list[dict[str, Any]]:
    pairs = zip(_by_band(values, names), _by_band(errors, names), strict=True)
    return [{"mean": value, "sem": error} for value, error in pairs]


def _by_band(values: Any, names: list[str]) -> list[Any]:
    if isinstance(values, Mapping):
        return [values.get(name) for name in names]
    values = list(values or [])
    return [*values, *[None] * (len(names) - len(values))][: len(names)]


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _with_error(value: Any, digits: int = 3) -> Markup | str:
    """``{"mean", "sem"}`` as mean ± sem, with the ``spread`` over seeds; what is missing is left out."""
    if not isinstance(value, Mapping) or not is_finite(value.get("mean")):
        return ABSENT
    mean, sem, spread = number(value["mean"], digits), value.get("sem"), value.get("spread")
    shown = Markup('{}<span class="error"> ± {}</span>').format(mean, number(sem, digits)) if is_finite(sem) else mean
    return (
        Markup('{}<span class="error"> (seeds {})</span>').format(shown, number(spread, digits))
        if is_finite(spread)
        else shown
    )


def _percent(value: Any) -> Markup | str:
    """A share ``{"mean", "sem"}`` in percent with three significant digits, its error with as many decimals."""
    if not isinstance(value, Mapping) or not is_finite(value.get("mean")):
        return ABSENT
    percent, error = 100 * value["mean"], value.get("sem", math.nan)
    digits = 0 if abs(percent) >= 99.95 else max(0, 2 - math.floor(math.log10(max(abs(percent), 1e-3))))
    shown = f"{percent:.{min(digits, 3)}f}"
    if not is_finite(error):
        return f"{shown} %"
    return Markup('{} %<span class="error"> ± {}</span>').format(shown, f"{100 * error:.{max(1, min(digits, 3))}f}")


def _duration(value: Any) -> str:
    if not is_finite(value):
        return ABSENT
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min"
