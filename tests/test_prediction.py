"""Full-sky predictions: what is saved predicts the same, knows its sky, and an idle network is its first guess."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import healpy
import numpy as np
import pytest
import torch
from conftest import synthetic_sky

from sphereml.config.compose import compose
from sphereml.data.splits import Split
from sphereml.data.store import Sky, column
from sphereml.errors import UserError
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.sampling import sample_patches
from sphereml.sky.rotations import frame_at
from sphereml.templates.prediction import Predictor
from sphereml.training.fit import fit_run
from sphereml.training.lifecycle import FitOptions
from sphereml.training.runs import Run

SETTINGS = [
    *("patches.size=16", "patches.pixel_arcmin=93.6", "model.width=4", "model.depth=1"),
    *("training.epochs=1", "training.steps_per_epoch=3", "training.validation_batches=1", "training.batch_size=2"),
]
NETWORKS = (
    *("unet_flat", "unet_sphere", "unet_oriented", "unet_flat_plain", "unet_sphere_plain"),
    *("gain_flat", "gain_sphere"),
)


@pytest.fixture(scope="module")
def trained(sky32: Sky, split32: Split, tmp_path_factory) -> Callable[[str], Run]:
    """A run of a model on the synthetic sky, trained once."""
    folder, runs = tmp_path_factory.mktemp("runs"), {}

    def train(model: str) -> Run:
        if model not in runs:
            config = compose([f"model={model}", *SETTINGS, "training.learning_rate=0.02", f"output={folder}"])
            runs[model] = fit_run(config, sky32, split32, FitOptions(say=lambda _: None))
        return runs[model]

    return train


def idle(run: Run, folder: Path, bias: float = 0.0) -> Run:
    """A copy whose network answers ``bias`` everywhere."""
    weights = run.weights()
    weights["output.kernel"] = weights["output.kernel"] * 0
    weights["output.bias"] = weights["output.bias"] * 0 + bias
    return copied(run, folder, weights)


def copied(run: Run, folder: Path, weights: dict[str, torch.Tensor]) -> Run:
    """A run with other weights."""
    copy = Run(folder, run.config)
    folder.mkdir()
    (folder / "manifest.json").write_bytes((run.folder / "manifest.json").read_bytes())
    copy.finish(weights, run.scaling())
    return copy


@pytest.mark.parametrize("model", NETWORKS)
def test_what_is_saved_predicts_the_same(trained, sky32, model):
    run = trained(model)
    reopened = Run.open(run.folder)
    assert reopened.config == run.config
    one, two = (Predictor(each, sky32).sphere() for each in (run, reopened))
    np.testing.assert_array_equal(one.values, two.values)
    assert one.values.shape == (sky32.grid.npix,) and one.values.dtype == np.float32
    assert (one.seam is None) == (run.config.model.domain != "flat")
    # Learnt or not, it is the dust's unit and order of magnitude.
    assert np.corrcoef(one.values, sky32.target)[0, 1] > 0 or "plain" in model


@pytest.mark.parametrize("model", ["unet_flat", "unet_sphere", "gain_flat", "gain_sphere"])
def test_an_idle_network_is_its_first_guess(trained, sky32, split32, tmp_path, model):
    run = idle(trained(model), tmp_path / "idle")
    inputs = column(sky32)[:, None] if run.config.model.guess == "column" else sky32.inputs.astype(float)
    design = np.column_stack([inputs / inputs.mean(axis=0), np.ones(len(inputs))])
    joined = run.config.training.join_validation
    pixels = split32.train | split32.validation if joined else split32.train
    guess = design @ np.linalg.lstsq(design[pixels], sky32.target[pixels].astype(float), rcond=None)[0]
    prediction = Predictor(run, sky32).sphere()
    np.testing.assert_allclose(prediction.values, guess, rtol=2e-5, atol=1e-5)
    assert not prediction.seam


@pytest.mark.parametrize("model", ["unet_flat_plain", "unet_sphere_plain"])
def test_a_constant_output_stays_constant(trained, sky32, tmp_path, model):
    """The partition of unity adds up to one, and the units come back."""
    run = idle(trained(model), tmp_path / "idle", bias=1.5)
    scaling = run.scaling()
    prediction = Predictor(run, sky32).sphere()
    np.testing.assert_allclose(prediction.values, scaling["target_mean"] + 1.5 * scaling["target_std"], rtol=1e-6)


@pytest.mark.parametrize("model", ["linear", "unet_sphere"])
def test_spherical_models_are_projected_to_patches(trained, sky32, model):
    run = trained(model)
    frames = frame_at(np.array([30.0, 200.0]), np.array([-50.0, -35.0]), np.array([10.0, 250.0]))
    predictor = Predictor(run, sky32)
    sphere = predictor.sphere().values
    vectors = GnomonicPatch(16, 93.6).vectors(frames)
    theta, phi = healpy.vec2ang(vectors.reshape(-1, 3))
    expected = healpy.get_interp_val(sphere.astype(float), theta, phi, nest=True).reshape(vectors.shape[:-1])
    np.testing.assert_allclose(predictor.patches(frames, sphere), expected, rtol=1e-5)


def test_flat_patches_agree_with_their_stitched_sky(trained, sky32, tmp_path):
    """A network that sees one pixel at a time predicts the same on a turned patch and on the sphere."""
    weights = trained("gain_flat").weights()
    kernel = weights["down.0.convolutions.0.kernel"]
    kernel[[tap for tap in range(9) if tap != 4]] = 0
    weights["output.kernel"] += 0.1
    run = copied(trained("gain_flat"), tmp_path / "pointwise", weights)
    frames = frame_at(np.array([30.0, 200.0]), np.array([-50.0, -35.0]), np.array([10.0, 250.0]))
    predictor = Predictor(run, sky32)
    prediction = predictor.sphere()
    guess = Predictor(idle(run, tmp_path / "idle"), sky32).sphere().values
    on_sky = [sample_patches(values, frames, GnomonicPatch(16, 93.6)) for values in (prediction.values, guess)]
    own = predictor.patches(frames, prediction.values) - on_sky[1]
    stitched = on_sky[0] - on_sky[1]
    assert own.shape == (2, 16, 16)
    # Pixels of 94' and 110' smooth the corrections in two ways; a mirrored or turned patch would correlate at zero.
    assert np.corrcoef(own.ravel(), stitched.ravel())[0, 1] > 0.85
    assert prediction.seam is not None and 0 < prediction.seam < 0.5


def test_another_sky_is_refused(trained):
    with pytest.raises(UserError, match="trained at Nside 32, the sky has 16"):
        Predictor(trained("linear"), synthetic_sky(16))
    with pytest.raises(UserError, match="trained on 4 channels"):
        Predictor(trained("unet_sphere"), synthetic_sky(32, channels=5)).sphere()


@pytest.mark.parametrize("name", ["unet_sphere", "unet_oriented", "gain_sphere"])
def test_prediction_by_tiles_is_the_same(name, trained, sky32, tolerance):
    run = trained(name)
    whole, tiled = (Predictor(run, sky32, tile_side=side).sphere().values for side in (256, 16))
    assert np.abs(tiled - whole).max() < tolerance(torch.float32, "network") * whole.std()
