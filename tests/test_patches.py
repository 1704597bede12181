"""Gnomonic patches: geometry, random sampling, stitching.  Oracles: healpy and astropy; ducc0 at arbitrary points."""

from __future__ import annotations

import time

import ducc0
import healpy
import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from sphereml.errors import UserError
from sphereml.harmonics.transforms import synthesis
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.sampling import PatchZone, draw_frames, masked_share, sample_patches
from sphereml.patches.stitching import Stitcher, covering_frames, patch_weight, stitch_stream
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.interpolation import apply, bilinear
from sphereml.sky.rotations import frame_at, frame_towards, uniform_centres

longitudes = st.floats(0, 360)
latitudes = st.floats(-89, 89)
angles = st.floats(0, 360)


def band_limited_alm(lmax: int, seed: int = 0) -> np.ndarray:
    np.random.seed(seed)  # noqa: NPY002 (healpy draws from the global state)
    return healpy.synalm(1 / (np.arange(lmax + 1) + 10.0) ** 2, lmax=lmax)


# --- frames ---------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(longitudes, latitudes, angles)
def test_frame_is_a_rotation_towards_its_centre(lon: float, lat: float, angle: float) -> None:
    frame = frame_at(lon, lat, angle)
    np.testing.assert_allclose(frame.T @ frame, np.eye(3), atol=1e-14)
    assert np.linalg.det(frame) == pytest.approx(1)
    np.testing.assert_allclose(frame[:, 2], healpy.ang2vec(lon, lat, lonlat=True), atol=1e-14)


def test_frame_axes_point_east_and_north_and_turn_from_north_through_east() -> None:
    np.testing.assert_allclose(frame_at(0, 0, 0), [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=1e-15)
    np.testing.assert_allclose(frame_at(0, 0, 90)[:, 1], [0, 1, 0], atol=1e-15)  # y points east at 90 degrees


def test_frame_towards_vectors_equals_frame_at_their_coordinates() -> None:
    lon, lat, angle = np.array([10.0, 200.0]), np.array([-70.0, 33.0]), np.array([5.0, 250.0])
    vectors = healpy.ang2vec(lon, lat, lonlat=True)
    np.testing.assert_allclose(frame_towards(vectors, angle), frame_at(lon, lat, angle), atol=1e-14)


def test_uniform_centres_stay_in_the_allowed_pixels_and_are_uniform_in_sin_latitude() -> None:
    grid = HealpixGrid(16)
    allowed = grid.lonlat()[1] > 20
    centres = uniform_centres(np.random.default_rng(0), 4000, allowed)
    assert allowed[healpy.vec2pix(16, *centres.T, nest=True)].all()
    everywhere = uniform_centres(np.random.default_rng(1), 4000, np.ones(grid.npix, dtype=bool))
    assert kstest(everywhere[:, 2], "uniform", args=(-1, 2)).pvalue > 0.01


def test_uniform_centres_refuse_an_empty_region() -> None:
    with pytest.raises(UserError, match="no pixel is left"):
        uniform_centres(np.random.default_rng(0), 1, np.zeros(48, dtype=bool))


# --- interpolation --------------------------------------------------------------------------------------------------


def test_bilinear_equals_healpy_get_interp_val() -> None:
    grid, rng = HealpixGrid(16), np.random.default_rng(0)
    maps = rng.normal(size=(grid.npix, 3))
    vectors = rng.normal(size=(5, 7, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    interpolation = bilinear(grid, vectors)
    assert interpolation.pixels.shape == (5, 7, 4) and interpolation.weights.dtype == np.float32
    theta, phi = healpy.vec2ang(vectors.reshape(-1, 3))
    expected = np.stack([healpy.get_interp_val(maps[:, c], theta, phi, nest=True) for c in range(3)], axis=-1)
    np.testing.assert_allclose(apply(interpolation, maps).reshape(-1, 3), expected, atol=1e-6)
    np.testing.assert_allclose(apply(interpolation, maps[:, 0]), apply(interpolation, maps)[..., 0], atol=1e-12)


def test_interpolation_refuses_maps_of_another_grid() -> None:
    with pytest.raises(ValueError, match="48 pixels"):
        apply(bilinear(HealpixGrid(4), np.eye(3)), np.zeros(48))


# --- geometry of the patch ------------------------------------------------------------------------------------------


def test_patch_has_the_papers_extent() -> None:
    patch = GnomonicPatch()
    assert patch.extent == pytest.approx(24.96) and patch.fundamental_ell == pytest.approx(14.4, abs=0.03)
    corner = patch.vectors(frame_at(0, 0))[0, 0]
    assert np.degrees(np.arccos(corner[0])) < patch.half_diagonal < 17.2


@settings(max_examples=15, deadline=None)
@given(longitudes, latitudes, angles)
def test_pixel_centres_are_those_of_the_fits_tan_projection(lon: float, lat: float, angle: float) -> None:
    patch = GnomonicPatch(size=9, pixel_arcmin=100.0)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [lon, lat], [5.0, 5.0], [patch.pixel_arcmin / 60] * 2
    turn = np.radians(angle)  # position angle from north through east
    wcs.wcs.pc = [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    row, column = np.indices((9, 9))
    sky = wcs.wcs_pix2world(np.stack([column, row], axis=-1).reshape(-1, 2), 0)
    expected = healpy.ang2vec(sky[:, 0], sky[:, 1], lonlat=True)
    np.testing.assert_allclose(patch.vectors(frame_at(lon, lat, angle)).reshape(-1, 3), expected, atol=1e-11)


def test_pixel_centres_are_those_of_healpys_gnomonic_projection() -> None:
    patch = GnomonicPatch(size=16, pixel_arcmin=60.0)
    projector = healpy.projector.GnomonicProj(rot=(40, 30, 0), xsize=16, reso=60.0)
    x, y = projector.ij2xy()
    expected = np.stack(projector.xy2vec(x, y), axis=-1)
    # healpy's columns grow to the west, as seen from inside the sphere.
    ours = patch.vectors(frame_at(40, 30))[:, ::-1]
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_plane_inverts_vectors_and_rejects_the_far_side() -> None:
    patch, rng = GnomonicPatch(size=8), np.random.default_rng(2)
    frames = frame_at(rng.uniform(0, 360, 3), rng.uniform(-90, 90, 3), rng.uniform(0, 360, 3))
    vectors = patch.vectors(frames).reshape(3, 64, 3)
    column, row, inside = patch.plane(frames, vectors)
    expected = np.indices((8, 8)).reshape(2, 64)
    np.testing.assert_allclose(row, np.broadcast_to(expected[0], (3, 64)), atol=1e-9)
    np.testing.assert_allclose(column, np.broadcast_to(expected[1], (3, 64)), atol=1e-9)
    assert inside.all()
    assert not patch.plane(frames, -vectors)[2].any()


# --- drawing and sampling -------------------------------------------------------------------------------------------


def hemisphere_zone(max_masked: float = 0.7) -> PatchZone:
    lat = HealpixGrid(32).lonlat()[1]
    return PatchZone(centres=lat > 17.65, observed=lat > 0, max_masked=max_masked)


def test_drawn_patches_are_uniform_on_the_sphere_and_in_angle() -> None:
    zone = hemisphere_zone()
    frames = draw_frames(np.random.default_rng(5), 1500, zone, GnomonicPatch(size=4, pixel_arcmin=300.0))
    sin_lat = frames[:, 2, 2]
    assert zone.centres[healpy.vec2pix(32, *frames[:, :, 2].T, nest=True)].all()
    # Below 22 degrees the zone's edge runs along pixels; above it every latitude is wholly inside.
    floor = np.sin(np.radians(22))
    assert kstest(sin_lat[sin_lat > floor], "uniform", args=(floor, 1 - floor)).pvalue > 0.01
    assert kstest(np.arctan2(frames[:, 1, 2], frames[:, 0, 2]), "uniform", args=(-np.pi, 2 * np.pi)).pvalue > 0.01


def test_drawing_repeats_with_the_seed() -> None:
    draws = [draw_frames(np.random.default_rng([7, 1]), 5, hemisphere_zone(), GnomonicPatch(16, 93.6)) for _ in "ab"]
    np.testing.assert_array_equal(draws[0], draws[1])


def test_patches_masked_too_much_are_dropped() -> None:
    observed = HealpixGrid(32).lonlat()[1] > 40
    zone = PatchZone(centres=hemisphere_zone().centres, observed=observed, max_masked=0.2)
    patch = GnomonicPatch(16, 93.6)
    frames = draw_frames(np.random.default_rng(0), 40, zone, patch)
    assert frames.shape == (40, 3, 3)
    assert masked_share(patch, frames, observed).max() <= 0.2


def test_a_zone_without_sky_is_refused() -> None:
    zone = PatchZone(centres=hemisphere_zone().centres, observed=np.zeros(12, dtype=bool))
    with pytest.raises(UserError, match=r"patches\.max_masked"):
        draw_frames(np.random.default_rng(0), 1, zone, GnomonicPatch(4, 300.0))


def test_sampled_patches_show_the_map_at_their_pixels() -> None:
    grid = HealpixGrid(64)
    frames = frame_at([20.0, 130.0], [40.0, -75.0], [0.0, 200.0])
    patches = sample_patches(grid.vectors(), frames, GnomonicPatch())
    assert patches.shape == (2, 64, 64, 3)
    np.testing.assert_allclose(patches, GnomonicPatch().vectors(frames), atol=2e-3)  # worst by the pole


# --- stitching ------------------------------------------------------------------------------------------------------


def test_192_default_patches_cover_the_sphere_and_12_do_not() -> None:
    assert covering_frames(4, GnomonicPatch()).shape == (192, 3, 3)
    with pytest.raises(UserError, match="leave gaps"):
        covering_frames(1, GnomonicPatch())


def test_constants_are_stitched_exactly_because_weights_sum_to_one() -> None:
    patch, grid = GnomonicPatch(), HealpixGrid(32)
    frames = covering_frames(4, patch)
    values = np.broadcast_to([1.0, -3.5], (192, 64, 64, 2))
    stitched = stitch_stream([(values, frames)], patch, grid)
    np.testing.assert_allclose(stitched.map, np.broadcast_to([1.0, -3.5], (grid.npix, 2)), rtol=1e-13)
    first = stitch_stream([(values[..., 0], frames)], patch, grid)
    np.testing.assert_array_equal(first.map, stitched.map[:, 0])


def test_weight_is_one_in_the_middle_and_zero_on_the_rim() -> None:
    patch = GnomonicPatch()
    along = np.array([0.0, 31.5, 63.0])
    np.testing.assert_allclose(patch_weight(patch, along, np.full(3, 31.5)), [0, 1, 0], atol=1e-15)


def test_exact_patches_of_a_band_limited_map_stitch_back_to_a_thousandth() -> None:
    """Spline error alone: patches hold the exact values at their pixel centres."""
    patch, lmax = GnomonicPatch(), 60
    alm, frames = band_limited_alm(lmax), covering_frames(4, patch)
    theta, phi = healpy.vec2ang(patch.vectors(frames).reshape(-1, 3))
    values = ducc0.sht.synthesis_general(
        alm=alm[None], spin=0, lmax=lmax, loc=np.stack([theta, phi % (2 * np.pi)], axis=-1), epsilon=1e-8, nthreads=2
    ).reshape(192, 64, 64)
    stitched = stitch_stream([(values, frames)], patch, HealpixGrid(64))
    truth = synthesis(alm, 64, lmax)
    assert np.std(stitched.map - truth) < 1e-3 * np.std(truth)
    assert stitched.seam < 1e-3


def test_sampled_patches_of_a_band_limited_map_stitch_back_to_three_percent() -> None:
    """The bilinear reading of the Nside 64 map at ell < 60 is what is lost (cf. sky.interpolation)."""
    patch = GnomonicPatch()
    frames, truth = covering_frames(4, patch), synthesis(band_limited_alm(60), 64, 60)
    batches = ((sample_patches(truth, some, patch), some) for some in np.split(frames, 12))
    stitched = stitch_stream(batches, patch, HealpixGrid(64))
    assert np.std(stitched.map - truth) < 0.03 * np.std(truth)
    assert stitched.seam < 0.01


def test_seam_measures_the_disagreement_of_patches() -> None:
    """Patches off by independent constants of 0.3 standard deviations disagree by less than that where they overlap."""
    patch, rng = GnomonicPatch(size=32, pixel_arcmin=46.8), np.random.default_rng(0)
    frames, truth = covering_frames(4, patch), synthesis(band_limited_alm(60), 64, 60)
    offsets = 0.3 * truth.std() * rng.normal(size=(192, 1, 1))
    seam = stitch_stream([(sample_patches(truth, frames, patch) + offsets, frames)], patch, HealpixGrid(64)).seam
    assert 0.1 < seam < 0.3


def test_uncovered_pixels_are_refused_or_filled() -> None:
    patch = GnomonicPatch(size=8, pixel_arcmin=100.0)
    stitcher = Stitcher(patch, HealpixGrid(16))
    with pytest.raises(UserError, match="lie in no patch"):
        stitcher.result()
    stitcher.add(np.ones((1, 8, 8)), frame_at(0.0, 0.0)[None])
    filled = stitcher.result(outside=healpy.UNSEEN)
    assert (filled.map[stitcher.covered()] == pytest.approx(1)) and (filled.map[~stitcher.covered()] < -1e30).all()
    with pytest.raises(ValueError, match="channels after"):
        stitcher.add(np.ones((1, 8, 8, 2)), frame_at(0.0, 0.0)[None])


def test_stitching_192_patches_at_nside_128_takes_seconds() -> None:
    patch = GnomonicPatch()
    start = time.process_time()
    stitch_stream([(np.zeros((192, 64, 64)), covering_frames(4, patch))], patch, HealpixGrid(128))
    assert time.process_time() - start < 5
