"""``sphereml report FOLDER``: the HTML page of a comparison."""

from __future__ import annotations

import argparse
from pathlib import Path

from sphereml.cli.experiment import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="a folder with comparison.json, e.g. runs/demo")


def run(options: argparse.Namespace) -> None:
    from sphereml.evaluation.lensing.report import write_lensing_report
    from sphereml.evaluation.report import write_report

    folder = Path(options.folder)
    write = write_lensing_report if (folder / "lensing.json").is_file() else write_report
    say(f"report: {write(folder)}")
