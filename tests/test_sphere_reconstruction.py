"""Kappa from maps: the whole and the masked sky, mean fields that are kept, products on disk, wrong input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import healpy
import numpy as np
import pytest
from astropy.io import fits
from fixtures_lensing import toy_spectra

import sphereml as sm
from sphereml.cli.main import main
from sphereml.data.field_maps import read_field
from sphereml.errors import UserError
from sphereml.harmonics.filters import gaussian_beam, multiply
from sphereml.harmonics.pixel_window import pixel_window
from sphereml.harmonics.rings import alm_index, resize_alm
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.lensing import mean_field
from sphereml.lensing.full_sky import EstimateSettings, ObservedMaps, estimate_kappa, wiener_kappa
from sphereml.lensing.mean_field import Simulations, smooth_ratio
from sphereml.lensing.noise import NoiseModel
from sphereml.lensing.observation import Observation
from sphereml.lensing.reconstruction import SphereReconstruction, noise_map
from sphereml.lensing.sphere_estimator import SphereEstimator
from sphereml.lensing.sphere_passes import SpherePasses
from sphereml.simulate import cmb_spectra
from sphereml.simulate.cmb_spectra import CmbSpectra, load_spectra
from sphereml.simulate.fields import draw_alm
from sphereml.simulate.lensed_sky import draw_sky, lensed_alm
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import apodize, latitude_cut

NSIDE, LMAX, BEAM, ARCMIN = 64, 120, 60.0, np.pi / 10800
SETTINGS = EstimateSettings(noise=3.0, beam=BEAM, lmax=LMAX, lmin=10)


def observed(spectra: CmbSpectra, nside: int, lmax: int, noise: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Q and U ``(2, npix)`` NEST of a Gaussian sky, and its beam-free a_lm."""
    rng = np.random.default_rng(seed)
    alm = np.stack([draw_alm(power[: lmax + 1], rng) for power in (spectra.ee_lensed, spectra.bb_lensed)])
    maps = synthesis(multiply(alm.copy(), gaussian_beam(lmax, BEAM)), nside, lmax, spin=2)
    return maps + noise * ARCMIN / np.sqrt(HealpixGrid(nside).pixel_area) * rng.standard_normal(maps.shape), alm


def test_a_whole_sky_is_the_estimator_of_its_analysis_and_the_filter_agrees():
    spectra = toy_spectra()
    maps, alm = observed(spectra, NSIDE, LMAX, 0.0)
    made = estimate_kappa(ObservedMaps(maps), SETTINGS, spectra)
    model = NoiseModel(spectra, Observation(3.0, BEAM, 10, LMAX), LMAX)
    wanted = SphereEstimator(model).minimum_variance(*alm)
    np.testing.assert_allclose(made.kappa, wanted, atol=1e-3 * np.abs(wanted).max())
    np.testing.assert_array_equal(made.n0, model.minimum_variance())
    assert made.mean_field is None and set(made.response) == {0.0, 1.0}
    everywhere = ObservedMaps(maps, np.ones(maps.shape[1]))
    filtered = estimate_kappa(
        everywhere, EstimateSettings(noise=3.0, beam=BEAM, lmax=LMAX, lmin=10, tolerance=1e-8), spectra
    )
    np.testing.assert_allclose(filtered.kappa, wanted, atol=1e-3 * np.abs(wanted).max())
    assert filtered.facts["steps"] > 0


def test_the_middle_of_a_masked_sky_is_that_of_the_whole_sky():
    spectra, grid = toy_spectra(), HealpixGrid(NSIDE)
    maps = observed(spectra, NSIDE, LMAX, 3.0)[0]
    mask = latitude_cut(grid, -35, 35).astype(float)
    whole, masked = (estimate_kappa(ObservedMaps(maps, weights), SETTINGS, spectra) for weights in (None, mask))
    window, band = apodize(latitude_cut(grid, -25, 25), grid, 10), np.arange(20, 100)
    both = [analysis(window * synthesis(one.kappa, NSIDE, LMAX), LMAX, iterations=0) for one in (whole, masked)]
    cross, auto, own = (cross_spectrum(a, b, LMAX)[band].sum() for a, b in (both, both[:1] * 2, both[1:] * 2))
    assert cross / auto == pytest.approx(1, abs=0.03)
    assert cross / np.sqrt(auto * own) > 0.98


def test_a_depth_weighs_and_a_mask_takes_away():
    weights, depth = np.array([0, 0.25, 1, 1.0]), np.array([1, 2, np.nan, 0])
    np.testing.assert_array_equal(noise_map(3.0, 4, weights, None), [np.inf, 6, 3, 3])
    np.testing.assert_array_equal(noise_map(3.0, 4, weights, depth), [np.inf, 4, np.inf, np.inf])
    assert noise_map(3.0, 4, None, None) is None
    with pytest.raises(UserError, match="nothing is seen"):
        noise_map(3.0, 4, np.zeros(4), None)
    chosen = EstimateSettings(beam=BEAM, lmin=4, lmax=20).reconstruction(
        12 * 16**2, None, np.full(12 * 16**2, 7.0), toy_spectra()
    )
    assert chosen.observation.noise == pytest.approx(7) and not chosen.analysed


def test_the_pixels_window_is_part_of_the_beam():
    settings = EstimateSettings(noise=3.0, beam=BEAM, lmax=LMAX, pixel_window=True)
    chosen = settings.reconstruction(12 * NSIDE**2, None, None, toy_spectra())
    window = pixel_window(NSIDE, LMAX)
    np.testing.assert_allclose(chosen.transfer, gaussian_beam(LMAX, BEAM) * window)
    np.testing.assert_allclose(
        chosen.observation.noise_spectrum() * window**2, Observation(3.0, BEAM, 30, LMAX).noise_spectrum()
    )


def masked_reconstruction(spectra: CmbSpectra, nside: int = 32, lmax: int = 60) -> SphereReconstruction:
    mask = latitude_cut(HealpixGrid(nside), -40, 40).astype(float)
    settings = EstimateSettings(noise=1.0, beam=BEAM, lmax=lmax, lmin=4, tolerance=1e-3)
    return settings.reconstruction(mask.size, mask, None, spectra)


def test_simulations_are_kept_and_added_to(tmp_path, monkeypatch):
    monkeypatch.setattr(mean_field, "_SKY_MARGIN", 40)
    chosen, lines = masked_reconstruction(toy_spectra(strength=3e3)), []
    simulations = Simulations(chosen, folder=tmp_path)
    first = simulations.measure(2, lines.append)
    assert len(lines) == 2 and "simulation 2 of 2, about 0 s left" in lines[1]
    made = sorted(simulations.place.iterdir())
    made[1].write_bytes(b"damaged")
    again = Simulations(chosen, folder=tmp_path).measure(2, lines.append)
    assert len(lines) == 3, "only the damaged one is made anew"
    np.testing.assert_array_equal(again.alm, first.alm)
    assert Simulations(chosen, 2, tmp_path).place != simulations.place
    assert Simulations(masked_reconstruction(toy_spectra()), folder=tmp_path).place != simulations.place
    monkeypatch.setattr(Simulations, "simulate", lambda *_: pytest.fail("nothing is to be simulated"))
    np.testing.assert_array_equal(simulations.measure(2).response, first.response)
    with pytest.raises(UserError, match="a mean field of 1 simulations"):
        simulations.measure(1)


def test_a_ratio_of_spectra_is_smooth():
    power = np.linspace(2, 1, 301)
    found = smooth_ratio(0.9 * power, power)
    assert found[:2].tolist() == [0, 0] and found[2:] == pytest.approx(0.9)


@pytest.fixture
def files(tmp_path: Path, monkeypatch) -> Path:
    """Q and U of a small equatorial sky, a mask and a depth; spectra of a formula."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPHEREML_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(mean_field, "_SKY_MARGIN", 40)
    monkeypatch.setattr(cmb_spectra, "load_spectra", lambda *_, **__: toy_spectra(strength=3e3))
    maps = observed(toy_spectra(), 32, 60, 3.0)[0]
    mask = latitude_cut(HealpixGrid(32), -40, 40).astype(float)
    sm.write_map("qu.fits", sm.SkyMap(maps.T, sm.Field("P", "uK_CMB", spin=2), "nest", "C"))
    sm.write_map("mask.fits", sm.SkyMap(mask, sm.Field("MASK", "1"), "nest", "C"))
    sm.write_map("depth.fits", sm.SkyMap(3 + mask, sm.Field("DEPTH", "1"), "nest", "C"))
    return tmp_path


SHORT = ["lensing", "estimate", "--qu", "qu.fits", "--noise", "3", "--beam", "60", "--lmax", "60", "--lmin", "4"]


def test_the_verbs_write_products_that_others_read(files: Path, capsys):
    assert main([*SHORT, "--out", "k.fits", "--e-out", "e.fits", "--lmax-kappa", "50", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["L"] == list(range(2, 51)) and len(result["N0"]) == len(result["response"]) == 49
    with fits.open("k.fits") as file:
        assert [unit.name for unit in file[1:]] == ["TEMPLATE", "CURVES", "FILTERS"]
        assert file[1].header["COORDSYS"] == "C" and file[1].header["ORDERING"] == "RING"
        np.testing.assert_allclose(file["CURVES"].data["N0"][2:], np.array(result["N0"], float))
    kappa, e = healpy.read_map("k.fits"), healpy.read_map("e.fits")
    ours = sm.lensing.estimate(
        sm.SkyMap(read_field("qu.fits", 2).values[0].T, sm.Field("P", "uK_CMB", spin=2), "nest", "C"),
        noise=3, beam=60, lmax=60, lmin=4, lmax_kappa=50,
    )  # fmt: skip
    np.testing.assert_allclose(ours.to_healpy(), kappa, atol=1e-5 * np.abs(kappa).max())
    np.testing.assert_allclose(ours.wiener_e().to_healpy(), e, atol=1e-5 * np.abs(e).max())
    assert main(["lensing", "template", "--kappa", "k.fits", "--e", "e.fits", "--lmax", "60", "--out", "b.fits"]) == 0
    assert "Wiener-filtered" in capsys.readouterr().out
    template = sm.lensing.template(ours, ours.wiener_e(), lmax=60)
    q, u = healpy.read_map("b.fits", field=(0, 1))
    np.testing.assert_allclose(template.to_healpy(), [q, u], atol=1e-3 * np.abs(q).max())
    assert fits.getheader("b.fits", 1)["POLCCONV"] == "COSMO"
    assert template.frame == fits.getheader("b.fits", 1)["COORDSYS"] == "C"
    words = ["--kappa", "k.fits", "--e", "qu.fits", "--order", "all", "--filtered", "--lmax", "60", "--out", "all.fits"]
    assert main(["lensing", "template", *words]) == 0


def test_a_masked_sky_with_depth_mean_field_and_gaps(files: Path, capsys):
    words = ["--mask", "mask.fits", "--depth", "depth.fits", "--mean-field", "2", "--estimator", "EB"]
    assert main([*SHORT, *words, "--tolerance", "1e-3", "--out", "k.fits"]) == 0
    said = capsys.readouterr().out
    assert "mean field: simulation 2 of 2" in said and "in transforms; residual" in said
    with fits.open("k.fits") as file:
        assert file["MEANFIELD"].header["COORDSYS"] == "C" and file[1].header["NSIMS"] == 2
        assert np.isfinite(file["CURVES"].data["RESPONSE"]).all()
    assert main([*SHORT, *words, "--tolerance", "1e-3", "--out", "k.fits", "--overwrite"]) == 0
    assert "mean field: simulation" not in capsys.readouterr().out
    holed = healpy.read_map("qu.fits", field=(0, 1))
    holed[:, 100:200] = healpy.UNSEEN
    healpy.write_map("holed.fits", holed, coord="C", column_names=["Q", "U"], column_units="uK_CMB", dtype=np.float32)
    assert main([*SHORT, "--qu", "holed.fits", "--tolerance", "1e-3", "--out", "h.fits", "--json"]) == 0
    answer = capsys.readouterr()
    assert "100 pixels are missing" in answer.err and json.loads(answer.out)["filter"]["steps"] > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--lmax", "97"], "lmax 97 is above what Nside 32 holds"),
        (["--mask", "small.fits"], "Nside 16"),
        (["--mask", "galactic.fits"], "the mask is in the frame G, the map in C"),
        (["--lmax-kappa", "500"], "L 500 is out of the reach"),
        (["--noise", "-1"], "noise -1 is impossible"),
        (["--noise", "0", "--mask", "mask.fits"], "without noise nothing can be inverted"),
        (["--tolerance", "0", "--mask", "mask.fits"], "a tolerance of 0"),
        (["--mean-field", "1"], "--mean-field 1"),
        (["--run", "runs/x"], "runs/x"),
        (["--depth", "qu.fits"], "holds 2 columns"),
        (["--e-out", "k.fits"], "are one file"),
        (["--qu", "absent.fits"], "absent.fits"),
    ],
)
def test_what_cannot_be_estimated_is_refused_in_one_line(files: Path, capsys, words: list[str], says: str):
    sm.write_map("small.fits", sm.SkyMap(np.ones(12 * 16**2), sm.Field("MASK", "1"), "nest", "C"))
    sm.write_map("galactic.fits", sm.SkyMap(np.ones(12 * 32**2), sm.Field("MASK", "1"), "nest", "G"))
    assert main([*SHORT, "--out", "k.fits", *words]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1
    assert not Path("k.fits").exists()


def test_products_are_there_all_or_none(files: Path, capsys):
    Path("e.fits").write_text("mine")
    assert main([*SHORT, "--out", "k.fits", "--e-out", "e.fits"]) == 2
    assert "e.fits exists" in capsys.readouterr().err
    Path("file").write_text("")
    assert main([*SHORT, "--out", "file/k.fits", "--e-out", "new.fits"]) == 2
    assert not Path("k.fits").exists() and not Path("new.fits").exists()
    with pytest.raises(UserError, match="does not carry the order"):
        sm.lensing.estimate(np.zeros((2, 12 * 32**2)))
    with pytest.raises(UserError, match="the map of Q and U has 1 columns"):
        sm.lensing.estimate(np.zeros(12 * 32**2), order="ring")


@pytest.mark.slow
def test_the_inside_of_a_masked_sky_answers_as_the_whole_sky_within_three_per_cent():
    """Issue 16: fsky .4, 1 uK-arcmin, Nside 512, lmax 1500; 4 minutes on two idle cores."""
    nside, lmax, top, spectra = 512, 1500, 1000, load_spectra()
    grid, rng = HealpixGrid(nside), np.random.default_rng(5)
    sky = draw_sky(spectra, lmax + 300, (11, 0))
    lensed = multiply(lensed_alm(sky, lmax).astype(complex), gaussian_beam(lmax, 1.0))
    maps = synthesis(lensed, nside, lmax, spin=2)
    maps += ARCMIN / np.sqrt(grid.pixel_area) * rng.standard_normal(maps.shape)
    mask = (np.abs(grid.vectors()[:, 2]) < 0.4).astype(float)
    settings = EstimateSettings(noise=1, beam=1, lmax=lmax, lmax_kappa=top)
    estimates = [estimate_kappa(ObservedMaps(maps, weights), settings, spectra).kappa for weights in (None, mask)]
    window = apodize(mask, grid, 5.0)
    all_of_them = np.stack([*estimates, resize_alm(sky.kappa, top)])
    whole, masked, truth = analysis(window * synthesis(all_of_them, nside, top), top, iterations=0)
    ell = np.arange(top + 1)
    cross = [(2 * ell + 1) * cross_spectrum(one, truth, top) for one in (whole, masked, truth)]
    for low, high in ((30, 100), (100, 200), (200, 400), (400, 700), (700, 1001)):
        whole_power, masked_power, power = (one[low:high].sum() for one in cross)
        assert masked_power / whole_power == pytest.approx(1, abs=0.03), (low, high)
        assert whole_power / power == pytest.approx(1, abs=0.05), (low, high)
    assert alm_index(top)[0].max() == top


def test_passes_of_a_whole_sky_are_those_of_a_mask_of_ones():
    """B without the template on a_lm, against maps without it that are filtered anew."""
    spectra = toy_spectra()
    maps, _ = observed(spectra, NSIDE, LMAX, 3.0)
    settings = replace(SETTINGS, passes=2, tolerance=1e-7)
    whole, filtered = (
        estimate_kappa(ObservedMaps(maps, weights), settings, spectra).kappa
        for weights in (None, np.ones(maps.shape[1]))
    )
    assert np.std(whole - filtered) < 0.005 * np.std(filtered)


def test_passes_give_the_most_likely_kappa_and_say_so():
    """The curves beside it leave it as it is when a template filters it; the first pass is the Wiener-filtered MV."""
    spectra = toy_spectra()
    maps, _ = observed(spectra, NSIDE, LMAX, 3.0)
    made = estimate_kappa(ObservedMaps(maps), replace(SETTINGS, passes=2), spectra)
    assert (made.response[10:] > 0).all() and (made.response < 1).all()
    kept = wiener_kappa(made.kappa, made.power, made.n0, made.response)
    np.testing.assert_allclose(kept, made.kappa, atol=1e-9 * np.abs(made.kappa).max())
    first = SETTINGS.reconstruction(maps.shape[1], None, None, spectra)
    (_, kappa), _ = SpherePasses(first, 1)(maps)
    single = estimate_kappa(ObservedMaps(maps), SETTINGS, spectra)
    np.testing.assert_allclose(kappa, wiener_kappa(single.kappa, single.power, single.n0, single.response), rtol=1e-9)
    with pytest.raises(UserError, match="mean field of several passes"):
        estimate_kappa(ObservedMaps(maps), replace(SETTINGS, passes=2, mean_field=2), spectra)
    with pytest.raises(UserError, match="passes after the estimator EB"):
        estimate_kappa(ObservedMaps(maps), replace(SETTINGS, passes=2, estimator="EB"), spectra)
