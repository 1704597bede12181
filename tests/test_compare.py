"""The comparison's numbers against independent computations, and against the real sky's reference figures."""

from __future__ import annotations

import json
import tracemalloc

import healpy
import numpy as np
import pytest
from fixtures_cli import REAL_SKY, Place, demo_place, needs_real_sky

from sphereml.config.compose import compose
from sphereml.config.schema import EvaluationConfig
from sphereml.data.split_files import Split
from sphereml.data.store import Sky, column
from sphereml.errors import UserError
from sphereml.evaluation.maps.scores import ScalarTruth, TargetScores
from sphereml.evaluation.maps.sphere import JackknifeMasks, score_sphere
from sphereml.evaluation.maps.study import MapStudy
from sphereml.evaluation.protocol import StudyOptions, load_result
from sphereml.harmonics.bands import Bands
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.sampling import sample_patches
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import disc
from sphereml.sky.ordering import nest_to_ring
from sphereml.training.fit import fit
from sphereml.training.lifecycle import FitOptions
from sphereml.training.runs import Run, find_runs


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Place:
    return demo_place(tmp_path_factory)


@pytest.fixture(scope="module")
def comparison(demo) -> dict:
    return json.loads((demo.study / "comparison.json").read_text())


def study_of(demo: Place, evaluation: EvaluationConfig | None = None) -> MapStudy:
    return MapStudy([Run.open(demo.run("linear"))], StudyOptions(lambda _: None, evaluation=evaluation))


@pytest.fixture(scope="module")
def data(demo) -> tuple[Sky, Split]:
    study = study_of(demo)
    return study.sky.whole(), study.split


def anafast_r(target: np.ndarray, prediction: np.ndarray, mask: np.ndarray, band: tuple[int, int]) -> float:
    """healpy's own way: mean-subtracted, masked, 3 iterations, r averaged over ``lo <= ell < hi``."""
    maps = [nest_to_ring(np.where(mask, values - values[mask].mean(), 0.0)) for values in (target, prediction)]
    lmax = 2 * healpy.get_nside(maps[0])
    cross = healpy.anafast(*maps, lmax=lmax, iter=3)
    one, other = (healpy.anafast(values, lmax=lmax, iter=3) for values in maps)
    return float(np.mean((cross / np.sqrt(one * other))[slice(*band)]))


def independent_baseline(name: str, sky: Sky, split: Split) -> np.ndarray:
    """Least squares of the column, or of the channels, plus a constant, without any of the models' code."""
    inputs = sky.inputs.astype(float) if name == "linear" else column(sky)[:, None]
    inputs = np.column_stack([inputs / inputs.std(axis=0), np.ones(len(inputs))])
    pixels = split.train | split.validation
    return inputs @ np.linalg.lstsq(inputs[pixels], sky.target[pixels].astype(float), rcond=None)[0]


@pytest.mark.parametrize("name", ["integrated", "linear"])
def test_sphere_scores_are_anafast(comparison, data, name):
    sky, split = data
    prediction = independent_baseline(name, sky, split)
    scores = comparison["models"][name]["sphere"]
    for band, edges in (("r_low", (2, 15)), ("r50", (15, 64))):
        assert scores[band] == pytest.approx(anafast_r(sky.target, prediction, split.test, edges), abs=2e-5)


def on_patches(values: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """healpy's bilinear interpolation of a NEST map at the pixels of the patches, ``(n, 16, 16)``."""
    vectors = GnomonicPatch(16, 93.6).vectors(frames)
    theta, phi = healpy.vec2ang(vectors.reshape(-1, 3))
    return healpy.get_interp_val(values.astype(float), theta, phi, nest=True).reshape(vectors.shape[:-1])


def fourier_r(a: np.ndarray, b: np.ndarray, window: np.ndarray) -> float:
    """r of single modes, averaged over 14.4 <= ell < 64, by numpy's FFT over both halves of the Fourier plane."""
    frequency = np.fft.fftfreq(16, 1 / 16)
    ell = 360 / 24.96 * np.hypot(*np.meshgrid(frequency, frequency)) * (1 + 1e-9)
    modes = []
    for field in (a, b):
        centred = window * (field - (field * window).sum() / window.sum())
        modes.append(np.fft.fft2(centred)[(ell >= 14.4) & (ell < 64)])
    return float(np.mean((modes[0] * modes[1].conj()).real / np.abs(modes[0]) / np.abs(modes[1])))


def test_patch_scores_are_fourier_modes(comparison, data, demo):
    sky, split = data
    frames = study_of(demo).held_out.test.frames
    _, latitude = healpy.vec2ang(frames[:, :, 2], lonlat=True)
    assert len(frames) == 12 and latitude.max() <= -17.65, "centres keep away from the equator"
    windows = (on_patches(split.test, frames) > 0.999).astype(float)
    r = {}
    for name in ("integrated", "linear"):
        patches = on_patches(independent_baseline(name, sky, split), frames), on_patches(sky.target, frames), windows
        r[name] = np.array([fourier_r(*fields) for fields in zip(*patches, strict=True)])
        assert comparison["models"][name]["r50"]["mean"] == pytest.approx(r[name].mean(), abs=2e-5)
    pairs = comparison["paired"]["linear"]["integrated"]["r50"]
    assert pairs["mean"] == pytest.approx((r["linear"] - r["integrated"]).mean(), abs=2e-5)
    assert comparison["models"]["linear"]["wins_vs_integrated"]["r50"] == (r["linear"] > r["integrated"]).sum()


def test_the_target_itself_scores_one(data, demo):
    sky, _ = data
    held_out = study_of(demo).held_out
    patches = sample_patches(sky.target, held_out.test.frames, held_out.test.patch)
    truth, scores = ScalarTruth(held_out, sky.target, patches), TargetScores(held_out)
    scores.add("integrated", *truth.score(sky.target, patches), domain="none")
    scores.add("negative", *truth.score(5 - 3 * sky.target, -3 * patches), domain="none")
    models = scores.to_json()["models"]
    for name, r in (("integrated", 1.0), ("negative", -1.0)):
        assert models[name]["r50"]["mean"] == pytest.approx(r, abs=1e-9)
        assert models[name]["sphere"]["r50"] == pytest.approx(r, abs=1e-9)


def test_no_standard_error_from_one_block(data, demo):
    sky, _ = data
    with pytest.raises(UserError, match=r"evaluation\.patches or evaluation\.block_nside"):
        study_of(demo, EvaluationConfig(patches=1)).measure()
    block = np.zeros(sky.grid.npix)
    block[: sky.grid.npix // 12] = 1
    with pytest.raises(UserError, match="one block of sky"):
        score_sphere(sky.target, sky.target, block, Bands(r50=(15, 60)), block_nside=1)
    with pytest.raises(UserError, match="block_nside=64"):
        score_sphere(sky.target, sky.target, np.ones(sky.grid.npix), Bands(r50=(15, 60)), block_nside=64)


def test_a_jackknife_holds_one_mask_at_a_time():
    masks = JackknifeMasks.of(np.ones(HealpixGrid(32).npix), 2)
    tracemalloc.start()
    squares = masks.mean_squares
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(squares, [1, 1, *[47 / 48] * 48])
    assert peak < 5 * masks.whole.nbytes


def test_bands_beyond_the_map_are_said(comparison):
    assert sum("r50" in note and "ell < 64" in note for note in comparison["notes"]) == 1
    assert sum("r150" in note for note in comparison["notes"]) == 1


def test_a_result_comes_back_from_its_folder(demo, comparison):
    result = load_result(demo.study)
    assert result.content == {key: comparison[key] for key in comparison if key != "checksum"}
    assert "unet_flat" in repr(result)
    frame = result.to_dataframe()
    assert list(frame["model"]) == list(comparison["models"])
    assert frame["r50.mean"][0] == comparison["models"]["integrated"]["r50"]["mean"]
    spectra = result.to_xarray()
    assert spectra["r_sphere"].sel(model="linear").values.tolist() == comparison["spectra"]["linear"]["sphere"]["r"]


def test_a_comparison_keeps_the_marginalization_of_the_same_runs(demo, comparison, tmp_path):
    study = MapStudy(find_runs(demo.study), StudyOptions(lambda _: None))
    load_result(demo.study).save(tmp_path)
    study.measure().save(tmp_path)
    assert load_result(tmp_path).content["marginalization"] == comparison["marginalization"]
    study_of(demo).measure().save(tmp_path)
    assert "marginalization" not in load_result(tmp_path).content, "it was of other runs"


def test_runs_come_baselines_first(demo):
    assert [run.name for run in find_runs(demo.study)][:2] == ["integrated", "linear"]


@needs_real_sky
def test_the_real_sky_gives_its_reference_figures(tmp_path):
    """Figures of the sample's README, through training, prediction and comparison; the Clouds as evaluation.cuts."""
    place = Place(tmp_path, "dust_real_sample")
    words = ["experiment=dust_real_sample", f"data.folder={REAL_SKY.resolve()}", *place.words]
    words += ["patches.size=16", "patches.pixel_arcmin=93.6", "evaluation.patches=12", "evaluation.block_nside=1"]
    configs = [compose([*words, f"model={name}"]) for name in ("integrated", "linear")]
    runs = [fit(config, FitOptions(say=lambda _: None)) for config in configs]
    study = MapStudy(runs, StudyOptions(lambda _: None))
    sky, split, models = study.sky, study.split, study.measure().content["models"]
    for name, whole, cut in (("integrated", 0.719, 0.809), ("linear", 0.817, 0.820)):
        assert models[name]["sphere"]["r50"] == pytest.approx(whole, abs=0.005)
        assert models[name]["sphere_without_cuts"]["r50"] == pytest.approx(cut, abs=0.005)
    # The same figure by healpy alone, without the Clouds.
    clouds = disc(HealpixGrid(64), 280.5, -32.9, 10) | disc(HealpixGrid(64), 302.8, -44.3, 6)
    prediction = independent_baseline("linear", sky, split)
    independent = anafast_r(sky.target, prediction, split.test & ~clouds, (15, 100))
    assert models["linear"]["sphere_without_cuts"]["r50"] == pytest.approx(independent, abs=2e-5)
