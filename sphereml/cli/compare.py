"""``sphereml compare RUNS``: every trained model of a folder on the same held-out sky."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from sphereml.cli.experiment import add_runs, open_runs, sections, show, study_folder
from sphereml.cli.output import tell
from sphereml.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_runs(parser)
    parser.add_argument("--out", default="", metavar="FOLDER", help="where to write (default: beside the runs)")
    parser.add_argument("--patches", type=int, metavar="N", help="held-out patches (default: evaluation.patches)")
    parser.add_argument("--skip", nargs="+", action="extend", default=[], metavar="WHAT", help="sections to leave out")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of its table")


def run(options: argparse.Namespace) -> None:
    """Write the result's JSON (``comparison.json``, ``lensing.json``), figures and ``report.html``."""
    from sphereml.evaluation.protocol import StudyOptions, open_study

    runs = open_runs(options)
    evaluation = runs[0].config.evaluation
    if options.patches is not None:
        if options.patches < 1:
            raise UserError(f"--patches {options.patches} is impossible", "give 1 or more")
        evaluation = replace(evaluation, patches=options.patches)
    study = open_study(runs, StudyOptions(tell, options.skip, evaluation))
    sections(options.skip, study.sections)
    show(study.measure(), study_folder(options.out or str(Path(runs[0].folder).parent), runs[0].config))
