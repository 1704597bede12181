"""Gnomonic (tangent-plane, TAN) patches: square images of the sky.

Conventions: those of :mod:`sphereml.patches.projection`.  ``pixel_arcmin`` is the pixel's side at the tangent point;
away from it a pixel covers less sky (``cos^3`` of the distance: 7 % less at the middle of a 25-degree patch's edge,
13 % in its corners).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sphereml.patches.projection import ProjectedPatch


@dataclass(frozen=True)
class GnomonicPatch(ProjectedPatch):
    """A gnomonic image of ``size`` x ``size`` pixels of ``pixel_arcmin``; where it lies is said by a frame.

    The default is that of arXiv:1904.13265, section 2: 24.96 degrees on a side, fundamental multipole 14.4.
    """

    projection: ClassVar[str] = "gnomonic"
    size: int = 64
    pixel_arcmin: float = 23.4

    @property
    def half_diagonal(self) -> float:
        """Angular distance from the centre to the outer corners, degrees (17.1 for the default)."""
        return float(np.degrees(np.arctan(np.radians(self.extent) / np.sqrt(2))))

    def from_plane(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        local = np.stack([x, y, np.ones_like(x)], axis=-1)
        return local / np.linalg.norm(local, axis=-1, keepdims=True)

    def to_plane(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """NaN on the far hemisphere."""
        depth = np.where(z > 0, z, np.nan)
        return x / depth, y / depth
