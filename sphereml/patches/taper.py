"""The apodized mask of a square patch."""

from __future__ import annotations

import numpy as np

from sphereml.errors import UserError
from sphereml.sky.plane import SquareGrid


def cosine_taper(grid: SquareGrid, width: float) -> np.ndarray:
    """1 inside, falling to 0 over ``width`` arcmin at every edge as half a cosine: float64 ``(size, size)``.

    Raises:
        UserError: the width is negative, or the edges meet in the middle.
    """
    extent = grid.size * grid.pixel_arcmin
    if not 0 <= width < extent / 2:
        what = f"a taper of {width:g} arcmin on a patch of {extent:g}"
        raise UserError(what, f"give 0 to {extent / 2:g} arcmin (lensing.taper)")
    position = (np.arange(grid.size) + 0.5) * grid.pixel_arcmin
    share = np.minimum(position, extent - position) / max(width, 1e-12)
    edge = (1 - np.cos(np.pi * np.clip(share, 0, 1))) / 2
    taper: np.ndarray = edge[:, None] * edge[None, :]
    return taper
