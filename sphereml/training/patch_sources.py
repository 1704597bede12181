"""Where lensed patches come from: drawn on the spot by FFTs, or from the skies of `sphereml simulate lensing`.

Conventions: patches are noiseless (:class:`LensedPatches`); which ones are drawn is a function of the generator.  Of a
campaign of n skies the last ``test_skies`` test, the ``validation_skies`` before them validate, the others train.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal, Protocol

import numpy as np
import torch

from sphereml import __version__
from sphereml.config.schema import ExperimentConfig
from sphereml.errors import UserError
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.simulate.cmb_spectra import CmbSpectra
from sphereml.simulate.flat_lensing import FlatLensing, LensedPatches
from sphereml.simulate.lensing_store import LensingStore, campaign_folder

Part = Literal["train", "validation", "test"]


class PatchSource(Protocol):
    """Gives patches on the generator's device."""

    def draw(self, count: int, generator: torch.Generator) -> LensedPatches: ...


@dataclass(frozen=True, eq=False)
class StoredPatches:
    """Patches of some skies of a store, drawn at random with replacement."""

    store: LensingStore
    skies: range

    @cached_property
    def patches(self) -> LensedPatches:
        """All of them, one sky after the other, on the CPU."""
        names = [field.name for field in fields(LensedPatches)]
        each, size = self.store.description["patches_per_sky"], self.store.patch.size
        held = {name: np.empty((len(self.skies) * each, size, size), np.float32) for name in names}
        for number, sky in enumerate(self.skies):
            for name, images in self.store.sky(sky, names).items():
                held[name][number * each : (number + 1) * each] = images
        return LensedPatches(*(torch.from_numpy(held[name]) for name in names))

    @property
    def groups(self) -> np.ndarray:
        """The sky of every patch."""
        return np.repeat(np.asarray(self.skies), self.store.description["patches_per_sky"])

    def draw(self, count: int, generator: torch.Generator) -> LensedPatches:
        index = torch.randint(len(self.patches), (count,), generator=generator, device=generator.device)
        return self.patches[index.cpu()].to(generator.device)


def open_source(config: ExperimentConfig, spectra: CmbSpectra, part: Part) -> PatchSource:
    """The source of an experiment's patches for training, validation or the test.

    Raises:
        UserError: the skies are not there, or too few for the split.
    """
    if config.lensing.simulator == "flat":
        return FlatLensing(FlatSky(config.patches.size, config.patches.pixel_arcmin), spectra)
    return _stored(config, part)


def refuse_missing_skies(config: ExperimentConfig) -> None:
    """Raise UserError when an experiment's skies are not there, before anything is computed."""
    if config.lensing.simulator == "curved":
        for part in sky_split(config):
            _stored(config, part)


def _stored(config: ExperimentConfig, part: Part) -> StoredPatches:
    skies = sky_split(config)[part]
    store = LensingStore.open(campaign_folder(config.lensing, config.patches, config.data.stores))
    store.require(skies)
    return StoredPatches(store, skies)


def sky_split(config: ExperimentConfig) -> dict[Part, range]:
    """Numbers of the skies of each part; raises UserError when none is left to train on."""
    lensing = config.lensing
    first_test = lensing.skies - lensing.test_skies
    first_validation = first_test - lensing.validation_skies
    if first_validation < 1 or lensing.test_skies < 1 or lensing.validation_skies < 1:
        what = f"{lensing.skies} skies, {lensing.validation_skies} to validate and {lensing.test_skies} to test"
        raise UserError(what, "each part needs a sky: raise lensing.skies")
    return {
        "train": range(first_validation),
        "validation": range(first_validation, first_test),
        "test": range(first_test, lensing.skies),
    }


def provenance(config: ExperimentConfig) -> dict[str, Any]:
    """What the patches are made from; JSON values."""
    curved = config.lensing.simulator == "curved"
    campaign = campaign_folder(config.lensing, config.patches, "").name if curved else f"camb {version('camb')}"
    kind = f"lensing, {config.lensing.simulator}"
    return {"kind": kind, "code": __version__, "files": campaign, "seed": config.lensing.seed}
