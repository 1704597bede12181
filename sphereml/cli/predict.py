"""``sphereml predict RUNS``: full-sky templates as FITS."""

from __future__ import annotations

import argparse
from pathlib import Path

from sphereml.cli.compare import add_study_arguments, open_runs, open_study
from sphereml.cli.experiment import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_study_arguments(parser)
    parser.add_argument(
        "--out", default="", metavar="FOLDER", help="where to write (default: templates/ beside the runs)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def run(options: argparse.Namespace) -> None:
    study = open_study(open_runs(options), options)
    folder = Path(options.out) if options.out else study.runs[0].folder.parent / "templates"
    for path in study.write_templates(folder, options.overwrite):
        say(f"template: {path}")
