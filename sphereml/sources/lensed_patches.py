"""Where lensed patches come from: drawn on the spot by FFTs, or from the skies of `sphereml simulate lensing`.

Conventions: patches are noiseless (:class:`LensedPatches`); which ones are drawn is a function of the generator.  Of a
campaign of n skies the last ``test_skies`` test, the ``validation_skies`` before them validate, the others train.

A fixed set of ``count`` patches is taken by ``chosen`` indices, in batches; patches of one sky share long waves and are
one jackknife group.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from sphereml.config.lensing import LensingConfig
from sphereml.config.schema import PatchConfig
from sphereml.errors import UserError
from sphereml.simulate.flat_lensing import FlatLensing, LensedPatches
from sphereml.simulate.lensing_store import LensingStore, campaign_folder
from sphereml.sources.batch import Part

# With fewer drawn skies than this in a set, too few for an error, every drawn patch is a group of its own.
_LEAST_SKIES = 20


class PatchSource(Protocol):
    """Gives patches on the generator's device."""

    def draw(self, count: int, generator: torch.Generator) -> LensedPatches:
        """Patches drawn at random."""

    def chosen(self, count: int) -> np.ndarray:
        """Indices of the patches of a fixed set, at most ``count``."""

    def take(self, chosen: np.ndarray, generator: torch.Generator) -> LensedPatches:
        """The patches of these indices."""

    def groups(self, chosen: np.ndarray, batch: int) -> np.ndarray:
        """The jackknife group of every patch of a set that is taken ``batch`` at a time."""


@dataclass(frozen=True, eq=False)
class DrawnPatches:
    """Fresh patches, cut side by side from periodic skies that the simulator draws."""

    simulator: FlatLensing

    def draw(self, count: int, generator: torch.Generator) -> LensedPatches:
        return self.simulator.draw(count, generator)

    def chosen(self, count: int) -> np.ndarray:
        return np.arange(count)

    def take(self, chosen: np.ndarray, generator: torch.Generator) -> LensedPatches:
        return self.draw(len(chosen), generator)

    def groups(self, chosen: np.ndarray, batch: int) -> np.ndarray:
        """The drawn sky of every patch (each batch draws its own), or the patch where there are too few skies."""
        each = (self.simulator.sky.size // self.simulator.patch.size) ** 2
        number, place = np.divmod(chosen, batch)
        skies: np.ndarray = number * batch + place // each
        return skies if len(np.unique(skies)) >= _LEAST_SKIES else chosen


@dataclass(frozen=True, eq=False)
class StoredPatches:
    """Patches of some skies of a store."""

    store: LensingStore
    skies: range

    @cached_property
    def patches(self) -> LensedPatches:
        """All of them, one sky after the other, on the CPU."""
        names = [field.name for field in fields(LensedPatches)]
        each, size = self._each, self.store.patch.size
        held = {name: np.empty((len(self.skies) * each, size, size), np.float32) for name in names}
        for number, sky in enumerate(self.skies):
            for name, images in self.store.sky(sky, names).items():
                held[name][number * each : (number + 1) * each] = images
        return LensedPatches(*(torch.from_numpy(held[name]) for name in names))

    @property
    def _each(self) -> int:
        return int(self.store.description["patches_per_sky"])

    def draw(self, count: int, generator: torch.Generator) -> LensedPatches:
        """With replacement."""
        index = torch.randint(len(self.patches), (count,), generator=generator, device=generator.device)
        return self.patches[index.cpu()].to(generator.device)

    def chosen(self, count: int) -> np.ndarray:
        """Evenly from all the skies."""
        held = len(self.patches)
        return np.linspace(0, held - 1, min(count, held)).astype(np.int64)

    def take(self, chosen: np.ndarray, generator: torch.Generator) -> LensedPatches:
        return self.patches[torch.from_numpy(chosen)].to(generator.device)

    def groups(self, chosen: np.ndarray, batch: int) -> np.ndarray:
        """The sky of every patch."""
        return np.repeat(np.asarray(self.skies), self._each)[chosen]


def open_skies(lensing: LensingConfig, patches: PatchConfig, stores: str, part: Part) -> StoredPatches:
    """The stored skies of one part of an experiment.

    Raises:
        UserError: the skies are not there, or too few for the split.
    """
    skies = sky_split(lensing)[part]
    store = LensingStore.open(campaign_folder(lensing, patches, stores))
    store.require(skies)
    return StoredPatches(store, skies)


def sky_split(lensing: LensingConfig) -> dict[Part, range]:
    """Numbers of the skies of each part; raises UserError when none is left to train on."""
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
