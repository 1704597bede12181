"""``sphereml config show|validate|list|new``."""

from __future__ import annotations

import argparse
from pathlib import Path

from sphereml.cli.experiment import add_overrides
from sphereml.cli.output import say, say_json
from sphereml.config.compose import compose, load, run_hash, to_commented_yaml, to_json, to_yaml
from sphereml.config.overrides import config_names, names_in
from sphereml.config.resources import config_folders
from sphereml.config.schema import ExperimentConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="print the complete configuration, and what its keys mean")
    add_overrides(show)
    show.add_argument("--plain", action="store_true", help="without comments")
    show.add_argument("--json", action="store_true", help="as JSON")
    add_overrides(actions.add_parser("validate", help="check overrides, an experiment file, or a run's config.json"))
    listing = actions.add_parser("list", help="the names to choose from in each group")
    listing.add_argument("--json", action="store_true", help="as JSON, all folders together")
    new = actions.add_parser("new", help="write a commented experiment on maps of one's own")
    new.add_argument("name", metavar="NAME", help="of the experiment")
    what = "HEALPix maps, FILE or FILE[COLUMN]"
    new.add_argument("--inputs", nargs="+", action="extend", required=True, metavar="FILE", help=what)
    new.add_argument("--target", nargs="+", action="extend", required=True, metavar="FILE", help="what is predicted")
    new.add_argument("--mask", metavar="FILE", help="weights from 0 (drop) to 1 (keep)")
    new.add_argument("--split", metavar="FILE", help="map of 0 (not used), 1 (training), 2 (validation), 3 (test)")
    new.add_argument("--out", type=Path, default=Path("configs"), metavar="FOLDER", help="default: ./configs")
    new.add_argument("--overwrite", action="store_true", help="replace an experiment of this name")


def run(options: argparse.Namespace) -> None:
    {"list": _list, "new": _new, "show": _show, "validate": _validate}[options.action](options)


def _list(options: argparse.Namespace) -> None:
    if options.json:
        say_json(config_names())
        return
    for group, names in config_names().items():
        say(f"{group}: " + " ".join(names))
    for folder in config_folders()[:-1]:
        for group, names in names_in(folder).items():
            say(f"of {folder}: {group}: " + " ".join(names))


def _show(options: argparse.Namespace) -> None:
    config = _configured(options.overrides)
    if options.json:
        say(to_json(config).rstrip())
        return
    say((to_yaml(config) if options.plain else to_commented_yaml(config)).rstrip())


def _validate(options: argparse.Namespace) -> None:
    say(f"valid; hash of the settings {run_hash(_configured(options.overrides))}")


def _configured(words: list[str]) -> ExperimentConfig:
    """Of overrides and experiment files, or of a run's own ``config.json``."""
    return load(Path(words[0])) if len(words) == 1 and words[0].endswith(".json") else compose(words)


def _new(options: argparse.Namespace) -> None:
    from sphereml.data.new_experiment import FILL_IN, OwnMaps, write_experiment

    maps = OwnMaps(options.name, options.inputs, options.target, options.mask, options.split)
    path = write_experiment(maps, options.out, options.overwrite)
    gaps = path.read_text().count(FILL_IN)
    todo = f"fill in what no file says ({gaps} lines marked {FILL_IN})" if gaps else "read it"
    say(f"{path}: {todo}, then `sphereml train experiment={options.name}`")
