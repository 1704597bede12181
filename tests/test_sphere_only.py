"""What only the sphere shows: a planted error is found in its place and nowhere else; turned skies; the study whole."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fixtures_cli import GALAXY, TRAINING, Place, done

from sphereml.config.compose import compose, run_hash
from sphereml.data.store import Sky
from sphereml.errors import UserError
from sphereml.evaluation.maps.patches import TestPatches as HeldOutPatches
from sphereml.evaluation.protocol import load_result
from sphereml.evaluation.sphere_only.patches import compare_modes, compare_places, seams, thirds
from sphereml.evaluation.sphere_only.places import compare_turns, grid_places, random_angles, turned_sky
from sphereml.evaluation.sphere_only.ratios import estimate, ratio
from sphereml.evaluation.sphere_only.study import SphereOnlyStudy
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.rotation import rotation_matrix
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.stitching import best_patches, covered_by_thirds, fewest_frames, stitch_stream
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid

GRID = HealpixGrid(32)
BLOCKS = np.arange(GRID.npix) // (GRID.npix // 48)
PATCH = GnomonicPatch(20, 46.8)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def is_one(found: dict) -> bool:
    return abs(found["mean"] - 1) < 3 * found["sem"]


def test_a_ratio_of_sums_has_the_error_of_its_blocks():
    """200 draws of 40 blocks: the mean jackknife error is the scatter; the spread is that of the seeds."""
    draws = noise(200, 1, 400) ** 2
    found = [estimate(ratio, [one, np.ones(400)], np.arange(400) // 10) for one in draws]
    scatter = np.std([one["mean"] for one in found])
    assert np.mean([one["sem"] for one in found]) == pytest.approx(scatter, rel=0.15)
    assert found[0]["spread"] is None
    seeds = estimate(ratio, [np.stack([np.ones(6), 3 * np.ones(6)]), np.ones(6)], np.arange(6))
    assert seeds == {"mean": 2.0, "sem": 0.0, "spread": pytest.approx(np.sqrt(2))}
    assert estimate(ratio, [np.ones(0), np.ones(0)], np.ones(0))["mean"] is None


def test_thirds_are_of_the_area():
    for size in (20, 32, 52):
        shares = np.bincount(thirds(GnomonicPatch(size, 46.8)).ravel()) / size**2
        np.testing.assert_allclose(shares, 1 / 3, atol=0.06)
    assert thirds(PATCH)[10, 10] == 0 and (thirds(PATCH)[0] == 2).all()


@pytest.mark.parametrize("planted", [1.0, 1.5])
def test_an_error_in_the_outer_third_is_found_there(planted: float):
    """By single modes of patches, and by one patch a pixel on the sphere."""
    count, zones = 64, thirds(PATCH)[None] == np.arange(3)[:, None, None]
    test = HeldOutPatches(PATCH, np.zeros((count, 3, 3)), np.ones((count, 20, 20)), np.arange(count) // 4)
    true, error = noise(count, 20, 20, 1, seed=1), 0.3 * noise(2, count, 20, 20, 1, seed=2)
    sphere = [true + 0.3 * noise(count, 20, 20, 1, seed=3)]
    flat = list(true + error * np.where(zones[2], planted, 1.0)[..., None])
    lost = [compare_modes(flat, sphere, true, test, zone, Bands(r50=(23, 100)))["r50"]["difference"] for zone in zones]
    assert abs(lost[0]["sigmas"]) < 3 and (lost[2]["sigmas"] < -3) == (planted > 1)
    frames = fewest_frames(GnomonicPatch(32, 46.8))[:60]
    stepped = np.where(thirds(GnomonicPatch(32, 46.8)) == 2, planted, 1.0)[None].repeat(len(frames), axis=0)
    covered = covered_by_thirds(frames, GnomonicPatch(32, 46.8), GRID)
    found = [stitch_stream([(stepped, frames)], GnomonicPatch(32, 46.8), GRID, None, third).map for third in range(3)]
    means = [float(one[here].mean()) for one, here in zip(found, covered, strict=True)]
    assert means[0] == pytest.approx(1, abs=1e-3) and means[2] == pytest.approx(planted, abs=0.1)
    assert not found[0][~covered[0]].any()


def test_an_error_along_seams_is_found_there():
    owner, weight = best_patches(fewest_frames(GnomonicPatch()), GnomonicPatch(), GRID)
    along = seams(owner)
    assert weight.min() > 0 and len(np.unique(owner)) == 192
    assert weight[along].max() < weight.max() and 0.3 < along.mean() < 0.7  # 15 degrees apart, in pixels of 1.8
    own, other = noise(1, GRID.npix) ** 2, noise(GRID.npix, seed=1) ** 2
    assert is_one(compare_places(own, other, along, BLOCKS)["at_over_elsewhere"])
    found = compare_places(own * np.where(along, 1.3, 1), other, along, BLOCKS)["at_over_elsewhere"]
    assert abs(found["mean"] - 1.3) < 3 * found["sem"] < 0.2


@pytest.mark.parametrize("planted", [None, "poles", "corners", "edges of base pixels"])
def test_an_error_in_a_place_of_the_grid_is_found_through_a_sky_that_differs_from_place_to_place(planted: str | None):
    vectors, places = GRID.vectors(), grid_places(GRID)
    strength = np.ones(GRID.npix) if planted is None else np.where(places[planted], 2.0, 1.0)
    sky = np.exp(2 * vectors[:, 0] + vectors[:, 2])  # what the Galaxy does
    at = np.stack([GRID.pixels_at(vectors @ rotation_matrix(one).T) for one in random_angles(8, 3)])
    errors = (sky * strength[at] * noise(8, GRID.npix, seed=4) ** 2)[:, None]
    for name in ("poles", "corners", "edges of base pixels"):
        found = compare_turns(errors, places[name][at], BLOCKS)
        if name == planted:
            assert found["mean"] > 1.5 and abs(found["mean"] - 2) < 4 * found["sem"], name
        elif planted is None:
            assert is_one(found), name


def test_a_turned_sky_is_the_sky_in_other_directions():
    """Scalars take the values of where they come from; Q, U keep their length."""
    angles = random_angles(2, 5)[1]
    x, y, z = vectors = GRID.vectors().T
    tilt = np.stack([1 - z**2, np.zeros(GRID.npix)], axis=1)  # Q = sin^2(theta), a gradient of Y_20
    gas = np.stack([x * y + z, x], axis=1)
    sky = Sky(GRID, gas, tilt, (Field("a"), Field("b")), (Field("P", spin=2),), components={"intensity": z})
    there, before = turned_sky(sky, angles), vectors.T @ rotation_matrix(angles)
    np.testing.assert_allclose(there.inputs[:, 1], before[:, 0], atol=1e-4)
    np.testing.assert_allclose(there.inputs[:, 0], before[:, 0] * before[:, 1] + before[:, 2], atol=1e-3)
    np.testing.assert_allclose(np.hypot(*there.targets.T), 1 - before[:, 2] ** 2, atol=1e-3)
    np.testing.assert_allclose(there.intensity, before[:, 2], atol=1e-3)


EXPERIMENT = """
# @package _global_
name: small
models: [linear]
rows:
  sphere: [model=unet_sphere]
  gnomonic: [model=unet_flat]
  lambert: [model=unet_flat, patches.projection=lambert]
evaluation: { study: sphere_only }
"""


def test_the_study_from_training_to_report(tmp_path):
    place = Place(tmp_path, "small")
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    small = ["data.galaxy.nside=16", "patches.size=16", "patches.pixel_arcmin=93.6", "evaluation.patches=12"]
    words = [tmp_path / "small.yaml", *GALAXY[1:], *small, *TRAINING, "model.width=4", "model.depth=1", *place.words]
    shown = done("study", *words).out
    assert "stitched maps" in shown and "CPU seconds per 1000 square degrees" in shown
    content = json.loads((place.study / "sphere_only.json").read_text())
    assert set(SphereOnlyStudy.sections) <= set(content)
    assert content["models"]["lambert"]["projection"] == "lambert"
    assert content["spectra"]["sphere"]["I"]["r_low"]["difference"]["mean"] == 0
    assert content["edge"]["0-2"]["pixels"] > 0 and content["cost"]["gnomonic"]["train"] > 0
    rows = load_result(place.study).rows()
    assert [row["model"] for row in rows] == ["linear", "sphere", "gnomonic", "lambert"]
    assert (place.study / "report.html").read_text().count("<img") == 2


def test_networks_that_cannot_be_compared_are_refused():
    configs = {name: compose([f"model={name}"]) for name in ("linear", "unet_flat", "unet_sphere")}
    SphereOnlyStudy.refuse(list(configs.values()))
    with pytest.raises(UserError, match="0 of domain sphere"):
        SphereOnlyStudy.refuse([configs["linear"], configs["unet_flat"]])
    with pytest.raises(UserError, match="another task, sky or split"):
        SphereOnlyStudy.refuse([*configs.values(), compose(["model=unet_flat", "split=east_west"])])


def test_the_projection_names_runs_anew_only_where_it_is_another():
    hashes = [
        run_hash(compose(words)) for words in ([], ["patches.projection=gnomonic"], ["patches.projection=lambert"])
    ]
    assert hashes[0] == hashes[1] != hashes[2]
