"""The sky of an experiment: simulated or read, through the cache of prepared stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sphereml import __version__
from sphereml.config.schema import DataConfig, ExperimentConfig, GalaxyConfig
from sphereml.data.prepare import data_folder, prepare_healpix, prepared
from sphereml.data.splits import Split, build_split
from sphereml.data.store import Sky, open_store
from sphereml.data.survey import Progress, prepare_survey
from sphereml.simulate.galaxy import Galaxy, simulate_galaxy


def galaxy_sky(config: GalaxyConfig, progress: Callable[[str], None] | None = None) -> Sky:
    """A simulated Galaxy as a sky: channels in K, dust at 353 GHz in uK_RJ, every true component beside them."""
    galaxy = simulate_galaxy(config, progress)
    return Sky(
        grid=galaxy.grid,
        inputs=galaxy.brightness,
        total=None,
        target=galaxy.dust,
        target_unit="uK_RJ",
        input_unit="K",
        total_unit="",
        channels=tuple(f"{velocity:+.2f} km/s" for velocity in galaxy.velocity),
        velocity=galaxy.velocity,
        components=galaxy.components,
        component_units=_component_units(galaxy),
        provenance={"kind": "galaxy", "code": __version__, "seed": config.seed},
    )


def _component_units(galaxy: Galaxy) -> dict[str, str]:
    return {name: "cm^-2" if name.startswith("column") else "uK_RJ" for name in galaxy.components}


def load_sky(data: DataConfig, progress: Callable[[str], None] | None = None) -> Sky:
    """The sky of a data configuration, from its store when it has one, else built and stored."""
    if data.kind == "galaxy":
        return prepared(data, lambda: galaxy_sky(data.galaxy, progress))
    if data.kind == "survey":
        return open_store(prepare_survey(data, _steps(progress)))
    return prepared(data, lambda: prepare_healpix(data))


def _steps(progress: Callable[[str], None] | None) -> Progress:
    """The steps of a survey's preparation as lines."""

    def say(step: str, done: int, total: int) -> None:
        if progress is not None:
            progress(f"preparing the survey, {step}: {done / total:.0%}")

    return say


def load_split(config: ExperimentConfig, sky: Sky) -> Split:
    """The regions of an experiment on its sky."""
    folder: Path | None = data_folder(config.data) if config.data.kind == "healpix" else None
    if config.data.kind == "survey" and config.data.folder:
        folder = Path(config.data.folder).expanduser()
    return build_split(config.split, sky, folder)
