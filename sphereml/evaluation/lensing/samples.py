"""Fixed sets of observed patches: validation, test, without lensing, of other cosmologies; and their reconstructions.

Conventions: a set is a function of ``evaluation.seed`` and its stream, and gives the same patches whenever it is gone
through; sets of the same stream and different cosmologies share their random phases.  No stream is one of training.
Patches of one sky are one jackknife group, as they share long waves: of a curved sky (patches are taken evenly from the
skies of their part) and of a drawn one, from which neighbours are cut.  Where there are too few drawn skies for an
error every drawn patch is a group, and the errors of the lowest bands are a little too small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from sphereml.evaluation.lensing.estimates import Estimates
from sphereml.lensing.flat_estimator import mean_field
from sphereml.progress import TimeLeft
from sphereml.sources.batch import Part, batch_seed
from sphereml.sources.lensed_patches import PatchSource
from sphereml.tasks.lensing import LensingSample, LensingTask
from sphereml.training.predictor import best_device

# Streams of the evaluation seed; those of training are below 10.
STREAMS = {"validation": 10, "test": 11, "null": 12, "gaussian": 13}


@dataclass(frozen=True, eq=False)
class PatchSet:
    """``count`` observed patches, or as many as the source holds.

    Args:
        source: of noiseless patches.
        batch: patches at a time.
        unlensed: the polarization before lensing is what is observed; the truth stays.
    """

    task: LensingTask
    source: PatchSource
    stream: str
    count: int
    batch: int
    unlensed: bool = False

    @property
    def _chosen(self) -> np.ndarray:
        return self.source.chosen(self.count)

    @property
    def groups(self) -> np.ndarray:
        """The jackknife group of every patch."""
        return self.source.groups(self._chosen, self.batch)

    def batches(self, device: torch.device) -> Iterator[LensingSample]:
        chosen, seed = self._chosen, self.task.config.evaluation.seed
        for index, start in enumerate(range(0, len(chosen), self.batch)):
            generator = torch.Generator(device).manual_seed(batch_seed(seed, STREAMS[self.stream], index))
            patches = self.source.take(chosen[start : start + self.batch], generator)
            if self.unlensed:
                patches = replace(patches, q=patches.q_unlensed, u=patches.u_unlensed)
            yield self.task.observe(patches, generator)


@dataclass(frozen=True, eq=False)
class PatchSets:
    """The sets of one experiment, as many patches in each as ``evaluation.patches`` says."""

    task: LensingTask
    batch: int = 50

    def part(self, part: Part) -> PatchSet:
        """Validation or test patches of the experiment's own simulator."""
        return self.of(part, self.task.patches(part))

    def unlensed(self) -> PatchSet:
        """Observed as if nothing had been lensed; the truth is a kappa that the data know nothing of."""
        return replace(self.of("null", self.task.patches("test")), unlensed=True)

    def of(self, stream: str, source: PatchSource) -> PatchSet:
        """A set of any source."""
        return PatchSet(self.task, source, stream, self.task.config.evaluation.patches, self.batch)


@dataclass(frozen=True, eq=False)
class Reconstructions:
    """What every estimator made of a set, float32 ``(patch, size, size)`` by name and output, and the truth."""

    truth: dict[str, torch.Tensor]
    images: dict[str, dict[str, torch.Tensor]]
    groups: np.ndarray

    def mean_fields(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Averages of these estimators' kappa, ``(size, size)``."""
        return {name: mean_field([self.images[name]["kappa"]]).float() for name in names}

    def mean_fields_of_others(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """For each patch the average over all but itself, ``(patch, size, size)``.

        A mean that a patch takes part in removes 1/n of its own noise, one that it does not adds as much: with the
        first on validation and the second on test patches, N_L of one would not debias the other.
        """
        count = len(self.groups)
        fields = self.mean_fields(names)
        return {name: (count * fields[name] - self.images[name]["kappa"]) / (count - 1) for name in names}

    def without(self, fields: Mapping[str, torch.Tensor]) -> Reconstructions:
        """Less the mean fields of these names."""
        images = {
            name: maps | {"kappa": maps["kappa"] - fields[name]} if name in fields else maps
            for name, maps in self.images.items()
        }
        return replace(self, images=images)

    def with_mean_of(self, names: Sequence[str], called: str) -> Reconstructions:
        """With the average of several estimators as one more."""
        outputs = self.images[names[0]]
        mean = {key: torch.stack([self.images[name][key] for name in names]).mean(dim=0) for key in outputs}
        return replace(self, images=self.images | {called: mean})


def reconstruct(patches: PatchSet, estimators: Sequence[Estimates], say: Callable[[str], None]) -> Reconstructions:
    """Run every estimator over a set of patches, on the GPU where there is one."""
    device = best_device()
    truths: list[dict[str, torch.Tensor]] = []
    lots: list[dict[str, dict[str, torch.Tensor]]] = []
    left, done = TimeLeft(patches.count), 0
    for sample in patches.batches(device):
        truths.append({key: image.float().cpu() for key, image in sample.truth.items()})
        lots.append({name: dict(maps) for estimate in estimators for name, maps in estimate(sample).items()})
        done += len(truths[-1]["kappa"])
        say(f"  {done} of {patches.count} patches{left(done)}")
    images = {name: _joined([lot[name] for lot in lots]) for name in lots[0]}
    return Reconstructions(_joined(truths), images, patches.groups)


def _joined(parts: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
