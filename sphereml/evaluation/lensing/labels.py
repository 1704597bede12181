"""What curves and columns are called: in full in legends, in short lines at the head of a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

QUADRATIC = {
    "qe_naive": "QE EB, naive (as the paper)",
    "qe_eb": "QE EB, fair",
    "qe_mv": "QE EB + EE, fair",
    "iterated": "QE in passes on delensed B",
}
_QUADRATIC_LINES = {"qe_naive": ("QE EB", "naive"), "qe_eb": ("QE EB", "fair"), "qe_mv": ("QE EB+EE", "fair"),
                    "iterated": ("QE", "passes")}  # fmt: skip
_THEORY_LINES = {
    "kappa": ("C_L", "kappa"),
    "N0_EB": ("N0", "EB"),
    "N0_MV": ("N0", "EB+EE"),
    "N0_iterated": ("N0 EB", "iterated"),
}


def sample(experiment: Mapping[str, Any]) -> str:
    """What was measured on: patches, or whole skies."""
    if "degrees" in experiment:
        return f"{experiment['patches']} test patches of {experiment['degrees']:g} deg"
    skies = "sky" if experiment["patches"] == 1 else "skies"
    return f"{experiment['patches']} whole test {skies} of Nside {experiment['nside']}"


def theory_lines(content: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Heads of the theory's columns, of the curves that a result holds."""
    return {key: lines for key, lines in _THEORY_LINES.items() if key in content["theory"]}


def theory_labels(content: Mapping[str, Any]) -> dict[str, str]:
    """The same for legends; the convention of the iterated one stands in the notes."""
    return {key: " ".join(lines) for key, lines in theory_lines(content).items()} | {"kappa": "C_L of kappa"}


def model_lines(name: str, label: str) -> tuple[str, ...]:
    """Head of a model's column."""
    return _QUADRATIC_LINES.get(name, (label,))
