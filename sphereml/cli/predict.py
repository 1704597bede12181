"""``sphereml predict RUNS``: full-sky templates as FITS, of the sky that the runs were trained on or of another one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sphereml.cli.cross_fitting import add_cross_fitting, refuse_alone, write_cross_fitted
from sphereml.cli.experiment import add_runs, not_a_file, open_runs
from sphereml.cli.output import say, say_json, tell

if TYPE_CHECKING:
    from sphereml.training.runs import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_runs(parser)
    parser.add_argument(
        "--out", default="", metavar="FOLDER", help="where to write (default: templates/ beside the runs)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument("--json", action="store_true", help="print one JSON list of the files")
    add_cross_fitting(parser)


def run(options: argparse.Namespace) -> None:
    """``--data`` may be a folder of maps, a prepared store, or words such as ``data=NAME`` for other data."""
    refuse_alone(options)
    paths = write_cross_fitted(options) if options.cross_fit else _ordinary(options)
    if options.json:
        say_json([str(path) for path in paths])
    for path in [] if options.json else paths:
        say(f"template: {path}")


def _ordinary(options: argparse.Namespace) -> list[Path]:
    from sphereml.evaluation.protocol import StudyOptions, open_study

    other = _other_data(options)
    runs = open_runs(options)
    folder = not_a_file(Path(options.out) if options.out else runs[0].folder.parent / "templates")
    if other:
        return _of_other_data(runs, other, folder, options.overwrite)
    return open_study(runs, StudyOptions(tell)).write_templates(folder, options.overwrite)


def _other_data(options: argparse.Namespace) -> list[str]:
    """Words that configure other data, or the path of a store; taken out of the options."""
    words = [word for word in (*options.runs, *options.overrides) if word.startswith(("data=", "data."))]
    options.runs = [word for word in options.runs if word not in words]
    if options.data and ("=" in options.data or Path(options.data, "zarr.json").is_file()):
        words, options.data = [*words, options.data], None
    return words


def _of_other_data(runs: Sequence[Run], other: list[str], folder: Path, overwrite: bool) -> list[Path]:
    from sphereml.config.compose import compose
    from sphereml.data.sky_on_disk import SkyOnDisk
    from sphereml.evaluation.run_groups import run_names
    from sphereml.sources.sky import read_sky
    from sphereml.templates.full_sky import predict_templates
    from sphereml.templates.products import refuse_standing
    from sphereml.training.predictor import Predictor

    (*_, last) = other
    data = runs[0].config.data
    stores = [] if any(word.startswith("data.stores=") for word in other) else [f"data.stores={data.stores}"]
    sky = read_sky(compose([*other, *stores]).data, tell) if "=" in last else SkyOnDisk.open(last)
    paths = [folder / f"{name}.fits" for name in run_names(runs)]
    refuse_standing(paths, overwrite)
    named = dict(zip(run_names(runs), runs, strict=True))
    predict_templates(folder, {name: Predictor(run, say=tell) for name, run in named.items()}, sky)
    return paths
