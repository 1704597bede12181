"""The comparison as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def comparison_table(comparison: Mapping[str, Any], console: Console | None = None) -> None:
    """Print scores of every target, paired significance and, when there, what marginalization leaves."""
    console = console or Console(width=None if Console().is_terminal else 140)
    others = comparison.get("other_targets") or {}
    console.print(_scores(comparison, f"{comparison['target']}: " if others else ""))
    for name, scores in others.items():
        console.print(_scores({**comparison, **scores}, f"{name}: "))
    if "polarization" in comparison:
        console.print(_polarization(comparison))
    if "marginalization" in comparison:
        console.print(_marginalization(comparison["marginalization"]))
    for note in comparison["notes"]:
        console.print(note, style="dim", highlight=False, soft_wrap=True)


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(headings[0], no_wrap=True)
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _scores(comparison: Mapping[str, Any], target: str) -> Table:
    span = {name: f"{name}\n{lo:g}-{hi:g}" for name, (lo, hi) in comparison["ell_bands"].items()}
    flat = [band for band in ("r50", "r150") if band in span]
    sphere = [band for band in ("r_low", "r50", "r150") if band in span]
    cut = any("sphere_without_cuts" in model for model in comparison["models"].values())
    table = _table(
        f"{target}held-out sky, split {comparison['split']} (flat: patches, single modes; sphere: masked spectra)",
        "model",
        *(f"flat {span[band]}" for band in flat),
        *([f"wins of {wins}\n" + " ".join(flat)] if (wins := _patches(comparison)) else []),
        *([f"vs linear\n{flat[-1]}"] if "linear" in comparison["models"] else []),
        *(f"sphere {span[band]}" for band in sphere),
        *(["sphere r50\nwithout discs"] if cut else []),
        "train\ns",
    )
    for name, model in shown_rows(comparison).items():
        table.add_row(*_row(name, model, comparison, flat, sphere, cut))
    return table


def shown_rows(comparison: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Every model, and the mean in place of models that differ in their seed alone."""
    groups = comparison.get("groups") or {}
    group_of = {member: name for name, group in groups.items() for member in group["members"]}
    names = dict.fromkeys(group_of.get(name, name) for name in comparison["models"])
    return {name: groups.get(name) or comparison["models"][name] for name in names}


def _patches(comparison: Mapping[str, Any]) -> int:
    """Patches on which models are counted against the integrated one; 0 without it."""
    wins = next(iter(comparison["models"].values()))["wins_vs_integrated"]
    return int(wins["of"]) if wins else 0


def _row(
    name: str, model: Mapping[str, Any], comparison: Mapping[str, Any], flat: list[str], sphere: list[str], cut: bool
) -> list[str]:
    linear = comparison["paired"][name].get("linear", {}).get(flat[-1])
    sigmas = None if linear is None else linear["sigmas"]
    best, spread = comparison.get("best") or {}, model.get("spread") or {}

    def marked(place: str, band: str, value: float | None, error: float | None, apart: float | None) -> str:
        text = _measured(value, error) + ("" if apart is None else f" ({apart:.3f})")
        return f"[bold]{text}[/bold]" if (best.get(place) or {}).get(band) == name else text

    def on_sphere(place: str, band: str) -> str:
        apart = (model.get(f"{place}_spread") or {}).get(band)
        return marked(place, band, model[place][band], model[f"{place}_sem"][band], apart)

    return [
        name,
        *(marked("flat", band, model[band]["mean"], model[band]["sem"], spread.get(band)) for band in flat),
        *([" ".join(str(wins[band]) for band in flat)] if (wins := model["wins_vs_integrated"]) else []),
        *(["" if sigmas is None else f"{sigmas:+.1f} σ"] if "linear" in comparison["models"] else []),
        *(on_sphere("sphere", band) for band in sphere),
        *([on_sphere("sphere_without_cuts", "r50")] if cut else []),
        f"{model['seconds_train']:.0f}",
    ]


def _measured(value: float | None, error: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if error is None else f"{value:.3f}±{error:.3f}"


_QUANTITIES = {"left_ee": "EE left", "left_bb": "BB left", "ee_bb": "EE/BB", "te": "r_TE", "tb": "r_TB", "eb": "r_EB"}


def _polarization(comparison: Mapping[str, Any]) -> Table:
    """Ratios and correlations of the predictions on the sphere, and how far angles are off; the truth's own below."""
    models, band = comparison["polarization"], "r50"
    lo, hi = comparison["ell_bands"][band]
    first = next(iter(models.values()))["sphere"]
    known = {key: heading for key, heading in _QUANTITIES.items() if key in first}
    edges = [one["fraction"] for one in first["angles"]]
    table = _table(
        f"polarization on the sphere, {lo:g}-{hi:g}; mean |angle off| in degrees (45: chance) by polarization fraction",
        "model",
        *known.values(),
        *(f"{start:.2g}-{end:.2g}" for start, end in edges),
    )
    for name, one in models.items():
        values = [one["sphere"][key][band] for key in known]
        angles = [f"{angle['mean']:.1f}±{angle['sem']:.1f}" for angle in one["sphere"]["angles"]]
        table.add_row(name, *(_measured(value["mean"], value["sem"]) for value in values), *angles)
    truth = [first.get(f"true_{key}", {}).get(band, {}) for key in known]
    table.add_row("truth", *(_measured(one.get("mean"), one.get("sem")) for one in truth), *("-" for _ in edges))
    return table


def _marginalization(result: Mapping[str, Any]) -> Table:
    bands = result["bands"]
    table = _table(
        f"dust power left after marginalizing each template from CMB + dust at {result['frequency_ghz']:g} GHz, "
        f"and CMB power kept ({result['realizations']} CMB skies)",
        "template",
        f"amplitude\n(dust: {result['true_amplitude']:.3f})",
        *(f"dust left {name}\n{lo:g}-{hi:g}" for name, (lo, hi) in bands.items()),
        *(f"CMB kept\n{name}" for name in bands),
    )
    for name, model in result["models"].items():
        left = [f"{100 * model['power_left'][band]:.1f}±{100 * model['power_left_sem'][band]:.1f} %" for band in bands]
        kept = [f"{model['cmb_power'][band]:.3f}" for band in bands]
        table.add_row(name, f"{model['amplitude']:.3f}±{model['error']:.3f}", *left, *kept)
    return table
