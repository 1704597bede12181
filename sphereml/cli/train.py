"""``sphereml train experiment=NAME [model=NAME] [key=value ...]``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sphereml.cli.experiment import add_overrides, load_data, model_configs, refuse_unfit, say
from sphereml.config.schema import ExperimentConfig

if TYPE_CHECKING:
    from sphereml.training.lifecycle import FitOptions
    from sphereml.training.runs import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser)
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted training")
    parser.add_argument("--overwrite", action="store_true", help="train again what is already there")


def run(options: argparse.Namespace) -> None:
    """Train every model of the experiment, or the chosen one; complete runs are left as they are."""
    train_models(model_configs(options.overrides), options.resume, options.overwrite)


def train_models(configs: list[ExperimentConfig], resume: bool, overwrite: bool) -> list[Run]:
    """The finished runs of all configurations, which are of one task."""
    from sphereml.training.lifecycle import FitOptions

    how = FitOptions(resume, overwrite, say)
    runs = []
    for finished in (_lensing if configs[0].task == "lensing" else _dust)(configs, how):
        say(f"{finished.name}: {finished.folder}  ({finished.manifest()['seconds_train']:.1f} s)")
        runs.append(finished)
    return runs


def _dust(configs: list[ExperimentConfig], how: FitOptions) -> Iterator[Run]:
    sky, split = load_data(configs[0])
    refuse_unfit(configs, sky, split)
    from sphereml.training.fit import fit_run

    return (fit_run(config, sky, split, how) for config in configs)


def _lensing(configs: list[ExperimentConfig], how: FitOptions) -> Iterator[Run]:
    from sphereml.training.lensing_fit import fit_lensing

    return (fit_lensing(config, how) for config in configs)
