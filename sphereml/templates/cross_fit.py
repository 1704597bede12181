"""Cross-fitted templates: each region of the sky is predicted by networks to which its target was never shown.

Conventions
-----------
* The sky is cut into ``folds`` lunes of longitude (``split.train: fold``).  Everything that a fold's networks are made
  of (weights, scaling, first guess, the faint sky that is kept, the epoch) takes the target from pixels at least
  ``buffer`` degrees from its lune.
* Lunes pass into each other over ``join`` degrees by weights ``w_k`` (a partition of unity over pixels, so that fields
  with a spin are joined in one frame): fold k counts nearer than ``join / 2`` to its lune.
* The buffer is at least the network's receptive field plus the join.  Then no pixel of the result was made by a network
  that was trained on its target, or on a target whose features overlap its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from sphereml.config.schema import CrossFitConfig, ExperimentConfig
from sphereml.config.validation import validate
from sphereml.data.split_files import Split
from sphereml.data.splits import lune
from sphereml.data.store import Sky
from sphereml.data.work_items import do_items
from sphereml.domains import Domain
from sphereml.errors import UserError
from sphereml.models.networks import Network
from sphereml.progress import TimeLeft
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import apodize, near
from sphereml.tasks import task_class
from sphereml.tasks.maps import MapTask
from sphereml.tasks.protocol import Say
from sphereml.training.fit import fit, fit_task, warn
from sphereml.training.lifecycle import FitOptions
from sphereml.training.runs import Run

FOLDER = "cross_fit"
# Width of the bands of latitude in which held-out pixels are told apart, degrees.
_LATITUDES = 7.5


@dataclass(frozen=True, eq=False)
class CrossFit:
    """The plan: whose settings, which regions, how far apart; and the runs that it needs.

    Args:
        config: of the ordinary run; its split gives the mask and the cuts, and its regions are replaced.
        folder: the runs stand in ``folder / name``.
        settings: folds, join, buffer, seeds.
        say: takes lines of progress.
        given: the sky, where it is at hand.
    """

    config: ExperimentConfig
    folder: Path
    settings: CrossFitConfig
    say: Say = print
    given: Sky | None = None
    name: str = FOLDER

    @cached_property
    def task(self) -> MapTask:
        """The ordinary task; raises UserError for one without a full sky."""
        return open_map_task(self.config, self.say, self.given)

    @property
    def sky(self) -> Sky:
        return self.task.sky

    @cached_property
    def receptive_field(self) -> float:
        """Degrees from a pixel to the farthest whose features it can see, at most."""
        if self.task.closed_form:
            return 0.0
        nside = self.sky.grid.nside
        return receptive_field(self.task.network(self.task.fit_scaling(), nside), self.task.domain(nside))

    @cached_property
    def buffer(self) -> float:
        """Degrees; where it is not given, one join more than the least, so that errors have pixels to be measured on.

        Raises:
            UserError: the one that is given is too small, or the network sees too much of the sky.
        """
        least = self.receptive_field + self.settings.join
        found = self.settings.buffer or math.ceil(10 * (least + self.settings.join) - 1e-6) / 10
        if found < least:
            what = (
                f"a buffer of {found:g} degrees is less than the receptive field ({self.receptive_field:.1f}) and the "
            )
            raise UserError(f"{what}join ({self.settings.join:g})", f"give {least:.1f} or more, or 0")
        if found >= 90:
            what = f"{self.config.model.name} sees {self.receptive_field:.0f} degrees around a pixel of Nside"
            raise UserError(
                f"{what} {self.sky.grid.nside}", "lower model.depth or model.convs_per_level, or raise Nside"
            )
        return found

    @cached_property
    def weights(self) -> np.ndarray:
        """``w_k``, float64 ``(folds, npix)``."""
        return join_weights(self.sky.grid, self.settings.folds, self.settings.join)

    @cached_property
    def tasks(self) -> list[list[MapTask]]:
        """Of every fold, one for each seed; a closed form has one."""
        seeds = 1 if self.task.closed_form else self.settings.seeds
        return [[self._fold_task(fold, seed) for seed in range(seeds)] for fold in range(self.settings.folds)]

    def _fold_task(self, fold: int, seed: int) -> MapTask:
        config, folds = self.config, self.settings.folds
        split = replace(config.split, name="folds", file=None, train="fold", folds=folds, fold=fold, buffer=self.buffer)
        training = replace(config.training, seed=config.training.seed + seed)
        own = replace(config, name=self.name, output=str(self.folder), models=[], split=split, training=training)
        validate(own)
        return open_map_task(own, self.say, self.sky)

    @cached_property
    def kept(self) -> np.ndarray:
        """The sky that the mask keeps, float32 ``(npix,)`` weights: of every lune what its own fold tests."""
        return np.sum([fold[0].split.weigh(fold[0].split.test) for fold in self.tasks], axis=0)

    def held_out(self, fold: int) -> np.ndarray:
        """Pixels that a fold was not trained on and that its part of the result does not hold, bool ``(npix,)``.

        They lie in the buffer and, where it only chose the epoch, in the validation lune.  The errors of a fold are
        measured there, so that they too know nothing of the target where they are used (but for which pixels count as
        faint, where ``split.sky_fraction`` and no mask says so).
        """
        return (self.kept > 0) & ~self.tasks[fold][0].learning_pixels & (self.weights[fold] == 0)

    def representation(self, fold: int) -> np.ndarray:
        """What each held-out pixel counts for a fold's errors, ``(npix,)``: latitudes count as they do in its lune.

        A buffer is as wide at the poles, where it is all that there is, as at the equator.
        """
        _, lat = self.sky.grid.lonlat()
        band = ((lat + 90) / _LATITUDES).astype(int)
        own = np.bincount(band, self.kept * self.weights[fold], minlength=int(180 / _LATITUDES) + 1)
        held_out = self.held_out(fold)
        return np.where(held_out, (own / np.maximum(np.bincount(band, held_out, minlength=len(own)), 1))[band], 0.0)

    def train(self, options: FitOptions | None = None) -> list[list[Run]]:
        """The finished runs of every fold, trained where they are not; an interrupted one is gone on with.

        Raises:
            UserError: as :func:`~sphereml.training.fit.fit`, before anything is trained where that can be told.
        """
        everything = [task for fold in self.tasks for task in fold]
        for task in everything:
            task.check()
        warn(everything, self.say)
        if self.config.scheduler and self.given is None:  # workers read the sky from its store
            train = partial(fit, options=options or FitOptions(resume=True))
            found = iter(do_items(train, [task.config for task in everything], self.config.scheduler))
            return [[next(found) for _ in fold] for fold in self.tasks]
        runs, left = [], TimeLeft(len(self.tasks))
        for number, fold in enumerate(self.tasks):
            self.say(f"fold {number + 1} of {len(self.tasks)}, buffer {self.buffer:g} degrees{left(number)}")
            runs.append([fit_task(task, options or FitOptions(resume=True, say=self.say)) for task in fold])
        return runs


def open_map_task(config: ExperimentConfig, say: Say, sky: Sky | None = None, split: Split | None = None) -> MapTask:
    """The task of a configuration on a sky that is given, also where a plugin's task would make its own.

    Raises:
        UserError: it is no task of full-sky maps.
    """
    kind = task_class(config.task)
    if not issubclass(kind, MapTask):
        raise UserError(f"the task {config.task} has no full sky to cross-fit", "choose a task of full-sky maps")
    task = kind(config, say, sky, split)
    if sky is not None:
        task.sky = task.readable_sky.whole()  # the given one, as the task sees it
    return task


def receptive_field(network: Network, domain: Domain) -> float:
    """Degrees from a pixel to the farthest whose features it can see, at most.

    The reach beyond a pixel of the coarsest level, that pixel's own side, and one more for the interpolation of turned
    tiles and patches, all along diagonals.
    """
    return (network.reach(domain) + 2**network.depth) * domain.diagonal


def join_weights(grid: HealpixGrid, folds: int, join: float) -> np.ndarray:
    """Partition of unity of the lunes, float64 ``(folds, npix)``, each zero ``join / 2`` degrees from its lune."""
    tapers = []
    for fold in range(folds):
        region = lune(grid, fold, folds)
        tapers.append(apodize(region | near(region, grid, join / 2), grid, join))
    return np.asarray(tapers / np.sum(tapers, axis=0))
