"""``sphereml train experiment=NAME [model=NAME] [key=value ...]``."""

from __future__ import annotations

import argparse

from sphereml.cli.experiment import add_overrides, load_data, model_configs, refuse_unfit, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser)
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted training")
    parser.add_argument("--overwrite", action="store_true", help="train again what is already there")


def run(options: argparse.Namespace) -> None:
    """Train every model of the experiment, or the chosen one; complete runs are left as they are."""
    configs = model_configs(options.overrides)
    sky, split = load_data(configs[0])
    refuse_unfit(configs, sky, split)
    from sphereml.training.fit import FitOptions, fit_run

    for config in configs:
        finished = fit_run(config, sky, split, FitOptions(options.resume, options.overwrite, say))
        say(f"{config.model.name}: {finished.folder}  ({finished.manifest()['seconds_train']:.1f} s)")
