"""``sphereml train experiment=NAME [model=NAME] [key=value ...]``; with ``-m`` all combinations of several values.

``-m --optuna N`` trains N combinations that Optuna proposes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sphereml.cli.experiment import add_overrides, add_training_flags, model_configs
from sphereml.cli.output import say, say_json, tell
from sphereml.config.schema import ExperimentConfig
from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.training.processes import Process
    from sphereml.training.runs import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser, sweeps=True)
    add_training_flags(parser)
    what = "with -m: train N combinations that Optuna proposes, also from key=interval(1e-4,1e-2), for the least loss"
    parser.add_argument("--optuna", type=int, default=0, metavar="N", help=f"{what} in validation")
    parser.add_argument("--json", action="store_true", help="print one JSON list of the runs")


def run(options: argparse.Namespace) -> None:
    """Train every model of the experiment, or the chosen one; complete runs are left as they are."""
    from sphereml.config.sweeps import swept_words

    if options.optuna:
        _search(options)
        return
    sweep = swept_words(options.overrides) if options.multirun else [options.overrides]
    jobs = [model_configs(words) for words in sweep]
    if options.dry_run:
        show_plan([config for configs in jobs for config in configs], options)
        return
    if options.multirun:
        _sweep(sweep, jobs, options)
        return
    with _processes(jobs[0][0].training.processes) as process:
        runs = train_models(jobs[0], options.resume, options.overwrite)
        if process is None or process.writes:
            _show(runs, options.json)


def _show(runs: Sequence[Run], as_json: bool) -> None:
    spent = [one.manifest()["seconds_train"] for one in runs]
    if as_json:
        listed = zip(runs, spent, strict=True)
        say_json([{"model": one.name, "folder": str(one.folder), "seconds_train": took} for one, took in listed])
        return
    for one, took in zip(runs, spent, strict=True):
        say(f"{one.name}: {one.folder}  ({took:.1f} s)")


def _sweep(sweep: list[list[str]], jobs: list[list[ExperimentConfig]], options: argparse.Namespace) -> None:
    """Train all combinations; one that fails leaves the others.

    On workers unfinished ones are gone on with, as another worker takes over what a lost one began.
    """
    from sphereml.data.work_items import do_items

    if any(config.training.processes > 1 for configs in jobs for config in configs):
        raise UserError("a sweep trains each of its runs in one process", "leave out training.processes, or -m")
    scheduler = jobs[0][0].scheduler
    found = do_items(partial(_attempt, options.resume or bool(scheduler), options.overwrite), jobs, scheduler)
    failed = [(words, one) for words, one in zip(sweep, found, strict=True) if isinstance(one, UserError)]
    for words, error in failed:
        tell(f"{' '.join(words)}: {error}")
    _show([run for runs in found if not isinstance(runs, UserError) for run in runs], options.json)
    if failed:
        (_, first), *_ = failed
        raise UserError(f"{len(failed)} of {len(jobs)} combinations failed, the first: {first.what}", first.mend)


def _search(options: argparse.Namespace) -> None:
    """Train the trials of a search and show the best; one that cannot be trained leaves the others."""
    from sphereml.config.sweeps import SearchSpace
    from sphereml.training.search import search_settings

    space = SearchSpace.of(options.overrides)
    config, *others = model_configs(space.first)
    if options.optuna < 1 or not options.multirun:
        raise UserError(f"--optuna {options.optuna} is no search", "give a number of trials, and -m")
    if others or config.model.domain == "none":
        raise UserError("a search is of one network, by its validation loss", "choose it: model=NAME")
    if options.overwrite or options.dry_run or config.scheduler or config.training.processes > 1:
        mend = "leave out --overwrite, --dry-run, scheduler and training.processes"
        raise UserError("a search trains one run after another, in one process, and goes on with what is there", mend)

    def train(words: list[str]) -> Run:
        (run,) = train_models(model_configs(words), resume=True, overwrite=False)
        return run

    storage = Path(config.output) / config.name / "search.db"
    _show([search_settings(space, options.optuna, storage, train, tell)], options.json)


def _attempt(resume: bool, overwrite: bool, configs: list[ExperimentConfig]) -> list[Run] | UserError:
    try:
        return train_models(configs, resume, overwrite)
    except UserError as error:
        return error


def _processes(count: int) -> AbstractContextManager[Process | None]:
    """The processes that train together; None for one, which needs no torch to find faults."""
    if count == 1:
        return nullcontext()
    from sphereml.training.processes import together

    return together(count)


def _refuse_unreadable(configs: Sequence[ExperimentConfig]) -> None:
    """Read the maps of one's own before torch is imported: what is wrong with them is told at once."""
    if configs[0].training.processes > 1:  # the first one reads them, and the others then
        return
    from sphereml.config.tasks import is_used
    from sphereml.sources.sky import load_sky

    for config in configs:
        if config.data.kind != "galaxy" and is_used(config.task, "data.kind"):
            load_sky(config.data, tell)


def train_models(configs: Sequence[ExperimentConfig], resume: bool, overwrite: bool) -> list[Run]:
    """The finished runs of all configurations; what one of them cannot have is refused before the first is trained."""
    _refuse_unreadable(configs)
    from sphereml.tasks import open_task
    from sphereml.training.fit import fit_task, warn
    from sphereml.training.lifecycle import FitOptions
    from sphereml.training.processes import first_process_first, this_process

    told = tell if this_process().writes else (lambda line: None)
    opened = [open_task(config, told) for config in configs]
    with first_process_first():
        for one in opened:
            one.check()
    warn(opened, told)
    runs = []
    for number, one in enumerate(opened, start=1):
        if len(opened) > 1:
            told(f"model {number} of {len(opened)}: {one.config.model.name}")
        runs.append(fit_task(one, FitOptions(resume, overwrite, told)))
    return runs


def show_plan(configs: Sequence[ExperimentConfig], options: argparse.Namespace) -> None:
    """What a training would do, without reading the data: each model's run folder, and whether it is there."""
    from sphereml.tasks import open_task
    from sphereml.training.runs import Run

    planned = [Run.of(config, open_task(config, tell).identity()) for config in configs]
    listed = [(run, _state(run, options)) for run in planned]
    if options.json:
        say_json([{"model": run.name, "folder": str(run.folder), "state": state} for run, state in listed])
    for run, state in [] if options.json else listed:
        epochs = "" if run.config.model.domain == "none" else f", {run.config.training.epochs} epochs at most"
        say(f"{run.name}: {run.folder}  ({state}{epochs if state != 'trained' else ''})")


def _state(run: Run, options: argparse.Namespace) -> str:
    known = run.manifest()
    complete = bool(known.get("complete"))
    if not known:
        return "to train"
    if options.overwrite and (complete or not options.resume):
        return "to train again"
    return "trained" if complete else "unfinished"
