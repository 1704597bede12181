"""What a filament is to the rolling Hough transform; imports nothing heavy: wrong values are refused at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from sphereml.errors import UserError

# Sums over them take time and memory, and no kernel has as many orders.
_MOST_ORIENTATIONS = 10_000


@dataclass(frozen=True)
class HoughSettings:
    """What a filament is.

    Args:
        length: of the stick (Clark's window D_W), arcmin; a row of pixels is rounded up to whole ones.
        smoothing: FWHM of the unsharp mask (D_K), arcmin.
        threshold: share Z of the stick that must be mask, in [0, 1).
        orientations: number of angles, evenly over 180 degrees.
        width: FWHM of a stick of exactly this ``length``, arcmin; 0: a row of pixels.
        softness: tau; 0 for Clark's hard steps.
        subpixels: the mask is drawn with so many pixels to the side of one of the map's, a power of two; with 1 the
            transform takes a third of the time.
    Raises:
        UserError: a value that no transform can have.
    """

    length: float = 75.0
    smoothing: float = 30.0
    threshold: float = 0.7
    orientations: int = 25
    width: float = 0.0
    softness: float = 0.0
    subpixels: int = 4

    def __post_init__(self) -> None:
        for field in fields(self):
            if not math.isfinite(getattr(self, field.name)):
                raise UserError(f"{field.name}={getattr(self, field.name)} is not a number", "give a finite one")
        for name in ("length", "smoothing"):
            if not 0 < getattr(self, name) < 180 * 60:
                raise UserError(f"{name}={getattr(self, name):g} arcmin is impossible", "give more than 0, below 10800")
        if not 0 <= self.threshold < 1:
            raise UserError(f"threshold={self.threshold:g} is no share of the length", "give 0 or more, below 1")
        if self.orientations < 3:
            raise UserError(f"{self.orientations} orientations do not fix Q and U", "give at least 3")
        if self.orientations > _MOST_ORIENTATIONS:
            raise UserError(f"{self.orientations} orientations are beyond sense", f"give {_MOST_ORIENTATIONS} at most")
        if self.width < 0 or self.softness < 0:
            raise UserError("a width or softness below 0 is impossible", "give 0 or more")
        if self.subpixels < 1 or self.subpixels & (self.subpixels - 1):
            raise UserError(f"subpixels={self.subpixels} is not a power of two", "give 1, 2 or 4")
