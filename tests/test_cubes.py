"""Cubes on the sphere: all-sky and tiled plate carree, other projections and frames, coarse maps, the GHIGLS cube."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import healpy
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from fixtures_archive import (
    SHORT_AXIS,
    AnalyticSky,
    plate_carree,
    refused,
    write_allsky_car,
    write_car_tiles,
    write_cube,
)
from fixtures_cli import REAL_SKY, needs_real_sky

from sphereml.data.car_cubes import CubeChannels, open_cubes, sampling_grid
from sphereml.data.channels import find_files
from sphereml.data.cube_files import UnsaidCubeCards, open_cube
from sphereml.data.healpix_fits import read_healpix
from sphereml.data.store import COLUMN_PER_K_KMS
from sphereml.sky.grid import HealpixGrid

SKY, PIXEL, CHANNEL = AnalyticSky(), 1.0, 3
# h^2 / 8 (|T_xx| + |T_yy|), the bound that `car_cubes` states, with the bound of the curvature for this sky.
BILINEAR_ERROR = np.radians(PIXEL) ** 2 / 8 * 2 * SKY.curvature


@pytest.fixture(scope="module")
def allsky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_allsky_car(tmp_path_factory.mktemp("car") / "CAR.fits", SKY, PIXEL)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("tiles")
    write_car_tiles(folder, SKY, PIXEL)
    return find_files(folder, "CAR_*.fits")


@pytest.fixture(scope="module")
def tiled(tiles: list[Path]) -> CubeChannels:
    return open_cubes(tiles, 64)


def pixel_means(nside: int) -> np.ndarray:
    """Means over HEALPix pixels from 64 points in each."""
    fine = SKY.channels(8 * nside, SHORT_AXIS.axis.centres)
    return np.asarray(fine.reshape(12 * nside**2, 64, -1).mean(axis=1))


def rewritten(path: Path, new: Path, change: Callable[[fits.PrimaryHDU], None]) -> Path:
    with fits.open(path) as hdus:
        hdu = fits.PrimaryHDU(hdus[0].data.copy(), hdus[0].header)
        change(hdu)
        hdu.writeto(new)
    return new


# ---- the whole sky comes back


def test_the_allsky_cube_comes_back_within_the_bilinear_error(allsky: Path) -> None:
    source = open_cubes([allsky], 64)
    assert (source.nside, source.unit, source.frame, source.name) == (64, "K", "G", "CAR.fits")
    np.testing.assert_allclose(source.velocity, SHORT_AXIS.axis.centres)
    truth = SKY.channels(64, source.velocity)
    for channel in range(7):
        values = source.read(channel)
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, truth[:, channel], atol=BILINEAR_ERROR)


def test_the_bilinear_error_is_that_of_the_formula_and_falls_with_the_square(tmp_path: Path) -> None:
    errors = []
    for pixel in (2.0, 1.0):
        source = open_cubes([write_allsky_car(tmp_path / f"{pixel}.fits", SKY, pixel)], 64)
        errors.append(np.std(source.read(CHANNEL) - SKY.channels(64, source.velocity[[CHANNEL]])[:, 0]))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_tiles_come_back_without_seams(tiled: CubeChannels) -> None:
    assert len(tiled.placements) == 162
    error = tiled.read(CHANNEL) - SKY.channels(64, tiled.velocity[[CHANNEL]])[:, 0]
    assert np.abs(error).max() < BILINEAR_ERROR
    lon, lat = HealpixGrid(64).lonlat()
    near_seam = np.minimum(np.abs((lat + 90 + 10) % 20 - 10), np.abs((lon + 10) % 20 - 10)) < PIXEL
    away = ~near_seam
    assert error[near_seam].std() < 1.2 * error[away].std()


def test_an_offset_of_one_tile_fades_out_towards_its_edge(tmp_path: Path) -> None:
    paths = []
    for number, lon in enumerate((0.0, 15.0)):
        header, shape = plate_carree(lon, 0.0, (20, 20), PIXEL), (20, 20)
        path = write_cube(tmp_path / f"{number}.fits", SKY, header, shape, SHORT_AXIS)
        with fits.open(path, mode="update") as hdus:
            hdus[0].data[:] = number
        paths.append(path)
    # Between the outermost samples, at 5.5 and 9.5 degrees, the blend is a straight line from one tile to the other.
    values = open_cubes(paths, 128).read(CHANNEL)
    lon, lat = HealpixGrid(128).lonlat()
    lon = (lon + 180) % 360 - 180
    middle = (np.abs(lat) < 2) & (np.abs(lon - 7.5) < 7)
    np.testing.assert_allclose(values[middle], ((lon - 5.5) / 4).clip(0, 1)[middle], atol=1e-3)


@pytest.mark.parametrize("name", ["allsky", "tiles"])
def test_a_coarse_map_is_the_area_weighted_mean(name: str, request: pytest.FixtureRequest) -> None:
    given = request.getfixturevalue(name)
    source = open_cubes(given if isinstance(given, list) else [given], 8)
    # The bilinear error, and as much again for the mean over descendants (0.92 degrees wide) instead of the integral.
    np.testing.assert_allclose(source.read(CHANNEL), pixel_means(8)[:, CHANNEL], atol=2 * BILINEAR_ERROR)


def test_the_sampling_grid_has_pixels_no_wider_than_the_cubes() -> None:
    assert sampling_grid(HealpixGrid(1024), 5 / 60) == HealpixGrid(1024)
    assert sampling_grid(HealpixGrid(256), 5 / 60) == HealpixGrid(1024)
    assert sampling_grid(HealpixGrid(512), 5 / 60) == HealpixGrid(1024)


def test_weights_are_shared_by_channels_and_sum_to_one(tiled: CubeChannels) -> None:
    total = np.zeros(tiled.grid.npix)
    for placement in tiled.placements:
        total[placement.pixels] += placement.weights.sum(axis=1)
    np.testing.assert_allclose(total, 1, atol=1e-3)


# ---- geometry


def region(centre: tuple[float, float], radius: float, nside: int = 64) -> np.ndarray:
    return np.asarray(healpy.query_disc(nside, healpy.ang2vec(*centre, lonlat=True), np.radians(radius), nest=True))


@pytest.mark.parametrize("lon", [0.0, 10.0, 180.0, 359.0])
@pytest.mark.parametrize("step", [-PIXEL, PIXEL])
@pytest.mark.parametrize("reference", [0.0, 200.0])
def test_longitude_may_wrap_run_either_way_and_have_any_reference(
    tmp_path: Path, lon: float, step: float, reference: float
) -> None:
    shape = (24, 30)
    header = plate_carree(lon, 20.0, shape, PIXEL, CDELT1=step)
    path = write_cube(tmp_path / "cube.fits", SKY, header, shape, SHORT_AXIS)
    with fits.open(path, mode="update") as hdus:
        # The same pixels, described from another reference longitude.
        hdus[0].header["CRPIX1"] += (reference - lon) / step
        hdus[0].header["CRVAL1"] = reference
    values = open_cubes([path], 64).read(CHANNEL)
    inside = region((lon, 20.0), 10)
    truth = SKY.channels(64, SHORT_AXIS.axis.centres)[:, CHANNEL]
    np.testing.assert_allclose(values[inside], truth[inside], atol=BILINEAR_ERROR)
    outside = np.setdiff1d(np.arange(values.size), region((lon, 20.0), 25))
    assert np.isnan(values[outside]).all()


@pytest.mark.parametrize(
    ("ctype", "frame", "equinox"),
    [
        (("RA---TAN", "DEC--TAN"), "icrs", None),
        (("RA---SIN", "DEC--SIN"), "fk5", 2000.0),
        (("GLON-ZEA", "GLAT-ZEA"), "galactic", None),
    ],
)
def test_any_projection_and_frame_is_placed_where_astropy_places_it(
    tmp_path: Path, ctype: tuple[str, str], frame: str, equinox: float | None
) -> None:
    centre = SkyCoord(l=75, b=60, unit="deg", frame="galactic").transform_to(frame).spherical
    header = plate_carree(0.0, 0.0, (24, 24), PIXEL, CTYPE1=ctype[0], CTYPE2=ctype[1], CRPIX2=12.5)
    header["CRVAL1"], header["CRVAL2"] = centre.lon.deg, centre.lat.deg
    header.update({"EQUINOX": equinox, "RADESYS": "FK5"} if equinox else {"RADESYS": "ICRS"})
    wcs = WCS(header)
    y, x = np.indices((24, 24))
    places = wcs.pixel_to_world(x.ravel(), y.ravel()).galactic
    vectors = healpy.ang2vec(places.l.deg, places.b.deg, lonlat=True)
    values = SKY.temperature(vectors, SHORT_AXIS.axis.centres).T.reshape(7, 24, 24)
    header.update(SHORT_AXIS.cards())
    fits.PrimaryHDU(values.astype(np.float32), header).writeto(tmp_path / "cube.fits")
    ours = open_cubes([tmp_path / "cube.fits"], 64).read(CHANNEL)
    inside = region((75, 60), 10)
    truth = SKY.channels(64, SHORT_AXIS.axis.centres)[inside, CHANNEL]
    np.testing.assert_allclose(ours[inside], truth, atol=BILINEAR_ERROR)
    x_ours, y_ours = open_cube(tmp_path / "cube.fits").positions(vectors)
    np.testing.assert_allclose([x_ours, y_ours], [x.ravel(), y.ravel()], atol=1e-3)


# ---- layout and values of the file


def test_scaled_integers_blanks_and_a_stokes_axis_are_understood(allsky: Path, tmp_path: Path) -> None:
    with fits.open(allsky) as hdus:
        header, values = hdus[0].header.copy(), hdus[0].data
    stored = np.where(np.isnan(values), -32768, np.rint((values - 2) / 5e-4)).astype(np.int16)
    stored[CHANNEL, 90, 100] = -32768
    header.update({"BUNIT": "mK", "CTYPE4": "STOKES", "CRVAL4": 1.0, "CRPIX4": 1.0, "CDELT4": 1.0})
    hdu = fits.PrimaryHDU(stored[None], header)
    hdu.header.update({"BSCALE": 5e-4, "BZERO": 2.0, "BLANK": -32768})
    hdu.writeto(tmp_path / "integers.fits")
    ours, floats = (open_cubes([path], 64).read(CHANNEL) for path in (tmp_path / "integers.fits", allsky))
    hit = np.isnan(ours)
    assert 0 < hit.sum() < 10
    np.testing.assert_allclose(ours[~hit], 1e-3 * floats[~hit], atol=1e-3 * (3e-4 + BILINEAR_ERROR))


def test_one_channel_is_read_by_itself(allsky: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_cubes([allsky], 8)
    read: list[int] = []
    original = np.fromfile
    monkeypatch.setattr(np, "fromfile", lambda *a, **k: read.append(k["count"]) or original(*a, **k))
    source.read(CHANNEL)
    assert read == [183 * 363]


def test_the_beam_and_the_frame_may_come_from_the_archives_documents(allsky: Path, tmp_path: Path) -> None:
    def silence(hdu: fits.PrimaryHDU) -> None:
        del hdu.header["SPECSYS"], hdu.header["BUNIT"]

    path = rewritten(allsky, tmp_path / "silent.fits", silence)
    with refused("silent.fits", "frame"):
        open_cubes([path], 8, UnsaidCubeCards(unit="K"))
    with refused("silent.fits", "unit"):
        open_cubes([path], 8, UnsaidCubeCards(velocity_frame="LSRK"))
    assert open_cubes([path], 8, UnsaidCubeCards("K", "LSRK", 16.2)).beam_arcmin == 16.2


WRONG_HEADERS = {
    "no velocity axis": ({"CTYPE3": "STOKES"}, ("no velocity axis", "CTYPE3")),
    "frame": ({"SPECSYS": "TOPOCENT"}, ("TOPOCENT", "LSR")),
    "unit": ({"BUNIT": "Jy/beam"}, ("unknown unit", "Jy/beam")),
    "no brightness": ({"BUNIT": "cm-2"}, ("cm^-2", "brightness")),
    "no sky": ({"CTYPE1": "X", "CTYPE2": "Y"}, ("sky coordinates",)),
}


@pytest.mark.parametrize("case", WRONG_HEADERS)
def test_a_cube_with_a_wrong_header_is_refused(allsky: Path, tmp_path: Path, case: str) -> None:
    cards, words = WRONG_HEADERS[case]
    path = rewritten(allsky, tmp_path / "cube.fits", lambda hdu: hdu.header.update(cards))
    with refused("cube.fits" if case != "unit" else "", *words):
        open_cubes([path], 8)


def test_wrong_files_are_refused_in_one_line(allsky: Path, tmp_path: Path) -> None:
    (tmp_path / "text.fits").write_text("no FITS")
    with refused("text.fits", "not a readable FITS"):
        open_cubes([tmp_path / "text.fits"], 8)
    (tmp_path / "cut.fits").write_bytes(allsky.read_bytes()[:200_000])
    with refused("cut.fits", "truncated"):
        open_cubes([tmp_path / "cut.fits"], 8)
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    with refused("image.fits", "no cube"):
        open_cubes([tmp_path / "image.fits"], 8)
    with refused("no file"):
        open_cubes([tmp_path / "absent.fits"], 8)
    with refused("no cube was given"):
        open_cubes([], 8)
    with refused("CAR.fits", "no channel 7", "0 to 6"):
        open_cubes([allsky], 8).read(7)
    with refused("not a power of two"):
        open_cubes([allsky], 12)


def blank(hdu: fits.PrimaryHDU) -> None:
    hdu.data[:] = np.nan


def blank_one_channel(hdu: fits.PrimaryHDU) -> None:
    hdu.data[CHANNEL + 1] = np.nan


def test_a_cube_or_channel_without_data_is_refused(allsky: Path, tmp_path: Path) -> None:
    with refused("blank.fits", "blank"):
        open_cubes([rewritten(allsky, tmp_path / "blank.fits", blank)], 8)
    source = open_cubes([rewritten(allsky, tmp_path / "one.fits", blank_one_channel)], 8)
    with refused("channel 4", "no data"):
        source.read(CHANNEL + 1)
    assert np.isfinite(source.read(CHANNEL)).all()


def test_tiles_of_other_velocities_are_refused(tiles: list[Path], tmp_path: Path) -> None:
    other = rewritten(tiles[0], tmp_path / "CAR_J01.fits", lambda hdu: hdu.header.update({"CRPIX3": 3.0}))
    with refused("CAR_J01.fits", "velocities"):
        open_cubes([tiles[1], other], 8)


# ---- the real sample


@needs_real_sky
def test_the_ghigls_cube_gives_the_column_of_hi4pi_at_its_place() -> None:
    source = open_cubes([REAL_SKY / "ghigls_dfn_cube.fits"], 64)
    assert len(source.axis) == 490 and source.velocity[0] == pytest.approx(214.53, abs=0.01)
    widths = source.axis.widths
    ours = COLUMN_PER_K_KMS * sum(width * source.read(channel) for channel, width in enumerate(widths))
    survey = read_healpix(REAL_SKY / "nhi_hi4pi_n64.fits").values[:, 0]
    covered = np.isfinite(ours)
    assert covered.sum() >= 4
    # Both are means over the same pixels of Nside 64, 55' wide, beside which both beams (9.4' and 16.2') are small.
    np.testing.assert_allclose(ours[covered], survey[covered], rtol=0.2)
    assert ours[covered].mean() / survey[covered].mean() == pytest.approx(1, abs=0.1)


@needs_real_sky
def test_the_ghigls_cube_lies_where_its_field_is() -> None:
    cube = open_cube(REAL_SKY / "ghigls_dfn_cube.fits")
    centre, radius = cube.cap()
    field = SkyCoord(ra=189.2, dec=62.2, unit="deg").galactic
    assert np.degrees(np.arccos(centre @ healpy.ang2vec(field.l.deg, field.b.deg, lonlat=True))) < 0.1
    assert radius < 2


@needs_real_sky
@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("nhi_hi4pi_n64", "cm^-2"),
        ("nhi_lab_n64", "cm^-2"),
        ("nhi_rings_n64", "cm^-2"),
        ("dust_353_iqu_n64", "uK_RJ"),
    ],
)
def test_every_real_map_has_its_unit_and_frame(name: str, unit: str) -> None:
    maps = read_healpix(REAL_SKY / f"{name}.fits")
    assert (maps.unit, maps.frame, maps.grid.nside) == (unit, "G", 64)
