"""``sphereml train experiment=NAME [model=NAME] [key=value ...]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sphereml.cli.experiment import add_overrides, add_training_flags, model_configs, say
from sphereml.config.schema import ExperimentConfig

if TYPE_CHECKING:
    from sphereml.training.runs import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser)
    add_training_flags(parser)


def run(options: argparse.Namespace) -> None:
    """Train every model of the experiment, or the chosen one; complete runs are left as they are."""
    for finished in train_models(model_configs(options.overrides), options.resume, options.overwrite):
        say(f"{finished.name}: {finished.folder}  ({finished.manifest()['seconds_train']:.1f} s)")


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

    opened = [open_task(config, say) for config in configs]
    for one in opened:
        one.check()
    warn(opened, say)
    return [fit_task(one, FitOptions(resume, overwrite, say)) for one in opened]
