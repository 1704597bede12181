"""Gnomonic (tangent-plane, TAN) patches: square images of the sky.

Conventions: a patch is ``(row, column)`` with row 0 at the bottom, so that the column grows along the frame's x (east
at position angle 0) and the row along its y (north); show it with ``origin="lower"``, and mirror the columns for the
usual picture seen from inside the sphere.  Pixel centres have integer coordinates; the frame's z pierces the middle of
the image, at ``(size - 1) / 2``.  ``pixel_arcmin`` is the pixel's side at the tangent point; away from it a pixel
covers less sky (``cos^3`` of the distance: 7 % less at the middle of a 25-degree patch's edge, 13 % in its corners).
Q and U turn into the patch's axes as told in ``patches.projection``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sphereml.patches.projection import SkyPatch


@dataclass(frozen=True)
class GnomonicPatch(SkyPatch):
    """A gnomonic image of ``size`` x ``size`` pixels of ``pixel_arcmin``; where it lies is said by a frame.

    The default is that of arXiv:1904.13265, section 2: 24.96 degrees on a side, fundamental multipole 14.4.
    """

    size: int = 64
    pixel_arcmin: float = 23.4

    @property
    def half_diagonal(self) -> float:
        """Angular distance from the centre to the outer corners, degrees (17.1 for the default)."""
        return float(np.degrees(np.arctan(np.radians(self.extent) / np.sqrt(2))))

    def vectors(self, frames: np.ndarray) -> np.ndarray:
        """Unit vectors of the pixel centres, ``(..., size, size, 3)``, for frames ``(..., 3, 3)``."""
        x, y = self.offsets()
        local = np.stack([x, y, np.ones_like(x)], axis=-1)
        local /= np.linalg.norm(local, axis=-1, keepdims=True)
        sky = local.reshape(-1, 3) @ np.swapaxes(frames, -1, -2)
        return sky.reshape(*frames.shape[:-2], self.size, self.size, 3)

    def plane(self, frames: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Position of directions in the image: the inverse of :meth:`vectors`.

        Args:
            frames: ``(..., 3, 3)``.
            vectors: ``(..., n, 3)``.
        Returns:
            Column coordinate, row coordinate (both float, NaN on the far hemisphere) and whether the direction lies
            between the centres of the outermost pixels, each ``(..., n)``.
        """
        x, y, z = np.moveaxis(vectors @ frames, -1, 0)
        depth = np.where(z > 0, z, np.nan)
        return self.position(x / depth, y / depth)
