"""Train one run, of any task: closed forms at once, networks with Lightning; interrupted ones go on with ``resume``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec

import torch

from sphereml.config.schema import ExperimentConfig
from sphereml.errors import UserError
from sphereml.models.shared_statistics import process_count
from sphereml.tasks import open_task
from sphereml.tasks.protocol import Scaling, Task
from sphereml.training.card import model_card
from sphereml.training.lifecycle import FitOptions, Fitted, train_once
from sphereml.training.processes import this_process
from sphereml.training.runs import Run


def fit(config: ExperimentConfig, options: FitOptions) -> Run:
    """Train the model of a configuration, or return its run when it is already complete.

    Raises:
        UserError: the data cannot give what is asked, an unfinished run stands there and neither resume nor overwrite
            is asked for, the inputs changed since it was started, or its folder cannot be written.
    """
    task = open_task(config, options.say)
    task.check()
    warn([task], options.say)
    return fit_task(task, options)


def warn(tasks: Sequence[Task], say: Callable[[str], None]) -> None:
    """Say what looks wrong in the data of tasks, each line once."""
    for line in dict.fromkeys(line for one in tasks for line in one.warnings()):
        say(f"warning: {line}")


def fit_task(task: Task, options: FitOptions) -> Run:
    """The same for a task whose data are at hand."""
    task.check()
    if not task.closed_form:
        _refuse_missing_logger(task.config.training.logger)
    if (count := process_count()) != task.config.training.processes:
        what = f"training.processes={task.config.training.processes}, and {count} of them train together"
        raise UserError(what, "start `sphereml train` by torchrun or srun, or leave training.processes out")
    run, me = Run.of(task.config, task.identity()), this_process()
    if me.writes:
        run = train_once(run, task.provenance(), options, lambda run: _learn(run, task, options))
        me.from_first(None)
        return run
    quiet = replace(options, say=lambda line: None)
    while folder := me.from_first():  # the first process trains there
        _learn(replace(run, folder=folder), task, quiet)
    return Run.open(run.folder)


def _refuse_missing_logger(name: str) -> None:
    """Raise UserError when the package of a logger is not installed."""
    if name in ("mlflow", "wandb") and find_spec(name) is None:
        raise UserError(f"training.logger={name} needs the package {name}", "pip install 'sphereml[logging]'")


def _learn(run: Run, task: Task, options: FitOptions) -> Fitted:
    config = task.config
    torch.set_num_threads(config.training.threads or torch.get_num_threads())
    me = this_process()
    if me.writes:
        run.update(**task.keep(run.folder))
    scaling = _kept_scaling(run, task)
    network = task.network(scaling, run.manifest().get("nside", 0))
    facts = {}
    if task.closed_form:
        task.solve(network, scaling)
    else:
        from sphereml.training.lightning_fit import train_network
        from sphereml.training.regression import Regression

        sources = task.sources(scaling)
        if me.writes:  # what the others read is written
            me.from_first(run.folder)
        module = Regression(network, task, scaling, sources)
        facts = train_network(run, module, "validation" in sources, options.say)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    facts |= {"parameters": parameters}
    return Fitted(network.state_dict(), scaling.to_json(), facts, model_card(run, task, scaling, facts))


def _kept_scaling(run: Run, task: Task) -> Scaling:
    """The scaling of the run's first start: another machine, or other data, would make another one."""
    if not run.scaling_path.is_file():
        run.write_scaling(task.fit_scaling().to_json())
    return task.scaling.from_json(run.scaling())
