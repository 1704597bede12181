"""``sphereml train experiment=NAME [model=NAME] [key=value ...]``; with ``-m`` all combinations of several values."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from sphereml.cli.experiment import add_overrides, add_training_flags, model_configs, say
from sphereml.config.schema import ExperimentConfig
from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.training.processes import Process
    from sphereml.training.runs import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser, sweeps=True)
    add_training_flags(parser)


def run(options: argparse.Namespace) -> None:
    """Train every model of the experiment, or the chosen one; complete runs are left as they are."""
    from sphereml.config.sweeps import swept_words

    sweep = swept_words(options.overrides) if options.multirun else [options.overrides]
    jobs = [model_configs(words) for words in sweep]
    if options.multirun:
        _sweep(sweep, jobs, options)
        return
    with _processes(jobs[0][0].training.processes) as process:
        runs = train_models(jobs[0], options.resume, options.overwrite)
        if process is None or process.writes:
            _tell(runs)


def _tell(runs: Sequence[Run]) -> None:
    for one in runs:
        say(f"{one.name}: {one.folder}  ({one.manifest()['seconds_train']:.1f} s)")


def _sweep(sweep: list[list[str]], jobs: list[list[ExperimentConfig]], options: argparse.Namespace) -> None:
    """Train all combinations; one that fails leaves the others.

    On workers unfinished ones are gone on with, as another worker takes over what a lost one began.
    """
    from sphereml.data.work_items import do_items

    if any(config.training.processes > 1 for configs in jobs for config in configs):
        raise UserError("a sweep trains each of its runs in one process", "leave out training.processes, or -m")
    scheduler = jobs[0][0].scheduler
    found = do_items(partial(_attempt, options.resume or bool(scheduler), options.overwrite), jobs, scheduler)
    failed = [(words, error) for words, error in zip(sweep, found, strict=True) if error]
    for words, error in failed:
        say(f"{' '.join(words)}: {error}")
    if failed:
        (_, first), *_ = failed
        raise UserError(f"{len(failed)} of {len(jobs)} combinations failed, the first: {first.what}", first.mend)


def _attempt(resume: bool, overwrite: bool, configs: list[ExperimentConfig]) -> UserError | None:
    try:
        _tell(train_models(configs, resume, overwrite))
    except UserError as error:
        return error
    return None


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
            load_sky(config.data, say)


def train_models(configs: Sequence[ExperimentConfig], resume: bool, overwrite: bool) -> list[Run]:
    """The finished runs of all configurations; what one of them cannot have is refused before the first is trained."""
    _refuse_unreadable(configs)
    from sphereml.tasks import open_task
    from sphereml.training.fit import fit_task, warn
    from sphereml.training.lifecycle import FitOptions
    from sphereml.training.processes import first_process_first, this_process

    told = say if this_process().writes else (lambda line: None)
    opened = [open_task(config, told) for config in configs]
    with first_process_first():
        for one in opened:
            one.check()
    warn(opened, told)
    return [fit_task(one, FitOptions(resume, overwrite, told)) for one in opened]
