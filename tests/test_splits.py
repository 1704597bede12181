"""Splits: disjoint by construction, apart by the buffer, and the real sample's reference figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import healpy
import numpy as np
import pytest
from fixtures_cli import REAL_SKY, needs_real_sky
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sphereml.config.resources import resource_folder
from sphereml.config.schema import DataConfig, Disc, SplitConfig
from sphereml.data.prepare import prepare_healpix
from sphereml.data.split_files import Split, read_split, write_split
from sphereml.data.splits import build_split
from sphereml.data.store import Sky
from sphereml.errors import UserError
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import disc
from sphereml.sky.ordering import nest_to_ring

GRID = HealpixGrid(16)


def make_sky(grid: HealpixGrid = GRID) -> Sky:
    """Dust that grows towards the plane."""
    _, lat = grid.lonlat()
    dust = np.exp(-np.abs(lat) / 20).astype(np.float32)
    return Sky(grid, dust[:, None], dust[:, None], (Field("column", "cm^-2"),), (Field("dust", "uK_RJ"),))


SKY = make_sky()
SMALL = make_sky(HealpixGrid(8))


@settings(max_examples=25, deadline=None)
@given(
    side=st.sampled_from(["north", "south", "east", "west", "fold"]),
    folds=st.integers(3, 7),
    fold=st.integers(0, 6),
    buffer=st.floats(0, 40),
    lon=st.lists(st.floats(0, 360), min_size=2, max_size=2, unique=True),
    fraction=st.one_of(st.none(), st.floats(0.3, 1)),
)
def test_regions_are_disjoint_and_apart(
    side: str, folds: int, fold: int, buffer: float, lon: list[float], fraction: float | None
) -> None:
    config = SplitConfig(
        train=side, folds=folds, fold=fold % folds, buffer=buffer, validation_lon=lon, sky_fraction=fraction
    )
    try:
        split = build_split(config, SMALL)
    except UserError as error:
        assert "empty" in str(error)
        return
    assert not (split.train & split.test).any()
    assert not (split.train & split.validation).any()
    assert not (split.validation & split.test).any()
    vectors = SMALL.grid.vectors()
    nearest = (vectors[split.train | split.validation] @ vectors[split.test].T).max()
    least = 2 * buffer if side in ("north", "south") else buffer
    # The arc cosine of what is nearly one is good to 1e-6 degrees.
    assert np.degrees(np.arccos(np.clip(nearest, -1, 1))) >= least - 1e-5


def test_north_and_south_swap_the_training_and_test_sides() -> None:
    north = build_split(SplitConfig(train="north"), SKY)
    south = build_split(SplitConfig(train="south"), SKY)
    np.testing.assert_array_equal(north.train | north.validation, south.test)
    np.testing.assert_array_equal(north.test, south.train | south.validation)
    assert north.margin == 17.65


def test_validation_longitudes_may_wrap_around() -> None:
    split = build_split(SplitConfig(validation_lon=[350.0, 20.0]), SKY)
    lon, lat = GRID.lonlat()
    assert ((lon[split.validation] >= 350) | (lon[split.validation] < 20)).all()
    assert (lat[split.validation] > 8).all()


def test_east_and_west_are_the_longitudes_of_the_paper() -> None:
    split = build_split(SplitConfig(train="east", validation_lon=[200.0, 230.0], sky_fraction=None), SKY)
    lon, _ = GRID.lonlat()
    train = lon[split.train | split.validation]
    assert train.min() > 198 and train.max() < 342
    assert lon[split.test].min() > 18 and lon[split.test].max() < 162


def test_folds_test_every_pixel_once() -> None:
    splits = [build_split(SplitConfig(train="fold", fold=i, sky_fraction=None), SKY) for i in range(5)]
    np.testing.assert_array_equal(sum(split.test.astype(int) for split in splits), 1)
    for i, split in enumerate(splits):
        assert not (split.validation & ~splits[(i + 1) % 5].test).any()
        assert split.train.mean() > 0.45


def test_the_mask_of_a_store_limits_all_regions() -> None:
    keep = disc(GRID, 100.0, 30.0, 80.0)
    masked = replace(SKY, components={"mask": keep.astype(np.float32)})
    whole = build_split(SplitConfig(), SKY).parts
    np.testing.assert_array_equal(build_split(SplitConfig(), masked).parts, np.where(keep, whole, 0))


@pytest.mark.parametrize(
    "name", ["north_south", "north_south_wide", "east_west", "east_west_no_clouds", "folds", "real_sample_no_clouds"]
)
def test_shipped_splits_are_stored_and_come_back(name: str, tmp_path: Path) -> None:
    config = shipped(SplitConfig, f"split/{name}")
    assert isinstance(config, SplitConfig)
    split = build_split(replace(config, mask_file=None), SKY)
    path = write_split(tmp_path / "split.fits", split)
    again = read_split(path)
    assert (again.name, again.margin, again.grid) == (name, split.margin, GRID)
    np.testing.assert_array_equal(again.parts, split.parts)
    ring = healpy.read_map(path, nest=False, dtype=np.uint8)
    np.testing.assert_array_equal(ring, nest_to_ring(split.parts))
    assert path.read_bytes() == write_split(tmp_path / "again.fits", split).read_bytes()


def test_a_file_that_is_no_split_is_refused(tmp_path: Path) -> None:
    healpy.write_map(tmp_path / "map.fits", np.full(12 * 64, 0.5), coord="G", column_units="1", dtype=float)
    with pytest.raises(UserError, match="holds no split"):
        read_split(tmp_path / "map.fits")


def test_cuts_leave_every_region() -> None:
    config = SplitConfig(cuts=[Disc("south", 280.5, -60.0, 12.0), Disc("north", 200.0, 60.0, 12.0)])
    cut, whole = build_split(config, SKY), build_split(replace(config, cuts=[]), SKY)
    removed = disc(GRID, 280.5, -60.0, 12.0) | disc(GRID, 200.0, 60.0, 12.0)
    np.testing.assert_array_equal(cut.test, whole.test & ~removed)
    np.testing.assert_array_equal(cut.train, whole.train & ~removed)


def test_a_mask_file_limits_all_regions_and_wins_over_the_fraction(tmp_path: Path) -> None:
    _, lat = GRID.lonlat()
    keep = np.abs(lat) > 50
    healpy.write_map(tmp_path / "mask.fits", nest_to_ring(keep).astype(np.int16), coord="G", dtype=np.int16)
    config = SplitConfig(mask_file="mask.fits")
    split = build_split(config, SKY, tmp_path)
    np.testing.assert_array_equal(split.train | split.validation | split.test, keep)
    absolute = build_split(replace(config, mask_file=str(tmp_path / "mask.fits")), SKY)
    np.testing.assert_array_equal(split.train, absolute.train)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"train": "up"}, "north, south, east, west"),
        ({"train": "fold", "folds": 2}, "split.folds=2"),
        ({"train": "fold", "fold": 5}, "split.fold=5"),
        ({"buffer": -1.0}, "split.buffer"),
        ({"buffer": 90.0}, "split.buffer"),
        ({"buffer": 89.9}, "empty"),
        ({"centre_margin": 100.0}, "split.centre_margin"),
        ({"validation_lon": [30.0]}, "validation_lon"),
        ({"validation_lon": [30.0, 30.0]}, "validation_lon"),
        ({"validation_lon": [-10.0, 30.0]}, "validation_lon"),
        ({"validation_lon": [0.0, 360.0]}, "train region"),
        ({"train": "east", "validation_lon": [30.0, 90.0]}, "validation region"),
        ({"sky_fraction": 0.0}, "sky_fraction"),
        ({"sky_fraction": 1.2}, "sky_fraction"),
        ({"smoothing": -5.0}, "smoothing"),
        ({"cuts": [Disc("all", 0.0, -90.0, 90.0)]}, "test region"),
        ({"cuts": [Disc("no radius", 0.0, 0.0, 0.0)]}, "no radius"),
        ({"cuts": [Disc("beyond", 0.0, 100.0, 5.0)]}, "beyond"),
        ({"mask_file": "mask.fits"}, "absolute path"),
        ({"mask_file": "/no/such/mask.fits"}, "no file"),
    ],
)
def test_impossible_splits_are_refused_in_one_line(change: dict[str, object], word: str) -> None:
    with pytest.raises(UserError) as caught:
        build_split(replace(SplitConfig(), **change), SKY)
    assert word in str(caught.value) and "\n" not in str(caught.value)


# ---- the real sample's reference figures


def shipped(schema: type, name: str) -> object:
    loaded = OmegaConf.load(resource_folder("configs") / f"{name}.yaml")
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), loaded))


@pytest.fixture(scope="module")
def real_sky() -> Sky:
    data = shipped(DataConfig, "data/real_sample")
    assert isinstance(data, DataConfig)
    return prepare_healpix(replace(data, folder=str(REAL_SKY)))


def real_split(name: str, sky: Sky) -> Split:
    config = shipped(SplitConfig, f"split/{name}")
    assert isinstance(config, SplitConfig)
    return build_split(config, sky, REAL_SKY)


def mean_correlation(one: np.ndarray, other: np.ndarray, mask: np.ndarray) -> float:
    """r(ell) of mean-subtracted masked maps by healpy, averaged over ell 15..99."""
    maps = [nest_to_ring(np.where(mask, m - m[mask].mean(), 0.0)) for m in (one, other)]
    alms = [healpy.map2alm(m, lmax=128, iter=3) for m in maps]
    auto, cross = [healpy.alm2cl(a) for a in alms], healpy.alm2cl(*alms)
    return float((cross / np.sqrt(auto[0] * auto[1]))[15:100].mean())


def linear_prediction(sky: Sky, region: np.ndarray) -> np.ndarray:
    """Least squares of the inputs and a constant, fitted in ``region``.

    Scaled, because columns of 1e20 cm^-2 would push the constant below lstsq's rank cut (0.812 rather than 0.817).
    """
    inputs = sky.inputs.astype(np.float64)
    design = np.column_stack([inputs / inputs.std(axis=0), np.ones(len(inputs))])
    weights = np.linalg.lstsq(design[region], sky.target[region].astype(np.float64), rcond=None)[0]
    return np.asarray(design @ weights)


@needs_real_sky
@pytest.mark.parametrize(
    ("name", "total", "linear"), [("real_sample", 0.719, 0.817), ("real_sample_no_clouds", 0.809, 0.820)]
)
def test_the_reference_figures_of_the_sample_are_reproduced(
    real_sky: Sky, name: str, total: float, linear: float
) -> None:
    split = real_split(name, real_sky)
    assert real_sky.total is not None
    # The reference fits on all of b > 8, the validation longitudes included: a closed form has nothing to stop early.
    prediction = linear_prediction(real_sky, split.train | split.validation)
    target, column = real_sky.target.astype(np.float64), real_sky.total.astype(np.float64)
    assert mean_correlation(column, target, split.test) == pytest.approx(total, abs=1e-3)
    assert mean_correlation(prediction, target, split.test) == pytest.approx(linear, abs=1e-3)
