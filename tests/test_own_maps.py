"""Five maps of one's own, of every kind, an apodized mask and a split: from files to scores, against healpy alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import healpy
import numpy as np
import pytest
from fixtures_cli import NETWORK, PATCHES, TRAINING, done, sphereml

from sphereml.config.compose import compose
from sphereml.data.healpix_fits import read_healpix
from sphereml.data.prepare import prepare_healpix
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import apodize, near
from sphereml.sky.ordering import nest_to_ring, ring_to_nest

LMAX, NSIDE = 128, 64
GRID = HealpixGrid(NSIDE)
TO_GALACTIC = {frame: healpy.Rotator(coord=[frame, "G"]) for frame in "CE"}
# file -> Nside, order, frame, unit, size of the values
KINDS = {
    "hi.fits": (64, "RING", "G", "K", 3.0),
    "dust.fits": (128, "NESTED", "C", "MJy/sr", 1e-2),
    "halpha.fits": (128, "RING", "G", "R", 40.0),
    "synchrotron.fits": (64, "NESTED", "C", "K", 2e-4),
    "target.fits": (128, "RING", "C", "MJy/sr", 5.0),
}
HOLES = ((40.0, 50.0), (200.0, -60.0))


def coefficients(seed: int) -> np.ndarray:
    """Galactic a_lm of a red, band-limited sky of unit deviation."""
    power = 1 / (np.arange(LMAX + 1) + 3.0) ** 2.2
    rng = np.random.default_rng(seed)
    size = healpy.Alm.getsize(LMAX)
    ell, order = healpy.Alm.getlm(LMAX)
    alm = (rng.standard_normal(size) + 1j * rng.standard_normal(size)) * np.sqrt(power[ell])
    alm[order == 0] = alm[order == 0].real
    return alm / np.sqrt(np.sum(np.abs(alm) ** 2 * np.where(order == 0, 1, 2)) / (4 * np.pi))


def skies() -> dict[str, np.ndarray]:
    """a_lm by file; the target is a signed mixture of the inputs and of something of its own."""
    found = {name: coefficients(number) for number, name in enumerate(KINDS)}
    inputs = [found[name] for name in KINDS if name != "target.fits"]
    found["target.fits"] = sum(w * a for w, a in zip((1.0, -0.6, 0.4, 0.3), inputs, strict=True)) + 0.5 * coefficients(
        9
    )
    return found


def as_seen(alm: np.ndarray, kind: tuple[int, str, str, str, float]) -> np.ndarray:
    """RING map of Galactic coefficients in the file's own Nside, frame and unit."""
    nside, _, frame, _, size = kind
    alm = alm if frame == "G" else healpy.Rotator(coord=["G", frame]).rotate_alm(alm.copy(), lmax=LMAX)
    return size * healpy.alm2map(alm, nside, lmax=LMAX)


def write(path: Path, ring: np.ndarray, kind: tuple[int, str, str, str, float]) -> None:
    nested = kind[1] == "NESTED"
    values = healpy.reorder(ring, r2n=True) if nested else ring
    healpy.write_map(path, values, nest=nested, coord=kind[2], column_units=kind[3], dtype=np.float64)


def holes(nside: int) -> np.ndarray:
    """RING pixels of the H-alpha map that have no data."""
    vectors = [healpy.ang2vec(lon, lat, lonlat=True) for lon, lat in HOLES]
    return np.concatenate([healpy.query_disc(nside, vector, np.radians(2.0)) for vector in vectors])


def parts() -> np.ndarray:
    """NEST at the maps' Nside: north trains, its west validates, south tests."""
    lon, lat = GRID.lonlat()
    return np.select([lat < -8, (lat > 8) & (lon > 300), lat > 8], [3, 2, 1], 0)


def mask_weights() -> np.ndarray:
    _, lat = GRID.lonlat()
    return apodize(np.abs(lat) > 15, GRID, 10)


def ring_file(path: Path, values: np.ndarray, coord: str = "G") -> None:
    healpy.write_map(path, nest_to_ring(values), coord=coord, dtype=np.float32)


def write_files(folder: Path) -> Path:
    for name, alm in skies().items():
        ring = as_seen(alm, KINDS[name])
        if name == "halpha.fits":
            ring[holes(128)] = healpy.UNSEEN
        write(folder / name, ring, KINDS[name])
    ring_file(folder / "mask.fits", mask_weights())
    ring_file(folder / "regions.fits", parts())
    return folder


WORDS = [*PATCHES, *TRAINING, *NETWORK, "bands.r50=[15,100]", "bands.r150=[100,128]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A working folder where the four commands were run, without a word about where anything stands."""
    place = write_files(tmp_path_factory.mktemp("own"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        inputs = [name for name in KINDS if name != "target.fits"]
        new = ["config", "new", "five", "--inputs", *inputs, "--target", "target.fits"]
        done(*new, "--mask", "mask.fits", "--split", "regions.fits")
        done("train", "experiment=five", *WORDS)
        done("compare", "runs/five")
        done("predict", "runs/five")
    return place


def test_the_experiment_says_what_it_found(place, monkeypatch):
    monkeypatch.chdir(place)
    text = (place / "configs" / "experiment" / "five.yaml").read_text()
    assert "nside: 64 # one grid, in harmonic space (Nside 64, 128; Galactic and equatorial maps; gaps)" in text
    assert "file: dust.fits # T: Nside 128, NESTED, equatorial, MJy/sr" in text
    assert re.search(r"halpha.fits # T: Nside 128, RING, Galactic, R, 0\.\d\d% without data", text)
    config = compose(["experiment=five"])
    assert (config.task, config.name, config.data.nside, config.split.file) == ("maps", "five", 64, "regions.fits")
    assert "exists" in sphereml("config", "new", "five", "--inputs", "hi.fits", "--target", "dust.fits").refusal


@pytest.fixture(scope="module")
def sky(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return prepare_healpix(compose(["experiment=five"]).data)


def healpy_map(file: Path, kind: tuple[int, str, str, str, float]) -> np.ndarray:
    """The map of a file on the common grid by healpy alone: NEST."""
    ring = healpy.read_map(file, dtype=float)
    if kind[:3] == (NSIDE, "RING", "G"):
        return ring_to_nest(ring)
    alm = healpy.map2alm(ring, lmax=LMAX, iter=3)
    if kind[2] != "G":
        alm = TO_GALACTIC[kind[2]].rotate_alm(alm, lmax=LMAX)
    return ring_to_nest(healpy.alm2map(alm, NSIDE, lmax=LMAX))


def test_the_prepared_maps_are_those_of_healpy(place, sky):
    assert [one.name for one in sky.input_fields] == ["hi T", "dust T", "halpha T", "synchrotron T"]
    assert [one.unit for one in sky.input_fields] == ["K", "MJy/sr", "R", "K"] and sky.target_fields[0].unit == "MJy/sr"
    columns = [*sky.inputs.T, sky.target]
    away = np.ones(GRID.npix, bool)
    for name, found in zip(KINDS, columns, strict=True):
        if name == "halpha.fits":
            # Nothing but the coefficients knows what is in the gaps.
            expected = KINDS[name][4] * ring_to_nest(healpy.alm2map(skies()[name], NSIDE, lmax=LMAX))
            away = ~near(sky.components["mask"] == 0, GRID, 3.0)
        else:
            expected, away = healpy_map(place / name, KINDS[name]), np.ones(GRID.npix, bool)
        error = np.abs(found - expected)[away].max() / expected.std()
        assert error < 1e-4, (name, error)


def near_disc(lon: float, lat: float, radius: float) -> np.ndarray:
    return GRID.vectors() @ healpy.ang2vec(lon, lat, lonlat=True) > np.cos(np.radians(radius))


def test_what_lacks_data_is_masked(sky):
    assert sky.components["mask"].min() == 0 and 0.99 < sky.components["mask"].mean() < 1
    for lon, lat in HOLES:
        assert (sky.components["mask"][near_disc(lon, lat, 2.0)] == 0).all()


def least_squares(maps: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The weighted linear model of the target, over the whole sky."""
    design = np.column_stack([maps / maps.std(axis=0), np.ones(len(maps))])
    root = np.sqrt(weight)
    return design @ np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0]


def test_the_linear_model_scores_as_healpy_does(place, sky):
    """From the files alone: harmonic space, least squares and r by healpy and numpy; without the gaps' corrections."""
    names = list(KINDS)
    alms = skies()
    maps = [KINDS[name][4] * ring_to_nest(healpy.alm2map(alms[name], NSIDE, lmax=LMAX)) for name in names]
    inputs, target = np.stack(maps[:-1], axis=1), maps[-1]
    weight = mask_weights() * sky.components["mask"]
    prediction = least_squares(inputs, target, np.where(np.isin(parts(), (1, 2)), weight, 0))
    test = np.where(parts() == 3, weight, 0)
    pair = [nest_to_ring(test * (values - np.average(values, weights=test))) for values in (target, prediction)]
    cross = healpy.anafast(*pair, lmax=LMAX, iter=3)
    one, other = (healpy.anafast(values, lmax=LMAX, iter=3) for values in pair)
    r = (cross / np.sqrt(one * other))[15:100].mean()
    found = json.loads((place / "runs" / "five" / "comparison.json").read_text())
    assert found["split"] == "regions"
    assert 0.85 < r < 0.95, "the target is not all in the inputs"
    assert found["models"]["linear"]["sphere"]["r50"] == pytest.approx(r, abs=1e-3)
    assert found["models"]["linear"]["wins_vs_integrated"] is None
    template = read_healpix(place / "runs" / "five" / "templates" / "linear.fits")
    assert template.unit == "MJy/sr"
    used = parts() == 3
    assert np.corrcoef(template.values[used, 0], prediction[used])[0, 1] > 0.9999


def test_a_common_beam_is_healpys(place, monkeypatch):
    monkeypatch.chdir(place)
    beams = ["data.beam_arcmin=180", "data.inputs=[{file: dust.fits, beam_arcmin: 60}]"]
    config = compose(["experiment=five", *beams, "data.target={file: hi.fits, beam_arcmin: 30}"])
    sky = prepare_healpix(config.data)
    for name, fwhm, found in (("dust.fits", 60, sky.inputs[:, 0]), ("hi.fits", 30, sky.target)):
        ring = healpy.read_map(name, dtype=float)
        alm = healpy.map2alm(ring, lmax=LMAX, iter=3)
        alm = alm if KINDS[name][2] == "G" else TO_GALACTIC["C"].rotate_alm(alm, lmax=LMAX)
        widths = (healpy.gauss_beam(np.radians(one / 60), LMAX) for one in (180, fwhm))
        alm = healpy.almxfl(alm, next(widths) / next(widths))
        expected = ring_to_nest(healpy.alm2map(alm, NSIDE, lmax=LMAX))
        assert np.abs(found - expected).max() < 1e-4 * expected.std()
    refused = sphereml("data", "prepare", "experiment=five", "data.beam_arcmin=180").refusal
    assert refused.startswith("sphereml: 5 faults: (1) the beam of hi.fits is not known")


# ----------------------------------------------------------------------------------------- polarization


def write_polarization(path: Path) -> np.ndarray:
    """Equatorial T, Q, U at Nside 32, and what they are in the Galactic frame by healpy, (3, npix) NEST at Nside 16."""
    size, rng = healpy.Alm.getsize(32), np.random.default_rng(4)
    ell, order = healpy.Alm.getlm(32)
    alm = (rng.standard_normal((3, size)) + 1j * rng.standard_normal((3, size))) / (ell + 2.0)
    alm[:, order == 0] = alm[:, order == 0].real
    alm[1:, ell < 2] = 0
    names = ["TEMPERATURE", "Q_POLARISATION", "U_POLARISATION"]
    maps = healpy.alm2map(alm, 32, lmax=32)
    healpy.write_map(path, maps, coord="C", column_names=names, column_units="K_CMB", dtype=np.float64)
    rotated = TO_GALACTIC["C"].rotate_alm(list(alm.copy()), lmax=32)
    return np.stack([ring_to_nest(one) for one in healpy.alm2map(np.array(rotated), 16, lmax=32)])


def test_polarization_is_one_field_and_turns_with_the_frame(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = write_polarization(tmp_path / "b.fits")
    scalars = [nest_to_ring(expected[0] ** power) for power in (2, 3)]
    healpy.write_map("a.fits", scalars, coord="G", column_units="K", column_names=["two", "three"], dtype=np.float64)
    done("config", "new", "pol", "--inputs", "a.fits", "b.fits[Q_POLARISATION]", "--target", "b.fits[TEMPERATURE]")
    text = Path("configs/experiment/pol.yaml").read_text()
    assert "Q_POLARISATION, U_POLARISATION" in text
    sky = prepare_healpix(compose(["experiment=pol", "data.nside=16"]).data)
    assert [(one.name, one.spin, one.unit) for one in sky.input_fields][-1] == ("P", 2, "K_CMB")
    for found, right in zip([*sky.inputs[:, 2:].T, sky.target], [*expected[1:], expected[0]], strict=True):
        assert np.abs(found - right).max() < 1e-4 * right.std()
    lone = sphereml("config", "new", "u", "--inputs", "b.fits[#2]", "x.fits", "--target", "a.fits[#0]").refusal
    assert "2 faults" in lone and "asked for without its Q" in lone and "x.fits" in lone


GRID16 = HealpixGrid(16)


def test_what_looks_wrong_is_said_and_what_is_wrong_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    smooth = [healpy.smoothing(row, fwhm=np.radians(15)) for row in rng.standard_normal((2, GRID16.npix))]
    options = {"coord": "G", "column_units": "K", "dtype": np.float64}
    inputs = [smooth[0], 0 * smooth[0] + 3, -2 * smooth[1] + 1]
    healpy.write_map("inputs.fits", inputs, column_names=["good", "flat", "copy"], **options)
    healpy.write_map("target.fits", smooth[1], **options)
    done("config", "new", "odd", "--inputs", "inputs.fits", "--target", "target.fits")
    words = ["experiment=odd", "model=linear", "bands.r50=[4,32]", *PATCHES]
    said = done("train", *words).out
    assert said.count("warning:") == 2
    assert "warning: the input flat is constant over the pixels that are learnt from" in said
    assert "warning: the input copy is proportional to the target T (r = -1.000)" in said
    refused = sphereml("train", *words, "data.inputs=[{file: inputs.fits}, {file: target.fits}]").refusal
    assert "the target target.fits is among the inputs" in refused
