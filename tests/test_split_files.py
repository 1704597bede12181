"""Splits and masks of one's own: any map of 0 to 3 is taken, weights stay weights, runs keep what they were given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import healpy
import numpy as np
import pytest
from conftest import synthetic_sky
from fixtures_cli import NETWORK, PATCHES, TRAINING, Place, done, sky_place, sphereml, write_map

from sphereml.config.compose import compose
from sphereml.config.schema import SplitConfig
from sphereml.data.split_files import Split, read_split, regrade_split, write_split
from sphereml.data.splits import build_split
from sphereml.errors import UserError
from sphereml.models.baselines import fit_linear
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import apodize, latitude_cut
from sphereml.sky.ordering import nest_to_ring
from sphereml.tasks.maps import MapTask

GRID = HealpixGrid(16)
SKY = synthetic_sky(16)


def parts(grid: HealpixGrid = GRID) -> np.ndarray:
    """NEST: north trains, its western part validates, south tests, five degrees between are not used."""
    lon, lat = grid.lonlat()
    return np.select([lat < -5, (lat > 5) & (lon > 270), lat > 5], [3, 2, 1], 0)


def ring_file(path: Path, values: np.ndarray, **options: object) -> Path:
    """A RING file as healpy writes it, without any card of ours."""
    healpy.write_map(path, nest_to_ring(values), dtype=options.pop("dtype", np.float32), coord="G", **options)
    return path


def test_a_map_of_parts_is_a_split_with_or_without_our_cards(tmp_path):
    split = read_split(ring_file(tmp_path / "my regions.fits.gz", parts()))
    np.testing.assert_array_equal(split.parts, parts())
    assert (split.name, split.margin, split.weight) == ("my_regions", 0.0, None)
    again = read_split(write_split(tmp_path / "ours.fits", replace(split, name="ours", margin=3.0)))
    assert (again.name, again.margin) == ("ours", 3.0)
    healpy.write_map(tmp_path / "two.fits", [nest_to_ring(parts()) > 1, nest_to_ring(parts())], coord="G", dtype=float)
    np.testing.assert_array_equal(read_split(f"{tmp_path}/two.fits[#1]").parts, parts())


def test_a_split_in_another_frame_or_with_gaps_is_read(tmp_path):
    vectors = healpy.Rotator(coord=["C", "G"]).mat @ GRID.vectors().T
    equatorial = parts()[healpy.vec2pix(16, *vectors, nest=True)]
    healpy.write_map(tmp_path / "c.fits", nest_to_ring(equatorial), coord="C", dtype=np.int32)
    assert (read_split(tmp_path / "c.fits").parts == parts()).mean() > 0.95
    pixels = np.flatnonzero(nest_to_ring(parts()))
    partial = np.where(nest_to_ring(parts()) > 0, nest_to_ring(parts()), healpy.UNSEEN)
    healpy.write_map(tmp_path / "partial.fits", partial, coord="G", partial=True, dtype=np.float64)
    np.testing.assert_array_equal(read_split(tmp_path / "partial.fits").parts, parts())
    assert pixels.size


def test_a_split_of_another_nside_uses_pixels_of_one_part_alone():
    fine = HealpixGrid(32)
    values = parts(fine)
    split = Split("fine", fine, *(values == i for i in (1, 2, 3)), 0.0)
    coarse = regrade_split(split, GRID).parts
    children = values.reshape(-1, 4)
    np.testing.assert_array_equal(coarse, np.where((children == children[:, :1]).all(axis=1), children[:, 0], 0))
    np.testing.assert_array_equal(regrade_split(regrade_split(split, HealpixGrid(64)), fine).parts, values)


@pytest.mark.parametrize("values", [np.ones(GRID.npix) * 0.5, np.zeros(GRID.npix), np.arange(GRID.npix)])
def test_a_map_of_other_values_is_no_split(tmp_path, values):
    with pytest.raises(UserError, match="holds no split"):
        read_split(ring_file(tmp_path / "map.fits", values))


def apodized() -> np.ndarray:
    return apodize(~latitude_cut(GRID, -10, 10), GRID, 20)


def test_an_apodized_mask_keeps_its_weights_in_split_and_file(tmp_path):
    ring_file(tmp_path / "mask.fits", apodized())
    split = build_split(SplitConfig(mask_file="mask.fits"), SKY, tmp_path)
    assert split.weight is not None
    used = split.parts > 0
    np.testing.assert_allclose(split.weight[used], apodized()[used], rtol=1e-6)
    np.testing.assert_array_equal(used, build_split(SplitConfig(sky_fraction=None), SKY).parts * (apodized() > 0) > 0)
    again = read_split(write_split(tmp_path / "split.fits", split))
    np.testing.assert_array_equal(again.weight, split.weight)
    np.testing.assert_array_equal(again.parts, split.parts)
    fine = HealpixGrid(32)
    ring_file(tmp_path / "fine.fits", apodized().repeat(4))
    other = build_split(SplitConfig(mask_file="fine.fits"), SKY, tmp_path, regraded=True)
    np.testing.assert_allclose(other.weight[used], split.weight[used], rtol=1e-6)
    assert fine.npix == 4 * GRID.npix


def test_training_counts_the_weights_of_the_mask():
    config = compose(["task=maps", "model=linear", "patches.size=16", "patches.pixel_arcmin=180", "bands.r50=[4,20]"])
    values = parts()
    plain = Split("own", GRID, *(values == i for i in (1, 2, 3)), 0.0)
    split = replace(plain, weight=np.maximum(apodized(), 1e-3).astype(np.float32))
    task = MapTask(config, print, sky=SKY, split=split)
    scaling, pixels = task.fit_scaling(), task.learning_pixels
    mean = np.average(SKY.inputs[pixels].astype(float), axis=0, weights=split.weight[pixels])
    np.testing.assert_allclose(scaling.feature_mean, mean, rtol=1e-6)
    root = np.sqrt(split.weight[pixels].astype(float))[:, None]
    design = np.column_stack([SKY.inputs[pixels], np.ones(pixels.sum())]).astype(float)
    expected = np.linalg.lstsq(design * root, SKY.targets[pixels, 0] * root[:, 0], rcond=None)[0]
    found = fit_linear(SKY.inputs, SKY.target, pixels, split.weight)
    np.testing.assert_allclose([*found.weights, found.offset], expected, rtol=1e-5, atol=1e-6)
    network = compose(["task=maps", "model=unet_sphere_plain", "training.footprint=region", "bands.r50=[4,20]"])
    source = MapTask(network, print, sky=SKY, split=split).sources(scaling)["train"]
    batch = source.batch(3, 1)
    shown = batch.domain.region.pixels
    expected_weight = np.where(split.train, split.weight, 0)[shown]
    np.testing.assert_array_equal(batch.weight[0].numpy(), expected_weight.astype(np.float32))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    return Place(tmp_path_factory.mktemp("splits"), "own")


def words(place: Place, *more: str) -> list[str]:
    sky = ["data=real_sample", "name=own", "model=linear", "bands.r50=[4,20]", "bands.r150=[20,32]"]
    return [*sky, *PATCHES, *TRAINING, *NETWORK, *place.words, "split.sky_fraction=null", *more]


def test_runs_are_scored_on_the_regions_they_were_trained_on(place, tmp_path_factory, monkeypatch):
    """Also when the files that their configuration names have become others."""
    monkeypatch.setenv("SPHEREML_REAL_SKY", str(sky_place(tmp_path_factory)))
    file, mask = place.root / "parts.fits", place.root / "mask.fits"
    ring_file(file, parts(), dtype=np.int32)
    ring_file(mask, apodized())
    own = [f"split.file={file}", f"split.mask_file={mask}"]
    done("train", *words(place, *own))
    first = place.run("linear")
    done("compare", first)
    scores = json.loads((place.study / "comparison.json").read_text())
    assert scores["split"] == "parts"
    write_map(file, nest_to_ring((4 - parts()) % 4), "")
    write_map(mask, np.ones(GRID.npix), "")
    done("compare", first)
    again = json.loads((place.study / "comparison.json").read_text())
    assert again["models"]["linear"]["sphere"] == scores["models"]["linear"]["sphere"]
    done("predict", first)
    done("train", *words(place, *own))
    folders = sorted(place.study.glob("linear-*"))
    assert len(folders) == 2, "the content of mask and split is part of a run's identity"
    refused = sphereml("compare", *folders).refusal
    assert "another `split`" in refused


def test_runs_of_different_splits_are_refused_together(place, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SPHEREML_REAL_SKY", str(sky_place(tmp_path_factory)))
    done("train", *words(place, "split=north_south", "split.sky_fraction=null"))
    done("train", *words(place, "split=folds", "split.sky_fraction=null", "model=integrated"))
    (integrated,) = place.study.glob("integrated-*")
    folders = [one for one in place.study.glob("linear-*") if "north_south" in (one / "config.json").read_text()]
    assert "another `split`" in sphereml("compare", folders[0], integrated).refusal
