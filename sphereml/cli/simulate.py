"""``sphereml simulate dust [key=value ...]``: a synthetic Galaxy in a store."""

from __future__ import annotations

import argparse

from sphereml.cli.experiment import say
from sphereml.config.compose import compose


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["dust"], help="dust: HI channels and the dust they trace")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. data.galaxy.nside=256 data.galaxy.seed=2"
    )


def run(options: argparse.Namespace) -> None:
    config = compose(["data=galaxy", *options.overrides])
    from sphereml.data.prepare import store_path
    from sphereml.tasks.sky import load_sky

    sky = load_sky(config.data, say)
    say(f"store: {store_path(config.data)}  (Nside {sky.grid.nside}, {len(sky.channels)} channels)")
    for name, values in sky.components.items():
        say(f"  {name}: mean {values.mean(dtype=float):.4g} {sky.component_units[name]}")
