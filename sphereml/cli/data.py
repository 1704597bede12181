"""``sphereml data list`` and ``sphereml data prepare [key=value ...]``."""

from __future__ import annotations

import argparse

from sphereml.cli.experiment import add_overrides, say
from sphereml.config.compose import compose


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="the products that the manifests describe")
    prepare = actions.add_parser("prepare", help="read the maps of an experiment into a store")
    add_overrides(prepare)


def run(options: argparse.Namespace) -> None:
    _list() if options.action == "list" else _prepare(options.overrides)


def _list() -> None:
    from rich.console import Console
    from rich.table import Table

    from sphereml.data.manifests import list_products

    table = Table("product", "files", "Nside", "unit", "title")
    for product in list_products():
        units = ", ".join(sorted({file.unit for file in product.files if file.unit}))
        nsides = ", ".join(sorted({str(file.nside) for file in product.files}))
        table.add_row(product.name, str(len(product.files)), nsides, units, product.title)
    Console(width=None if Console().is_terminal else 140).print(table)


def _prepare(overrides: list[str]) -> None:
    config = compose(overrides)
    from sphereml.data.prepare import store_path
    from sphereml.tasks.sky import load_sky

    sky = load_sky(config.data, say)
    say(f"store: {store_path(config.data)}")
    say(f"  Nside {sky.grid.nside}, {len(sky.channels)} channels in {sky.input_unit}, target in {sky.target_unit}")
