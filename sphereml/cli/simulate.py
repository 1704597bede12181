"""``sphereml simulate dust|lensing [key=value ...]``: a synthetic Galaxy in a store, or patches of lensed skies."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from sphereml.cli.output import say, tell
from sphereml.config.compose import compose
from sphereml.config.experiment_files import is_experiment_file
from sphereml.config.tasks import is_used
from sphereml.errors import UserError
from sphereml.progress import TimeLeft

if TYPE_CHECKING:
    from sphereml.config.schema import ExperimentConfig

_LENSING = "experiment=lensing_paper"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = "dust: HI channels and the dust they trace; lensing: patches of lensed CMB skies"
    parser.add_argument("what", choices=["dust", "lensing"], help=what)
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. data.galaxy.nside=256 or lensing.skies=10"
    )
    parser.add_argument("--only", metavar="SKIES", help="of lensing: make these alone, e.g. 0-9,12, counted from 0")


def run(options: argparse.Namespace) -> None:
    if options.what == "lensing":
        _simulate_lensing(options)
        return
    if options.only is not None:
        raise UserError("--only chooses skies of lensing, and dust has one", "leave it out")
    _simulate_dust(options)


def composed_words(options: argparse.Namespace) -> list[str]:
    """The words, with the usual experiment or data of what is simulated where they name none."""
    words: list[str] = options.overrides
    if options.what == "dust":
        return ["data=galaxy", *words]
    named = any(word.startswith("experiment=") or is_experiment_file(word) for word in words)
    return words if named else [_LENSING, *words]


def _simulate_dust(options: argparse.Namespace) -> None:
    config = compose(composed_words(options))
    from sphereml.data.prepare import store_path
    from sphereml.sources.sky import load_sky

    sky = load_sky(config.data, tell)
    say(f"store: {store_path(config.data)}  (Nside {sky.grid.nside}, {len(sky.input_fields)} channels)")
    for name, values in sky.components.items():
        say(f"  {name}: mean {values.mean(dtype=float):.4g} {sky.component_units[name]}")


def _simulate_lensing(options: argparse.Namespace) -> None:
    config = compose(composed_words(options))
    only = None if options.only is None else parse_skies(options.only)
    if not is_used(config.task, "lensing"):
        raise UserError(f"the experiment {config.name!r} is of {config.task}", "name one of lensing, or none")
    if config.model.domain == "sphere":
        _simulate_skies(config, only)
        return
    from sphereml.simulate.lensing_store import LensingStore, campaign_folder, prepare_lensing

    say(f"store: {campaign_folder(config.lensing, config.patches, config.data.stores)}")
    _tell_resolution(config)
    try:
        stores = config.data.stores
        folder = prepare_lensing(config.lensing, config.patches, stores, _progress(), only, config.scheduler)
    except KeyboardInterrupt:
        say("the skies made so far are kept; the same line goes on where it stopped")
        raise
    here = len(LensingStore.open(folder).skies)
    say(f"{here} skies of {config.lensing.patches_per_sky} patches are there")


def _simulate_skies(config: ExperimentConfig, only: list[int] | None) -> None:
    """Whole skies with the features of a network."""
    from sphereml.tasks.lensing_sphere import SphereLensingTask

    skies = SphereLensingTask(config, tell).skies
    say(f"store: {skies.folder}")
    numbers = list(range(config.lensing.skies)) if only is None else only
    if beyond := [number for number in numbers if number >= config.lensing.skies]:
        raise UserError(f"there is no sky {beyond[0]} in lensing.skies={config.lensing.skies}", "they count from 0")
    skies.prepare(numbers, _progress(), config.scheduler)


def parse_skies(text: str) -> list[int]:
    """``"0-2,7"`` as [0, 1, 2, 7]; raises UserError when it is no such list."""
    skies: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part.strip())
        last = int(match[2] or match[1]) if match else -1
        if not match or last < int(match[1]):
            raise UserError(f"--only {text} is no list of skies", "give numbers and ranges, e.g. 0-9,12")
        skies |= set(range(int(match[1]), last + 1))
    return sorted(skies)


def _tell_resolution(config: ExperimentConfig) -> None:
    finest = 180 * 60 / config.patches.pixel_arcmin
    if config.lensing.lmax < 0.9 * finest:
        tell(f"note: lensing.lmax={config.lensing.lmax}, but the pixels resolve multipoles up to {finest:.0f}")


def _progress() -> Callable[[int, int], None]:
    """A line for each sky, with the time that is left at the pace so far."""
    clock: list[TimeLeft] = []

    def show(done: int, total: int) -> None:
        if done == 0:
            clock.append(TimeLeft(total))
            tell(f"{total} skies to simulate" if total else "every sky is there")
        else:
            tell(f"sky {done}/{total}{clock[0](done)}")

    return show
