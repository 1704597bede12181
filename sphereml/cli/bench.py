"""``sphereml bench conv|jets|graph|sht|tile|prepare|qe|growth|train``: ours beside what is known, in one run."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from typing import Any

from sphereml.cli.experiment import say
from sphereml.errors import UserError

_OPTIONS = {
    "nside": "resolution of the maps",
    "channels": "channels in and out",
    "batch": "skies at once",
    "runs": "timed rounds",
    "lmax": "highest multipole",
    "maps": "maps at once",
    "tile-nside": "Nside of the tiles",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    benchmarks = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    conv = _add(benchmarks, "conv", "sphere convolutions beside Conv2d", nside=64, channels=64, batch=1, runs=15)
    conv.add_argument("--memory", action="store_true", help="peak memory too, each layer in a process of its own")
    jets = _add(benchmarks, "jets", "what the jets of spin convolutions recover of E and B", nside=64)
    jets.add_argument("--figures", metavar="FOLDER", help="draw them too")
    graph = _add(benchmarks, "graph", "neighbour graphs and their Laplacians beside scipy's", nside=64)
    graph.add_argument("--ours", action="store_true", help="leave scipy out")
    sht = _add(
        benchmarks, "sht", "differentiable transforms beside ducc0 and healpy", nside=64, lmax=128, maps=16, runs=7
    )
    sht.add_argument("--loss", action="store_true", help="the share of a training step taken by the loss as well")
    tile = _add(benchmarks, "tile", "the whole sphere tile by tile and at once", nside=64, channels=16, tile_nside=2)
    tile.add_argument("--tiles-only", action="store_true", help="where the whole sphere at once does not fit")
    prepare = _add(benchmarks, "prepare", "a survey's preparation beside its transforms", nside=256, channels=6)
    prepare.add_argument("--folder", help="where the stores stand for the while (default: the system's)")
    prepare.add_argument("--no-resume", action="store_true", help="leave out the killed and resumed store")
    qe = _add(benchmarks, "qe", "one EB estimate of kappa on the full sky", lmax=3000, runs=3)
    qe.add_argument("--memory", action="store_true", help="peak memory too, in a process of its own")
    growth = _add(benchmarks, "growth", "how seconds and memory of every step grow with Nside")
    growth.add_argument("--nsides", default="64,128,256", help="powers of two (default 64,128,256)")
    growth.add_argument("--steps", default="", help="some of them, e.g. predict,compare (default all)")
    growth.add_argument("--folder", help="where stores stand for the while (default: the system's)")
    train = _add(benchmarks, "train", "patches a second of a lensing network's training", batch=32, runs=7)
    train.add_argument("--experiment", default="lensing_paper", help="an experiment of lensing (default lensing_paper)")


def _add(benchmarks: Any, name: str, about: str, **defaults: int) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = benchmarks.add_parser(name, help=about)
    for option, default in defaults.items():
        word = option.replace("_", "-")
        parser.add_argument(f"--{word}", type=int, default=default, help=f"{_OPTIONS[word]} (default {default})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(options: argparse.Namespace) -> None:
    for name, value in vars(options).items():
        if type(value) is int and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value} is impossible", "give 1 or more")
    if "nside" in options:
        from sphereml.sky.grid import HealpixGrid

        HealpixGrid(options.nside)
    result = _BENCHMARKS[options.what](options)
    if options.json:
        say(json.dumps(result))
    else:
        for line in _lines(result):
            say(line)


def _conv(options: argparse.Namespace) -> dict[str, Any]:
    from sphereml.benchmarks.convolution import ConvolutionBenchmark

    sizes = options.nside, options.channels, options.batch, options.runs
    return ConvolutionBenchmark(*sizes, memory=options.memory).measure()


def _jets(options: argparse.Namespace) -> dict[str, Any]:
    from pathlib import Path

    from sphereml.benchmarks.jets import JetBenchmark, draw_figures

    if options.figures:
        draw_figures(options.nside, Path(options.figures))
    measured = {f"{degree + 1}x{degree + 1}": JetBenchmark(options.nside, degree).measure() for degree in (2, 4)}
    return {"nside": options.nside, "bands": {name: own["bands"] for name, own in measured.items()}}


def _graph(options: argparse.Namespace) -> dict[str, Any]:
    from sphereml.benchmarks.graph import GraphBenchmark

    return GraphBenchmark(options.nside, plain=not options.ours).measure()


def _sht(options: argparse.Namespace) -> dict[str, Any]:
    from sphereml.benchmarks.transform import TransformBenchmark, loss_share

    result = TransformBenchmark(options.nside, options.lmax, options.maps, options.runs).measure()
    return result | ({"loss": loss_share(runs=options.runs)} if options.loss else {})


def _tile(options: argparse.Namespace) -> dict[str, Any]:
    from sphereml.benchmarks.tile import TileBenchmark

    sizes = options.nside, options.channels, options.tile_nside
    return TileBenchmark(*sizes, direct=not options.tiles_only).measure()


def _prepare(options: argparse.Namespace) -> dict[str, Any]:
    from sphereml.benchmarks.preparation import PreparationBenchmark

    return PreparationBenchmark(options.nside, options.channels, options.folder, not options.no_resume).measure()


def _qe(options: argparse.Namespace) -> dict[str, Any]:
    from sphereml.benchmarks.reconstruction import ReconstructionBenchmark

    return ReconstructionBenchmark(options.lmax, options.runs, options.memory).measure()


def _train(options: argparse.Namespace) -> dict[str, Any]:
    from sphereml.benchmarks.lensing_training import TrainingBenchmark
    from sphereml.config.compose import compose

    config = compose([f"experiment={options.experiment}"])
    return TrainingBenchmark(config, options.batch, options.runs).measure()


def _growth(options: argparse.Namespace) -> dict[str, Any]:
    from sphereml.benchmarks.growth import STEPS, GrowthBenchmark

    if not re.fullmatch(r"\d+(,\d+)*", options.nsides):
        raise UserError(f"--nsides {options.nsides} is no list of numbers", "give e.g. 64,128,256")
    steps = options.steps.split(",") if options.steps else list(STEPS)
    if wrong := [name for name in steps if name not in STEPS]:
        raise UserError(f"there is no step {wrong[0]!r}", f"choose from {', '.join(STEPS)}")
    return GrowthBenchmark([int(one) for one in options.nsides.split(",")], steps, options.folder).measure()


_BENCHMARKS = {
    "growth": _growth,
    "conv": _conv,
    "jets": _jets,
    "graph": _graph,
    "sht": _sht,
    "tile": _tile,
    "prepare": _prepare,
    "qe": _qe,
    "train": _train,
}


def _lines(result: dict[str, Any]) -> Iterator[str]:
    """Sizes on one line, then a line for every innermost group of figures."""
    yield ", ".join(f"{name} {_spelled(value)}" for name, value in result.items() if not isinstance(value, dict))
    for name, value in result.items():
        if isinstance(value, dict):
            yield from _rows(name, value)


def _rows(name: str, group: dict[str, Any]) -> Iterator[str]:
    figures = {key: value for key, value in group.items() if not isinstance(value, dict)}
    if figures:
        yield f"{name:36s}" + "  ".join(f"{key} {_spelled(value):>8s}" for key, value in figures.items())
    for key, value in group.items():
        if isinstance(value, dict):
            yield from _rows(key if name in _GROUPS else f"{name} {key}", value)


# Words that say nothing beside the names below them.
_GROUPS = ("bands", "steps", "layers", "graphs", "networks", "precisions")


def _spelled(value: Any) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 100
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )
