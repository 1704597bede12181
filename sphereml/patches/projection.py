"""Square images of the sky: what a patch asks of its projection.

Conventions: a patch is ``(row, column)`` with row 0 at the bottom, so that the column grows along the frame's x (east
at position angle 0) and the row along its y (north); show it with ``origin="lower"``, and mirror the columns for the
usual picture seen from inside the sphere.  The frame's z (``sky.rotations``) pierces the middle of the image.

Q and U are COSMO, with respect to the basis (south, east): Q > 0 along north-south.  The *patch's axes* at a place are
those of its centre, parallel-transported along the great circle to it.  Azimuthal projections stretch the radial
direction and the other one by different factors and turn neither, so these are also the image's own axes pulled back to
the sky (the orthogonal factor of the projection's differential).  A patch's Q and U are with respect to (-y, x), and
spin-1 fields are components along these.  Turn the sphere so that the frame is that of lon = lat = position angle = 0:
fields with respect to the patch's axes do not change, which is the test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sphereml.sky.plane import SquareGrid
from sphereml.sky.stokes import directions, frame_phase, transport


@dataclass(frozen=True)
class ProjectedPatch(SquareGrid, ABC):
    """A square grid in the plane of an azimuthal projection; where it lies on the sky is said by a frame."""

    projection: ClassVar[str]

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

    def axes(self, frames: np.ndarray, vectors: np.ndarray | None = None) -> np.ndarray:
        """The patch's x axis at every pixel, unit tangent vectors ``(..., size, size, 3)``.

        Args:
            frames: ``(..., 3, 3)``.
            vectors: other directions ``(..., n, m, 3)`` at which to give it.
        """
        x, z = (frames[..., None, None, :, column] for column in (0, 2))
        return transport(x, z, self.vectors(frames) if vectors is None else vectors)

    def phase(self, frames: np.ndarray, vectors: np.ndarray | None = None) -> np.ndarray:
        """What a spin-1 field of the sky is multiplied by to be the patch's, spin 2 by its square.

        Returns:
            ``exp(-i psi)``, complex128 ``(..., size, size)``, or as ``vectors`` say; psi is the angle from the sky's
            south to the patch's -y, counted towards east.
        """
        where = self.vectors(frames) if vectors is None else vectors
        return frame_phase(self.axes(frames, where), *directions(where))

    def rotation(self, frames: np.ndarray) -> np.ndarray:
        """What ``Q + iU`` of the sky (COSMO, with respect to the meridians) is multiplied by to be the patch's.

        Returns:
            ``exp(-2i psi)``, complex128 ``(..., size, size)``; psi as for :meth:`phase`.
        """
        return self.phase(frames) ** 2
