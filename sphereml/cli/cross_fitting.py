"""``sphereml predict RUNS --cross-fit``: templates that no pixel's own target has made, for publication."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sphereml.cli.experiment import model_configs, not_a_file, open_runs
from sphereml.cli.output import tell
from sphereml.config.schema import CrossFitConfig, ExperimentConfig
from sphereml.config.validation import validate
from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.templates.cross_fit import CrossFit

# Flags of the same name as keys of evaluation.cross_fit.
_SETTINGS = ("folds", "join", "buffer", "seeds")


def add_cross_fitting(parser: argparse.ArgumentParser) -> None:
    """The flags; what they leave out is as evaluation.cross_fit of the run says."""
    group = parser.add_argument_group(
        "cross-fitting",
        "K regions, each predicted by networks that never saw its target; their runs are trained where they are not "
        "there, and gone on with where they were interrupted.  RUNS may then be experiment=NAME key=value words.",
    )
    group.add_argument("--cross-fit", action="store_true", help="write cross-fitted templates, with errors")
    group.add_argument("--folds", type=int, metavar="K", help="regions, 3 or more (default 5)")
    group.add_argument("--join", type=float, metavar="DEG", help="width of the smooth join (default 5)")
    group.add_argument("--buffer", type=float, metavar="DEG", help="default: receptive field plus twice the join")
    group.add_argument("--seeds", type=int, metavar="N", help="networks of each region (default 1)")
    group.add_argument("--realizations", type=int, default=0, metavar="N", help="write N skies that the errors allow")


def refuse_alone(options: argparse.Namespace) -> None:
    """Raise UserError for a flag of cross-fitting without ``--cross-fit``."""
    given = [key for key in (*_SETTINGS, "realizations") if getattr(options, key)]
    if given and not options.cross_fit:
        raise UserError(f"--{given[0]} without --cross-fit", "add it, or leave the flag out")


def write_cross_fitted(options: argparse.Namespace) -> list[Path]:
    """Train what is missing and write ``NAME_cross_fitted.fits`` for every model.

    Raises:
        UserError: what :class:`~sphereml.templates.cross_fit.CrossFit` refuses, or a file stands there already.
    """
    from sphereml.templates.cross_fitted import cross_fitted, realizations_path
    from sphereml.templates.products import refuse_standing

    if options.realizations < 0:
        raise UserError(f"--realizations {options.realizations}", "give 0 or more")
    plans = dict(_plans(options))
    folder = not_a_file(Path(options.out) if options.out else next(iter(plans.values())).folder / "templates")
    paths = {name: folder / f"{name}_cross_fitted.fits" for name in plans}
    skies = [realizations_path(path) for path in paths.values() if options.realizations]
    refuse_standing([*paths.values(), *skies], options.overwrite)  # before the trainings
    written = []
    for name, plan in plans.items():
        result = cross_fitted(plan, plan.train())
        written += result.write(paths[name], options.realizations, options.overwrite)
    return written


def _plans(options: argparse.Namespace) -> Iterator[tuple[str, CrossFit]]:
    """A plan for every model, by its name."""
    from sphereml.evaluation.run_groups import run_names
    from sphereml.templates.cross_fit import CrossFit

    words = [*options.runs, *options.overrides]
    if all("=" in word or word.endswith((".yaml", ".yml")) for word in words):
        for config in model_configs(words):
            config.data.folder = options.data or config.data.folder
            config.data.stores = options.stores or config.data.stores
            yield (
                config.model.name,
                CrossFit(config, Path(config.output) / config.name, _settings(config, options), tell),
            )
        return
    if options.overrides:
        raise UserError(f"--cross-fit of a run with {options.overrides[0]}", "give words alone, or runs alone")
    runs = open_runs(options)
    for name, run in zip(run_names(runs), runs, strict=True):
        yield name, CrossFit(run.config, run.folder.parent, _settings(run.config, options), tell)


def _settings(config: ExperimentConfig, options: argparse.Namespace) -> CrossFitConfig:
    given = {key: getattr(options, key) for key in _SETTINGS if getattr(options, key) is not None}
    settings = replace(config.evaluation.cross_fit, **given)
    validate(replace(config, evaluation=replace(config.evaluation, cross_fit=settings)))
    return settings
