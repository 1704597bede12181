"""Regions: unions of coarse pixels closed under pooling."""

from __future__ import annotations

import healpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.ordering import nest_to_ring, ring_to_nest
from sphereml.sky.regions import Region


@st.composite
def regions(draw: st.DrawFn) -> Region:
    coarse_nside = draw(st.sampled_from([1, 2, 4]))
    nside = coarse_nside * draw(st.sampled_from([1, 2, 4]))
    coarse = draw(st.sets(st.integers(0, 12 * coarse_nside**2 - 1), min_size=1, max_size=20))
    return Region(nside, tuple(sorted(coarse)), coarse_nside)


@settings(max_examples=40, deadline=None)
@given(regions())
def test_locate_undoes_pixels(region):
    assert region.npix == region.pixels.size == np.unique(region.pixels).size
    np.testing.assert_array_equal(region.locate(region.pixels), np.arange(region.npix))
    outside = np.setdiff1d(np.arange(-1, region.grid.npix), region.pixels)
    assert (region.locate(outside) == -1).all()


@settings(max_examples=40, deadline=None)
@given(regions())
def test_pixels_are_those_inside_the_coarse_pixels(region):
    ratio = (region.nside // region.coarse_nside) ** 2
    inside = np.isin(np.arange(region.grid.npix) // ratio, region.coarse_pixels)
    np.testing.assert_array_equal(region.pixels, np.flatnonzero(inside))


@settings(max_examples=40, deadline=None)
@given(regions())
def test_coarser_holds_the_parents_in_order(region):
    if region.nside == region.coarse_nside:
        with pytest.raises(UserError, match="cannot be pooled"):
            region.coarser()
    else:
        np.testing.assert_array_equal(region.coarser().pixels, region.pixels[::4] // 4)
        np.testing.assert_array_equal(region.pixels.reshape(-1, 4) // 4, region.coarser().pixels[:, None].repeat(4, 1))


@settings(max_examples=30, deadline=None)
@given(regions(), st.integers(0, 9))
def test_grown_holds_every_pixel_that_many_steps_away(region, pixels):
    wide = region.grown(pixels)
    near = region.pixels
    for _ in range(pixels):
        around = healpy.get_all_neighbours(region.nside, near, nest=True)
        near = np.union1d(near, around[around >= 0])
    assert np.isin(near, wide.pixels).all()
    assert (wide.nside, wide.coarse_nside) == (region.nside, region.coarse_nside)


def test_grown_is_no_wider_than_needed():
    assert Region(32, (100,), 8).grown(4).npix == 9 * 16
    assert Region(32, (100,), 8).grown(5).npix == 25 * 16


@settings(max_examples=30, deadline=None)
@given(regions())
def test_split_keeps_the_pixels(region):
    np.testing.assert_array_equal(region.split(region.nside).pixels, region.pixels)


def test_whole_sphere():
    sphere = Region(8)
    assert sphere.is_full and sphere.npix == 768
    np.testing.assert_array_equal(sphere.locate(np.array([-1, 0, 767])), [-1, 0, 767])
    assert sphere.grown(20) is sphere
    assert sphere.coarser() == Region(4)
    with pytest.raises(UserError):
        Region(1).coarser()
    np.testing.assert_array_equal(Region(8, tuple(range(12))).pixels, sphere.pixels)


@pytest.mark.parametrize(
    ("nside", "coarse", "coarse_nside"),
    [
        (12, None, 1),
        (0, None, 1),
        (4, (0,), 8),
        (8, (), 2),
        (8, (48,), 2),
        (8, (-1, 3), 2),
        (8, (3, 3), 2),
        (8, (5, 4), 2),
        (8, (0,), 3),
    ],
)
def test_impossible_regions_are_refused(nside, coarse, coarse_nside):
    with pytest.raises(UserError):
        Region(nside, coarse, coarse_nside)


def test_equal_regions_are_one_key():
    assert hash(Region(8, (1, 2), 2)) == hash(Region(8, (1, 2), 2))
    assert Region(8, (1, 2), 2) != Region(8, (1, 3), 2)


# --- the grid and its two orders ------------------------------------------------------------------------------------


def test_grid_facts():
    grid = HealpixGrid(16)
    assert grid.npix * grid.pixel_area == pytest.approx(4 * np.pi)
    assert HealpixGrid.of_size(grid.npix) == grid
    np.testing.assert_array_equal(grid.pixels_at(grid.vectors()), np.arange(grid.npix))
    lon, lat = grid.lonlat()
    np.testing.assert_allclose(np.sin(np.radians(lat)), grid.vectors()[:, 2], atol=1e-12)
    assert lon.min() >= 0 and lon.max() < 360
    for size in (0, 13, 12 * 9):
        with pytest.raises(UserError):
            HealpixGrid.of_size(size)


def test_orders_undo_each_other_along_any_axis():
    maps = np.random.default_rng(0).standard_normal((3, 768))
    np.testing.assert_array_equal(ring_to_nest(nest_to_ring(maps, axis=-1), axis=-1), maps)
    np.testing.assert_array_equal(nest_to_ring(maps.T), nest_to_ring(maps, axis=1).T)
    lat = HealpixGrid(8).lonlat()[1]
    assert (np.diff(nest_to_ring(lat)) <= 1e-9).all()  # RING runs from north to south
