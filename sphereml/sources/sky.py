"""The sky of an experiment, simulated or read, through the cache of prepared stores; and its regions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from sphereml import __version__
from sphereml.config.schema import DataConfig, GalaxyConfig, SplitConfig
from sphereml.data.file_checksums import file_checksum
from sphereml.data.holdings import spell_bytes
from sphereml.data.prepare import data_folder, prepare_healpix, prepared, store_path
from sphereml.data.sky_on_disk import ReadableSky, SkyOnDisk
from sphereml.data.split_files import Split
from sphereml.data.splits import build_split, split_files
from sphereml.data.store import Sky, is_store, open_store
from sphereml.data.store_cleaning import tree_size
from sphereml.data.survey import Progress, prepare_survey
from sphereml.errors import UserError
from sphereml.simulate.galaxy import Galaxy, simulate_galaxy
from sphereml.sky.fields import Field

Say = Callable[[str], None]


def galaxy_sky(config: GalaxyConfig, progress: Say | None = None) -> Sky:
    """A simulated Galaxy as a sky: channels in K, dust at 353 GHz in uK_RJ, every true component beside them.

    With ``config.polarization`` Q and U stand behind the intensity, and those of each part as components ``Q_PART``.
    """
    galaxy = simulate_galaxy(config, progress)
    targets, fields, components = galaxy.dust[:, None], [Field("I", "uK_RJ")], galaxy.components
    if config.polarization:
        targets = np.concatenate([targets, galaxy.polarization.stokes], axis=1)
        fields.append(Field("P", "uK_RJ", spin=2))
        components = components | _stokes_components(galaxy)
    return Sky(
        grid=galaxy.grid,
        inputs=galaxy.brightness,
        targets=targets,
        input_fields=tuple(Field(f"{velocity:+.2f} km/s", "K") for velocity in galaxy.velocity),
        target_fields=tuple(fields),
        velocity=galaxy.velocity,
        components=components,
        component_units={name: "cm^-2" if name.startswith("column") else "uK_RJ" for name in components},
        provenance={"kind": "galaxy", "code": __version__, "seed": config.seed},
    )


def _stokes_components(galaxy: Galaxy) -> dict[str, np.ndarray]:
    parts = galaxy.polarization.parts.items()
    return {f"{stokes}_{name}": part[:, column] for name, part in parts for column, stokes in enumerate("QU")}


def load_sky(data: DataConfig, progress: Say | None = None) -> Sky:
    """The sky of a data configuration, from its store when it has one, else built and stored.

    The last sky is kept in memory while its files stay as they are: the models of an experiment share it.
    """
    if data.kind == "survey":
        return _opened(prepare_survey(data, _steps(progress)))
    path = store_path(data)
    if path in _KEPT:
        return _KEPT[path]
    there = path.exists()
    sky = prepared(data, lambda: _built(data, progress))
    if progress and not there:
        progress(f"the sky is kept for the next time in {path} ({spell_bytes(tree_size(path))})")
    _KEPT.clear()
    _KEPT[path] = sky
    return sky


def read_sky(data: DataConfig, progress: Say | None = None) -> ReadableSky:
    """The sky of a data configuration to read by its pixels: from its store, which is built first where it is absent.

    Its inputs stay on disk unless they are in memory already.
    """
    if data.kind == "survey":
        return SkyOnDisk.open(prepare_survey(data, _steps(progress)))
    path = store_path(data)
    if path in _KEPT or not is_store(path):
        return load_sky(data, progress)
    try:
        return SkyOnDisk.open(path)
    except UserError:  # damaged, or of an earlier version: built anew
        return load_sky(data, progress)


def _built(data: DataConfig, progress: Say | None) -> Sky:
    if data.kind == "galaxy":
        return galaxy_sky(data.galaxy, progress)
    return prepare_healpix(data, progress or (lambda line: None))


# By the store's name, which holds the checksums of the files that it was made from.
_KEPT: dict[Path, Sky] = {}


@lru_cache(maxsize=1)
def _opened(store: Path) -> Sky:
    return open_store(store)


def _steps(progress: Say | None) -> Progress:
    """The steps of a survey's preparation as lines."""

    def say(step: str, done: int, total: int) -> None:
        if progress is not None:
            progress(f"preparing the survey, {step}: {done / total:.0%}")

    return say


def load_split(config: SplitConfig, data: DataConfig, sky: Sky) -> Split:
    """The regions of an experiment on its sky."""
    return build_split(config, sky, _file_folder(data), regraded=data.kind == "survey" or data.regrids)


def split_identity(config: SplitConfig, data: DataConfig) -> dict[str, str]:
    """Checksums of the mask and the split that a configuration names, by their key.

    Raises:
        UserError: a file is missing.
    """
    return {key: file_checksum(file.path) for key, file in split_files(config, _file_folder(data)).items()}


def _file_folder(data: DataConfig) -> Path | None:
    """Where the mask and the split of a configuration are looked for."""
    if data.kind == "healpix":
        return data_folder(data)
    return Path(data.folder).expanduser() if data.kind == "survey" and data.folder else None
