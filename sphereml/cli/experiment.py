"""What several verbs share: overrides to experiments, the sky they need, and the folder they write to."""

from __future__ import annotations

import argparse
from pathlib import Path

from sphereml.config.compose import compose
from sphereml.config.schema import ExperimentConfig
from sphereml.config.validation import check_resolution
from sphereml.data.splits import Split
from sphereml.data.store import Sky
from sphereml.errors import UserError


def add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="experiment=NAME, model=NAME, any key=value")


def say(line: str) -> None:
    """A line of progress, at once also in a pipe."""
    print(line, flush=True)


def model_configs(overrides: list[str]) -> list[ExperimentConfig]:
    """One configuration for each model of the experiment, or the one that ``model=NAME`` chooses."""
    config = compose(overrides)
    chosen = not config.models or any(word.startswith("model=") for word in overrides)
    configs = [config] if chosen else [compose([*overrides, f"model={name}"]) for name in config.models]
    for one in configs:
        if one.task == "dust" and one.data.kind == "galaxy":  # before it is simulated
            check_resolution(one, one.data.galaxy.nside)
    return configs


def load_data(config: ExperimentConfig) -> tuple[Sky, Split]:
    """The sky and the regions of an experiment."""
    from sphereml.tasks.sky import load_sky, load_split

    sky = load_sky(config.data, say)
    return sky, load_split(config, sky)


def refuse_unfit(configs: list[ExperimentConfig], sky: Sky, split: Split) -> None:
    """Raise UserError for the first model that cannot be trained on this sky, before any training starts."""
    from sphereml.data.store import column
    from sphereml.training.fit import footprint

    column(sky)
    for config in configs:
        check_resolution(config, sky.grid.nside)
        if config.model.domain != "none":
            footprint(config, sky.grid.nside, split.train)


def study_folder(folder: str, config: ExperimentConfig) -> Path:
    """Where comparisons and templates go: the folder that holds the runs."""
    path = Path(folder) if folder else Path(config.output) / config.name
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file", "give a folder")
    return path
