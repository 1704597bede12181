"""Lambert azimuthal equal-area (ZEA) patches.

Conventions: those of :mod:`sphereml.patches.projection`.  The distance theta of a direction from the frame's z is
``rho = 2 sin(theta / 2)`` in the image, its azimuth is kept, and every pixel covers the same solid angle.

Q and U turn into the patch's axes as in every projection: this one squeezes the radial direction by ``cos(theta / 2)``
and stretches the other as much, without turning either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sphereml.errors import UserError
from sphereml.patches.projection import ProjectedPatch

# The antipode of the centre is a circle of this radius, in radians at the centre.
_RIM = 2.0


@dataclass(frozen=True)
class LambertPatch(ProjectedPatch):
    """An equal-area image of ``size`` x ``size`` pixels of ``pixel_arcmin``; where it lies is said by a frame.

    The default is that of DeepCMB (arXiv:1810.01483): 5 degrees on a side.

    Raises:
        UserError: no pixels, or the corners lie beyond the antipode of the centre.
    """

    projection: ClassVar[str] = "lambert"
    size: int = 128
    pixel_arcmin: float = 2.34375

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.middle * self.step * np.sqrt(2) >= _RIM:
            what = f"a patch {self.extent:.4g} degrees wide is larger than the Lambert projection of the whole sphere"
            raise UserError(what, f"keep it below {np.degrees(_RIM * np.sqrt(2)):.0f} degrees")

    @property
    def half_diagonal(self) -> float:
        """Angular distance from the centre to the outer corners, degrees (3.54 for the default)."""
        return float(np.degrees(2 * np.arcsin(min(np.radians(self.extent) / np.sqrt(8), 1.0))))

    def from_plane(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        rho2 = x**2 + y**2
        shrink = np.sqrt(1 - rho2 / 4)
        return np.stack([x * shrink, y * shrink, 1 - rho2 / 2], axis=-1)

    def to_plane(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """NaN at the antipode."""
        stretch = np.sqrt(2 / np.where(z > -1, 1 + z, np.nan))
        return x * stretch, y * stretch
