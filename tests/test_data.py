"""Readers, store, preparation, manifests and masks: round trips, oracles (healpy, astropy), and bad input."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import healpy
import numpy as np
import pytest
from astropy.io import fits
from fixtures_cli import REAL_SKY, needs_real_sky
from omegaconf import OmegaConf

from sphereml.config.resources import resource_folder
from sphereml.config.schema import DataConfig, GalaxyConfig, MapField, SplitConfig
from sphereml.data.file_checksums import file_checksum
from sphereml.data.healpix_fits import UNSEEN, read_healpix, read_mask
from sphereml.data.manifests import list_products, load_manifest
from sphereml.data.prepare import prepare_healpix, prepared, store_path
from sphereml.data.store import COLUMN_PER_K_KMS, FORMAT_VERSION, Sky, column, open_dataset, open_store, write_store
from sphereml.data.store_cleaning import clean_stores
from sphereml.data.units import KNOWN_UNITS, parse_unit, reconcile_units
from sphereml.errors import UserError
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import apodize, disc, superpixels, threshold_mask
from sphereml.sky.ordering import ring_to_nest

NSIDE = 8
GRID = HealpixGrid(NSIDE)


def write_table(path: Path, columns: dict[str, np.ndarray], unit: str = "cm-2", **cards: Any) -> Path:
    """A HEALPix binary table; a card given as None is left out."""
    table = fits.BinTableHDU.from_columns(
        [fits.Column(name=name, format="D", array=values, unit=unit or None) for name, values in columns.items()]
    )
    npix = len(next(iter(columns.values())))
    header = {"PIXTYPE": "HEALPIX", "ORDERING": "RING", "COORDSYS": "G", "NSIDE": round((npix / 12) ** 0.5)} | cards
    table.header.update({card: value for card, value in header.items() if value is not None})
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    return path


def ramp(nside: int = NSIDE) -> np.ndarray:
    return np.arange(12 * nside**2, dtype=np.float64)


@contextmanager
def refused(folder: Path, *words: str) -> Iterator[None]:
    """The body raises a one-line UserError that holds ``words`` and leaves ``folder`` as it was."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message and ": " in message
    for word in words:
        assert word in message, message
    assert sorted(folder.rglob("*")) == before


# ---- units


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        *[(unit, unit) for unit in KNOWN_UNITS],
        *[(text, "cm^-2") for text in ("cm-2", "cm**-2", "1/cm2", "1/cm^2", "cm^(-2)", "atoms/cm^2", "CM-2")],
        *[(text, "uK_RJ") for text in ("uK_RJ", "uKRJ", "microK_RJ", "µK_RJ", "uK_rj", "muK RJ")],
        *[(text, "uK_CMB") for text in ("uK_CMB", "uK_cmb", "microK CMB", "uKcmb")],
        *[(text, "MJy/sr") for text in ("MJy/sr", "MJy sr^-1", "MJy sr-1")],
        *[(text, "K km/s") for text in ("K km/s", "K km s-1", "K.km.s-1", "K km s^-1")],
        ("microK", "uK"),
        ("K_CMB", "K_CMB"),
        ("dimensionless", ""),
    ],
)
def test_unit_spellings_are_understood(text: str, unit: str) -> None:
    assert parse_unit(text) == unit


@pytest.mark.parametrize("text", ["1e20 cm^-2", "10^20 cm-2", "MK", "Jy/beam", "furlong"])
def test_unknown_units_and_hidden_factors_are_refused(text: str, tmp_path: Path) -> None:
    with refused(tmp_path, "unknown unit"):
        parse_unit(text)


def test_a_bare_microkelvin_needs_its_temperature_said() -> None:
    assert reconcile_units("uK", "uK_CMB", "map") == "uK_CMB"
    with pytest.raises(UserError, match="which temperature"):
        reconcile_units("uK", "", "map")
    with pytest.raises(UserError, match="asked for"):
        reconcile_units("uK", "mK", "map")


# ---- reading maps


@pytest.mark.parametrize("nest", [False, True])
def test_a_map_written_by_healpy_is_read_in_nest_order(tmp_path: Path, nest: bool) -> None:
    path = tmp_path / "map.fits"
    maps = np.random.default_rng(1).normal(size=(3, GRID.npix)).astype(np.float32)
    healpy.write_map(path, maps, nest=nest, coord="G", column_units="uK_CMB", dtype=np.float32)
    ours = read_healpix(path, fields=(2, 0))
    oracle = healpy.read_map(path, field=(2, 0), nest=True, dtype=None)
    np.testing.assert_array_equal(ours.values, oracle.T)
    assert (ours.values.dtype, ours.unit, ours.frame, ours.grid) == (np.float32, "uK_CMB", "G", GRID)
    assert ours.checksum == file_checksum(path)


def test_stokes_u_of_an_iau_file_changes_sign(tmp_path: Path) -> None:
    columns = {"I_STOKES": ramp(), "Q_STOKES": ramp(), "U_STOKES": ramp()}
    iau = read_healpix(write_table(tmp_path / "iau.fits", columns, "uK_RJ", POLCCONV="IAU"))
    cosmo = read_healpix(write_table(tmp_path / "cosmo.fits", columns, "uK_RJ", POLCCONV="COSMO"))
    np.testing.assert_array_equal(iau.values, cosmo.values * [1, 1, -1])


def test_a_unit_may_come_from_the_caller_or_agree_with_the_file(tmp_path: Path) -> None:
    silent = write_table(tmp_path / "silent.fits", {"NHI": ramp()}, unit="")
    stated = write_table(tmp_path / "stated.fits", {"NHI": ramp()}, unit="1/cm2")
    assert read_healpix(silent, unit="cm-2").unit == read_healpix(stated, unit="cm^-2").unit == "cm^-2"


def test_missing_pixels_become_nan_when_allowed(tmp_path: Path) -> None:
    values = ramp()
    values[[3, 7, 9]] = UNSEEN, np.nan, np.inf
    maps = read_healpix(write_table(tmp_path / "m.fits", {"T": values}, ORDERING="NESTED"), allow_missing=True)
    assert np.flatnonzero(np.isnan(maps.values[:, 0])).tolist() == [3, 7, 9]


BAD_HEADERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no order": ({"ORDERING": None}, ("ORDERING", "RING")),
    "odd order": ({"ORDERING": "SPIRAL"}, ("ORDERING", "SPIRAL")),
    "other nside": ({"NSIDE": 16}, ("NSIDE=16", "Nside 8")),
    "equatorial": ({"COORDSYS": "C"}, ("equatorial", "rotate")),
    "ecliptic": ({"COORDSYS": "E"}, ("ecliptic", "rotate")),
    "no frame": ({"COORDSYS": None}, ("COORDSYS",)),
    "explicit": ({"INDXSCHM": "EXPLICIT"}, ("explicit", "full-sky")),
    "partial": ({"OBJECT": "PARTIAL"}, ("explicit", "full-sky")),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_a_map_with_a_contradictory_header_is_refused(tmp_path: Path, case: str) -> None:
    cards, words = BAD_HEADERS[case]
    path = write_table(tmp_path / "map.fits", {"NHI": ramp()}, **cards)
    with refused(tmp_path, "map.fits", *words):
        read_healpix(path)


def test_a_map_of_impossible_length_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "map.fits", {"NHI": np.arange(700.0)}, NSIDE=8)
    with refused(tmp_path, "map.fits", "700 pixels"):
        read_healpix(path)
    nested = write_table(tmp_path / "nested.fits", {"NHI": ramp(6)}, ORDERING="NESTED")
    with refused(tmp_path, "nested.fits", "432 pixels"):
        read_healpix(nested)


def test_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with refused(tmp_path, "no file"):
        read_healpix(tmp_path / "absent.fits")
    (tmp_path / "text.fits").write_text("not FITS at all")
    with refused(tmp_path, "text.fits", "not a readable FITS"):
        read_healpix(tmp_path / "text.fits")
    (tmp_path / "empty.fits").touch()
    with refused(tmp_path, "empty.fits"):
        read_healpix(tmp_path / "empty.fits")
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    with refused(tmp_path, "image.fits", "no binary table"):
        read_healpix(tmp_path / "image.fits")
    with refused(tmp_path, "cannot read"):
        read_healpix(tmp_path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("suffix", ["fits", "fits.gz"])
def test_a_truncated_file_is_refused_without_warnings(tmp_path: Path, share: float, suffix: str) -> None:
    path = write_table(tmp_path / f"whole.{suffix}", {"A": ramp(16), "B": ramp(16)})
    cut = tmp_path / f"cut.{suffix}"
    content = path.read_bytes()
    cut.write_bytes(content[: int(share * len(content))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with refused(tmp_path, f"cut.{suffix}"):
            read_healpix(cut)


def test_a_missing_field_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "map.fits", {"A": ramp(), "B": ramp()})
    with refused(tmp_path, "no field 2", "0 to 1"):
        read_healpix(path, fields=(0, 2))


@pytest.mark.parametrize("value", [np.nan, np.inf, UNSEEN])
def test_missing_pixels_are_refused_with_their_count_and_place(tmp_path: Path, value: float) -> None:
    values = ramp()
    values[[40, 50]] = value
    path = write_table(tmp_path / "map.fits", {"A": values}, ORDERING="NESTED")
    with refused(tmp_path, "2 pixels", "NEST pixel 40"):
        read_healpix(path)


def test_an_absent_unknown_or_disagreeing_unit_is_refused(tmp_path: Path) -> None:
    silent = write_table(tmp_path / "silent.fits", {"A": ramp()}, unit="")
    with refused(tmp_path, "silent.fits", "states no unit"):
        read_healpix(silent)
    stated = write_table(tmp_path / "stated.fits", {"A": ramp()}, unit="cm-2")
    with refused(tmp_path, "stated.fits", "cm-2", "K"):
        read_healpix(stated, unit="K")
    strange = write_table(tmp_path / "strange.fits", {"A": ramp()}, unit="furlong")
    with refused(tmp_path, "furlong"):
        read_healpix(strange)


# ---- masks


def test_a_mask_is_read_in_nest_order(tmp_path: Path) -> None:
    ring = (ramp() % 3 == 0).astype(float)
    path = write_table(tmp_path / "mask.fits", {"M": ring}, unit="")
    np.testing.assert_array_equal(read_mask(path, GRID), ring_to_nest(ring) == 1)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (np.ones(12 * 16**2), "Nside 16"),
        (np.zeros(GRID.npix), "empty"),
        (ramp(), "0 (drop) to 1"),
        (ramp() - 1, "0 (drop) to 1"),
        (np.full(GRID.npix, np.nan), "empty"),
        (np.ones(100), "100 pixels"),
    ],
)
def test_an_unusable_mask_is_refused(tmp_path: Path, values: np.ndarray, word: str) -> None:
    path = write_table(tmp_path / "mask.fits", {"M": values}, unit="")
    with refused(tmp_path, "mask.fits", word):
        read_mask(path, GRID)


def test_the_taper_follows_its_formula_around_one_masked_pixel() -> None:
    grid = HealpixGrid(32)
    mask = np.ones(grid.npix, dtype=bool)
    mask[1000] = False
    taper = apodize(mask, grid, width=20.0)
    distance = np.arccos(np.clip(grid.vectors() @ grid.vectors()[1000], -1, 1))
    x = np.sqrt((1 - np.cos(distance)) / (1 - np.cos(np.radians(20.0)))).clip(max=1)
    np.testing.assert_allclose(taper, x - np.sin(2 * np.pi * x) / (2 * np.pi), atol=1e-7)
    np.testing.assert_array_equal(apodize(mask, grid, width=0.0), mask)


def test_a_disc_agrees_with_healpy() -> None:
    centre = healpy.ang2vec(280.5, -32.9, lonlat=True)
    oracle = healpy.query_disc(32, centre, np.radians(10), nest=True)
    assert set(np.flatnonzero(disc(HealpixGrid(32), 280.5, -32.9, 10.0))) == set(oracle)


def test_superpixels_group_nest_children_of_kept_pixels() -> None:
    mask = np.ones(GRID.npix, dtype=bool)
    mask[:4] = False
    labels = superpixels(mask, NSIDE, 4)
    np.testing.assert_array_equal(labels[4:], np.arange(4, GRID.npix) // 4)
    assert (labels[:4] == -1).all()


# ---- store


def make_sky(grid: HealpixGrid = GRID, channels: int = 3, **changes: Any) -> Sky:
    rng = np.random.default_rng(5)
    sky = Sky(
        grid=grid,
        inputs=rng.normal(size=(grid.npix, channels)).astype(np.float32),
        targets=rng.normal(size=(grid.npix, 1)).astype(np.float32),
        input_fields=tuple(Field(f"v{i}", "K") for i in range(channels)),
        target_fields=(Field("dust", "uK_RJ"),),
        velocity=-3.0 + 1.5 * np.arange(channels),
        components={"cold": rng.normal(size=grid.npix).astype(np.float32)},
        provenance={"seed": 5},
        component_units={"cold": "cm^-2"},
    )
    return replace(sky, **changes)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("with_total", [False, True])
def test_a_sky_survives_the_store(tmp_path: Path, with_total: bool) -> None:
    total = {"total": np.ones(GRID.npix, np.float32), "total_unit": "cm^-2", "velocity": None} if with_total else {}
    sky = make_sky(**total)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = open_store(write_store(tmp_path / "sky.zarr", sky))
    for name in ("grid", "input_fields", "target_fields", "total_unit", "provenance", "component_units"):
        assert getattr(back, name) == getattr(sky, name)
    for name in ("inputs", "targets", "total", "velocity"):
        np.testing.assert_array_equal(getattr(back, name), getattr(sky, name))
    assert back.inputs.dtype == back.targets.dtype == np.float32
    np.testing.assert_array_equal(back.components["cold"], sky.components["cold"])


def test_stores_of_one_sky_are_equal_byte_for_byte_and_chunked_by_superpixel(tmp_path: Path) -> None:
    sky = make_sky(HealpixGrid(128), channels=2)
    for name in ("a", "b"):
        write_store(tmp_path / name, sky)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    with open_dataset(tmp_path / "a") as dataset:
        assert dataset["inputs"].encoding["chunks"] == (64 * 64, 2)
        assert dataset["inputs"].dims == ("pixel", "channel")
        assert (dataset.attrs["nside"], dataset.attrs["order"], dataset.attrs["frame"]) == (128, "NEST", "G")
        assert dataset["velocity"].attrs == {"units": "km/s", "frame": "LSR"}
        assert dataset["component_cold"].attrs["units"] == "cm^-2"
        assert not dataset["inputs"].variable._in_memory


def test_an_existing_store_is_kept_unless_told(tmp_path: Path) -> None:
    write_store(tmp_path / "sky", make_sky())
    other = make_sky(targets=np.zeros((GRID.npix, 1), np.float32))
    with refused(tmp_path, "exists"):
        write_store(tmp_path / "sky", other)
    write_store(tmp_path / "sky", other, overwrite=True)
    assert not open_store(tmp_path / "sky").targets.any()
    assert [p.name for p in tmp_path.iterdir()] == ["sky"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import xarray

    write = xarray.Dataset.to_zarr

    def interrupted(self: xarray.Dataset, *args: Any, **kwargs: Any) -> None:
        write(self, *args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(xarray.Dataset, "to_zarr", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "sky", make_sky())
    assert not list(tmp_path.iterdir())


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with refused(tmp_path, "cannot write"):
        write_store(tmp_path / "file" / "sky", make_sky())


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with refused(tmp_path, "no store"):
        open_store(tmp_path / "absent")
    (tmp_path / "folder").mkdir()
    with refused(tmp_path, "not a sphereml store"):
        open_store(tmp_path / "folder")
    import zarr

    zarr.create_group(tmp_path / "foreign", zarr_format=3)
    with refused(tmp_path, "not a sphereml store"):
        open_store(tmp_path / "foreign")


@pytest.mark.filterwarnings("ignore:Object at:UserWarning")
@pytest.mark.parametrize(
    "lost", ["inputs/c/3/0", "targets/c/5/0", "targets/zarr.json", "channel/zarr.json", "velocity/zarr.json"]
)
def test_a_store_that_lost_a_file_is_refused(tmp_path: Path, lost: str) -> None:
    path = write_store(tmp_path / "sky", make_sky())
    (path / lost).unlink()
    with refused(tmp_path, "damaged"):
        open_store(path)


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    path = write_store(tmp_path / "sky", make_sky())
    metadata = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(metadata.replace(f'"format_version": {FORMAT_VERSION}', '"format_version": 99'))
    with refused(tmp_path, "version 99"):
        open_store(path)


def test_the_column_comes_from_total_then_velocities_then_columns(tmp_path: Path) -> None:
    sky = make_sky()
    integral = COLUMN_PER_K_KMS * 1.5 * sky.inputs.sum(axis=1, dtype=float)
    np.testing.assert_allclose(column(sky), integral, rtol=1e-4, atol=1e-6 * COLUMN_PER_K_KMS)
    total = np.arange(GRID.npix, dtype=np.float32)
    np.testing.assert_array_equal(column(make_sky(total=total, total_unit="cm^-2")), total)
    columns = make_sky(velocity=None, input_fields=tuple(Field(f"v{i}", "cm^-2") for i in range(3)))
    np.testing.assert_allclose(column(columns), columns.inputs.sum(axis=1), atol=1e-5)
    with refused(tmp_path, "no gas column"):
        column(make_sky(velocity=None))


# ---- preparation


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "maps"
    place.mkdir()
    write_table(place / "rings.fits", {"R0": ramp(), "R1": ramp() + 1})
    write_table(place / "total.fits", {"NHI": 2 * ramp()})
    write_table(place / "dust.fits", {"I": 3 * ramp(), "Q": ramp()}, unit="uK_RJ")
    return place


def make_data(place: Path, **changes: Any) -> DataConfig:
    data = DataConfig(
        name="sample",
        kind="healpix",
        stores=str(place.parent / "stores"),
        folder=str(place),
        inputs=[MapField("rings.fits")],
        total=MapField("total.fits", [0]),
        target=MapField("dust.fits", [0], "uK_RJ"),
    )
    return replace(data, **changes)


def test_a_folder_of_maps_becomes_a_sky(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sky = prepare_healpix(make_data(folder))
    assert sky.input_fields == (Field("R0", "cm^-2"), Field("R1", "cm^-2")) and sky.grid == GRID
    assert sky.target_fields == (Field("I", "uK_RJ"),) and sky.total_unit == "cm^-2"
    np.testing.assert_array_equal(sky.target, ring_to_nest(3 * ramp()))
    np.testing.assert_array_equal(sky.inputs[:, 1], ring_to_nest(ramp() + 1))
    assert sky.provenance["files"]["dust.fits"] == file_checksum(folder / "dust.fits")
    monkeypatch.setenv("SPHEREML_REAL_SKY", str(folder))
    np.testing.assert_array_equal(prepare_healpix(make_data(folder, folder=None)).inputs, sky.inputs)


def test_inputs_and_targets_have_units_of_their_own(folder: Path) -> None:
    write_table(folder / "kelvin.fits", {"T": ramp()}, unit="K")
    inputs = [MapField("kelvin.fits"), MapField("rings.fits[R1]")]
    sky = prepare_healpix(make_data(folder, inputs=inputs, targets=[MapField("rings.fits[#0]")]))
    assert sky.input_fields == (Field("T", "K"), Field("R1", "cm^-2")) and sky.input_unit == ""
    assert sky.target_fields == (Field("I", "uK_RJ"), Field("R0", "cm^-2"))


def test_all_faults_are_listed_at_once(folder: Path) -> None:
    inputs = [MapField("gone.fits"), MapField("rings.fits[R7]"), MapField("total.fits", unit="K")]
    with refused(folder.parent, "3 faults: (1)", "gone.fits", "no column R7", "(3) total.fits is in 'cm-2'"):
        prepare_healpix(make_data(folder, inputs=inputs))


def test_a_prepared_sky_is_built_once_until_its_files_change(folder: Path) -> None:
    data, built = make_data(folder), []

    def build() -> Sky:
        built.append(1)
        return prepare_healpix(data)

    first, second = prepared(data, build), prepared(data, build)
    np.testing.assert_array_equal(first.inputs, second.inputs)
    assert len(built) == 1 and store_path(data).is_dir()
    (folder / "total.fits").unlink()
    write_table(folder / "total.fits", {"NHI": 5 * ramp()})
    prepared(data, build)
    assert len(built) == 2


def test_the_store_of_a_simulated_sky_depends_on_its_configuration(tmp_path: Path) -> None:
    data = DataConfig(stores=str(tmp_path))
    assert store_path(data) == store_path(replace(data, folder="/elsewhere"))
    assert store_path(data) != store_path(replace(data, galaxy=GalaxyConfig(seed=2)))


def test_cleaning_leaves_what_has_no_mark_of_ours(tmp_path: Path) -> None:
    for name in ("whole.zarr", "old.zarr", "foreign.zarr"):
        write_store(tmp_path / name, make_sky())
    for name, change in (
        ("old.zarr", ('"format_version": ', '"format_version": 9')),
        ("foreign.zarr", ("sphereml-sky", "x")),
    ):
        path = tmp_path / name / "zarr.json"
        path.write_text(path.read_text().replace(*change))
    removed, kept, _ = clean_stores(tmp_path)
    assert ([one.path.name for one in removed], [one.path.name for one in kept]) == (["old.zarr"], ["whole.zarr"])
    assert (tmp_path / "foreign.zarr").is_dir() and not (tmp_path / "old.zarr").exists()


def test_a_damaged_store_is_built_anew_and_a_foreign_one_refused(folder: Path) -> None:
    data = make_data(folder)
    prepared(data, lambda: prepare_healpix(data))
    (store_path(data) / "targets/c/5/0").unlink()
    sky = prepared(data, lambda: prepare_healpix(data))
    np.testing.assert_array_equal(open_store(store_path(data)).target, sky.target)
    (store_path(data) / "zarr.json").write_text("")
    sky = prepared(data, lambda: prepare_healpix(data))
    np.testing.assert_array_equal(open_store(store_path(data)).target, sky.target)
    shutil.rmtree(store_path(data))
    store_path(data).mkdir()
    (store_path(data) / "zarr.json").write_text("{}")
    with refused(folder.parent, "not a sphereml store"):
        prepared(data, lambda: prepare_healpix(data))


Change = Callable[[Path], dict[str, Any]]


def _with_other_nside(folder: Path) -> dict[str, Any]:
    write_table(folder / "coarse.fits", {"NHI": ramp(4)})
    return {"total": MapField("coarse.fits")}


BAD_DATA: dict[str, tuple[Change, tuple[str, ...]]] = {
    "no such folder": (lambda _: {"folder": "/no/such/folder"}, ("SPHEREML_REAL_SKY", "data.folder")),
    "no folder": (lambda _: {"folder": None}, ("SPHEREML_REAL_SKY", "data.folder")),
    "missing file": (lambda _: {"target": MapField("gone.fits", [0])}, ("no file", "gone.fits")),
    "no file name": (lambda _: {"target": MapField()}, ("without a file",)),
    "no inputs": (lambda _: {"inputs": []}, ("no inputs", "data.inputs")),
    "no target": (lambda _: {"target": None}, ("no target", "data.target")),
    "Q without U": (lambda _: {"target": MapField("dust.fits")}, ("no U behind Q",)),
    "two totals": (lambda _: {"total": MapField("rings.fits")}, ("several columns (R0, R1)", "data.total.fields")),
    "its own target": (lambda _: {"inputs": [MapField("dust.fits", [0])]}, ("among the inputs",)),
    "other nside": (_with_other_nside, ("coarse.fits", "Nside 4", "rings.fits", "has 8")),
    "unwritable stores": (lambda f: {"stores": str(f / "dust.fits")}, ("cannot write",)),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_configurations_are_refused(folder: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPHEREML_REAL_SKY", raising=False)
    change, words = BAD_DATA[case]
    data = make_data(folder, **change(folder))
    with refused(folder.parent, *words):
        prepared(data, lambda: prepare_healpix(data))


# ---- manifests, shipped configurations, resources


def test_the_shipped_manifests_follow_the_schema() -> None:
    products = {product.name: product for product in list_products()}
    assert {"hi4pi_column", "planck_dust_commander_r2", "real_sky_rings"} <= set(products)
    assert products["planck_masks_galactic_r2"].files[0].fields == {"GAL070": 3}


@needs_real_sky
def test_the_sample_manifest_describes_the_sample() -> None:
    files = [f for product in list_products() if product.name.startswith("real_sky") for f in product.files]
    assert len(files) == 7
    for described in files:
        path = REAL_SKY / described.name
        assert described.size == path.stat().st_size
        assert described.checksum == f"sha256:{file_checksum(path)}"
        if described.unit and described.nside != "none":
            maps = read_healpix(path, unit=described.unit)
            assert dict(zip(maps.names, range(99), strict=False)) == described.fields


ENTRY = "{name: p, title: t, licence: l, citation: c, frame: G, reader: healpix, files: [{name: f, unit: K%s}]}"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("products: [" + ENTRY % ", colour: red" + "]", "unknown key 'colour'"),
        ("products: [" + ENTRY % ", checksum: abc" + "]", "checksum"),
        ("products: [" + ENTRY % ", size: big" + "]", "size"),
        ("products: [" + ENTRY % ", nside: 100" + "]", "nside"),
        ("products: [" + ENTRY % ", urls: ['ftp:/x']" + "]", "urls"),
        ("products: [" + (ENTRY % "").replace("unit: K", "unit: furlong") + "]", "furlong"),
        ("products: [" + (ENTRY % "").replace("frame: G", "frame: X") + "]", "frame"),
        ("products: [" + (ENTRY % "").replace("title: t, ", "") + "]", "title"),
        ("things: []", "top level"),
        ("products: [", "cannot be read"),
    ],
)
def test_a_malformed_manifest_is_refused(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with refused(tmp_path, "bad.yaml", word):
        load_manifest(path)


def test_two_products_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("products: [" + ENTRY % "" + "]")
    with refused(tmp_path, "two products", "'p'"):
        list_products(tmp_path)


@pytest.mark.parametrize(("group", "schema"), [("data", DataConfig), ("split", SplitConfig)])
def test_shipped_configurations_fit_their_schema(group: str, schema: type) -> None:
    paths = sorted((resource_folder("configs") / group).glob("*.yaml"))
    assert paths
    for path in paths:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(path)))
        assert isinstance(config, schema) and config.name == path.stem


def test_resources_are_found_in_a_checkout_and_in_an_installed_copy(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "sphereml"
    (package / "_configs").mkdir(parents=True)
    (package.parent / "configs").mkdir()
    assert resource_folder("configs", package) == package / "_configs"
    (package.parent / "pyproject.toml").touch()
    assert resource_folder("configs", package) == package.parent / "configs"
    with refused(tmp_path, "data_manifests"):
        resource_folder("data_manifests", package)


@needs_real_sky
def test_the_threshold_mask_is_the_sample_mask() -> None:
    dust = read_healpix(REAL_SKY / "dust_353_iqu_n64.fits", (0,))
    for name, fraction in (("mask_lr71_like_n64.fits", 0.71), ("mask_lr42_like_n64.fits", 0.42)):
        reference = read_mask(REAL_SKY / name, dust.grid)
        ours = threshold_mask(dust.values[:, 0], dust.grid, fraction, 5.0)
        assert np.mean(ours != reference) < 2e-3


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["sky", "mask"])
def test_an_order_card_that_lies_is_refused(tmp_path, nested, kind):
    """A smooth map written in one order and labelled with the other."""
    nside = 32
    vectors = np.stack(healpy.pix2vec(nside, np.arange(12 * nside**2), nest=nested))
    sky = np.exp(3 * np.sin(7 * vectors[0]) * np.cos(5 * vectors[2]) + vectors[1])
    values = (sky > np.median(sky)).astype(float) if kind == "mask" else sky
    path = tmp_path / "lying.fits"
    healpy.write_map(path, values, nest=not nested, coord="G", column_units="cm^-2", dtype=np.float32)
    with pytest.raises(UserError, match=r"pixels are in (RING|NESTED) order"):
        read_healpix(path)


def test_noise_has_no_order_and_is_read(tmp_path):
    values = np.random.default_rng(0).normal(size=12 * 32**2)
    healpy.write_map(tmp_path / "noise.fits", values, coord="G", column_units="K", dtype=np.float64)
    np.testing.assert_array_equal(read_healpix(tmp_path / "noise.fits").values[:, 0], ring_to_nest(values))
