"""Predicted patches back on the sphere: a partition of unity with smooth weights.

Conventions: patches are ``(npatch, row, column[, nchan])`` with their frames ``(npatch, 3, 3)``; the result is NEST,
``(npix[, nchan])``.  At every sphere pixel each patch that holds it gives a value by cubic-spline interpolation, with
the weight ``cos^2(pi x / 2h) cos^2(pi y / 2h)``, where x, y run from the patch's middle and h reaches its outermost
pixel centres; the weights are divided by their sum.  So a map is continuous, with continuous slope, across borders.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import healpy
import numpy as np
from scipy.ndimage import map_coordinates, spline_filter

from sphereml.errors import UserError
from sphereml.patches.projection import ProjectedPatch
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.rotations import frame_at
from sphereml.sky.stokes import turned

# A pixel whose best patch weighs less than this hangs on the rim of patches, where a network sees half of the context.
SMOOTH_WEIGHT = 0.05
# Coverage is checked at pixels of this Nside (1.8 degrees, far finer than a patch's taper).
_CHECK_NSIDE = 32
_CENTRES_NSIDE = (4, 8, 16)


@dataclass(frozen=True)
class Stitched:
    """A stitched map and the quality of its seams.

    Args:
        map: float64 ``(npix[, nchan])`` NEST.
        seam: rms disagreement (weighted standard deviation) of the patches that overlap in a pixel, over the map's
            standard deviation; the rms of that ratio over the channels.  0 for a constant map of equal patches.
    """

    map: np.ndarray
    seam: float


def patch_weight(patch: ProjectedPatch, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Weight of a patch at image coordinates: 1 in the middle, 0 with zero slope at the outermost pixel centres."""
    half = patch.middle
    taper = [np.cos(np.pi / 2 * np.clip((c - half) / half, -1, 1)) ** 2 for c in (column, row)]
    return taper[0] * taper[1]


def third_of_area(patch: ProjectedPatch, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Third of a patch's area at image coordinates: a square about its centre (0), a frame, the outermost one (2)."""
    reach = np.maximum(np.abs(column - patch.middle), np.abs(row - patch.middle)) / (patch.size / 2)
    return np.minimum((3 * reach**2).astype(int), 2)


def covered_by_thirds(frames: np.ndarray, patch: ProjectedPatch, grid: HealpixGrid) -> np.ndarray:
    """Pixels that lie in the central, middle and outer third of at least one patch, bool ``(3, npix)``."""
    covered = np.zeros((3, grid.npix), dtype=bool)
    for frame in frames:
        pixels, column, row = _pixels_inside(patch, frame, grid)
        covered[third_of_area(patch, column, row), pixels] = True
    return covered


def covering_frames(nside_centres: int, patch: ProjectedPatch) -> np.ndarray:
    """Frames of patches centred on the HEALPix pixels of ``nside_centres``, that cover the sphere.

    HEALPix pixels are diamonds, so the patches stand on a corner (position angle 45 degrees).

    Returns:
        ``(12 nside_centres^2, 3, 3)``; for the default patch, Nside 4 (192 patches) covers.
    Raises:
        UserError: some direction lies in the smooth part of no patch.
    """
    frames = frame_at(*HealpixGrid(nside_centres).lonlat(), 45.0)
    if best_patches(frames, patch, HealpixGrid(_CHECK_NSIDE))[1].min() < SMOOTH_WEIGHT:
        raise UserError(
            f"{len(frames)} patches of {patch.extent:.1f} deg leave gaps on the sphere",
            f"use larger patches or centres at Nside {2 * nside_centres}",
        )
    return frames


def fewest_frames(patch: ProjectedPatch) -> np.ndarray:
    """Frames of the fewest HEALPix-centred patches that cover the sphere, centres at Nside 4, 8 or 16.

    Raises:
        UserError: the patch is too small for all of these.
    """
    for nside in _CENTRES_NSIDE[:-1]:
        try:
            return covering_frames(nside, patch)
        except UserError:
            continue
    return covering_frames(_CENTRES_NSIDE[-1], patch)


def best_patches(frames: np.ndarray, patch: ProjectedPatch, grid: HealpixGrid) -> tuple[np.ndarray, np.ndarray]:
    """The patch that weighs most in every pixel, -1 where there is none, and its weight: each ``(npix,)`` NEST."""
    owner, best = np.full(grid.npix, -1), np.zeros(grid.npix)
    for number, frame in enumerate(frames):
        pixels, column, row = _pixels_inside(patch, frame, grid)
        weight = patch_weight(patch, column, row)
        better = weight > best[pixels]
        owner[pixels[better]], best[pixels[better]] = number, weight[better]
    return owner, best


class Stitcher:
    """Collects patches one after another, holding one weight, one mean and one variance per pixel and channel.

    Means and variances are updated incrementally (West 1979), which keeps a constant exactly constant.

    Args:
        patch: geometry of the patches.
        grid: grid of the stitched map.
        spins: of the fields in the order of their columns, which turn from the patches' axes into the meridian's
            frames; None: scalars.
        third: in place of the weighted mean, the value of the first patch that has a pixel in this third of its area.
    """

    def __init__(
        self,
        patch: ProjectedPatch,
        grid: HealpixGrid,
        spins: Sequence[int] | None = None,
        third: int | None = None,
    ) -> None:
        self.patch = patch
        self.grid = grid
        self.spins = spins
        self.third = third
        self._weight = np.zeros(grid.npix)
        self._overlap = np.zeros(grid.npix, dtype=bool)
        self._mean: np.ndarray | None = None
        self._spread: np.ndarray | None = None

    def add(self, values: np.ndarray, frames: np.ndarray) -> None:
        """Add patches: values ``(n, size, size[, nchan])``, frames ``(n, 3, 3)``.

        Raises:
            ValueError: the values do not have the patch's size or the channels of those before.
        """
        if values.shape[:3] != (len(frames), self.patch.size, self.patch.size):
            raise ValueError(f"values of shape {values.shape} for {len(frames)} patches of size {self.patch.size}")
        if self._mean is None:
            self._mean = np.zeros((self.grid.npix, *values.shape[3:]))
            self._spread = np.zeros_like(self._mean)
        if values.shape[3:] != self._mean.shape[1:]:
            raise ValueError(f"{values.shape[3:]} channels after patches with {self._mean.shape[1:]}")
        for image, frame in zip(values, frames, strict=True):
            self._add_one(image, frame)

    def covered(self) -> np.ndarray:
        """Pixels that at least one patch holds with a positive weight, bool ``(npix,)``."""
        return self._weight > 0

    def result(self, outside: float | None = None) -> Stitched:
        """The stitched map.

        Args:
            outside: value of the pixels that no patch holds (e.g. ``healpy.UNSEEN``).
        Raises:
            UserError: ``outside`` is None and the patches leave pixels uncovered.
        """
        missing = ~self.covered()
        if self._mean is None or (outside is None and missing.any()):
            raise UserError(
                f"{missing.sum()} of {self.grid.npix} pixels lie in no patch", "add patches at covering_frames()"
            )
        stitched = self._mean.copy()
        stitched[missing] = np.nan if outside is None else outside
        return Stitched(stitched, self._seam(~missing))

    def _add_one(self, image: np.ndarray, frame: np.ndarray) -> None:
        assert self._mean is not None and self._spread is not None
        pixels, column, row = _pixels_inside(self.patch, frame, self.grid)
        weight = patch_weight(self.patch, column, row)
        if self.third is not None:
            chosen = (third_of_area(self.patch, column, row) == self.third) & (self._weight[pixels] == 0)
            weight = chosen.astype(np.float64)
        values = _spline_values(image, column, row)
        if self.spins is not None and any(self.spins):
            vectors = np.stack(healpy.pix2vec(self.grid.nside, pixels, nest=True), axis=-1)
            values = turned(values, self.patch.phase(frame, vectors[None])[0].conj(), self.spins)
        total = self._weight[pixels] + weight
        # A pixel exactly on a corner weighs 0 and adds nothing.
        share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
        expand = (slice(None),) + (None,) * (values.ndim - 1)
        difference = values - self._mean[pixels]
        self._mean[pixels] += share[expand] * difference
        self._spread[pixels] += (weight * (1 - share))[expand] * difference**2
        self._overlap[pixels] |= self._weight[pixels] > 0
        self._weight[pixels] = total

    def _seam(self, covered: np.ndarray) -> float:
        assert self._mean is not None and self._spread is not None
        if not self._overlap.any():
            return 0.0
        weight = self._weight[self._overlap]
        variance = self._spread[self._overlap].reshape(weight.size, -1) / weight[:, None]
        disagreement = np.sqrt(variance.mean(axis=0))
        deviation = self._mean[covered].reshape(covered.sum(), -1).std(axis=0)
        ratio = np.divide(disagreement, deviation, out=np.zeros_like(disagreement), where=disagreement > 0)
        return float(np.sqrt(np.mean(ratio**2)))


def stitch_stream(
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    patch: ProjectedPatch,
    grid: HealpixGrid,
    spins: Sequence[int] | None = None,
    third: int | None = None,
) -> Stitched:
    """Stitch batches of ``(values, frames)`` as they come, e.g. from a network; of a third, 0 where no patch has it."""
    stitcher = Stitcher(patch, grid, spins, third)
    for values, frames in batches:
        stitcher.add(values, frames)
    return stitcher.result(None if third is None else 0.0)


def _pixels_inside(
    patch: ProjectedPatch, frame: np.ndarray, grid: HealpixGrid
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sphere pixels whose centre lies in the patch, and their column and row."""
    disc = healpy.query_disc(grid.nside, frame[:, 2], np.radians(patch.half_diagonal), nest=True)
    vectors = np.stack(healpy.pix2vec(grid.nside, disc, nest=True), axis=-1)
    column, row, inside = patch.plane(frame, vectors)
    return disc[inside], column[inside], row[inside]


def _spline_values(image: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Cubic-spline values ``(n[, nchan])`` of an image ``(size, size[, nchan])``."""
    channels = np.moveaxis(image.reshape(*image.shape[:2], -1).astype(np.float64), -1, 0)
    values = np.stack(
        [
            map_coordinates(spline_filter(channel, mode="mirror"), (row, column), mode="mirror", prefilter=False)
            for channel in channels
        ],
        axis=-1,
    )
    return values.reshape(row.size, *image.shape[2:])
