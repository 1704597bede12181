"""The networks that are compared, each in all of its seeds, and the held-out sky that they are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sphereml.config.schema import EvaluationConfig
from sphereml.data.split_files import Split, read_split
from sphereml.data.store import Sky
from sphereml.sky.masks import superpixels
from sphereml.tasks import open_task
from sphereml.tasks.maps import MapTask
from sphereml.tasks.protocol import Say
from sphereml.training.predictor import Prediction, Predictor
from sphereml.training.runs import Run


@dataclass(frozen=True, eq=False)
class HeldOutSky:
    """The sky with its one target field, the regions, and the blocks ``(npix,)`` that errors leave out in turn."""

    sky: Sky
    split: Split
    evaluation: EvaluationConfig

    @classmethod
    def of(cls, run: Run, evaluation: EvaluationConfig, say: Say) -> HeldOutSky:
        """Those that a run was trained with."""
        split = read_split(run.split_path)
        task = open_task(run.config, say, split=split)
        assert isinstance(task, MapTask)
        run.check_data(task.sky.provenance)
        return cls(task.sky, split, evaluation)

    @cached_property
    def blocks(self) -> np.ndarray:
        grid = self.sky.grid
        return superpixels(np.ones(grid.npix), grid.nside, self.evaluation.block_nside)

    @property
    def spins(self) -> tuple[int, ...]:
        return tuple(one.spin for one in self.sky.target_fields)

    def squared_errors(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """``|P - T|^2`` of full-sky predictions, one a seed: ``(seed, npix)``."""
        return np.stack([squared_error(one, self.sky.targets) for one in values])


def squared_error(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Summed over the columns of the field, ``(..., columns)`` to float64 ``(...)``: it does not know the frame."""
    return np.asarray(np.square(np.subtract(values, target, dtype=np.float64)).sum(axis=-1))


@dataclass(frozen=True, eq=False)
class NetworkSeeds:
    """Runs that differ in their seed alone, ready to predict, and what they predict on the held-out sky."""

    name: str
    predictors: tuple[Predictor, ...]
    predictions: tuple[Prediction, ...]

    @classmethod
    def of(cls, name: str, runs: Sequence[Run], held_out: HeldOutSky, say: Say) -> NetworkSeeds:
        given = {"sky": held_out.sky, "split": held_out.split}
        predictors = tuple(Predictor(run, open_task(run.config, say, **given), say=say) for run in runs)
        say(f"{name}: predicting the whole sky, {len(runs)} seeds")
        return cls(name, predictors, tuple(one.sphere(held_out.sky) for one in predictors))

    @property
    def task(self) -> MapTask:
        task = self.predictors[0].task
        assert isinstance(task, MapTask)
        return task

    @property
    def domain(self) -> str:
        return self.predictors[0].run.config.model.domain

    @property
    def maps(self) -> list[np.ndarray]:
        return [one.values for one in self.predictions]
