"""Distances, regrading and gaps of masks on the sphere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import apodize, disc, fill_gaps, near, regrade, regrade_mask, threshold_mask, to_galactic

GRID = HealpixGrid(8)
VECTORS = GRID.vectors()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), share=st.sampled_from([0.002, 0.05, 0.4, 0.95]), distance=st.floats(0.1, 180))
def test_near_is_every_pixel_within_the_distance(seed, share, distance):
    """Ragged regions included, whose rim goes through every corner of the base pixels."""
    region = np.random.default_rng(seed).random(GRID.npix) < share
    if not region.any():
        assert not near(region, GRID, distance).any()
        return
    angle = np.degrees(np.arccos(np.clip((VECTORS @ VECTORS[region].T).max(axis=1), -1, 1)))
    clear = np.abs(angle - distance) > 1e-5
    np.testing.assert_array_equal(near(region, GRID, distance)[clear], (angle < distance)[clear])


def test_nothing_is_near_at_no_distance():
    assert not near(disc(GRID, 0, 0, 30), GRID, 0.0).any()


@pytest.mark.parametrize("width", [5.0, 40.0, 180.0])
def test_apodization_follows_the_distance_to_the_nearest_masked_pixel(width):
    mask = ~disc(GRID, 30.0, 50.0, 25.0)
    cosine = np.clip((VECTORS @ VECTORS[~mask].T).max(axis=1), -1, 1)
    x = np.minimum(np.sqrt((1 - cosine) / (1 - np.cos(np.radians(width)))), 1)
    expected = np.where(mask, x - np.sin(2 * np.pi * x) / (2 * np.pi), 0)
    np.testing.assert_allclose(apodize(mask, GRID, width), expected, atol=1e-6)


def test_regrading_keeps_the_mean_and_copies_down():
    values = np.random.default_rng(0).random(GRID.npix)
    coarse = regrade(values, HealpixGrid(2))
    assert coarse.mean() == pytest.approx(values.mean())
    np.testing.assert_array_equal(regrade(coarse, GRID), np.repeat(coarse, 16))
    mask = disc(GRID, 10.0, 20.0, 50.0)
    np.testing.assert_array_equal(regrade_mask(regrade_mask(mask, HealpixGrid(32)), GRID), mask)


@pytest.mark.parametrize(("frame", "lon", "lat"), [("C", 122.93, 27.13), ("E", 96.38, 29.81)])
def test_the_pole_of_a_frame_goes_where_it_is_in_the_galaxy(frame, lon, lat):
    """North celestial and ecliptic poles in Galactic coordinates (J2000)."""
    fine = HealpixGrid(64)
    moved = to_galactic(disc(fine, 0.0, 90.0, 20.0), frame)
    assert (moved != disc(fine, lon, lat, 20.0)).mean() < 2e-3
    mask = disc(fine, 0.0, 90.0, 20.0)
    assert to_galactic(mask, "G") is mask


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), share=st.floats(0, 0.9999))
def test_gaps_are_filled_with_what_is_around_them(seed, share):
    rng = np.random.default_rng(seed)
    values = rng.random(GRID.npix).astype(np.float32)
    missing = rng.random(GRID.npix) < share
    missing[5] = False
    filled = fill_gaps(np.where(missing, np.float32(np.nan), values))
    np.testing.assert_array_equal(filled[~missing], values[~missing])
    assert filled.dtype == np.float32 and values[~missing].min() <= filled.min() <= filled.max() <= 1
    assert np.isfinite(filled).all()


def test_a_lone_gap_is_the_mean_of_its_siblings():
    values = np.arange(GRID.npix, dtype=float)
    values[101] = np.nan
    assert fill_gaps(values)[101] == np.mean([100, 102, 103])
    with pytest.raises(ValueError, match="nothing"):
        fill_gaps(np.full(48, np.nan))


def test_what_is_kept_of_the_known_sky_knows_nothing_of_the_rest():
    """The faintest share is that of the known pixels; the rest is kept by their threshold and changes none of them."""
    grid, rng = HealpixGrid(16), np.random.default_rng(2)
    values = np.exp(rng.normal(size=grid.npix))
    known = grid.lonlat()[0] > 120
    first = threshold_mask(values, grid, 0.6, 8.0, known)
    second = threshold_mask(np.where(known, values, 50 * values), grid, 0.6, 8.0, known)
    np.testing.assert_array_equal(first[known], second[known])
    assert first[known].mean() == pytest.approx(0.6, abs=1e-3)
    assert 0.4 < first[~known].mean() < 0.8 and second[~known].mean() < 0.1
