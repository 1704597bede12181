"""What square images of the sky have in common, whatever their projection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SquarePatch:
    """An image of ``size`` x ``size`` pixels of ``pixel_arcmin`` at its centre."""

    size: int
    pixel_arcmin: float

    @property
    def pixel_deg(self) -> float:
        return self.pixel_arcmin / 60

    @property
    def extent(self) -> float:
        """Side of the image in the plane, degrees at the centre."""
        return self.size * self.pixel_deg

    @property
    def fundamental_ell(self) -> float:
        """Multipole of the longest wave that fits the side, ``360 / extent``."""
        return 360 / self.extent

    @property
    def _middle(self) -> float:
        """Row and column of the centre."""
        return (self.size - 1) / 2

    @property
    def _step(self) -> float:
        """Side of a pixel in the plane, radians at the centre."""
        return float(np.radians(self.pixel_deg))
