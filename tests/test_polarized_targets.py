"""Targets as users have them: Planck's frequency maps and GNILC, Clark & Hensley's cubes, split halves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import healpy
import numpy as np
import pytest
from astropy.io import fits
from fixtures_cli import done, sphereml

from sphereml.config.schema import DataConfig, MapField
from sphereml.data.prepare import prepare_healpix
from sphereml.data.store import Sky, open_dataset, write_store
from sphereml.data.unit_conversion import conversion_factor
from sphereml.errors import UserError
from sphereml.evaluation.band_correlation import correlate_bands, correlate_pixels
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.transforms import alm_index, synthesis
from sphereml.sky.grid import HealpixGrid

NSIDE = 16
NPIX = 12 * NSIDE**2
STOKES = ["I_STOKES", "Q_STOKES", "U_STOKES"]
COVARIANCES = ["II_COV", "IQ_COV", "IU_COV", "QQ_COV", "QU_COV", "UU_COV"]
PSB, GNILC = "HFI_SkyMap_353-psb_2048_R3.01_full.fits", "COM_CompMap_IQU-thermaldust-gnilc-unires_2048_R3.00.fits"
CIB = 452e-6  # K_CMB


def smooth(seed: int) -> np.ndarray:
    """A map ``(npix,)`` NEST of unit variance."""
    ell, order = alm_index(2 * NSIDE)
    rng = np.random.default_rng(seed)
    alm = (rng.standard_normal(ell.size) + 1j * rng.standard_normal(ell.size)) / (ell + 2.0)
    alm[order == 0] = alm[order == 0].real
    sky = synthesis(alm, NSIDE, 2 * NSIDE)
    return (sky - sky.mean()) / sky.std()


IQU = np.stack([1e-3 * np.exp(0.5 * smooth(0)) + CIB, 1e-4 * smooth(1), 1e-4 * smooth(2)])


def planck_table(path: Path, iqu: np.ndarray, hits: bool, unit: str, **cards: str) -> Path:
    """A file of the archive: one pixel a row, NESTED, covariances in a unit of their own, BAD_DATA of -1.6375e30."""
    columns = [fits.Column(name, "E", unit, array=row) for name, row in zip(STOKES, iqu, strict=True)]
    if hits:
        columns.append(fits.Column("HITS", "J", array=np.full(NPIX, 900, np.int32)))
    columns += [fits.Column(name, "E", f"{unit}^2", array=np.full(NPIX, 1e-10)) for name in COVARIANCES]
    table = fits.BinTableHDU.from_columns(columns)
    said = {"PIXTYPE": "HEALPIX", "ORDERING": "NESTED", "NSIDE": NSIDE, "FIRSTPIX": 0, "LASTPIX": NPIX - 1}
    said |= {"INDXSCHM": "IMPLICIT", "COORDSYS": "GALACTIC", "POLCCONV": "COSMO", "BAD_DATA": -1.63750e30}
    table.header.update(said | cards)
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    planck_table(tmp_path / PSB, IQU, hits=True, unit="Kcmb", FREQ="353", PROCVER="RD12RC4")
    planck_table(tmp_path / GNILC, IQU, hits=False, unit="K_CMB", EXTNAME="COMP-MAP")
    healpy.write_map(tmp_path / "nhi.fits", np.exp(smooth(3)), column_units="cm^-2", coord="G", nest=True)
    return tmp_path


def sky_of(folder: Path, target: Mapping[str, Any], **keys: Any) -> Sky:
    inputs = [MapField(file="nhi.fits")]
    return prepare_healpix(
        DataConfig(kind="healpix", folder=str(folder), inputs=inputs, target=MapField(**target), **keys)
    )


@pytest.mark.parametrize("name", [PSB, GNILC])
@pytest.mark.parametrize("unit", ["uK_RJ", "MJy/sr"])
def test_plancks_maps_come_in_the_unit_asked_for_and_say_what_they_are(folder: Path, name: str, unit: str):
    target = {"file": name, "fields": [0, 1], "convert_to": unit, "frequency_ghz": 353.0, "zero_level": CIB}
    sky = sky_of(folder, target)
    factor = {"uK_RJ": 77486.0, "MJy/sr": 296.65}[unit]
    assert conversion_factor("K_CMB", unit, 353.0) == pytest.approx(factor, rel=1e-4)
    assert [(one.spin, one.unit) for one in sky.target_fields] == [(0, unit), (2, unit)]
    expected = factor * (IQU - np.array([[CIB], [0], [0]]))
    np.testing.assert_allclose(sky.targets.T, expected, rtol=1e-4, atol=1e-6 * factor * 1e-3)
    write_store(folder / "sky.zarr", sky)
    with open_dataset(folder / "sky.zarr") as dataset:
        said = dataset["targets"].attrs["sources"][name]
    assert said["polcconv"] == "COSMO" and said["unit"] == "K_CMB" and said["zero_level_removed"] == CIB
    assert said["frequency_ghz"] == 353 and said["factor"] == pytest.approx(factor, rel=1e-4)
    assert said["released"] == "2018" and "452 uK_CMB" in said["zero_level"] and said["product"].startswith("planck")


def test_bad_data_and_the_iaus_sign(folder: Path, tmp_path: Path):
    """A file in the IAU's sign is turned; missing pixels are refused, or filled and masked on a grid asked for."""
    holes = IQU.copy()
    holes[:, 5:9] = -1.63750e30
    planck_table(tmp_path / "holes.fits", holes, hits=True, unit="Kcmb", POLCCONV="IAU")
    target = {"file": "holes.fits[Q_STOKES]"}
    with pytest.raises(UserError, match="4 pixels"):
        sky_of(folder, target)
    sky = sky_of(folder, target, nside=NSIDE, lmax=2 * NSIDE)
    assert sky.components["mask"][5:9].max() == 0 and sky.targets.shape == (NPIX, 2)
    kept = sky.components["mask"] > 0
    assert np.corrcoef(sky.targets[kept, 1], -IQU[2, kept])[0, 1] > 0.99


def test_a_silent_file_has_the_sign_that_its_user_knows(folder: Path, tmp_path: Path):
    healpy.write_map(
        tmp_path / "hi.fits", IQU, nest=True, coord="G", column_names=["I", "Q", "U"], column_units="K km/s"
    )
    sky = sky_of(folder, {"file": "hi.fits[Q]", "polcconv": "IAU"})
    np.testing.assert_allclose(sky.targets.T, [IQU[1], -IQU[2]], rtol=1e-6)
    with pytest.raises(UserError, match="COSMO or IAU"):
        sky_of(folder, {"file": "hi.fits[Q]", "polcconv": "LIGO"})


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ({"file": PSB, "fields": [0], "convert_to": "uK_RJ"}, "only at a frequency"),
        ({"file": PSB, "fields": [0], "convert_to": "cm^-2"}, "cannot become"),
        ({"file": PSB, "fields": [1], "zero_level": 1.0}, "zero level of Q and U"),
        ({"file": PSB, "fields": [0, 3]}, "different units|states no unit"),
    ],
)
def test_what_cannot_be_converted_is_refused(folder: Path, target: dict[str, Any], fault: str):
    with pytest.raises(UserError, match=fault):
        sky_of(folder, target)


# Clark & Hensley's cubes


def test_clark_and_hensleys_cubes_become_a_map_in_cosmo(tmp_path: Path):
    """Of (npix, nchan) in HDF5, RING, K km/s, IAU, NaN without a filament: sums over channels, U turned."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    rng = np.random.default_rng(0)
    cubes = {letter: rng.normal(size=(NPIX, 5)).astype(np.float32) for letter in "IQU"}
    for letter in "QU":
        cubes[letter][rng.random((NPIX, 5)) < 0.3] = np.nan
        cubes[letter][7] = np.nan
    for letter, cube in cubes.items():
        with h5py.File(tmp_path / f"{letter}_v_HI4PI_Kkms.h5", "w") as file:
            file[f"{letter}HI_v"] = cube
    done("data", "stokes", tmp_path, "--out", tmp_path / "ch.fits", "--channels", "1", "3")
    header = fits.getheader(tmp_path / "ch.fits", 1)
    assert header["POLCCONV"] == "COSMO" and {header[f"TUNIT{i}"] for i in (1, 2, 3)} == {"K km/s"}
    maps = healpy.read_map(tmp_path / "ch.fits", field=(0, 1, 2), dtype=float)
    expected = [np.nansum(cubes[letter][:, 1:4], axis=1) for letter in "IQU"]
    seen = ~np.isnan(cubes["Q"][:, 1:4]).all(axis=1) & ~np.isnan(cubes["U"][:, 1:4]).all(axis=1)
    np.testing.assert_allclose(maps[0], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(maps[1][seen], expected[1][seen], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(maps[2][seen], -expected[2][seen], rtol=1e-5, atol=1e-6)
    assert maps[1][7] == healpy.UNSEEN
    line = ["data", "stokes", tmp_path, "--out", tmp_path / "other.fits", "--channels", "1"]
    assert "no channels 1 to 9" in sphereml(*line, "9").refusal


def test_clark_and_hensleys_cubes_that_are_not_there(tmp_path: Path):
    assert "no file I_v_" in sphereml("data", "stokes", tmp_path, "--out", tmp_path / "ch.fits").refusal


# split halves

BANDS = Bands(low=(2, 10), high=(10, 28))


def test_split_halves_recover_the_noiseless_correlation_within_its_error():
    """Noise of 1.5 times the signal: the plain r is low by .13, that of the halves within three errors."""
    rng = np.random.default_rng(1)
    e, b, other_e, other_b = (smooth(seed) for seed in range(4, 8))
    sky, template = np.stack([e, b]), np.stack([e + 0.5 * other_e, 0.7 * b + 0.7 * other_b])
    halves = tuple(sky + 1.5 * rng.standard_normal(sky.shape) for _ in range(2))
    mask = (np.abs(HealpixGrid(NSIDE).lonlat()[1]) > 15).astype(float)
    clean = correlate_bands(template, (sky, sky), mask, BANDS)
    freed = correlate_bands(template, halves, mask, BANDS)
    whole = (halves[0] + halves[1]) / 2
    plain = correlate_bands(template, (whole, whole), mask, BANDS)
    assert freed.r.shape == freed.sem.shape == (2, 2)
    assert (np.abs((freed - clean).r) < 3 * (freed - clean).sem).all(), (freed - clean).r / (freed - clean).sem
    low = clean - plain
    assert (low.r[:, 1] > 0.1).all() and (low.r[:, 1] > 5 * low.sem[:, 1]).all(), low.r / low.sem
    pixels, truth = correlate_pixels(template, halves, mask), correlate_pixels(template, (sky, sky), mask)
    assert (np.abs((pixels - truth).r) < 3 * (pixels - truth).sem).all()


def test_one_map_twice_is_the_plain_correlation():
    a, b = smooth(1), smooth(1) + 0.3 * smooth(2)
    mask = np.ones(NPIX)
    cl = healpy.anafast(*(healpy.reorder(one - one.mean(), n2r=True) for one in (a, b)), lmax=2 * NSIDE)
    own = [healpy.anafast(healpy.reorder(one - one.mean(), n2r=True), lmax=2 * NSIDE) for one in (a, b)]
    modes = 2 * np.arange(10, 28) + 1
    expected = modes @ cl[10:28] / np.sqrt((modes @ own[0][10:28]) * (modes @ own[1][10:28]))
    assert correlate_bands(a, (b, b), mask, BANDS).r[0, 1] == pytest.approx(expected, abs=1e-6)
    assert correlate_pixels(a, (b, b), mask).r[0] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12)


def test_noise_alone_leaves_no_correlation_to_speak_of():
    rng = np.random.default_rng(0)
    sky = smooth(1)
    halves = (rng.standard_normal(NPIX), -rng.standard_normal(NPIX))
    r = correlate_bands(sky, halves, np.ones(NPIX), BANDS).r
    assert np.isnan(r).any() or np.abs(r).max() < 1.5
    with pytest.raises(UserError, match="one block"):
        correlate_bands(sky, halves, (np.arange(NPIX) < 4).astype(float), BANDS)
