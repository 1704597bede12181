"""A toy task in one file: an antenna's haze and its dipole from two maps, with a loss of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sphereml import Field, MapTask, Sky
from sphereml.config.tasks import TaskSchema
from sphereml.sky.grid import HealpixGrid
from sphereml.sources.batch import Batch


@dataclass
class HazeSettings:
    """Keys under ``haze`` of a configuration: how strong the second map's square is in the target, and its seed."""

    strength: float = 0.5
    seed: int = 3


class HazeTask(MapTask):
    """Two smooth scalar fields in, two out: their sum with a square, and their difference."""

    name = "haze"
    schema = TaskSchema(settings=HazeSettings, unused=("data.galaxy", "loss.correlation"))

    @cached_property
    def sky(self) -> Sky:
        settings: HazeSettings = self.config.haze  # type: ignore[attr-defined]
        grid = HealpixGrid(32)
        rng = np.random.default_rng(settings.seed)
        waves = rng.normal(size=(2, 40, 3)) * np.array([3, 20])[:, None, None]
        maps = np.stack([np.cos(grid.vectors() @ one.T + 1).mean(axis=1) for one in waves], axis=1)
        sums = np.stack([maps.sum(axis=1) + settings.strength * maps[:, 1] ** 2, maps[:, 0] - maps[:, 1]], axis=1)
        return Sky(
            grid=grid,
            inputs=maps.astype(np.float32),
            targets=sums.astype(np.float32),
            input_fields=(Field("slow", "K"), Field("fast", "mK")),
            target_fields=(Field("sum", "K"), Field("difference", "K")),
            provenance={"kind": "haze", "seed": settings.seed},
        )

    def check(self) -> None:
        self.split  # noqa: B018

    def loss(self, scaling: Any) -> Any:
        def squares(prediction: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            weight = batch.weight[..., None]
            return (weight * (prediction - batch.target).square()).sum() / weight.sum().clamp_min(1), {}

        return squares
