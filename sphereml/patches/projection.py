"""Square images of the sky: what a patch asks of its projection.

Conventions: a patch is ``(row, column)`` with row 0 at the bottom, so that the column grows along the frame's x (east
at position angle 0) and the row along its y (north); show it with ``origin="lower"``, and mirror the columns for the
usual picture seen from inside the sphere.  The frame's z (``sky.rotations``) pierces the middle of the image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from sphereml.sky.plane import SquareGrid


@dataclass(frozen=True)
class ProjectedPatch(SquareGrid, ABC):
    """A square grid in the plane of an azimuthal projection; where it lies on the sky is said by a frame."""

    @property
    @abstractmethod
    def half_diagonal(self) -> float:
        """Angular distance from the centre to the outer corners, degrees."""

    @abstractmethod
    def from_plane(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Unit vectors ``(..., 3)`` in the frame of points of the plane, radians from the middle."""

    @abstractmethod
    def to_plane(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points of the plane, radians from the middle, of directions in the frame; NaN where there is none."""

    def vectors(self, frames: np.ndarray) -> np.ndarray:
        """Unit vectors of the pixel centres, ``(..., size, size, 3)``, for frames ``(..., 3, 3)``."""
        sky = self.from_plane(*self.offsets()).reshape(-1, 3) @ np.swapaxes(frames, -1, -2)
        return sky.reshape(*frames.shape[:-2], self.size, self.size, 3)

    def plane(self, frames: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Position of directions in the image: the inverse of :meth:`vectors`.

        Args:
            frames: ``(..., 3, 3)``.
            vectors: ``(..., n, 3)``.
        Returns:
            Column coordinate, row coordinate (both float, NaN where the projection has no place for a direction) and
            whether the direction lies between the centres of the outermost pixels, each ``(..., n)``.
        """
        return self.position(*self.to_plane(*np.moveaxis(vectors @ frames, -1, 0)))
