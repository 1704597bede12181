"""``sphereml cluster render VERB ...``: the batch script that runs a line under Slurm, and goes on when resubmitted."""

from __future__ import annotations

import argparse
import shlex

from sphereml.cli.experiment import model_configs
from sphereml.cli.output import say
from sphereml.cli.parsers import TASKS, build_parser, load_plugins, parse_words
from sphereml.config.compose import compose
from sphereml.config.resources import searching
from sphereml.config.sweeps import SearchSpace, swept_words

# Verbs whose unfinished work goes on only when it is asked for; the others do so by themselves.
_RESUMED = ("train", "study")
_MODELS = (*_RESUMED, "demo")  # each of an experiment's
_VERBS = (*_RESUMED, "demo", "simulate", "data", "predict", "compare")
_SCRIPT = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --ntasks={tasks}
#SBATCH --cpus-per-task={cpus}
{options}#SBATCH --output={name}-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR1@{notice}

# Slurm sends SIGUSR1 {notice} s before the time is up: what is done is kept, and the job is queued again.
# Submitted once more, by hand or by Slurm, it goes on where it stopped.
export OMP_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-{cpus}}}"
# srun's --cpus-per-task, which since Slurm 22.05 is no longer that of sbatch.
export SRUN_CPUS_PER_TASK="$OMP_NUM_THREADS"
srun --kill-on-bad-exit=1 {line}
code=$?
if [ "$code" -eq 138 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    about = "print the sbatch script of a line, e.g. cluster render --time 8:00:00 train experiment=dust_demo"
    render = actions.add_parser("render", help=about, description=f"{about[0].upper()}{about[1:]}.")
    render.add_argument("--time", default="24:00:00", metavar="H:MM:SS", help="of the job (default 24:00:00)")
    render.add_argument("--cpus", type=int, default=4, help="of each process (default 4)")
    render.add_argument("--gpus", type=int, default=0, help="of each process (default none)")
    render.add_argument("--memory", default="", metavar="SIZE", help="of each node, e.g. 32G")
    for name in ("partition", "account", "qos", "nodes"):
        render.add_argument(f"--{name}", default="", help=f"Slurm's --{name}")
    render.add_argument("--notice", type=int, default=120, metavar="SECONDS", help="before the end (default 120)")
    render.add_argument("job", metavar="VERB", choices=_VERBS, help="what the job does")
    render.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="the rest of the line")


def run(options: argparse.Namespace) -> None:
    """The configuration is composed first, so that a job is not queued for a word that is wrong."""
    say(render_script(options).rstrip())


def render_script(options: argparse.Namespace) -> str:
    """The script of a line; one task a process of ``training.processes``."""
    job = parse_words(build_parser(options.job), [options.job, *options.words])
    processes = _processes(job)
    words = ["sphereml", options.job, *options.words]
    if options.job in _RESUMED and not job.resume:
        words.append("--resume")
    return _SCRIPT.format(
        name=f"sphereml-{options.job}",
        tasks=processes if options.job == "train" else 1,
        cpus=options.cpus,
        options=_sbatch_lines(options),
        notice=options.notice,
        line=shlex.join(words),
    )


def _processes(job: argparse.Namespace) -> int:
    """The processes of a job, whose configurations are composed as its verb will."""
    if job.verb in TASKS:
        load_plugins(job.plugin)
    with searching(getattr(job, "config_dir", [])):
        words = _composed_words(job)
        if job.verb in _MODELS:
            return model_configs(words)[0].training.processes
        return compose(words).training.processes


def _composed_words(job: argparse.Namespace) -> list[str]:
    """What the verb composes of a job's words; of a sweep its first combination."""
    if job.verb == "simulate":
        from sphereml.cli.simulate import composed_words

        return composed_words(job)
    words: list[str] = getattr(job, "usual", list)(getattr(job, "overrides", []))
    if job.verb == "train" and job.multirun:
        return SearchSpace.of(words).first if job.optuna else swept_words(words)[0]
    # Other data of a prediction stand among its runs.
    return [*words, *(word for word in getattr(job, "runs", []) if word.startswith(("data=", "data.")))]


def _sbatch_lines(options: argparse.Namespace) -> str:
    wanted = {
        "time": options.time,
        "gpus-per-task": options.gpus or "",
        "mem": options.memory,
        **{name: getattr(options, name) for name in ("partition", "account", "qos", "nodes")},
    }
    return "".join(f"#SBATCH --{name}={value}\n" for name, value in wanted.items() if value)
