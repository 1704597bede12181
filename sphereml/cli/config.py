"""``sphereml config show|validate|list``."""

from __future__ import annotations

import argparse
from pathlib import Path

from sphereml.cli.experiment import add_overrides, say
from sphereml.config.compose import compose, load, run_hash, to_yaml
from sphereml.config.overrides import config_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_overrides(actions.add_parser("show", help="print the complete configuration"))
    validate = actions.add_parser("validate", help="check overrides, or a config.yaml")
    add_overrides(validate)
    actions.add_parser("list", help="the names to choose from in each group")


def run(options: argparse.Namespace) -> None:
    if options.action == "list":
        for group, names in config_names().items():
            say(f"{group}: " + " ".join(names))
        return
    words = options.overrides
    one_file = len(words) == 1 and words[0].endswith((".yaml", ".yml", ".json"))
    config = load(Path(words[0])) if one_file else compose(words)
    say(to_yaml(config).rstrip() if options.action == "show" else f"valid; hash of the settings {run_hash(config)}")
