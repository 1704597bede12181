"""A sky whose inputs stay on disk: what they are is known, and rows of them are read when they are asked for.

Conventions: those of :mod:`sphereml.data.store`.  The inputs are nearly all of a sky (3.2 GB for 64 channels at Nside
1024); targets, one to three columns, are held in memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sphereml.data.store import (
    Sky,
    only_column,
    open_store,
    polarized_intensity,
    stored_component,
    stored_fields,
    whole_dataset,
)
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid


@dataclass(frozen=True, eq=False)
class SkyOnDisk:
    """The sky of the store ``path``; what it shares with :class:`~sphereml.data.store.Sky` has the same meaning."""

    path: Path
    grid: HealpixGrid
    targets: np.ndarray
    input_fields: tuple[Field, ...]
    target_fields: tuple[Field, ...]
    provenance: dict[str, Any]
    intensity: np.ndarray | None

    @classmethod
    def open(cls, path: str | Path) -> SkyOnDisk:
        """Read all but the inputs.

        Raises:
            UserError: absent, not a sphereml store, or damaged; damaged inputs show when they are read.
        """
        with whole_dataset(path) as dataset:
            targets, fields = dataset["targets"].values, stored_fields(dataset, "target_fields")
            return cls(
                Path(path),
                HealpixGrid(int(dataset.attrs["nside"])),
                targets,
                stored_fields(dataset, "input_fields"),
                fields,
                json.loads(dataset.attrs["provenance"]),
                polarized_intensity(targets, fields, stored_component(dataset, "intensity")),
            )

    def at(self, pixels: np.ndarray) -> Sky:
        """The rows of these NEST pixels, rising and distinct, without the components."""
        return open_store(self.path, pixels)

    def whole(self) -> Sky:
        """The sky with all of its rows in memory."""
        return open_store(self.path)

    @property
    def target(self) -> np.ndarray:
        """The one target column ``(npix,)``; raises UserError when there are several, or none."""
        return only_column(self.targets, self.target_fields)


# A sky that is read by its pixels, wherever its inputs are.
ReadableSky = Sky | SkyOnDisk
