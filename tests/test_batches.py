"""Batches drawn from the sky: repeatable, inside their region, and read off at the right place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import healpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sphereml.domains import FlatPatch, HealpixSky
from sphereml.domains.channels import Channels
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.sampling import PatchZone
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import disc, latitude_cut
from sphereml.sources.batch import Batch, EpochSeeds
from sphereml.sources.footprints import Footprint, PatchFootprint, RegionFootprint, TileFootprint
from sphereml.sources.sky_source import SkyColumns, SkySource

GRID = HealpixGrid(32)
NORTH = latitude_cut(GRID, 8, np.inf) & ~disc(GRID, 120, 50, 20)
INNER = latitude_cut(GRID, 17.65, np.inf)
ZONE = PatchZone(NORTH & INNER, NORTH, 0.7)
FOOTPRINTS: dict[str, Footprint] = {
    "patches": PatchFootprint(GnomonicPatch(16, 93.6), ZONE),
    "tiles": TileFootprint(32, 2, ZONE),
    "tiles_in_place": TileFootprint(32, 2, ZONE, rotations=False),
    "region": RegionFootprint(32, 4, NORTH),
}
every_footprint = pytest.mark.parametrize("name", FOOTPRINTS)


def position_columns(target: np.ndarray | None = None) -> SkyColumns:
    """Features, gains, base and target are the pixel's own position: what a batch reads tells where it read."""
    x = GRID.vectors().astype(np.float32)
    gains = (x[:, 1:2] * np.float32([1, -1]))[:, None]
    return SkyColumns(Channels(3), x, x[:, :1], gains, x[:, 2:] if target is None else target[:, None])


@dataclass(eq=False)
class Batches:
    """Five batches an epoch, as a training draws them."""

    name: str
    size: int = 4
    seed: int = 3
    epoch: int = 0
    target: np.ndarray | None = None

    @cached_property
    def source(self) -> SkySource:
        return SkySource(position_columns(self.target), NORTH.astype(np.float32), FOOTPRINTS[self.name])

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[Batch]:
        for seed in EpochSeeds(self.seed, 0, len(self), self.epoch):
            yield self.source.batch(seed, self.size)

    def batch(self, index: int) -> Batch:
        return self.source.batch(list(EpochSeeds(self.seed, 0, len(self), self.epoch))[index], self.size)


def batches(name: str, seed: int = 3, size: int = 4) -> Batches:
    return Batches(name, size, seed)


def tensors(batch: Batch) -> list[torch.Tensor]:
    assert batch.gains is not None
    return [batch.features, batch.base, batch.gains, batch.target, batch.weight]


def same(a: Batch, b: Batch) -> bool:
    return a.domain == b.domain and all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


@every_footprint
def test_shapes_and_types(name):
    batch = batches(name).batch(0)
    shape = batch.weight.shape
    assert shape[1:] == batch.domain.shape and len(shape) == 1 + len(batch.domain.shape)
    assert shape[0] == (4 if name in ("patches", "tiles") else 1)
    assert isinstance(batch.domain, FlatPatch if name == "patches" else HealpixSky)
    assert batch.features.shape == (*shape, 3) and batch.channels == Channels(3)
    assert batch.gains is not None and batch.gains.shape == (*shape, 1, 2)
    assert batch.target.shape == batch.base.shape == (*shape, 1)
    assert all(tensor.dtype == torch.float32 for tensor in tensors(batch))
    assert batch.features.is_contiguous()
    weights = [value for one in batches(name) for value in one.weight.unique().tolist()]
    assert set(weights) == {0.0, 1.0}
    assert same(batch.to("cpu"), batch)


@every_footprint
def test_batch_depends_on_seed_epoch_and_index_alone(name):
    first, second = batches(name), batches(name)
    in_order = list(first)
    assert len(in_order) == len(first) == 5
    for index in (4, 0, 2):  # in any order, on another object
        assert same(second.batch(index), in_order[index])
    first.epoch = 1
    later = list(first)
    second.batch(3)
    second.epoch = 1
    assert all(same(second.batch(index), later[index]) for index in range(5))
    if name == "region":
        return
    different = [*in_order, *later, *batches(name, seed=4)]
    assert not any(same(a, b) for a, b in itertools.combinations(different, 2))


def pixels_read(batch: Batch) -> np.ndarray:
    """Pixels that a batch's weighted values were read from, found from the positions it holds."""
    vectors = batch.features[batch.weight > 0].double().numpy()
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.unique(GRID.pixels_at(vectors))


@every_footprint
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_weight_stays_inside_the_region(name, seed):
    """No pixel outside is ever of weight one, nor its neighbour across the border by interpolation."""
    batch = batches(name, seed=seed, size=3).batch(0)
    assert batch.weight.any()
    outside = np.setdiff1d(pixels_read(batch), np.flatnonzero(NORTH))
    # A position bent by interpolation may fall one pixel off: never more than a pixel's diagonal.
    if outside.size:
        distance = np.arccos((GRID.vectors()[outside] @ GRID.vectors()[NORTH].T).max(axis=1).clip(max=1))
        assert np.degrees(distance.max()) < 1.5 * GRID.resolution
    assert GRID.lonlat()[1][pixels_read(batch)].min() > 8 - GRID.resolution


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_values_of_weight_one_hold_nothing_of_the_outside(seed):
    """The target is 0 inside and 1e3 outside: at most a thousandth of a neighbour's share gets through."""
    spoiled = np.where(NORTH, 0, 1e3).astype(np.float32)
    for name in FOOTPRINTS:
        batch = Batches(name, 3, seed, target=spoiled).batch(0)
        assert batch.target[batch.weight > 0].max() <= 1.001
        assert (batch.target[batch.weight == 0] > 0.999).all()


def chords(positions: torch.Tensor) -> np.ndarray:
    """Distances between all pairs of rows ``(n, 3)``."""
    x = positions.double().numpy()
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return np.linalg.norm(x[:, None] - x[None], axis=-1)


def test_turned_tiles_are_rigid_and_right_handed():
    """A tile is moved as a whole: all distances stay (to interpolation's 1e-3) and it is not mirrored."""
    batch = batches("tiles").batch(2)
    assert isinstance(batch.domain, HealpixSky)
    home = GRID.vectors()[batch.domain.region.pixels]
    for member in batch.features:
        np.testing.assert_allclose(chords(member), chords(torch.from_numpy(home)), atol=3e-3)
        rotation, *_ = np.linalg.lstsq(home, member.double().numpy(), rcond=None)
        assert np.linalg.det(rotation) == pytest.approx(1, abs=0.02)
    centres = batch.features.mean(dim=1)
    assert torch.pdist(centres).min() > 0.01, "members lie at different places"


def test_tiles_read_the_sky_at_their_turned_positions():
    """A smooth function of position read through a tile is the function of the position the tile says it has."""
    x = GRID.vectors()
    smooth = (x[:, 0] * x[:, 1] + x[:, 2] ** 3 + np.sin(2 * x[:, 0])).astype(np.float32)
    for name in ("tiles", "patches"):
        batch = Batches(name, 4, 0, target=smooth).batch(0)
        target = batch.target[..., 0]
        x, y, z = (batch.features.double() / batch.features.double().norm(dim=-1, keepdim=True)).unbind(-1)
        torch.testing.assert_close(target.double(), x * y + z**3 + torch.sin(2 * x), rtol=0, atol=0.01)
        torch.testing.assert_close(target, smooth_of(batch, smooth), rtol=0, atol=0.01)


def smooth_of(batch: Batch, values: np.ndarray) -> torch.Tensor:
    """The map interpolated by healpy at the positions a batch holds."""
    vectors = batch.features.double().numpy()
    theta, phi = healpy.vec2ang(vectors.reshape(-1, 3))
    theta, phi = theta.reshape(vectors.shape[:-1]), phi.reshape(vectors.shape[:-1])
    return torch.from_numpy(healpy.get_interp_val(values, theta, phi, nest=True)).float()


@pytest.mark.parametrize("name", ["tiles_in_place", "region"])
def test_footprints_in_place_read_their_own_pixels_exactly(name):
    batch = batches(name).batch(0)
    assert isinstance(batch.domain, HealpixSky)
    pixels = batch.domain.region.pixels
    np.testing.assert_array_equal(batch.features[0].numpy(), GRID.vectors()[pixels].astype(np.float32))
    np.testing.assert_array_equal(batch.weight[0].numpy() > 0, NORTH[pixels])
    if name == "region":
        assert np.isin(np.flatnonzero(NORTH), pixels).all()


def test_tiles_cover_the_zone_evenly():
    """Over many draws every part of the zone is seen, and centres are not drawn twice."""
    drawn = [batches("tiles", seed=seed, size=8).batch(0).features.mean(dim=1) for seed in range(40, 80)]
    centres = torch.cat(drawn).numpy()
    lat = np.degrees(np.arcsin(centres[:, 2] / np.linalg.norm(centres, axis=1)))
    lon = np.degrees(np.arctan2(centres[:, 1], centres[:, 0]))
    assert lat.min() > 17 and lat.max() > 75
    counts, _ = np.histogram(lon, bins=8, range=(-180, 180))
    assert counts.min() > 10 and len(np.unique(centres[:, 0])) == 320


@every_footprint
def test_enough_of_every_member_is_observed(name):
    for batch in batches(name):
        if name == "region":
            continue
        share = batch.weight.mean(dim=tuple(range(1, batch.weight.ndim)))
        assert share.min() > 0.2  # 30 % by nearest pixel, less the rim that interpolation loses
