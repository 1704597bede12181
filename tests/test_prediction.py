"""Full-sky predictions: what is saved predicts the same, knows its sky, and an idle network is its first guess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import healpy
import numpy as np
import pytest
import torch
from conftest import synthetic_sky

from sphereml.config.compose import compose
from sphereml.data.finished_pieces import FinishedPieces, pieces_of
from sphereml.data.sky_on_disk import ReadableSky, SkyOnDisk
from sphereml.data.split_files import Split
from sphereml.data.store import Sky, column, write_store
from sphereml.errors import UserError
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.sampling import sample_patches
from sphereml.sky.rotations import frame_at
from sphereml.tasks.dust import DustTask
from sphereml.templates.full_sky import predict_templates
from sphereml.training.fit import fit_task
from sphereml.training.lifecycle import FitOptions
from sphereml.training.predictor import Predictor
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
            task = DustTask(config, lambda _: None, sky32, split32)
            runs[model] = fit_task(task, FitOptions(say=lambda _: None))
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


def full_sky(run: Run, sky: ReadableSky, tile_side: int = 256) -> tuple[np.ndarray, float | None]:
    """The one predicted map ``(npix,)`` and its seam."""
    prediction = Predictor(run, tile_side=tile_side).sphere(sky)
    assert prediction.values.shape == (sky.grid.npix, 1) and prediction.values.dtype == np.float32
    return prediction.values[:, 0], prediction.seam


@pytest.mark.parametrize("model", NETWORKS)
def test_what_is_saved_predicts_the_same(trained, sky32, model):
    run = trained(model)
    reopened = Run.open(run.folder)
    assert reopened.config == run.config
    (one, seam), (two, _) = (full_sky(each, sky32) for each in (run, reopened))
    np.testing.assert_array_equal(one, two)
    assert (seam is None) == (run.config.model.domain != "flat")
    # Learnt or not, it is the dust's unit and order of magnitude.
    assert np.corrcoef(one, sky32.target)[0, 1] > 0 or "plain" in model


@pytest.mark.parametrize("model", ["unet_flat", "unet_sphere", "gain_flat", "gain_sphere"])
def test_an_idle_network_is_its_first_guess(trained, sky32, split32, tmp_path, model):
    run = idle(trained(model), tmp_path / "idle")
    inputs = column(sky32)[:, None] if run.config.model.guess == "column" else sky32.inputs.astype(float)
    design = np.column_stack([inputs / inputs.mean(axis=0), np.ones(len(inputs))])
    joined = run.config.training.join_validation
    pixels = split32.train | split32.validation if joined else split32.train
    guess = design @ np.linalg.lstsq(design[pixels], sky32.target[pixels].astype(float), rcond=None)[0]
    values, seam = full_sky(run, sky32)
    np.testing.assert_allclose(values, guess, rtol=2e-5, atol=1e-5)
    assert not seam


@pytest.mark.parametrize("model", ["unet_flat_plain", "unet_sphere_plain"])
def test_a_constant_output_stays_constant(trained, sky32, tmp_path, model):
    """The partition of unity adds up to one, and the units come back."""
    run = idle(trained(model), tmp_path / "idle", bias=1.5)
    scaling = run.scaling()
    values, _ = full_sky(run, sky32)
    np.testing.assert_allclose(values, scaling["target_mean"][0] + 1.5 * scaling["target_std"][0], rtol=1e-6)


@pytest.mark.parametrize("model", ["linear", "unet_sphere"])
def test_spherical_models_are_projected_to_patches(trained, sky32, model):
    run = trained(model)
    frames = frame_at(np.array([30.0, 200.0]), np.array([-50.0, -35.0]), np.array([10.0, 250.0]))
    predictor = Predictor(run)
    sphere = predictor.sphere(sky32).values
    vectors = GnomonicPatch(16, 93.6).vectors(frames)
    theta, phi = healpy.vec2ang(vectors.reshape(-1, 3))
    expected = healpy.get_interp_val(sphere[:, 0].astype(float), theta, phi, nest=True).reshape(vectors.shape[:-1])
    np.testing.assert_allclose(predictor.patches(frames, sphere, sky32)[..., 0], expected, rtol=1e-5)


def test_flat_patches_agree_with_their_stitched_sky(trained, sky32, tmp_path):
    """A network that sees one pixel at a time predicts the same on a turned patch and on the sphere."""
    weights = trained("gain_flat").weights()
    kernel = weights["down.0.convolutions.0.kernel"]
    kernel[[tap for tap in range(9) if tap != 4]] = 0
    # Every hidden channel is the log column above its mean, whatever the training made of it.
    kernel[4], weights["output.kernel"][:] = 1, 0.1
    weights["down.0.convolutions.0.bias"][:] = weights["output.bias"][:] = 0
    run = copied(trained("gain_flat"), tmp_path / "pointwise", weights)
    frames = frame_at(np.array([30.0, 200.0]), np.array([-50.0, -35.0]), np.array([10.0, 250.0]))
    predictor = Predictor(run)
    prediction = predictor.sphere(sky32)
    guess, _ = full_sky(idle(run, tmp_path / "idle"), sky32)
    on_sky = [sample_patches(values, frames, GnomonicPatch(16, 93.6)) for values in (prediction.values[:, 0], guess)]
    own = predictor.patches(frames, prediction.values, sky32)[..., 0] - on_sky[1]
    stitched = on_sky[0] - on_sky[1]
    assert own.shape == (2, 16, 16)
    # Pixels of 94' and 110' smooth the corrections in two ways; a mirrored or turned patch would correlate at zero.
    assert np.corrcoef(own.ravel(), stitched.ravel())[0, 1] > 0.85
    assert prediction.seam is not None and 0 < prediction.seam < 0.5


def test_another_sky_is_predicted_and_said_in_the_header(trained):
    other = replace(synthetic_sky(16), provenance={"kind": "other"})
    for model in ("linear", "unet_sphere", "unet_flat"):
        maps = trained(model).predict(other)
        assert maps.nside == 16 and maps.fields == other.target_fields and maps.header["other_data"] is True
        assert np.corrcoef(maps["dust"], other.target)[0, 1] > 0.5


def test_a_sky_of_other_channels_is_refused(trained):
    with pytest.raises(UserError, match="trained on 4 channels, not 5"):
        trained("unet_sphere").predict(synthetic_sky(32, channels=5))
    sky = synthetic_sky(32)
    kelvin = replace(sky, input_fields=tuple(replace(one, unit="K") for one in sky.input_fields))
    with pytest.raises(UserError, match=r"gas 0 is a field of spin 0 in K; the model was trained on .* in cm\^-2"):
        trained("unet_sphere").predict(kelvin)


@pytest.mark.parametrize("name", ["unet_sphere", "unet_oriented", "gain_sphere"])
def test_prediction_by_tiles_is_the_same(name, trained, sky32, tolerance):
    run = trained(name)
    whole, tiled = (full_sky(run, sky32, tile_side=side)[0] for side in (256, 16))
    assert np.abs(tiled - whole).max() < tolerance(torch.float32, "network") * whole.std()


@pytest.fixture(scope="module")
def stored32(sky32: Sky, tmp_path_factory) -> SkyOnDisk:
    return SkyOnDisk.open(write_store(tmp_path_factory.mktemp("stores") / "sky.zarr", sky32))


@pytest.mark.parametrize("model", ["unet_sphere", "unet_oriented", "unet_flat", "unet_sphere_plain", "linear"])
def test_a_sky_read_from_its_store_is_predicted_the_same(trained, sky32, stored32, model):
    """Rows are read tile by tile or patch by patch, and every number is that of the sky in memory."""
    run = trained(model)
    for side in (64, 16):
        (ours, seam), (theirs, other) = (full_sky(run, sky, tile_side=side) for sky in (stored32, sky32))
        np.testing.assert_array_equal(ours, theirs)
        assert seam == other
    frames = frame_at(np.array([30.0, 200.0]), np.array([-50.0, -35.0]), np.array([10.0, 250.0]))
    one, two = (Predictor(run).patches(frames, theirs[:, None], sky) for sky in (stored32, sky32))
    np.testing.assert_array_equal(one, two)


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.parametrize("model", ["unet_sphere", "unet_flat"])
def test_a_killed_prediction_goes_on_to_the_same_bytes(trained, stored32, tmp_path, monkeypatch, model):
    run, whole, made = trained(model), tmp_path / "whole.fits", tmp_path / "made.fits"
    predictor = Predictor(run, tile_side=16)
    predict_templates(tmp_path, {"whole": predictor}, stored32)
    keep, count = FinishedPieces.get, 0

    def stopping(self: FinishedPieces, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        nonlocal count
        count += 1
        if count > 20:
            raise Killed
        return keep(self, name, make)

    monkeypatch.setattr(FinishedPieces, "get", stopping)
    with pytest.raises(Killed):
        predict_templates(tmp_path, {"made": predictor}, stored32)
    monkeypatch.undo()
    pieces = sorted((tmp_path / ".made.fits.partial").glob("*.piece"))
    assert not made.exists() and len(pieces) == 20
    pieces[3].write_bytes(pieces[3].read_bytes()[:-4] + b"junk")  # made again, as its checksum says
    lines: list[str] = []
    predict_templates(tmp_path, {"made": replace(predictor, say=lines.append)}, stored32)
    assert made.read_bytes() == whole.read_bytes() and lines
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_pieces_of_other_weights_are_not_used(trained, stored32, tmp_path):
    path = tmp_path / "made.fits"
    with pytest.raises(Killed), pieces_of(path, {"weights": "a"}) as kept:
        kept.get("one", lambda: np.zeros(3))
        raise Killed
    with pytest.raises(Killed), pieces_of(path, {"weights": "a"}) as kept:
        assert kept.get("one", lambda: np.ones(3)).tolist() == [0, 0, 0]
        with pytest.raises(UserError, match="another process makes"), pieces_of(path, {"weights": "a"}):
            pass
        raise Killed
    with pieces_of(path, {"weights": "b"}) as kept:
        assert kept.get("one", lambda: np.ones(3)).tolist() == [1, 1, 1]
    assert list(tmp_path.iterdir()) == []
