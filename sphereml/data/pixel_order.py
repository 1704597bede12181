"""Does a file's ORDERING card tell the truth?  A map read in the wrong order is shuffled, hence rough.

The roughness of a map in an order is the mean squared difference, in ranks, between pixels and their four edge
neighbours of that order, over what a shuffled map would give.  Skies are smooth in their own order; ranks keep the
bright plane from deciding alone.  White noise is equally rough in both orders, so it is never refused.
"""

from __future__ import annotations

import healpy
import numpy as np

from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid

_SAMPLE = 20_000
# On maps of dust, gas and masks the wrong order is 2 to 50 times rougher; noise gives 1.00.
_MOST_ROUGHER = 1.5
# Coarser maps have too few pixels to tell.
_LEAST_NSIDE = 8
_MISSING = 1e30  # UNSEEN, NaN and infinities are refused elsewhere, with a better message


def refuse_wrong_order(values: np.ndarray, nested: bool, name: str) -> None:
    """Raise UserError when a map ``(npix,)``, in the file's own order, is far smoother in the other order."""
    grid = HealpixGrid.of_size(values.size)
    if grid.nside < _LEAST_NSIDE or not (np.abs(values) < _MISSING).all():
        return
    stated, other = roughness(values, grid, nested), roughness(values, grid, not nested)
    if stated > _MOST_ROUGHER * other:
        label, truth = ("NESTED", "RING") if nested else ("RING", "NESTED")
        raise UserError(
            f"{name} says ORDERING={label} but its pixels are in {truth} order (so read, it is {stated / other:.0f} x "
            "smoother)",
            f"set the card to '{truth}'",
        )


def roughness(values: np.ndarray, grid: HealpixGrid, nested: bool) -> float:
    """1 for a shuffled map, near 0 for a smooth one; 0 for a constant one."""
    pixels = np.random.default_rng(0).choice(grid.npix, size=min(_SAMPLE, grid.npix), replace=False)
    # Every second neighbour shares an edge: SW, NW, NE, SE; each pixel has all four.
    edge = healpy.get_all_neighbours(grid.nside, pixels, nest=nested)[::2]
    reference = np.sort(values[pixels])
    own, beside = _ranks(values[pixels], reference), _ranks(values[edge], reference)
    spread = 2 * own.var()
    return float(((beside - own) ** 2).mean() / spread) if spread > 0 else 0.0


def _ranks(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Share of the sorted reference below each value; equal values (masks) get the middle of their range."""
    below, up_to = (np.searchsorted(reference, values, side) for side in ("left", "right"))
    return np.asarray((below + up_to) / (2 * reference.size))
