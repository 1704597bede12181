"""Does a file's ORDERING card tell the truth?  A map read in the wrong order is shuffled, hence rough.

The roughness of a map in an order is the mean squared difference, in ranks, between pixels and their four edge
neighbours of that order, over what a shuffled map would give.  Skies are smooth in their own order; ranks keep the
bright plane from deciding alone.  White noise is equally rough in both orders, so it is never refused.

A zonal map (a cut in latitude) in RING order is a few runs of equal numbers, which are compact patches in NEST too:
often smoother ones than its true belts.  So the zonality of the numbers read as RING, the share of their variance that
the means of the rings explain, says which ratio of roughnesses tells the orders apart.  Measured on 278 zonal and other
maps and masks of Nside 8 to 256, each in both orders: no true card is refused, and 26 of 556 false ones are not noticed
(belts of a pixel's width, and coarse masks with a hundred holes).
"""

from __future__ import annotations

import ducc0
import numpy as np

from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid

_SAMPLE = 20_000
# On maps of dust, gas and masks the wrong order is 2 to 50 times rougher; noise gives 1.00.
_MOST_ROUGHER = 1.5
# A map this rough in the better order is noise, or belts no wider than a pixel.
_NOISE = 0.6
# Zonality above which another ratio of roughnesses, RING over NEST, parts the orders.
_ZONAL, _PARTING_RATIOS = 0.85, ((0.85, 5.8), (0.5, 2.2), (0.0, _MOST_ROUGHER))
# Coarser maps have too few pixels to tell.
_LEAST_NSIDE = 8
# Rings next to the poles: one coarse NEST pixel at the start of the file fills the first.
_POLAR_RINGS = 2


def refuse_wrong_order(values: np.ndarray, nested: bool, name: str) -> None:
    """Raise UserError when a map ``(npix,)``, in the file's own order, NaN where missing, fits the other far better."""
    grid = HealpixGrid.of_size(values.size)
    if grid.nside < _LEAST_NSIDE or _is_index(values):
        return
    ring, nest = roughness(values, grid, False), roughness(values, grid, True)
    share = zonality(values, grid)
    parting = next(ratio for least, ratio in _PARTING_RATIOS if share >= least)
    if nested:
        belts = share > _ZONAL and ring < parting * nest and _is_two_valued(values)
        wrong = belts or (nest > _MOST_ROUGHER * ring and ring < _NOISE)
    else:
        wrong = ring > parting * nest and nest < _NOISE
    if wrong:
        label, truth = ("NESTED", "RING") if nested else ("RING", "NESTED")
        better = (nest / ring if nested else ring / nest) if min(ring, nest) > 0 else np.inf
        why = f"it is {better:.0f} x smoother" if better > _MOST_ROUGHER else "its edges follow parallels"
        raise UserError(
            f"{name} says ORDERING={label} but its pixels are in {truth} order (so read, {why})",
            f"set the card to '{truth}'",
        )


def roughness(values: np.ndarray, grid: HealpixGrid, nested: bool) -> float:
    """1 for a shuffled map, near 0 for a smooth one; 0 for a constant one.  NaN pixels are left out."""
    pixels = np.random.default_rng(0).choice(grid.npix, size=min(_SAMPLE, grid.npix), replace=False)
    pixels = pixels[~np.isnan(values[pixels])]
    # Every second neighbour shares an edge: SW, NW, NE, SE; each pixel has all four.
    base = ducc0.healpix.Healpix_Base(grid.nside, "NEST" if nested else "RING")
    edge = base.neighbors(pixels)[:, ::2].T
    known = ~np.isnan(values[edge])
    if not known.any():
        return 0.0
    reference = np.sort(values[pixels])
    own, beside = _ranks(values[pixels], reference), _ranks(values[edge], reference)
    spread = 2 * own.var()
    return float(((beside - own) ** 2)[known].mean() / spread) if spread > 0 else 0.0


def zonality(values: np.ndarray, grid: HealpixGrid) -> float:
    """Share of the variance of ``(npix,)``, read as RING, that lies between the means of its rings; 0 to 1."""
    starts = _ring_starts(grid)[_POLAR_RINGS:-_POLAR_RINGS]
    inner = values[starts[0] : starts[-1]]
    known = ~np.isnan(inner)
    count = np.add.reduceat(known, (starts - starts[0])[:-1], dtype=np.float64)
    if not count.any():
        return 0.0
    centred = np.where(known, inner - np.nanmean(inner, dtype=np.float64), 0)
    total = float(np.square(centred).sum(dtype=np.float64))
    sums = np.add.reduceat(centred, (starts - starts[0])[:-1], dtype=np.float64)
    between = float((sums**2 / np.maximum(count, 1)).sum())
    return between / total if total > 0 else 0.0


def _is_index(values: np.ndarray) -> bool:
    """Whether a map rises from pixel to pixel of the file, as the pixels' own numbers do in either order."""
    return bool((np.diff(values[~np.isnan(values)]) > 0).all())


def _is_two_valued(values: np.ndarray) -> bool:
    """Whether a map is a mask, whatever its two values are."""
    known = values[~np.isnan(values)]
    return bool(((known == known.min()) | (known == known.max())).all())


def _ring_starts(grid: HealpixGrid) -> np.ndarray:
    """First pixel of every ring in RING order, and one past the last: int64 ``(4 nside,)``."""
    ring = np.arange(1, 4 * grid.nside)
    lengths = 4 * np.minimum(np.minimum(ring, grid.nside), 4 * grid.nside - ring)
    return np.concatenate([[0], np.cumsum(lengths)])


def _ranks(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Share of the sorted reference below each value; equal values (masks) get the middle of their range."""
    below, up_to = (np.searchsorted(reference, values, side) for side in ("left", "right"))
    return np.asarray((below + up_to) / (2 * reference.size))
