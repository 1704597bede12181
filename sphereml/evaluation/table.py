"""The comparison as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def comparison_table(comparison: Mapping[str, Any], console: Console | None = None) -> None:
    """Print scores, paired significance and, when there, what marginalization leaves."""
    console = console or Console(width=None if Console().is_terminal else 130)
    console.print(_scores(comparison))
    if "marginalization" in comparison:
        console.print(_marginalization(comparison["marginalization"]))
    for note in comparison["notes"]:
        console.print(f"[dim]{note}[/dim]", highlight=False)


def _scores(comparison: Mapping[str, Any]) -> Table:
    bands = {name: f"{name} ({lo:g}-{hi:g})" for name, (lo, hi) in comparison["ell_bands"].items()}
    table = Table(title=f"held-out sky, split {comparison['split']}", title_justify="left")
    table.add_column("model")
    flat = [band for band in ("r50", "r150") if band in bands]
    for band in flat:
        table.add_column(f"patches\n{bands[band]}", justify="right")
    table.add_column("wins vs\nintegrated", justify="right")
    table.add_column("sigmas vs\nlinear, " + flat[-1], justify="right")
    for band in ("r_low", "r50", "r150"):
        if band in bands:
            table.add_column(f"sphere\n{bands[band]}", justify="right")
    cut = any("sphere_without_cuts" in model for model in comparison["models"].values())
    if cut:
        table.add_column("sphere r50\nwithout cuts", justify="right")
    table.add_column("train s", justify="right")
    for name, model in comparison["models"].items():
        table.add_row(*_row(name, model, comparison, flat, list(bands), cut))
    return table


def _row(
    name: str, model: Mapping[str, Any], comparison: Mapping[str, Any], flat: list[str], bands: list[str], cut: bool
) -> list[str]:
    wins = model["wins_vs_integrated"]
    linear = comparison["paired"][name].get("linear", {}).get(flat[-1])
    cells = [name, *(f"{model[band]['mean']:.3f} ± {model[band]['sem']:.3f}" for band in flat)]
    cells.append(" ".join(str(wins[band]) for band in flat) + f" of {wins['of']}")
    cells.append("" if linear is None else f"{linear['sigmas']:+.1f}")
    for key in ("sphere", "sphere_without_cuts") if cut else ("sphere",):
        shown = [b for b in ("r_low", "r50", "r150") if b in bands] if key == "sphere" else ["r50"]
        cells += [f"{model[key][band]:.3f} ± {model[key + '_sem'][band]:.3f}" for band in shown]
    cells.append(f"{model['seconds_train']:.0f}")
    return cells


def _marginalization(result: Mapping[str, Any]) -> Table:
    bands = result["bands"]
    table = Table(
        title="marginalizing each template from CMB + dust at 150 GHz: dust power left (CMB power kept)",
        title_justify="left",
    )
    table.add_column("template")
    table.add_column("amplitude", justify="right")
    for name, (lo, hi) in bands.items():
        table.add_column(f"{name} ({lo:g}-{hi:g})", justify="right")
    for name, model in result["models"].items():
        left = [f"{100 * model['power_left'][band]:.1f} %  ({model['cmb_power'][band]:.3f})" for band in bands]
        table.add_row(name, f"{model['amplitude']:.3f} ± {model['error']:.3f}", *left)
    return table
