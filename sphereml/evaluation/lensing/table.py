"""Noise of every estimator, band by band, as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from rich.console import Console

from sphereml.evaluation.lensing.labels import model_lines, sample, theory_lines
from sphereml.evaluation.lensing.noise import GOAL_SPAN
from sphereml.evaluation.lensing.sentences import Sentences
from sphereml.evaluation.terminal_tables import print_table


def lensing_table(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print C_L, N0, N_L and the networks' ratios to the reference, and the notes."""
    wide = 120 + 2 * sum(len(name) + 4 for name in content["models"])
    console = console or Console(width=None if Console().is_terminal else wide)
    _print_noise(content, console)
    for name, model in content["models"].items():
        if model["kind"] != "quadratic":
            console.print(_goal(content, name), highlight=False, soft_wrap=True)
    words = Sentences(content)
    for part in ("responses", "delensing", "latitude"):
        if part in content:
            console.print(getattr(words, part)(), highlight=False, soft_wrap=True)
    for note in content["notes"]:
        console.print(note, style="dim", highlight=False, soft_wrap=True)


def _print_noise(content: Mapping[str, Any], console: Console) -> None:
    experiment, reference = content["experiment"], content["experiment"]["reference"]
    other = " ".join(model_lines(reference, reference))
    title = f"C_L and N_L of kappa / 1e-8, {sample(experiment)} at {experiment['noise']:g} uK-arcmin; ratios to {other}"
    theory = theory_lines(content)
    networks = [name for name, model in content["models"].items() if model["kind"] != "quadratic"]
    quadratic = [name for name in content["models"] if name not in networks]
    headings = ["\n".join(lines) for lines in theory.values()]
    headings += ["N_L " + "\n".join(model_lines(name, name)) for name in quadratic]
    headings += [part for name in networks for part in (f"N_L\n{name}", f"ratio\n{name}")]
    rows = []
    for band, (lo, hi) in enumerate(pairwise(content["bands"]["edges"])):
        row = [_scaled(content["theory"][key][band]) for key in theory]
        row += [_scaled(content["models"][name]["noise"]["value"][band]) for name in quadratic]
        for name in networks:
            model = content["models"][name]
            row += [_scaled(model["noise"]["value"][band]), _measured(model["ratio"][reference], band)]
        rows.append([f"{lo:g}-{hi:g}", *row])
    print_table(console, title, ["L", *headings], rows)


def _goal(content: Mapping[str, Any], name: str) -> str:
    reference = content["experiment"]["reference"]
    goal = content["models"][name]["ratio"][reference]["goal"]
    if goal is None:
        return f"{name}: no band within {GOAL_SPAN}"
    spelt = f"{goal['value']:.3f}±{goal['error']:.3f}"
    return f"{name}: N_L over the QE's, mean over {GOAL_SPAN}: {spelt} (goal 0.5; the paper 0.3-0.5)"


def _scaled(value: float | None) -> str:
    return "-" if value is None else f"{1e8 * value:.3g}"


def _measured(ratio: Mapping[str, Any], band: int) -> str:
    value, error = ratio["value"][band], ratio["error"][band]
    return "-" if value is None or error is None else f"{value:.3f}±{error:.3f}"
