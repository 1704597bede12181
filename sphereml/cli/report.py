"""``sphereml report FOLDER``: the HTML page of a result."""

from __future__ import annotations

import argparse
from pathlib import Path

from sphereml.cli.experiment import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="a folder with a result (comparison.json, lensing.json, ...), e.g. runs/demo")


def run(options: argparse.Namespace) -> None:
    from sphereml.evaluation.protocol import load_result

    say(f"report: {load_result(options.folder).report(Path(options.folder))}")
