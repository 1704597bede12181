"""What several verbs share: overrides to experiments, finished runs, and the folder they write to."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sphereml.cli.output import MANNER, say
from sphereml.config.compose import compose
from sphereml.config.schema import ExperimentConfig
from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.evaluation.protocol import Result
    from sphereml.training.runs import Run


def add_overrides(parser: argparse.ArgumentParser, sweeps: bool = False) -> None:
    what = "FILE.yaml or experiment=NAME, model=NAME, any key=value"
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=what)
    parser.add_argument("--cfg", "-c", choices=("job",), help="print the composed configuration and stop")
    if sweeps:
        what = "train every combination of the values of key=a,b, key=choice(a,b) and key=range(1,4)"
        parser.add_argument("--multirun", "-m", action="store_true", help=what)
    else:
        parser.add_argument("--multirun", "-m", action=_NoSweep, nargs=0, help=argparse.SUPPRESS)


class _NoSweep(argparse.Action):
    """Hydra's sweeps, which are refused with what to write in their place."""

    def __call__(self, *_: object) -> None:
        raise UserError(
            "only `sphereml train` sweeps (-m)",
            "train with it, then name the folder of the runs: `sphereml compare RUNS`",
        )


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted training")
    parser.add_argument("--overwrite", action="store_true", help="train again what is already there")
    parser.add_argument("--dry-run", action="store_true", help="say what would be trained and where, and stop")


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verbs that work on finished runs."""
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="a folder of runs, e.g. runs/demo, or run folders")
    parser.add_argument("--data", metavar="FOLDER", help="folder of the input maps (else SPHEREML_REAL_SKY)")
    parser.add_argument("--stores", metavar="FOLDER", help="folder of the prepared stores (else as trained)")
    parser.set_defaults(overrides=[])


def model_configs(overrides: list[str]) -> list[ExperimentConfig]:
    """One configuration for each model, row and seed of the experiment, or the one that ``model=NAME`` chooses.

    A row is named as itself unless its overrides bring a ``model.name``; what the command line says is above them, so
    that with ``training.seed=N`` there is one seed.  Closed forms, which use none, come once and first; then every
    network with the first seed, so that what is interrupted has all rows.
    """
    config = compose(overrides)
    if not (config.models or config.rows) or any(word.startswith("model=") for word in overrides):
        return [config]
    models = [[f"model={name}"] for name in config.models]
    rows = [[f"model.name={name}", *row] for name, row in config.rows.items()]
    composed = [replace(compose([*more, *overrides]), rows={}, seeds=[]) for more in [*models, *rows]]
    if not config.seeds or any(word.startswith("training.seed=") for word in overrides):
        return composed
    closed = [one for one in composed if one.model.domain == "none"]
    networks = [one for one in composed if one.model.domain != "none"]
    return closed + [
        replace(one, training=replace(one.training, seed=seed)) for seed in config.seeds for one in networks
    ]


def open_runs(options: argparse.Namespace) -> list[Run]:
    """The finished runs, told where their data stand now."""
    from sphereml.training.runs import find_runs

    runs = [found for folder in options.runs for found in find_runs(Path(folder))]
    for run in runs:
        run.config.data.folder = options.data or run.config.data.folder
        run.config.data.stores = options.stores or run.config.data.stores
    return runs


def show(result: Result, folder: Path) -> None:
    """Save a result with its figures and report, as one set, and print its table, or with ``--json`` its content."""
    from sphereml.data.whole_files import appearing_together

    result.remember(folder)
    with appearing_together(folder) as scratch:
        result.save(scratch)
        drawn = {path.name for path in result.figures(scratch)}
        report = result.report(scratch, folder)
    for earlier in (*(folder / "figures").glob("*.png"), *(folder / "figures" / "dark").glob("*.png")):
        if earlier.name not in drawn:
            earlier.unlink()
    if MANNER.json:
        say(result.text())
        return
    result.table()
    say(f"report: {folder / report.name}")


def study_folder(folder: str, config: ExperimentConfig) -> Path:
    """Where comparisons and templates go: the folder that holds the runs."""
    return not_a_file(Path(folder) if folder else Path(config.output) / config.name)


def not_a_file(path: Path) -> Path:
    """The path of a folder; raises UserError where a file stands."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file", "give a folder")
    return path


def sections(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Sections to skip; raises UserError for one that the study does not have."""
    known, names = tuple(known), list(names)
    if wrong := [name for name in names if name not in known]:
        mend = f"choose from {', '.join(known)}" if known else "leave it out: the study has one section"
        raise UserError(f"--skip {wrong[0]} is no section of the study", mend)
    return names
