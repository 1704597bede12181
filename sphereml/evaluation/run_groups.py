"""Runs side by side: names to tell them apart by, and which of them differ in their seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from sphereml.config.schema import EvaluationConfig
from sphereml.training.runs import Run


def run_names(runs: Sequence[Run]) -> list[str]:
    """Names to tell runs apart by: the model's; where they share it with size, averaging, seed, or else the hash."""
    names = [run.name for run in runs]
    degrees = [f"{run.config.patches.size * run.config.patches.pixel_arcmin / 60:g}deg" for run in runs]
    averaging = ["swa" if run.config.training.average_from < 1 else "" for run in runs]
    for more in (degrees, averaging, [f"s{run.config.training.seed}" for run in runs]):
        alike = {name: {m for n, m in zip(names, more, strict=True) if n == name} for name in names}
        names = [f"{n}-{m}" if m and len(alike[n]) > 1 else n for n, m in zip(names, more, strict=True)]
    return [run.folder.name if names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]


def same_but_seed(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups of two runs or more whose configurations differ in ``training.seed`` alone."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        training = replace(run.config.training, seed=0)
        alike = replace(run.config, training=training, output="", models=[], evaluation=EvaluationConfig())
        groups.setdefault(repr(asdict(alike)), []).append(run)
    return [group for group in groups.values() if len(group) > 1]
