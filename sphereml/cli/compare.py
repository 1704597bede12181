"""``sphereml compare RUNS``: every trained model of a folder on the same held-out sky."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sphereml.cli.experiment import load_data, say, study_folder
from sphereml.cli.study import study_runs
from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.evaluation.study import Study
    from sphereml.training.runs import Run


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verbs that work on finished runs."""
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="a folder of runs, e.g. runs/demo, or run folders")
    parser.add_argument("--data", metavar="FOLDER", help="folder of the input maps (else SPHEREML_REAL_SKY)")
    parser.add_argument("--stores", metavar="FOLDER", help="folder of the prepared stores (else as trained)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_study_arguments(parser)
    parser.add_argument("--out", default="", metavar="FOLDER", help="where to write (default: beside the runs)")


def open_runs(options: argparse.Namespace) -> list[Run]:
    """The finished runs; raises UserError when they are of different tasks."""
    from sphereml.training.runs import find_runs

    runs = [found for folder in options.runs for found in find_runs(Path(folder))]
    if len({run.config.task for run in runs}) > 1:
        raise UserError("runs of dust and of lensing cannot be compared", "name runs of one task")
    return runs


def open_study(runs: list[Run], options: argparse.Namespace) -> Study:
    """Finished runs of dust with their sky."""
    from sphereml.evaluation.study import Study

    if runs[0].config.task != "dust":
        raise UserError(f"{runs[0].folder} is a run of lensing, on patches alone", "try `sphereml compare`")
    config = runs[0].config
    config.data.folder = options.data or config.data.folder
    config.data.stores = options.stores or config.data.stores
    sky, split = load_data(config)
    return Study(config, runs, sky, split, say)


def run(options: argparse.Namespace) -> None:
    """Write ``comparison.json`` (of lensing ``lensing.json``), figures and ``report.html``."""
    from sphereml.evaluation.table import comparison_table

    runs = open_runs(options)
    if runs[0].config.task == "lensing":
        if options.data:
            raise UserError("--data is a folder of maps, and lensing has none", "leave it out")
        for found in runs:
            found.config.data.stores = options.stores or found.config.data.stores
        study_runs(runs, study_folder(options.out or str(runs[0].folder.parent), runs[0].config))
        return
    study = open_study(runs, options)
    folder = study_folder(options.out or str(study.runs[0].folder.parent), study.config)
    comparison = study.compare(folder)
    report = study.report(folder)
    comparison_table(comparison.to_json())
    say(f"report: {report}")
