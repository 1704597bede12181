"""Dust polarization from HI: fields that turn with their frames, a baseline that stays, scores against healpy."""

from __future__ import annotations

import json
from dataclasses import replace

import healpy
import numpy as np
import pytest
import torch
from conftest import hemispheres, smooth_maps, synthetic_sky
from fixtures_cli import TINY, Place, done, sphereml

from sphereml.config.compose import compose
from sphereml.config.schema import EvaluationConfig, ExperimentConfig, GalaxyConfig, LossConfig
from sphereml.data.splits import build_split
from sphereml.data.store import Sky, open_store, write_store
from sphereml.domains import FlatPatch, HealpixSky
from sphereml.domains.channels import Channels
from sphereml.evaluation.maps.patches import draw_test_patches
from sphereml.evaluation.maps.polarization import PolarizedRegion, score_polarized_patches
from sphereml.filaments.tensor import TensorSettings, tensor_stokes
from sphereml.harmonics.bands import Bands
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.sampling import PatchZone, sample_patches
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.maps import SkyMap
from sphereml.sky.ordering import nest_to_ring
from sphereml.sky.stokes import directions, tangent_basis
from sphereml.sky.tangent import LocalFrames
from sphereml.sources.batch import Batch
from sphereml.sources.footprints import TileFootprint
from sphereml.sources.sky import galaxy_sky
from sphereml.sources.sky_source import SkyColumns, SkySource
from sphereml.surface import write_map
from sphereml.tasks.dust_polarization import DustPolarizationTask, polarized
from sphereml.tasks.losses import CorrelationLoss
from sphereml.templates.error_model import coverage
from sphereml.testing import assert_frame_free

NSIDE = 16
GRID = HealpixGrid(NSIDE)
WORDS = [*TINY, "patches.size=16", "bands.r50=[14.4,30]", "data.galaxy.nside=16"]


def across(vector: np.ndarray, out: np.ndarray, south: np.ndarray, east: np.ndarray) -> np.ndarray:
    """Q, U ``(..., 2)`` of a field along a fixed direction in space, in any frames: it is defined without them."""
    z = (south @ vector + 1j * (east @ vector)) ** 2
    return np.stack([z.real, z.imag], axis=-1) * (2 + out[..., :1])


def polarized_sky(seed: int = 3) -> Sky:
    """Gas whose Q and U are those of its structure tensor, half as much of other ridges, and an intensity."""
    sky = synthetic_sky(NSIDE, seed=seed)
    stokes = tensor_stokes(sky.inputs, TensorSettings(neighbourhood=4.0))
    other = tensor_stokes(np.exp(smooth_maps(NSIDE, 1, seed + 1)) * sky.inputs[:, :1], TensorSettings())
    targets = np.concatenate([sky.targets, stokes + 0.5 * other], axis=1, dtype=np.float32)
    return replace(sky, targets=targets, target_fields=(*sky.target_fields, Field("P", "uK_RJ", spin=2)))


SKY = polarized_sky()


def configured(*words: str) -> ExperimentConfig:
    return compose(["experiment=dust_polarization", *WORDS, "dust_polarization.neighbourhood=4", *words])


def task_of(*words: str) -> DustPolarizationTask:
    return DustPolarizationTask(configured(*words), lambda _: None, SKY, hemispheres(SKY))


def test_turned_tiles_and_patches_see_fields_in_their_own_frames():
    """A field along a direction in space is, in a turned tile, that along the direction turned back."""
    vector = np.array([0.3, -0.5, 0.8])
    grid = HealpixGrid(64)
    here = LocalFrames(64).basis(np.arange(grid.npix))
    stokes = across(vector, *here).astype(np.float32)
    columns = SkyColumns(Channels(3), here.out.astype(np.float32), stokes, None, stokes, outputs=(2,))
    everywhere = np.ones(grid.npix, bool)
    footprint = TileFootprint(64, 2, PatchZone(everywhere, everywhere))
    batch = SkySource(columns, everywhere.astype(np.float32), footprint).batch(5, 3)
    assert isinstance(batch.domain, HealpixSky)
    home = LocalFrames(64).basis(batch.domain.region.pixels)
    for positions, target in zip(batch.features.double().numpy(), batch.target.numpy(), strict=True):
        turn = np.linalg.lstsq(home.out, positions, rcond=None)[0].T
        expected = across(turn.T @ vector, home.out, home.south, home.east) / (2 + home.out[:, :1])
        expected *= 2 + positions[:, :1]
        assert np.abs(target - expected).max() < 5e-3
    assert torch.equal(batch.base, batch.target)


def test_gains_of_a_field_turn_with_it():
    """Guess columns go gain by gain, so that Q and U stay side by side; what is one number for both does not turn."""
    gains = np.arange(GRID.npix * 6, dtype=np.float32).reshape(-1, 2, 3)
    base = np.zeros((GRID.npix, 2), np.float32)
    columns = SkyColumns(Channels(1), base[:, :1], base, gains, base, outputs=(2,), scalar_gains=1)
    assert columns.guess_spins == (2, 2, 2, 0, 0)
    split = columns.split_guess(torch.from_numpy(columns.guess))
    assert split[1] is not None and torch.equal(split[1], torch.from_numpy(gains))


MODELS = {"sphere": ["model=unet_spin"], "flat": ["model=unet_flat"], "flat spin": ["model=unet_spin_flat"]}


@pytest.mark.parametrize("base", ["tensor", "hough"])
@pytest.mark.parametrize("name", MODELS)
def test_a_network_that_has_learnt_nothing_gives_the_baseline_exactly(name, base):
    task = task_of(*MODELS[name], f"dust_polarization.base={base}")
    scaling = task.fit_scaling()
    network, columns = task.network(scaling, NSIDE).eval(), task.columns(SKY, scaling)
    batch = task.sources(scaling)["train"].batch(1, 2, "cpu")
    with torch.no_grad():
        prediction = task.combine(batch, network(batch.features, batch.domain), scaling)
    assert torch.equal(prediction, batch.base)
    closed = task_of(f"model={'structure_tensor' if base == 'tensor' else base}")
    baseline = closed.columns(SKY, closed.fit_scaling()).base
    # A closed form learns its amplitude from the validation region too.
    np.testing.assert_allclose(columns.base / columns.base.std(), baseline / baseline.std(), atol=1e-5)


def test_the_base_is_the_tensor_with_one_amplitude():
    task = task_of("model=structure_tensor")
    scaling = task.fit_scaling()
    plain = tensor_stokes(SKY.inputs, TensorSettings(coarse=6.0, neighbourhood=4.0))
    base = task.columns(SKY, scaling).base * scaling.target_std[0]
    pixels, target = task.learning_pixels, polarized(SKY).targets
    amplitude = (plain[pixels] * target[pixels]).sum() / (plain[pixels] ** 2).sum()
    np.testing.assert_allclose(base, amplitude * plain, atol=1e-4 * plain.std())
    assert scaling.weights == pytest.approx((amplitude,), rel=1e-4)


def test_gains_are_positive_and_bounded_and_the_correction_turns():
    task = task_of("model=unet_spin", "model.gain_limit=0.7")
    scaling = task.fit_scaling()
    batch = task.sources(scaling)["train"].batch(1, 2, "cpu")
    assert batch.gains is not None
    channels = batch.gains.shape[-1] - 1
    output = torch.zeros(*batch.base.shape[:-1], channels + 2)
    for value, factor in ((1e3, np.exp(0.7)), (-1e3, np.exp(-0.7))):
        output[..., :channels] = value
        found = task.combine(batch, output, scaling)
        torch.testing.assert_close(found, float(factor) * batch.base, rtol=1e-4, atol=1e-4)
    output[..., :channels], output[..., channels] = 0, 0.5
    amount = (task.combine(batch, output, scaling) - batch.base).unbind(-1)
    assert (amount[0] > 0).all() and torch.equal(amount[1], torch.zeros_like(amount[1]))


def test_the_network_is_free_of_frames():
    task = task_of("model=unet_spin")
    scaling = task.fit_scaling()
    network = task.network(scaling, NSIDE)
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    channels_in, channels_out = task.channels(scaling)
    assert (channels_in, channels_out) == (Channels(5, spin2=1), Channels(4, spin2=1))
    sky = HealpixSky(8)
    assert_frame_free(network.eval(), sky, channels_in, channels_out)


def test_the_intensity_is_known_but_not_learnt():
    sky = polarized(SKY)
    assert [one.name for one in sky.target_fields] == ["P"] and sky.targets.shape[1] == 2
    np.testing.assert_array_equal(sky.intensity, SKY.targets[:, 0])
    assert polarized(sky) is sky and polarized(SKY) is sky
    config = compose(["split=north_south", "data.galaxy.nside=16"]).split
    np.testing.assert_array_equal(build_split(config, sky).test, build_split(config, SKY).test)
    with pytest.raises(Exception, match="0 polarized targets"):
        polarized(synthetic_sky(NSIDE))


def test_the_galaxy_stores_its_polarization_and_keeps_its_intensity(tmp_path):
    config = GalaxyConfig(nside=16, channels=4, channel_width=20, filaments=0.5)
    plain, sky = galaxy_sky(config), galaxy_sky(replace(config, polarization=True))
    again = open_store(write_store(tmp_path / "sky.zarr", sky))
    np.testing.assert_array_equal(again.inputs, plain.inputs)
    np.testing.assert_array_equal(again.targets[:, :1], plain.targets)
    assert [(one.name, one.spin) for one in again.target_fields] == [("I", 0), ("P", 2)]
    for column, stokes in enumerate("QU"):
        parts = [again.components[f"{stokes}_{name}"] for name in ("cnm", "wnm", "ivc", "dark", "noise")]
        np.testing.assert_allclose(sum(parts), again.targets[:, 1 + column], rtol=1e-4, atol=1e-3)
    assert again.component_units["Q_cnm"] == "uK_RJ"


def test_the_loss_of_a_field_is_of_e_and_b_and_of_the_complex_distance():
    domain, bands = FlatPatch(16, 93.6), Bands(r50=(14.4, 100))
    loss = CorrelationLoss.of(LossConfig(bands=["r50"]), bands, (2,))
    a, b = torch.randn(2, 3, 16, 16, 2).unbind(0)
    weight = torch.ones(3, 16, 16)
    value, measures = loss(a, Batch(domain, Channels(1), a, a, None, b, weight))
    r = domain.polarization_correlation(a, b, weight, bands, "mode").mean()
    expected = 30 * (1 - r) + (a - b).square().sum(-1).sqrt().mean()
    assert float(value) == pytest.approx(float(expected), rel=1e-5) and float(measures["r50"]) == pytest.approx(
        float(r)
    )
    exact, _ = loss(a.requires_grad_(), Batch(domain, Channels(1), a, a, None, a.detach(), weight))
    exact.backward()
    assert a.grad is not None and a.grad.isfinite().all() and float(exact.detach()) < 1e-4


def healpy_spectra(stokes: np.ndarray, intensity: np.ndarray, mask: np.ndarray, lmax: int) -> np.ndarray:
    """a_lm of T, E, B by healpy alone."""
    scalar = mask * (intensity - (intensity * mask).sum() / mask.sum())
    maps = [nest_to_ring(one) for one in (scalar, *(mask[:, None] * stokes).T)]
    return np.array(healpy.map2alm(maps, lmax=lmax, iter=3))


def test_scores_on_the_sphere_are_healpys():
    sky, rng = polarized(SKY), np.random.default_rng(0)
    mask = hemispheres(SKY).test.astype(float)
    prediction = 2 * sky.targets + sky.targets.std() * rng.standard_normal((GRID.npix, 2))
    bands = Bands(r50=(10, 30))
    region = PolarizedRegion(sky.targets, sky.intensity, mask, bands, 1)
    (e, b), facts = region.score(prediction)
    true, own = (healpy_spectra(x, sky.intensity, mask, region.lmax) for x in (sky.targets, prediction))
    modes = 2 * np.arange(10, 30) + 1
    for found, i in ((e, 1), (b, 2)):
        cross, one, other = (healpy.alm2cl(x[i], y[i]) for x, y in ((true, own), (true, true), (own, own)))
        powers = [(modes * cl[10:30]).sum() for cl in (cross, one, other)]
        expected = powers[0] / np.sqrt(powers[1] * powers[2])
        assert found.bands["r50"] == pytest.approx(expected, abs=1e-6)
    power = [[(modes * healpy.alm2cl(x, y)[10:30]).sum() for x in own] for y in own]
    assert facts["ee_bb"]["r50"]["mean"] == pytest.approx(power[1][1] / power[2][2], rel=1e-6)
    assert facts["te"]["r50"]["mean"] == pytest.approx(power[0][1] / np.sqrt(power[0][0] * power[1][1]), rel=1e-5)
    assert facts["ee_bb"]["r50"]["sem"] > 0 and set(facts["angles"][0]) == {"fraction", "mean", "sem"}


def test_the_truth_scores_one_and_its_turn_by_45_degrees_nothing():
    sky = polarized(SKY)
    mask, bands = hemispheres(SKY).test.astype(float), Bands(r50=(14.4, 30))
    turned = np.stack([-sky.targets[:, 1], sky.targets[:, 0]], axis=1)
    patch = GnomonicPatch(16, 93.6)
    test = draw_test_patches(patch, hemispheres(SKY), 0.7, EvaluationConfig(patches=12))
    region = PolarizedRegion(sky.targets, sky.intensity, mask, bands, 2)
    for values, r, angle in ((sky.targets, 1.0, 0.0), (-3 * sky.targets, -1.0, 90.0), (turned, 0.0, 45.0)):
        both, facts = region.score(values)
        true, found, intensity = (
            sample_patches(one, test.frames, patch, spins)
            for one, spins in ((sky.targets, (2,)), (values, (2,)), (sky.intensity, None))
        )
        flat, _ = score_polarized_patches(found, true, intensity, test, bands)
        assert [one["mean"] for one in facts["angles"]] == pytest.approx([angle] * 4, abs=1e-3)
        tolerance = 1e-6 if r else 0.3
        assert [one.bands["r50"] for one in both] == pytest.approx([r, r], abs=tolerance)
        assert [one.bands["r50"].mean() for one in flat] == pytest.approx([r, r], abs=tolerance)
    nothing = region.score(np.where(np.arange(GRID.npix)[:, None] % 2, sky.targets, 0))[1]
    assert [one["mean"] for one in nothing["angles"]] == pytest.approx([22.5] * 4, abs=2)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Place:
    place = Place(tmp_path_factory.mktemp("pol"), "dust_polarization")
    models = "models=[linear,structure_tensor,unet_flat,unet_spin]"
    done("study", "experiment=dust_polarization", *WORDS, models, *place.words)
    done("predict", place.study)
    return place


def test_the_study_has_e_and_b_and_the_templates_are_q_and_u(study):
    content = json.loads((study.study / "comparison.json").read_text())
    assert content["target"] == "E" and list(content["other_targets"]) == ["B"]
    assert set(content["paired_sphere"]["unet_spin"]) == {"linear", "structure_tensor", "unet_flat"}
    assert set(content["polarization"]["unet_flat"]) == {"sphere", "flat"}
    assert {"ee_bb", "te", "tb", "eb", "true_ee_bb"} < set(content["polarization"]["linear"]["flat"])
    page = (study.study / "report.html").read_text()
    assert "B: Correlation on the sphere" in page and "Polarization on the sphere" in page and "BB left" in page
    path = study.study / "templates" / "unet_spin.fits"
    (q, u), header = healpy.read_map(path, field=(0, 1), h=True)
    cards = dict(header)
    assert (cards["TTYPE1"], cards["TTYPE2"], cards["POLCCONV"], cards["TUNIT1"]) == ("Q", "U", "COSMO", "uK_RJ")
    assert np.isfinite(q).all() and u.std() > 0


def test_a_polarized_sky_is_cleaned_of_its_template(study, tmp_path):
    """What ``marginalize`` leaves of a template times a number is nothing."""
    path, mask = study.study / "templates" / "structure_tensor.fits", tmp_path / "mask.fits"
    healpy.write_map(mask, hemispheres(SKY).test.astype(np.float32), nest=True, coord="G")
    out = tmp_path / "cleaned"
    done("marginalize", "--sky", f"{path}[Q,U]", "--template", path, "--mask", mask, "--out", out)
    result = json.loads((out / "marginalization.json").read_text())
    assert result["amplitudes"] == pytest.approx([1.0], abs=1e-6)
    assert max(result["after"]["BB"]) < 1e-6 * max(result["before"]["BB"])


def test_a_network_is_cross_fitted_into_q_and_u_with_sigma(study, tmp_path):
    """The errors hold the target, noise and all, on the mask; the template is one field to clean with."""
    small = ["model=unet_spin", "model.depth=0", "model.convs_per_level=1"]
    words = ["experiment=dust_polarization", *WORDS, *small, *study.words]
    done("predict", *words, "--cross-fit", "--folds", "3", "--join", "8", "--out", tmp_path)
    path, mask, truth = (tmp_path / f"{name}.fits" for name in ("unet_spin_cross_fitted", "mask", "truth"))
    stokes, cards = healpy.read_map(path, field=(0, 1), nest=True, h=True)
    known = {"TTYPE2": "U", "POLCCONV": "COSMO", "FITTED": "cross-fitted", "FOLDS": 3, "MODEL": "unet_spin"}
    assert known.items() <= dict(cards).items()
    (store,) = (study.root / "stores").glob("*.zarr")
    sky = polarized(open_store(store))
    sigma, kept = healpy.read_map(path, hdu=2, nest=True), build_split(configured().split, sky).test
    covered = coverage(sky.targets - stokes.T, sigma, kept)
    assert covered["within_1_sigma"] == pytest.approx(0.68, abs=0.12)
    healpy.write_map(mask, kept.astype(np.float32), nest=True, coord="G")
    write_map(truth, SkyMap(sky.targets, sky.target_fields, "nest"))
    done("marginalize", "--sky", f"{truth}[Q,U]", "--template", path, "--mask", mask, "--out", tmp_path / "cleaned")
    result = json.loads((tmp_path / "cleaned" / "marginalization.json").read_text())
    assert len(result["amplitudes"]) == 1 and sum(result["after"]["EE"]) < sum(result["before"]["EE"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model=unet_spin", "model.gain_limit=0"], "model.gain_limit=0"),
        (["dust_polarization.fine=7"], "dust_polarization.fine=7"),
        (["dust_polarization.base=sobel"], "choose tensor, hough"),
        (["data.galaxy.polarization=false"], "data.galaxy.polarization=true"),
        (["model=spectral"], "model.arch=spectral"),
    ],
)
def test_what_cannot_be_is_refused(words, says, tmp_path):
    place = Place(tmp_path, "dust_polarization")
    refusal = sphereml("train", "experiment=dust_polarization", *TINY, *place.words, *words).refusal
    assert says in refusal and not place.root.joinpath("runs").exists()


def test_other_tasks_have_no_orientations(tmp_path):
    place = Place(tmp_path, "demo")
    refusal = sphereml("train", "experiment=dust_demo", "model=hough", "task=dust", *TINY, *place.words).refusal
    assert "foretells polarization" in refusal


def test_angles_of_the_frames_are_cosmos():
    """South and east of a pixel are the basis in which healpy's Q and U are given."""
    _, south, east = tangent_basis(*directions(GRID.vectors()))
    here = LocalFrames(NSIDE).basis(np.arange(GRID.npix))
    np.testing.assert_allclose(here.south, south, atol=1e-12)
    np.testing.assert_allclose(here.east, east, atol=1e-12)
