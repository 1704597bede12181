"""``sphereml compare RUNS``: every trained model of a folder on the same held-out sky."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sphereml.cli.experiment import load_data, say, study_folder

if TYPE_CHECKING:
    from sphereml.evaluation.study import Study


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verbs that work on finished runs."""
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="a folder of runs, e.g. runs/demo, or run folders")
    parser.add_argument("--data", metavar="FOLDER", help="folder of the input maps (else SPHEREML_REAL_SKY)")
    parser.add_argument("--stores", metavar="FOLDER", help="folder of the prepared stores (else as trained)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_study_arguments(parser)
    parser.add_argument("--out", default="", metavar="FOLDER", help="where to write (default: beside the runs)")


def open_study(options: argparse.Namespace) -> Study:
    """The finished runs with their sky."""
    from sphereml.evaluation.study import Study
    from sphereml.training.runs import find_runs

    runs = [found for folder in options.runs for found in find_runs(Path(folder))]
    config = runs[0].config
    config.data.folder = options.data or config.data.folder
    config.data.stores = options.stores or config.data.stores
    sky, split = load_data(config)
    return Study(config, runs, sky, split, say)


def run(options: argparse.Namespace) -> None:
    """Write ``comparison.json``, figures and ``report.html``."""
    from sphereml.evaluation.table import comparison_table

    study = open_study(options)
    folder = study_folder(options.out or str(study.runs[0].folder.parent), study.config)
    comparison = study.compare(folder)
    report = study.report(folder)
    comparison_table(comparison.to_json())
    say(f"report: {report}")
