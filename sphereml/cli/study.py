"""``sphereml study experiment=NAME [key=value ...]``: train what is not trained, measure, draw, report."""

from __future__ import annotations

import argparse

from sphereml.cli.experiment import (
    add_overrides,
    add_training_flags,
    model_configs,
    sections,
    show,
    study_folder,
)
from sphereml.cli.output import tell
from sphereml.cli.train import show_plan, train_models
from sphereml.config.experiment_files import is_experiment_file

# The first word may name a study in place of its usual experiment.
_USUAL = {
    "lensing": "experiment=lensing_small",
    "dust": "experiment=dust_demo",
    "cross_fit": "experiment=cross_fit_quick",
    "r_forecast": "experiment=r_forecast",
    "sphere_only": "experiment=sphere_only",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser)
    add_training_flags(parser)
    parser.add_argument("--out", default="", metavar="FOLDER", help="where to write (default: beside the runs)")
    what = "sections of the study to leave out, e.g. nulls, omega_c, uncertainty of lensing"
    parser.add_argument("--skip", nargs="+", action="extend", default=[], metavar="WHAT", help=what)
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of its table")
    parser.set_defaults(usual=_with_experiment)


def _with_experiment(overrides: list[str]) -> list[str]:
    """The words with the usual experiment of a study that is named in its place."""
    words = list(overrides)
    if words and words[0] in _USUAL:
        usual = _USUAL[words.pop(0)]
        named = any(word.startswith("experiment=") or is_experiment_file(word) for word in words)
        words = words if named else [usual, *words]
    return words


def run(options: argparse.Namespace) -> None:
    """Complete trainings are reused, so the same line goes on where it was stopped."""
    configs = model_configs(_with_experiment(options.overrides))
    from sphereml.evaluation.protocol import StudyOptions, study_class
    from sphereml.tasks import task_class

    kind = study_class(configs[0].evaluation.study or task_class(configs[0].task).study)
    skip = sections(options.skip, kind.sections)
    kind.refuse(configs)
    folder = study_folder(options.out, configs[0])
    if options.dry_run:
        show_plan(configs, options)
        return
    runs = train_models(configs, options.resume, options.overwrite)
    show(kind(runs, StudyOptions(tell, skip, configs[0].evaluation)).measure(), folder)
