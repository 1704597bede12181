"""The comparison as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from sphereml.evaluation.terminal_tables import open_console, print_table


def comparison_table(comparison: Mapping[str, Any], console: Console | None = None) -> None:
    """Print scores of every target, paired significance and, when there, what marginalization leaves."""
    console = console or open_console()
    others = comparison.get("other_targets") or {}
    _print_scores(comparison, f"{comparison['target']}: " if others else "", console)
    for name, scores in others.items():
        _print_scores({**comparison, **scores}, f"{name}: ", console)
    if "polarization" in comparison:
        _print_polarization(comparison, console)
    if "marginalization" in comparison:
        _print_marginalization(comparison["marginalization"], console)
    for note in comparison["notes"]:
        console.print(note, style="dim", highlight=False, soft_wrap=True)


def _print_scores(comparison: Mapping[str, Any], target: str, console: Console) -> None:
    span = {name: f"{name}\n{lo:g}-{hi:g}" for name, (lo, hi) in comparison["ell_bands"].items()}
    flat = [band for band in ("r50", "r150") if band in span]
    sphere = [band for band in ("r_low", "r50", "r150") if band in span]
    cut = any("sphere_without_cuts" in model for model in comparison["models"].values())
    title = f"{target}held-out sky, split {comparison['split']} (flat: patches, single modes; sphere: masked spectra)"
    headings = [
        "model",
        *(f"flat {span[band]}" for band in flat),
        *([f"wins of {wins}\n" + " ".join(flat)] if (wins := _patches(comparison)) else []),
        *([f"vs linear\n{flat[-1]}"] if "linear" in comparison["models"] else []),
        *(f"sphere {span[band]}" for band in sphere),
        *(["sphere r50\nwithout discs"] if cut else []),
        "train\ns",
    ]
    shown = shown_rows(comparison).items()
    print_table(console, title, headings, [_row(name, model, comparison, flat, sphere, cut) for name, model in shown])


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


QUANTITIES = {"left_ee": "EE left", "left_bb": "BB left", "ee_bb": "EE/BB", "te": "r_TE", "tb": "r_TB", "eb": "r_EB"}


def _print_polarization(comparison: Mapping[str, Any], console: Console) -> None:
    """Ratios and correlations of the predictions on the sphere, and how far angles are off; the truth's own below."""
    models, band = comparison["polarization"], "r50"
    lo, hi = comparison["ell_bands"][band]
    first = next(iter(models.values()))["sphere"]
    known = {key: heading for key, heading in QUANTITIES.items() if key in first}
    edges = [one["fraction"] for one in first["angles"]]
    title = (
        f"polarization on the sphere, {lo:g}-{hi:g}; mean |angle off| in degrees (45: chance) by polarization fraction"
    )
    rows = []
    for name, one in models.items():
        values = [one["sphere"][key][band] for key in known]
        angles = [f"{angle['mean']:.1f}±{angle['sem']:.1f}" for angle in one["sphere"]["angles"]]
        rows.append([name, *(_measured(value["mean"], value["sem"]) for value in values), *angles])
    truth = [first.get(f"true_{key}", {}).get(band, {}) for key in known]
    rows.append(["truth", *(_measured(one.get("mean"), one.get("sem")) for one in truth), *("-" for _ in edges)])
    headings = ["model", *known.values(), *(f"{start:.2g}-{end:.2g}" for start, end in edges)]
    print_table(console, title, headings, rows)


def _print_marginalization(result: Mapping[str, Any], console: Console) -> None:
    bands = result["bands"]
    title = (
        f"dust power left after marginalizing each template from CMB + dust at {result['frequency_ghz']:g} GHz, "
        f"and CMB power kept ({result['realizations']} CMB skies); amplitudes in uK_CMB per uK_RJ"
    )
    headings = [
        "template",
        f"amplitude\n(dust: {result['true_amplitude']:.3f})",
        *(f"dust left {name}\n{lo:g}-{hi:g}" for name, (lo, hi) in bands.items()),
        *(f"CMB kept\n{name}" for name in bands),
    ]
    print_table(console, title, headings, [_left(name, model, bands) for name, model in result["models"].items()])


def _left(name: str, model: Mapping[str, Any], bands: Mapping[str, Any]) -> list[str]:
    left = [f"{100 * model['power_left'][band]:.1f}±{100 * model['power_left_sem'][band]:.1f} %" for band in bands]
    kept = [f"{model['cmb_power'][band]:.3f}" for band in bands]
    return [name, f"{model['amplitude']:.3f}±{model['error']:.3f}", *left, *kept]
