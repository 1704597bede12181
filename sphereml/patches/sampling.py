"""Random patches drawn from full-sky maps, on the fly.

Conventions: masks are bool ``(npix,)`` NEST, True where the sky is good; maps are pixel-major ``(npix, nchan)`` NEST;
patches are ``(n, row, column, nchan)``.  Nothing is kept: a patch is its frame, and is cut from the maps when needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import healpy
import numpy as np

from sphereml.errors import UserError
from sphereml.patches.projection import ProjectedPatch
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.interpolation import Rows, apply, bilinear, sample
from sphereml.sky.rotations import frame_towards, uniform_centres

# Below one accepted patch in this many draws, the mask and the zone contradict each other.
_MOST_DRAWS_PER_PATCH = 200


@dataclass(frozen=True)
class PatchZone:
    """Where patches may be drawn.

    Args:
        centres: pixels in which a centre may fall.
        observed: pixels with good data; may have another Nside than ``centres``.
        max_masked: largest share of a patch's pixels that may lie outside ``observed``.
    """

    centres: np.ndarray
    observed: np.ndarray
    max_masked: float = 0.7


def masked_share(patch: ProjectedPatch, frames: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Share of each patch's pixels whose centre falls on a masked pixel; frames ``(..., 3, 3)`` -> ``(...)``."""
    grid = HealpixGrid.of_size(observed.size)
    x, y, z = np.moveaxis(patch.vectors(frames), -1, 0)
    return 1 - observed[healpy.vec2pix(grid.nside, x, y, z, nest=True)].mean(axis=(-2, -1))


def draw_frames(rng: np.random.Generator, n: int, zone: PatchZone, patch: ProjectedPatch) -> np.ndarray:
    """Frames of random patches: centres uniform on the sphere in the zone, position angles uniform.

    Patches that are masked by more than ``zone.max_masked`` are dropped and drawn again.

    Returns:
        ``(n, 3, 3)``; see ``sky.rotations`` for the axes.
    Raises:
        UserError: hardly any patch in the zone has enough sky.
    """
    kept, accepted, drawn = [np.empty((0, 3, 3))], 0, 0
    while accepted < n:
        missing = max(n - accepted, 8)
        frames = frame_towards(uniform_centres(rng, missing, zone.centres), rng.uniform(0, 360, size=missing))
        frames = frames[masked_share(patch, frames, zone.observed) <= zone.max_masked]
        kept.append(frames)
        accepted, drawn = accepted + len(frames), drawn + missing
        if drawn > _MOST_DRAWS_PER_PATCH * (accepted + 8):
            raise UserError(
                f"only {accepted} of {drawn} random patches were masked by less than {zone.max_masked:.0%}",
                "raise patches.max_masked or use a mask that keeps more of the region",
            )
    return np.concatenate(kept)[:n]


def sample_patches(
    maps: np.ndarray,
    frames: np.ndarray,
    patch: ProjectedPatch,
    spins: Sequence[int] | None = None,
    rows: Rows | None = None,
) -> np.ndarray:
    """Cut patches from maps by bilinear interpolation.

    Args:
        maps: ``(npix, nchan)`` or ``(npix,)``, NEST, free of NaN and UNSEEN (they would spread to the neighbours).
        frames: ``(n, 3, 3)``.
        spins: of the maps' fields in the order of their columns, which then turn into the patch's axes; None: scalars.
        rows: which pixels the rows of the maps are of, where they are not the whole sphere's.
    Returns:
        ``(n, size, size, nchan)`` or ``(n, size, size)``.
    """
    if spins is not None and any(spins):
        vectors = patch.vectors(frames)
        return sample(maps, vectors, south=-np.cross(vectors, patch.axes(frames, vectors)), spins=spins, rows=rows)
    grid = HealpixGrid.of_size(len(maps)) if rows is None else rows.grid
    return apply(bilinear(grid, patch.vectors(frames)), maps, rows)


def pixels_beneath(grid: HealpixGrid, frames: np.ndarray, patch: ProjectedPatch) -> Rows:
    """The pixels of a grid that :func:`sample_patches` reads."""
    return Rows(grid, np.unique(bilinear(grid, patch.vectors(frames)).pixels))
