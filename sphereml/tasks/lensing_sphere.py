"""Lensed Q and U of whole skies to kappa and the unlensed E: the task of patches on HEALPix, with typed fields.

Conventions: skies, features and targets as in :mod:`sphereml.sources.lensed_skies`; a prediction is
``base + network``, output by output, the base being the Wiener-filtered estimate (kappa) or field (E) times a
least-squares slope, nothing in the ``plain`` form.  Of the skies of a campaign the last ``test_skies`` test, the
``validation_skies`` before them validate, the others train.  A network whose stencil is not ``spin`` takes all columns
for scalars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from sphereml import __version__
from sphereml.config.lensing import LensingConfig
from sphereml.config.tasks import SCHEMAS
from sphereml.data.store import Sky
from sphereml.domains import HealpixSky
from sphereml.domains.channels import Channels
from sphereml.lensing.observation import Observation
from sphereml.models.networks import Network, build
from sphereml.simulate.cmb_spectra import CmbSpectra
from sphereml.sky.fields import Field, count_columns
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.regions import Region
from sphereml.sources.batch import Batch, Part, Source
from sphereml.sources.lensed_patches import sky_split
from sphereml.sources.lensed_skies import TARGETS, LensedSkies, SkyCampaign, StoredSky
from sphereml.sources.sky_source import SkyColumns
from sphereml.tasks.losses import PatchLoss
from sphereml.tasks.maps import MapScaling, MapTask, named, refuse_other_fields, single, standardization
from sphereml.tasks.protocol import Loss, Provenance, Say

# Tiles that means and deviations are taken over.
_SCALING_TILES = 64
# The feature that is an output's first guess.
_GUESSES = {"kappa": "kappa", "e": "E"}


@dataclass(frozen=True)
class SphereLensingScaling(MapScaling):
    """With the least-squares factor of each output's base; 0 where there is none."""

    base_slope: list[float] = field(default_factory=list)


class SphereLensingTask(MapTask):
    """Learns kappa and E on tiles of many skies.

    Args:
        spectra: of the fiducial cosmology; CAMB's of the configuration when None.
    """

    name = "lensing"
    schema = SCHEMAS["lensing"]
    study = "lensing"
    scaling: ClassVar[type[MapScaling]] = SphereLensingScaling

    def __init__(self, config: Any, say: Say = print, spectra: CmbSpectra | None = None) -> None:
        super().__init__(config, say)
        campaign = SkyCampaign.of(config.lensing, config.model.form)
        self.skies = LensedSkies(campaign, Path(config.data.stores).expanduser(), spectra)

    @property
    def settings(self) -> LensingConfig:
        return self.config.lensing

    @property
    def spectra(self) -> CmbSpectra:
        return self.skies.spectra

    @property
    def observation(self) -> Observation:
        return self.skies.observation

    @cached_property
    def sky(self) -> Sky:
        """The first sky that tests."""
        return self.numbered(sky_split(self.settings)["test"][0])

    @property
    def outputs(self) -> tuple[Field, ...]:
        return tuple(TARGETS[name] for name in self.settings.outputs)

    def numbered(self, number: int) -> Sky:
        """A whole sky of the campaign, made where it is not there."""
        self._prepare([number])
        return self.skies.sky(number)

    def stored(self, part: Part) -> list[StoredSky]:
        """All skies of a part, to be read by tiles; made where they are not there."""
        numbers = sky_split(self.settings)[part]
        self._prepare(numbers)
        return [self.skies.opened(number) for number in numbers]

    def _prepare(self, numbers: Sequence[int]) -> None:
        def progress(done: int, total: int) -> None:
            if done:
                self.say(f"lensed sky {done} of {total}")

        self.skies.prepare(numbers, progress)

    def check(self) -> None:
        sky_split(self.settings)

    def warnings(self) -> list[str]:
        return []

    def identity(self) -> dict[str, str]:
        return {}

    def provenance(self) -> Provenance:
        files, nside = self.skies.campaign.name, self.settings.nside
        data = {"kind": "lensing, sphere", "code": __version__, "files": files, "seed": self.settings.seed}
        return Provenance(data, {"nside": nside})

    def keep(self, folder: Path) -> dict[str, Any]:
        return {}

    def domain(self, nside: int) -> HealpixSky:
        return HealpixSky(nside)

    def fit_scaling(self) -> SphereLensingScaling:
        """Means, deviations and slopes over tiles of one training sky."""
        sky, fields = self.stored("train")[0], self.skies.features.fields
        side = self.settings.nside // self.config.training.tile_nside
        tiles = np.unique(np.linspace(0, 12 * self.config.training.tile_nside**2 - 1, _SCALING_TILES).astype(int))
        parts = [sky.read(slice(tile * side**2, (tile + 1) * side**2)) for tile in tiles]
        inputs, targets = (np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True))
        targets = targets[:, self._target_columns]
        unit = np.sqrt(np.square(targets).mean(axis=0))
        slopes = [_slope(inputs, targets[:, k], place) for k, place in enumerate(self._guess_columns(fields))]
        described: dict[str, Any] = {"inputs": [asdict(one) for one in fields], "base_slope": slopes}
        described["outputs"] = [asdict(one) for one in self.outputs]
        statistics = named("feature", standardization(inputs, fields)) | named("target", (np.zeros(len(unit)), unit))
        return SphereLensingScaling(**described, **statistics)

    @property
    def _target_columns(self) -> list[int]:
        return [list(TARGETS).index(name) for name in self.settings.outputs]

    def _guess_columns(self, fields: Sequence[Field]) -> list[int | None]:
        """The column of each output's first guess; None in the plain form."""
        names = [one.name for one in fields]  # scalars stand first: a column each
        return [names.index(_GUESSES[name]) if _GUESSES[name] in names else None for name in self.settings.outputs]

    def columns(self, sky: Sky, scaling: SphereLensingScaling) -> SkyColumns:
        refuse_other_fields(sky, scaling)
        targets = sky.targets if sky.targets.shape[1] else np.zeros((len(sky.inputs), len(TARGETS)), np.float32)
        return self.standardized(sky.inputs, targets, scaling)

    def standardized(self, inputs: np.ndarray, targets: np.ndarray, scaling: SphereLensingScaling) -> SkyColumns:
        """What a network sees of stored inputs and targets ``(..., npix, columns)``."""
        fields, unit = scaling.input_fields, single(scaling.target_std)
        seen = slice(0, count_columns(self._seen(fields)))
        features = (inputs[..., seen] - single(scaling.feature_mean)[seen]) / single(scaling.feature_std)[seen]
        target = targets[..., self._target_columns] / unit
        base = np.zeros_like(target)
        for k, place in enumerate(self._guess_columns(fields)):
            if place is not None:
                base[..., k] = inputs[..., place] * np.float32(scaling.base_slope[k] / scaling.target_std[k])
        return SkyColumns(self.channels(scaling)[0], features, base, None, target)

    def _seen(self, fields: Sequence[Field]) -> list[Field]:
        """The features of the configuration, which are the first ones."""
        return [one for one in fields if self.settings.features == "all" or not one.spin]

    def channels(self, scaling: SphereLensingScaling) -> tuple[Channels, Channels]:
        taken = Channels.of_fields(self._seen(scaling.input_fields))
        typed = self.config.model.stencil == "spin"
        return taken if typed else Channels(taken.columns), Channels(len(scaling.outputs))

    def network(self, scaling: SphereLensingScaling, nside: int) -> Network:
        torch.manual_seed(self.config.training.seed)
        return build(self.config.model, self.domain(nside), *self.channels(scaling))

    def sources(self, scaling: SphereLensingScaling) -> Mapping[Part, Source]:
        parts: tuple[Part, ...] = ("train", "validation")
        return {part: TileSource(self, self.stored(part), scaling) for part in parts}

    def loss(self, scaling: SphereLensingScaling) -> Loss:
        return PatchLoss()


@dataclass(frozen=True, eq=False)
class TileSource:
    """Batches of random tiles, one of several skies; of several side by side where there are fewer skies."""

    task: SphereLensingTask
    skies: Sequence[StoredSky]
    scaling: SphereLensingScaling

    def batch(self, seed: int, size: int, device: torch.device | str = "cpu") -> Batch:
        rng, tile_nside = np.random.default_rng(seed), self.task.config.training.tile_nside
        at_once = min(size, len(self.skies))
        tiles = np.sort(rng.choice(HealpixGrid(tile_nside).npix, -(-size // at_once), replace=False))
        region = Region(self.task.settings.nside, tuple(tiles.tolist()), tile_nside)
        chosen = rng.choice(len(self.skies), at_once, replace=False)
        read = [self._read(self.skies[number], region) for number in chosen]
        inputs, targets = (np.stack(part) for part in zip(*read, strict=True))
        columns = self.task.standardized(inputs, targets, self.scaling)
        features, base, target = (
            torch.from_numpy(values).to(device) for values in (columns.features, columns.base, columns.target)
        )
        return Batch(
            HealpixSky.of(region), columns.channels, features, base, None, target, torch.ones_like(target[..., 0])
        )

    @staticmethod
    def _read(sky: StoredSky, region: Region) -> tuple[np.ndarray, np.ndarray]:
        side = (region.nside // region.coarse_nside) ** 2
        parts = [sky.read(slice(tile * side, (tile + 1) * side)) for tile in region.coarse_pixels or ()]
        inputs, targets = (np.concatenate(part) for part in zip(*parts, strict=True))
        return inputs, targets


def _slope(inputs: np.ndarray, target: np.ndarray, place: int | None) -> float:
    """Least-squares factor of an output's first guess."""
    if place is None:
        return 0.0
    guess = inputs[:, place]
    return float(guess @ target / (guess @ guess))
