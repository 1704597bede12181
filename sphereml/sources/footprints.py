"""Places on one sky that a batch is read from: flat patches, or tiles of the sphere turned to random places.

Conventions: ``spins`` are those of the maps' fields in the order of their columns (None: all are scalars).  Spins come
in the frames of the domain: the patch's axes, or the tile's own pixels, wherever it is laid.

One sky is one sample: what keeps a network from learning it by heart is that no two batches show it alike.  A patch has
a random centre and position angle.  A tile is one superpixel of the HEALPix grid laid over a random place by a random
rotation, its values read off the sky by the same interpolation; all the tiles of a batch share one superpixel, hence
one neighbour table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import healpy
import numpy as np

from sphereml.domains import Domain, FlatPatch, HealpixSky
from sphereml.errors import UserError
from sphereml.patches.projection import ProjectedPatch
from sphereml.patches.sampling import PatchZone, draw_frames, sample_patches
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.interpolation import apply, bilinear, sample
from sphereml.sky.regions import Region
from sphereml.sky.rotations import frame_towards, uniform_centres
from sphereml.sky.tangent import LocalFrames

_MOST_DRAWS = 200
Spins = Sequence[int] | None


class Footprint(Protocol):
    """Draws places on the sky and reads full-sky maps there."""

    def draw(
        self, rng: np.random.Generator, size: int, maps: np.ndarray, spins: Spins = None
    ) -> tuple[Domain, np.ndarray]:
        """A domain and the maps ``(npix, n)`` on it, ``(size, *shape, n)``."""


@dataclass(frozen=True, eq=False)
class PatchFootprint:
    """Patches in a zone."""

    patch: ProjectedPatch
    zone: PatchZone

    def draw(
        self, rng: np.random.Generator, size: int, maps: np.ndarray, spins: Spins = None
    ) -> tuple[Domain, np.ndarray]:
        frames = draw_frames(rng, size, self.zone, self.patch)
        return FlatPatch.of(self.patch, self.patch.projection), sample_patches(maps, frames, self.patch, spins)


@dataclass(frozen=True, eq=False)
class TileFootprint:
    """Superpixels of ``tile_nside`` turned by random rotations, their centres in the zone's pixels.

    Without ``rotations`` the superpixels stay where they are: a batch is then one region of several of them.
    """

    nside: int
    tile_nside: int
    zone: PatchZone
    rotations: bool = True

    def draw(
        self, rng: np.random.Generator, size: int, maps: np.ndarray, spins: Spins = None
    ) -> tuple[Domain, np.ndarray]:
        if not self.rotations:
            return _in_place(self._tiles_in_place(rng, size), maps)
        tile = int(rng.integers(HealpixGrid(self.tile_nside).npix))
        region = Region(self.nside, (tile,), self.tile_nside)
        home = np.stack(healpy.pix2vec(region.nside, region.pixels, nest=True), axis=-1)
        frame = frame_towards(np.array(healpy.pix2vec(self.tile_nside, tile, nest=True)))
        turns = np.stack([self._turn(rng, home, frame) for _ in range(size)])
        vectors = home @ turns.swapaxes(-1, -2)
        if spins is None or not any(spins):
            return HealpixSky.of(region), apply(bilinear(region.grid, vectors), maps)
        south = LocalFrames(self.nside).basis(region.pixels).south @ turns.swapaxes(-1, -2)
        return HealpixSky.of(region), sample(maps, vectors, south, spins)

    def _turn(self, rng: np.random.Generator, home: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """The rotation ``(3, 3)`` that lays the tile over a random place with enough sky."""
        observed_grid = HealpixGrid.of_size(self.zone.observed.size)
        for _ in range(_MOST_DRAWS):
            there = frame_towards(uniform_centres(rng, 1, self.zone.centres)[0], rng.uniform(0, 360))
            turn = there @ frame.T
            vectors = home @ turn.T
            seen = self.zone.observed[healpy.vec2pix(observed_grid.nside, *vectors.T, nest=True)]
            if 1 - seen.mean() <= self.zone.max_masked:
                return np.asarray(turn)
        raise UserError(
            f"{_MOST_DRAWS} random tiles were all masked by more than {self.zone.max_masked:.0%}",
            "raise patches.max_masked, use smaller tiles (higher tile_nside) or a mask that keeps more",
        )

    def _tiles_in_place(self, rng: np.random.Generator, size: int) -> Region:
        tiles = self.zone.observed.reshape(HealpixGrid(self.tile_nside).npix, -1).mean(axis=1)
        usable = np.flatnonzero(1 - tiles <= self.zone.max_masked)
        if usable.size == 0:
            raise UserError(
                f"every tile of Nside {self.tile_nside} is masked by more than {self.zone.max_masked:.0%}",
                "raise patches.max_masked or use smaller tiles (higher tile_nside)",
            )
        chosen = np.sort(rng.choice(usable, size=min(size, usable.size), replace=False))
        return Region(self.nside, tuple(chosen.tolist()), self.tile_nside)


@dataclass(frozen=True, eq=False)
class RegionFootprint:
    """Every superpixel of ``tile_nside`` with at least one pixel of ``pixels``, where it is, in every batch."""

    nside: int
    tile_nside: int
    pixels: np.ndarray

    def draw(
        self, rng: np.random.Generator, size: int, maps: np.ndarray, spins: Spins = None
    ) -> tuple[Domain, np.ndarray]:
        tiles = self.pixels.reshape(HealpixGrid(self.tile_nside).npix, -1).any(axis=1)
        return _in_place(Region(self.nside, tuple(np.flatnonzero(tiles).tolist()), self.tile_nside), maps)


def _in_place(region: Region, maps: np.ndarray) -> tuple[Domain, np.ndarray]:
    return HealpixSky.of(region), maps[region.pixels][None]
