"""Cross-fitted templates: no pixel knows its own target; regions join smoothly; errors hold what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import healpy
import numpy as np
import pytest
from astropy.io import fits
from conftest import synthetic_sky
from fixtures_cli import DEMO_MODELS, GALAXY, demo_place, done, sphereml

from sphereml.config.compose import compose
from sphereml.config.schema import CrossFitConfig
from sphereml.data.splits import lune
from sphereml.data.store import Sky
from sphereml.errors import UserError
from sphereml.evaluation.protocol import load_result
from sphereml.filaments.derivatives import second_derivatives
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import disc, near
from sphereml.templates.cross_fit import CrossFit, join_weights
from sphereml.templates.cross_fitted import CrossFitted, cross_fitted, predict_folds
from sphereml.templates.error_fields import draw_field, measure_errors
from sphereml.templates.error_model import ErrorModel, coverage

SHORT = ["training.epochs=1", "training.steps_per_epoch=2", "training.validation_batches=1", "training.batch_size=2"]
FOLDS = CrossFitConfig(folds=3, join=6.0)


def plan_of(model: str, sky: Sky, folder: Path, settings: CrossFitConfig = FOLDS, *words: str) -> CrossFit:
    config = compose([f"model={model}", "training.tile_nside=2", *SHORT, *words])
    return CrossFit(config, folder, settings, lambda line: None, sky)


def made(plan: CrossFit) -> CrossFitted:
    return cross_fitted(plan, plan.train())


@pytest.mark.parametrize(("model", "faintest"), [("linear", "null"), ("unet_sphere", "0.71"), ("unet_spin", "null")])
def test_no_pixel_knows_its_own_target(tmp_path, model, faintest):
    """The target is changed in a region, or around a place on the join: the template there is the same to the last bit.

    So it is where the target chooses the sky that is kept.  The errors are, too, where it does not.
    """
    sky, words = synthetic_sky(16), [f"split.sky_fraction={faintest}"]
    if model != "linear":
        words += ["model.depth=0", "model.convs_per_level=1", "model.width=4"]
    if model == "unet_spin":  # Q and U behind the intensity, which chooses the sky that is kept
        stokes = second_derivatives(sky.inputs, [7.0]).sum(axis=1).astype(np.float32)
        fields = (*sky.target_fields, Field("P", "uK_RJ", spin=2))
        sky = replace(sky, targets=np.concatenate([sky.targets, stokes], axis=1), target_fields=fields)
        words += ["task=dust_polarization", "model.gain_limit=1"]
    settings = replace(FOLDS, join=12.0, buffer=35.0)
    plan = plan_of(model, sky, tmp_path / "plain", settings, *words)
    before = made(plan)
    inside = plan.weights[0] == 1
    place = disc(sky.grid, 120.0, 20.0, (plan.buffer - 12) / 2)
    assert ((plan.weights > 0).sum(axis=0)[place] > 1).any()
    for name, changed in [("inside", inside), ("place", place)][: 2 if model == "linear" else 1]:
        targets = np.where(changed[:, None], 3 * sky.targets[::-1], sky.targets)
        after = made(plan_of(model, replace(sky, targets=targets), tmp_path / name, settings, *words))
        np.testing.assert_array_equal(after.maps.values[changed], before.maps.values[changed])
        assert np.abs(after.maps.values - before.maps.values)[~changed].max() > 0
        if changed is inside and faintest == "null":
            np.testing.assert_array_equal(after.sigma[changed], before.sigma[changed])


def test_polarization_is_joined_in_its_frame(tmp_path, sky16):
    """Q and U of folds add up with weights alone and share one sigma; r is that of E and of B, of which none is."""
    amplitudes = second_derivatives(sky16.inputs, [7.0])
    targets = (amplitudes * np.array([3.0, 1.0, 2.0, 0.5])[:, None]).sum(axis=1).astype(np.float32)
    noise = np.random.default_rng(3).normal(0, 0.1 * targets.std(), targets.shape)
    sky = replace(sky16, targets=(targets + noise).astype(np.float32), target_fields=(Field("P", "uK_RJ", spin=2),))
    words = ["task=dust_polarization", "dust_polarization.derivatives=7", "split.sky_fraction=null"]
    result = made(plan_of("linear", sky, tmp_path, FOLDS, *words))
    assert result.maps.column_names == ("Q", "U") and result.sigma.shape == (sky.grid.npix, 1)
    assert np.std(result.maps.values - targets) < 0.2 * targets.std()
    assert coverage(noise, result.sigma[:, 0], result.kept > 0)["within_1_sigma"] == pytest.approx(0.68, abs=0.06)
    (path,) = result.write(tmp_path / "qu.fits")
    with fits.open(path) as file:
        assert file[1].header["POLCCONV"] == "COSMO" and file["SIGMA"].columns.names == ["SIGMA_P"]
        assert file["R_BAND"].data["R_E"][0] > 0.9 and (np.abs(file["R_BAND"].data["R_B"]) < 0.2).all()


def test_training_pixels_keep_their_distance(tmp_path, sky16):
    plan = plan_of("linear", sky16, tmp_path, CrossFitConfig(folds=4, join=8.0))
    assert plan.receptive_field == 0 and plan.buffer == 16
    np.testing.assert_allclose(plan.weights.sum(axis=0), 1, rtol=1e-12)
    for fold, weight in enumerate(plan.weights):
        learning = plan.tasks[fold][0].learning_pixels
        assert not (near(weight > 0, sky16.grid, 4.0) & learning).any()
        assert not (plan.held_out(fold) & (learning | (weight > 0))).any() and plan.held_out(fold).any()


def test_without_a_join_regions_stand_side_by_side():
    grid = HealpixGrid(8)
    weights = join_weights(grid, 5, 0.0)
    assert np.isin(weights, (0, 1)).all()
    np.testing.assert_array_equal(weights[2] == 1, lune(grid, 2, 5))


def test_an_ensemble_is_part_of_the_errors(tmp_path, sky16):
    words = ["model.depth=0", "model.convs_per_level=1", "model.width=4", "split.sky_fraction=null"]
    plan = plan_of("unet_sphere", sky16, tmp_path, replace(FOLDS, seeds=2), *words)
    runs = plan.train()
    assert [len({run.folder for run in fold}) for fold in runs] == [2, 2, 2]
    scatter = sum(w[:, None] * fold.scatter for w, fold in zip(plan.weights, predict_folds(plan, runs), strict=True))
    result = cross_fitted(plan, runs)
    assert scatter.mean() > 0 and (result.sigma**2 >= scatter * (1 - 1e-9)).all()
    assert result.maps.header["seeds"] == 2 and "fold2_1" in result.maps.header
    assert len(plan_of("linear", sky16, tmp_path, replace(FOLDS, seeds=2)).tasks[0]) == 1


def test_what_sees_too_much_is_refused(tmp_path, sky16):
    with pytest.raises(UserError, match=r"unet_sphere sees \d+ degrees .* lower model.depth"):
        _ = plan_of("unet_sphere", sky16, tmp_path).buffer
    with pytest.raises(UserError, match=r"a buffer of 3 degrees is less than .* join \(6\): give 6.0 or more"):
        _ = plan_of("linear", sky16, tmp_path, replace(FOLDS, buffer=3.0)).buffer
    with pytest.raises(UserError, match="lensing has no full sky"):
        _ = CrossFit(compose(["experiment=lensing_quick"]), tmp_path, FOLDS).task


def test_an_impulse_ends_at_the_receptive_field(tmp_path):
    """The stated receptive field holds what a network really sees, at a pixel of a pole and at a corner of faces."""
    import torch

    sky = synthetic_sky(16)
    plan = plan_of("unet_sphere_plain", sky, tmp_path, FOLDS, "model.depth=1", "model.convs_per_level=1")
    network = plan.task.network(plan.task.fit_scaling(), 16).eval()
    domain, vectors = plan.task.domain(16), sky.grid.vectors()
    for pixel in (0, 255, 1000):
        features = torch.randn(1, sky.grid.npix, 4, requires_grad=True)
        network(features, domain)[0, pixel, 0].backward()
        seen = features.grad[0].abs().sum(dim=-1).numpy() > 0
        assert 5 < np.degrees(np.arccos(np.clip(vectors[seen] @ vectors[pixel], -1, 1))).max() < plan.receptive_field


def test_errors_add_what_an_ensemble_misses():
    rng = np.random.default_rng(0)
    values = rng.exponential(10, (20_000, 1)) + 1
    truth, scatter = values + 0.2 * values * rng.standard_normal(values.shape), np.full_like(values, 0.01)
    model = ErrorModel.fit(values, scatter, truth, np.ones(len(values)))
    sigma, usual = np.sqrt(model.variance(values, scatter)), (values[:, 0] > 3) & (values[:, 0] < 60)
    np.testing.assert_allclose(sigma[usual], 0.2 * values[usual, 0], rtol=0.2)
    found = coverage(truth - values, sigma, np.ones(len(values), bool))
    assert found["within_1_sigma"] == pytest.approx(0.6827, abs=0.02)
    assert found["within_2_sigma"] == pytest.approx(0.9545, abs=0.02)


@pytest.mark.parametrize("spin", [0, 2])
def test_drawn_errors_have_the_spectrum_of_the_residuals(spin):
    """A red field seen on half of the sky: draws have unit variance and its large scales."""
    field, rng = Field("P" if spin else "I", "uK", spin=spin), np.random.default_rng(1)
    ell = np.arange(65)
    spectra = np.where(ell < 2, 0, 1 / (ell + 5.0) ** 2)[None].repeat(1 + spin // 2, axis=0)
    spectra /= ((2 * ell + 1) * spectra[0]).sum() / (4 * np.pi)
    _, lat = HealpixGrid(32).lonlat()
    masks = [latitude > 0 for latitude in (lat, -lat)]
    truth = [draw_field(spectra, 32, rng) for _ in masks]
    found = measure_errors(truth, [mask.astype(float) for mask in masks], field)
    assert found.shape == spectra.shape
    assert np.std(draw_field(found, 32, rng)) == pytest.approx(1, abs=0.15)
    assert (found[:, 2:20].mean(axis=1) > 3 * found[:, 60]).all()


def test_the_command_line_trains_writes_and_goes_on(tmp_path_factory, tmp_path):
    place = demo_place(tmp_path_factory)
    run = next(place.study.glob("linear-*"))
    words = ["predict", run, "--cross-fit", "--folds", "3", "--join", "8", "--realizations", "2", "--out", tmp_path]
    done(*words)
    path = tmp_path / "linear_cross_fitted.fits"
    with fits.open(path) as file:
        header, names = file[1].header, [one.name for one in file]
        assert {"FITTED": "cross-fitted", "FOLDS": 3, "BUFFER": 16.0, "JOIN": 8.0, "SEEDS": 1}.items() <= {
            **header
        }.items()
        assert names == ["PRIMARY", "TEMPLATE", "SIGMA", "R_BAND"] and header["FOLD0_0"].startswith("linear-")
        band = file["R_BAND"].data
        assert (band["R_I_LOW"] <= band["R_I"]).all() and (band["R_I"] <= band["R_I_HIGH"]).all()
    template, sigma = healpy.read_map(path), healpy.read_map(path, hdu=2)
    assert np.isfinite(template).all() and (sigma > 0).all()
    realizations = healpy.read_map(tmp_path / "linear_cross_fitted_realizations.fits", field=None)
    assert len(realizations) == 2 and 0.3 < np.std((realizations[0] - template) / sigma) < 3
    assert "exists" in sphereml(*words).refusal
    assert "without --cross-fit" in sphereml("predict", run, "--folds", "4").refusal
    template_file = path.rename(tmp_path / "aside.fits")
    refused = sphereml(*words)  # by the realizations that still stand, before any network is looked at
    assert "_realizations.fits exists" in refused.refusal and "already trained" not in refused.out
    template_file.rename(path)
    again = done(*words, "--overwrite")
    assert again.out.count("already trained") == 3
    assert len(list((place.study / "cross_fit").glob("linear-*/manifest.json"))) == 3


def test_an_ordinary_template_says_where_it_saw_its_target(tmp_path_factory, tmp_path):
    place = demo_place(tmp_path_factory)
    done("predict", place.study, "--out", tmp_path)
    for model in DEMO_MODELS:
        header = fits.getheader(tmp_path / f"{model}.fits", 1)
        assert header["FITTED"] == "in-sample" and 0 < header["TRAINED"] < 0.5 < header["TRAINED"] + 0.5
        assert (header["CHOSEN"] > 0) == (DEMO_MODELS[model] != "none") and header["HELDOUT"] > 0
    done("predict", place.study, *GALAXY, "data.galaxy.seed=5", "--out", tmp_path / "other")
    assert fits.getheader(tmp_path / "other" / "linear.fits", 1)["FITTED"] == "other sky"


def test_the_study_finds_a_cmb_where_it_was_learnt(tmp_path, monkeypatch):
    """A linear model of eight channels takes some of the CMB's lowest modes from its target, and cross-fitted none."""
    power = 6e3 / (np.arange(65) + 1.0) ** 2  # about the Sachs-Wolfe plateau, where CAMB would take seconds
    monkeypatch.setattr("sphereml.evaluation.cross_fit.leak.cmb_spectrum", lambda lmax, component: power[: lmax + 1])
    words = ["models=[linear]", "evaluation.cross_fit.folds=3", "evaluation.cross_fit.cmb_strengths=[0.3]"]
    done("study", "cross_fit", *words, f"output={tmp_path}", f"data.stores={tmp_path / 'stores'}")
    folder = tmp_path / "cross_fit_quick"
    result = load_result(folder)
    rows = {(row["kind"], row["lo"]): row for row in result.rows()}
    assert rows["in_sample", 2]["transfer"] > 2 * rows["in_sample", 2]["error"]
    assert all(abs(rows["cross_fitted", lo]["sigmas"]) < 4 for lo in (15, 30))
    covered = {row["sky"]: row for row in result.coverage_rows()}
    assert set(covered) == {"own sky", "another Galaxy", "twice the noise"}
    assert 0.55 < covered["own sky"]["within_1_sigma"] < 0.8
    assert (folder / "report.html").is_file() and (folder / "figures" / "transfer.png").is_file()
    assert len(list(folder.glob("cmb_leak/*/linear-*/manifest.json"))) == 2 * (1 + 3)
