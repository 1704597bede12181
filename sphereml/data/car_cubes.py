"""Spectral cubes on the sphere: plate-carree all-sky cubes, sets of tiles, any celestial cube -> HEALPix channels.

Resampling: a HEALPix pixel no wider than a cube pixel takes the bilinear value of the cube at its centre.  A wider one
takes the mean over its descendants that are no wider than a cube pixel: all have the same area, so this is the
area-weighted mean over the pixel (with cos b included, by construction).  Bilinear interpolation between samples h
apart is off by at most ``h^2 / 8 (|T_xx| + |T_yy|)``, to which the mean over descendants adds as much again with h the
width of a descendant.  A point source seen by HI4PI (FWHM 3.24 h) loses 12 % of its peak halfway between four samples;
a wave of multipole ell loses ``(ell h)^2 / 12`` of its amplitude on average (near the equator; 3.7 % at ell 460 for
HI4PI's 5').  HI4PI's own HEALPix tables (:mod:`sphereml.data.hpx_tables`) need no resampling: prefer them.

Where tiles overlap they are averaged, each weighted by the distance to its own edge, so that a tile has no weight left
where it ends and no seam appears.  Weights are found once, from where the tiles lie, and serve all channels.  Which
samples have data is each channel's own matter: a pixel is NaN unless data cover half of it, where of tiles that overlap
only those with any data there count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import healpy
import numpy as np
from scipy.sparse import csr_array, vstack

from sphereml.data.channels import checksums, refuse_bad_channel, refuse_empty
from sphereml.data.cube_files import SILENT, CubeFile, UnsaidCubeCards, open_cube
from sphereml.data.velocity import VelocityAxis
from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid

_LEAST_AREA = 0.5
# Directions handled at once while weights are computed.
_CHUNK = 2**20


@dataclass(eq=False)
class _Placement:
    """How one cube meets the sphere: ``weights`` CSR float32 ``(pixels.size, ny nx)`` gives the NEST ``pixels``.

    ``area`` float32 ``(pixels.size,)`` is the share of each pixel that lies within the cube.
    """

    cube: CubeFile
    pixels: np.ndarray
    weights: csr_array
    area: np.ndarray
    _latest: tuple[np.ndarray, np.ndarray] | None = None

    @cached_property
    def full(self) -> np.ndarray:
        """What :meth:`covered` is where every sample has data."""
        return np.asarray(self.weights.sum(axis=1), dtype=np.float32).reshape(-1)

    def covered(self, valid: np.ndarray) -> np.ndarray:
        """Weight on valid samples ``(ny nx,)`` bool; channels mostly share their blanks, so the latest is kept."""
        if self._latest is None or not np.array_equal(self._latest[0], valid):
            self._latest = valid, self.weights @ valid.astype(np.float32)
        return self._latest[1]


@dataclass(frozen=True, eq=False)
class _Footprint:
    """Directions that fall on a cube: NEST pixels of the sampling grid, places in the plane, weight among cubes."""

    pixels: np.ndarray
    x: np.ndarray
    y: np.ndarray
    taper: np.ndarray


@dataclass(frozen=True, eq=False)
class CubeChannels:
    """A :class:`~sphereml.data.channels.ChannelSource` over one or more cubes; made by :func:`open_cubes`."""

    name: str
    grid: HealpixGrid
    placements: tuple[_Placement, ...]
    unit: str = "K"
    frame: str = "G"
    _checked: list[bool] = field(default_factory=list, repr=False)

    @property
    def nside(self) -> int:
        return self.grid.nside

    @property
    def beam_arcmin(self) -> float | None:
        return self.placements[0].cube.beam_arcmin

    @property
    def axis(self) -> VelocityAxis:
        return self.placements[0].cube.axis

    @property
    def velocity(self) -> np.ndarray:
        return self.axis.centres

    @cached_property
    def files(self) -> dict[str, str]:
        return checksums([placement.cube.path for placement in self.placements])

    def read(self, channel: int) -> np.ndarray:
        """One channel, float32 ``(npix,)`` NEST, K, NaN outside the cubes and where they are blank.

        Raises:
            UserError: no such channel, or nothing but NaN in it.
        """
        refuse_bad_channel(channel, self)
        self._check_files()
        # Sums over tiles: weighted values, their weights, the area that data cover, that of tiles with any data.
        total, weight, area, present = np.zeros((4, self.grid.npix), dtype=np.float32)
        for placement in self.placements:
            plane = placement.cube.plane(channel).ravel()
            valid = ~np.isnan(plane)
            covered = placement.covered(valid)
            total[placement.pixels] += placement.weights @ np.where(valid, plane, np.float32(0))
            weight[placement.pixels] += covered
            area[placement.pixels] += placement.area * covered / placement.full
            present[placement.pixels] += placement.area * (covered > 0)
        # Tiles side by side share a pixel's area; tiles one over the other have it twice.
        known = (area >= _LEAST_AREA * np.maximum(present, 1)) & (weight > 0)
        values = np.divide(total, weight, out=np.full_like(total, np.nan), where=known)
        refuse_empty(values, channel, self)
        return values

    def _check_files(self) -> None:
        """Checksums that cubes carry are looked at once, before the first channel is used."""
        if not self._checked:
            for placement in self.placements:
                placement.cube.refuse_stale()
            self._checked.append(True)


def open_cubes(
    paths: Sequence[str | Path],
    nside: int,
    unsaid: UnsaidCubeCards = SILENT,
    name: str = "",
) -> CubeChannels:
    """Open cubes as one sky and find the weights of their resampling.

    Args:
        paths: one cube, or tiles with the same velocity axis, e.g. ``channels.find_files(folder, "CAR_*.fits")``.
        nside: of the maps to make.
        unsaid: what silent headers mean.
        name: for messages; the first file's name when empty.
    Raises:
        UserError: as :func:`~sphereml.data.cube_files.open_cube`; the velocity axes differ; no data anywhere.
    """
    cubes = [open_cube(path, unsaid) for path in paths]
    if not cubes:
        raise UserError("no cube was given", "list the files, e.g. CAR_*.fits")
    for cube in cubes[1:]:
        if not cube.axis.matches(cubes[0].axis):
            raise UserError(f"{cube.path.name} and {cubes[0].path.name} have other velocities", "read them separately")
    grid = HealpixGrid(nside)
    sampling = sampling_grid(grid, min(cube.pixel_size for cube in cubes))
    footprints = [_footprint(cube, sampling) for cube in cubes]
    if not any(footprint.pixels.size for footprint in footprints) or not any(map(_has_data, cubes)):
        raise UserError(f"{cubes[0].path.name} has no data on the sky (all blank)", "choose another file")
    tapers = np.zeros(sampling.npix)
    for footprint in footprints:
        tapers[footprint.pixels] += footprint.taper
    placed = [_place(c, f, tapers, (grid, sampling)) for c, f in zip(cubes, footprints, strict=True) if f.pixels.size]
    return CubeChannels(name or cubes[0].path.name, grid, tuple(placed))


def sampling_grid(grid: HealpixGrid, pixel_size: float) -> HealpixGrid:
    """The coarsest refinement of ``grid`` whose pixels are no wider than ``pixel_size`` degrees, or ``grid``."""
    halvings = max(0, int(np.ceil(np.log2(grid.resolution / pixel_size))))
    return HealpixGrid(grid.nside * 2**halvings)


def _footprint(cube: CubeFile, sampling: HealpixGrid) -> _Footprint:
    parts = [_footprint_of(cube, sampling, pixels) for pixels in _candidates(cube, sampling)]
    return _Footprint(
        *(np.concatenate([getattr(part, key) for part in parts]) for key in ("pixels", "x", "y", "taper"))
    )


def _candidates(cube: CubeFile, sampling: HealpixGrid) -> list[np.ndarray]:
    """Pixels near a cube, ascending, in chunks."""
    centre, radius = cube.cap()
    if radius >= 180:
        return [np.arange(i, min(i + _CHUNK, sampling.npix)) for i in range(0, sampling.npix, _CHUNK)]
    near = np.sort(healpy.query_disc(sampling.nside, centre, np.radians(radius), inclusive=True, nest=True))
    return [near[i : i + _CHUNK] for i in range(0, max(1, near.size), _CHUNK)]


def _footprint_of(cube: CubeFile, sampling: HealpixGrid, pixels: np.ndarray) -> _Footprint:
    x, y = cube.positions(np.stack(healpy.pix2vec(sampling.nside, pixels, nest=True), axis=-1))
    ny, nx = cube.shape
    # Distance to the nearest edge of the image, positive inside; NaN places compare false.
    edge = np.minimum(y + 0.5, ny - 0.5 - y)
    if not cube.closes:
        edge = np.minimum(edge, np.minimum(x + 0.5, nx - 0.5 - x))
    inside = edge >= 0
    nearest = _flat_index(cube, np.rint(x[inside]).astype(np.int64), np.rint(y[inside]).astype(np.int64))
    inside[inside] = nearest >= 0
    # Half a pixel from the edge the stencil begins to miss corners; a little weight stays: it may be all there is.
    return _Footprint(pixels[inside], x[inside], y[inside], np.maximum(edge[inside] - 0.5, 0) + 1e-3)


def _has_data(cube: CubeFile) -> bool:
    """Whether any sample of any channel has data; the middle of the axis is where they mostly are."""
    middle = len(cube.axis) // 2
    channels = sorted(range(len(cube.axis)), key=lambda channel: abs(channel - middle))
    return any(not np.isnan(cube.plane(channel)).all() for channel in channels)


def _flat_index(cube: CubeFile, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Place of samples in a flattened plane, -1 outside the image; columns go around where the image does."""
    ny, nx = cube.shape
    if cube.closes:
        turn = round(cube.period)
        column = np.where(column < 0, column + turn, np.where(column >= nx, column - turn, column))
    exists = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
    return np.where(exists, row * nx + column, -1)


def _corners(cube: CubeFile, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear stencil: flat indices int32 and weights float32, both ``(n, 4)``; weight 0 outside the image."""
    left, low = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right_share, upper_share = (x - left).astype(np.float32), (y - low).astype(np.float32)
    index, weight = np.empty((x.size, 4), dtype=np.int32), np.empty((x.size, 4), dtype=np.float32)
    # One corner after the other: broadcasting over axes of length two is five times slower.
    for corner, (right, upper) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        place = _flat_index(cube, left + right, low + upper)
        share = (right_share if right else 1 - right_share) * (upper_share if upper else 1 - upper_share)
        index[:, corner], weight[:, corner] = np.maximum(place, 0), np.where(place >= 0, share, 0)
    return index, weight


def _place(
    cube: CubeFile, footprint: _Footprint, tapers: np.ndarray, grids: tuple[HealpixGrid, HealpixGrid]
) -> _Placement:
    """Weights of one cube in the map; rows of all cubes together sum to the covered share of each pixel."""
    descendants = grids[1].npix // grids[0].npix
    parents = footprint.pixels // descendants
    pixels = parents[np.diff(parents, prepend=-1) > 0]
    blocks, area = [], np.empty(pixels.size, dtype=np.float32)
    for first in range(0, pixels.size, _CHUNK // descendants or 1):
        chosen = pixels[first : first + (_CHUNK // descendants or 1)]
        begin, end = np.searchsorted(parents, [chosen[0], chosen[-1] + 1])
        part = slice(begin, end)
        corners, weights = _corners(cube, footprint.x[part], footprint.y[part])
        share = footprint.taper[part] / tapers[footprint.pixels[part]] / descendants
        weights *= share[:, None].astype(np.float32)
        starts = np.append(4 * np.searchsorted(parents[part], chosen), weights.size)
        area[first : first + chosen.size] = np.diff(starts) / 4 / descendants
        shape = (chosen.size, cube.shape[0] * cube.shape[1])
        block = csr_array((weights.ravel(), corners.ravel(), starts), shape=shape)
        block.sum_duplicates()
        blocks.append(block)
    return _Placement(cube, pixels, blocks[0] if len(blocks) == 1 else vstack(blocks, format="csr"), area)
