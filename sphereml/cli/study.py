"""``sphereml study lensing [experiment=NAME] [key=value ...]``: train what is not trained, measure, draw, report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sphereml.cli.experiment import add_overrides, model_configs, say, study_folder
from sphereml.cli.train import train_models
from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.config.schema import ExperimentConfig
    from sphereml.training.runs import Run

# Spelled out here so that --help does not import the measurements.
_SECTIONS = ("nulls", "omega_c", "uncertainty")
_DEFAULT = "experiment=lensing_small"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["lensing"], help="lensing: the measurements of arXiv:1810.01483")
    add_overrides(parser)
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted training")
    parser.add_argument("--overwrite", action="store_true", help="train again what is already there")
    parser.add_argument("--out", default="", metavar="FOLDER", help="where to write (default: beside the runs)")
    parser.add_argument("--skip", nargs="+", action="extend", choices=_SECTIONS, default=[], metavar="WHAT",
                        help="leave out: " + ", ".join(_SECTIONS))  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Complete trainings are reused, so the same line goes on where it was stopped."""
    named = any(word.startswith("experiment=") for word in options.overrides)
    configs = model_configs([*([] if named else [_DEFAULT]), *options.overrides])
    if configs[0].task != "lensing":
        raise UserError(f"the experiment {configs[0].name} is of {configs[0].task}", "name one of lensing")
    folder = study_folder(options.out, configs[0])
    _refuse_few(configs)
    runs = train_models(configs, options.resume, options.overwrite)
    study_runs(runs, folder, say, options.skip)


def _refuse_few(configs: Sequence[ExperimentConfig]) -> None:
    """Before the trainings, which take an hour."""
    from sphereml.evaluation.lensing.results import refuse_few

    for config in configs:
        refuse_few(config)


def study_runs(runs: Sequence[Run], folder: Path, say: Callable[[str], None] = say, skip: Collection[str] = ()) -> Path:
    """Measure finished lensing runs and write ``lensing.json``, ``kappa_maps.npz``, figures and ``report.html``.

    Returns:
        The report's path.

    Raises:
        UserError: as :func:`~sphereml.evaluation.lensing.results.measure_runs`, or the folder cannot be written.
    """
    from sphereml.evaluation.lensing.figures import draw_figures
    from sphereml.evaluation.lensing.report import write_lensing_report
    from sphereml.evaluation.lensing.results import measure_runs
    from sphereml.evaluation.lensing.table import lensing_table

    result = measure_runs(runs, say, skip)
    result.save(folder)
    draw_figures(folder)
    report = write_lensing_report(folder)
    lensing_table(result.content)
    say(f"report: {report}")
    return report
