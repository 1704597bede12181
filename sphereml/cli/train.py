"""``sphereml train experiment=NAME [model=NAME] [key=value ...]``; with ``-m`` all combinations of several values."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sphereml.cli.experiment import add_overrides, add_training_flags, model_configs, say
from sphereml.config.schema import ExperimentConfig
from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.training.runs import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser, sweeps=True)
    add_training_flags(parser)


def run(options: argparse.Namespace) -> None:
    """Train every model of the experiment, or the chosen one; complete runs are left as they are."""
    from sphereml.config.sweeps import swept_words

    sweep = swept_words(options.overrides) if options.multirun else [options.overrides]
    jobs = [model_configs(words) for words in sweep]
    from sphereml.training.processes import together

    failed = []
    with together(jobs[0][0].training.processes) as process:
        for words, configs in zip(sweep, jobs, strict=True):
            try:
                runs = train_models(configs, options.resume, options.overwrite)
            except UserError as error:
                if len(jobs) == 1 or process.count > 1:
                    raise
                failed.append(error)
                say(f"{' '.join(words)}: {error}")
                continue
            if process.writes:
                for one in runs:
                    say(f"{one.name}: {one.folder}  ({one.manifest()['seconds_train']:.1f} s)")
    if failed:
        raise UserError(f"{len(failed)} of {len(jobs)} combinations failed, first: {failed[0].what}", failed[0].mend)


def train_models(configs: Sequence[ExperimentConfig], resume: bool, overwrite: bool) -> list[Run]:
    """The finished runs of all configurations; what one of them cannot have is refused before the first is trained."""
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
