"""``sphereml train experiment=NAME [model=NAME] [key=value ...]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sphereml.cli.experiment import add_overrides, add_training_flags, model_configs
from sphereml.cli.output import say, say_json, tell
from sphereml.config.schema import ExperimentConfig

if TYPE_CHECKING:
    from sphereml.training.runs import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser)
    add_training_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON list of the runs")


def run(options: argparse.Namespace) -> None:
    """Train every model of the experiment, or the chosen one; complete runs are left as they are."""
    configs = model_configs(options.overrides)
    if options.dry_run:
        show_plan(configs, options.json)
        return
    runs = train_models(configs, options.resume, options.overwrite)
    spent = [one.manifest()["seconds_train"] for one in runs]
    if options.json:
        listed = zip(runs, spent, strict=True)
        say_json([{"model": one.name, "folder": str(one.folder), "seconds_train": took} for one, took in listed])
        return
    for finished, took in zip(runs, spent, strict=True):
        say(f"{finished.name}: {finished.folder}  ({took:.1f} s)")


def _refuse_unreadable(configs: Sequence[ExperimentConfig]) -> None:
    """Read the maps of one's own before torch is imported: what is wrong with them is told at once."""
    from sphereml.config.tasks import is_used
    from sphereml.sources.sky import load_sky

    for config in configs:
        if config.data.kind != "galaxy" and is_used(config.task, "data.kind"):
            load_sky(config.data, say)


def train_models(configs: Sequence[ExperimentConfig], resume: bool, overwrite: bool) -> list[Run]:
    """The finished runs of all configurations; what one of them cannot have is refused before the first is trained."""
    _refuse_unreadable(configs)
    from sphereml.tasks import open_task
    from sphereml.training.fit import fit_task, warn
    from sphereml.training.lifecycle import FitOptions

    opened = [open_task(config, tell) for config in configs]
    for one in opened:
        one.check()
    warn(opened, tell)
    runs = []
    for number, one in enumerate(opened, start=1):
        if len(opened) > 1:
            tell(f"model {number} of {len(opened)}: {one.config.model.name}")
        runs.append(fit_task(one, FitOptions(resume, overwrite, tell)))
    return runs


def show_plan(configs: Sequence[ExperimentConfig], as_json: bool = False) -> None:
    """What a training would do, without reading the data: each model's run folder, and whether it is there."""
    from sphereml.tasks import open_task
    from sphereml.training.runs import Run

    planned = [Run.of(config, open_task(config, tell).identity()) for config in configs]
    states = ["unfinished" if (known := run.manifest()) and not known.get("complete") else
              "trained" if known else "to train" for run in planned]  # fmt: skip
    listed = list(zip(planned, states, strict=True))
    if as_json:
        say_json([{"model": run.name, "folder": str(run.folder), "state": state} for run, state in listed])
    for run, state in [] if as_json else listed:
        epochs = "" if run.config.model.domain == "none" else f", {run.config.training.epochs} epochs at most"
        say(f"{run.name}: {run.folder}  ({state}{epochs if state != 'trained' else ''})")
