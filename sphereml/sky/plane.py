"""Square grids of pixels in the plane, the flat counterpart of :mod:`sphereml.sky.grid`.

Conventions: images are ``(row, column)``; pixel centres have integer coordinates and the middle of the image is at
``(size - 1) / 2``.  Columns grow along x and rows along y; x and y are in radians from the middle.  On a flat sky of
this extent multipoles are ``ell_F`` times integer wave numbers, ``ell_F = 360 degrees / extent``, and waves are
resolved below the Nyquist multipole ``180 degrees / pixel``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from sphereml.errors import UserError

_ROUNDING = 1e-12


@dataclass(frozen=True)
class SquareGrid:
    """``size`` x ``size`` square pixels of ``pixel_arcmin`` on a side (at the centre, where a projection distorts).

    Raises:
        UserError: no pixels, or pixels without a width.

    Example:
        >>> grid = SquareGrid(64, 22.5)
        >>> grid.extent, grid.fundamental_ell, grid.nyquist_ell
        (24.0, 15.0, 480.0)
    """

    size: int
    pixel_arcmin: float

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.pixel_arcmin < np.inf:
            what = f"a patch of {self.size} x {self.size} pixels of {self.pixel_arcmin:g} arcmin is impossible"
            raise UserError(what, "give a positive size and a positive width of the pixels")

    @property
    def extent(self) -> float:
        """Side of the image, degrees."""
        return self.size * (self.pixel_arcmin / 60)

    @property
    def step(self) -> float:
        """Side of a pixel, radians."""
        return float(np.radians(self.pixel_arcmin / 60))

    @property
    def area(self) -> float:
        """Solid angle of the image taken as flat, sr."""
        return (self.size * self.step) ** 2

    @property
    def fundamental_ell(self) -> float:
        """``ell_F``, the multipole of the longest wave that fits the side."""
        return 360 / self.extent

    @property
    def nyquist_ell(self) -> float:
        """Multipole of the shortest wave along an axis that the pixels resolve."""
        return 180 / (self.pixel_arcmin / 60)

    @property
    def middle(self) -> float:
        """Row and column of the centre."""
        return (self.size - 1) / 2

    def offsets(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y of every pixel centre from the middle, radians, each ``(size, size)``."""
        along = (np.arange(self.size) - self.middle) * self.step
        y, x = np.meshgrid(along, along, indexing="ij")
        return x, y

    def position(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where points of the plane lie in the image: the inverse of :meth:`offsets`.

        Returns:
            Column and row (float; NaN stays), and whether they lie between the centres of the outermost pixels, which
            are inside themselves after a round trip.
        """
        column, row = x / self.step + self.middle, y / self.step + self.middle
        reach = self.middle * (1 + _ROUNDING)
        inside = (np.abs(column - self.middle) <= reach) & (np.abs(row - self.middle) <= reach)
        return column, row, inside

    def with_size(self, size: int) -> Self:
        """A grid of more or fewer pixels of the same width."""
        return replace(self, size=size)

    def resampled(self, size: int) -> Self:
        """The same extent in so many pixels."""
        return replace(self, size=size, pixel_arcmin=self.pixel_arcmin * self.size / size)
