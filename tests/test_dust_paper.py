"""The dust study: linear weights as the paper gives them, inputs, the spectral network, rows, conclusions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_cli import DEMO, done, sphereml

from sphereml.cli.experiment import model_configs
from sphereml.config.compose import compose
from sphereml.data.store import Sky
from sphereml.domains import FlatPatch
from sphereml.errors import UserError
from sphereml.evaluation.protocol import load_result
from sphereml.harmonics.filters import scale_windows
from sphereml.models.baselines import fit_linear
from sphereml.models.spectral import SpectralNetwork
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.tasks import open_task
from sphereml.tasks.gas import part_by_scale, velocity_moments
from sphereml.training.runs import find_runs

GRID = HealpixGrid(16)


def channels(count: int = 6, seed: int = 0) -> np.ndarray:
    """Smooth positive channels ``(npix, count)``, correlated with each other."""
    lon, lat = (np.radians(one) for one in GRID.lonlat())
    rng = np.random.default_rng(seed)
    waves = np.stack([np.cos(k * lon + rng.uniform(0, 6)) * np.cos(lat) ** k for k in range(1, 9)], axis=1)
    return np.exp(0.3 * waves @ rng.normal(size=(8, count)) + 0.1 * rng.normal(size=(GRID.npix, count)))


def gas_sky(count: int = 6) -> Sky:
    gas = channels(count).astype(np.float32)
    fields = tuple(Field(f"v{i}", "K") for i in range(count))
    target = (gas @ np.arange(1, count + 1)).astype(np.float32)[:, None]
    return Sky(GRID, gas, target, fields, (Field("dust", "uK_RJ"),), velocity=np.linspace(-20, 20, count))


# linear weights


def solve_normal_equations(inputs: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Appendix A of arXiv:1904.13265: ``w = C^-1 c``, C the channels' covariance and c theirs with the target."""
    rows, wanted = inputs - inputs.mean(axis=0), target - target.mean()
    return np.linalg.solve(rows.T @ rows, rows.T @ wanted)


@pytest.mark.parametrize("scales", [(), (3.0, 8.0, 20.0)])
def test_linear_weights_are_the_least_squares_solution(scales: tuple[float, ...]):
    """Of channels, and of channels by scale: to 1e-8 those of the normal equations, and no vector does better."""
    gas = channels().astype(np.float32)
    features = part_by_scale(gas, scales) if scales else gas
    rng = np.random.default_rng(1)
    target = features.astype(np.float64) @ rng.normal(size=features.shape[1]) + rng.normal(size=GRID.npix)
    pixels = GRID.lonlat()[1] > 5
    model = fit_linear(features, target, pixels, comparable=False)
    expected = solve_normal_equations(features[pixels].astype(np.float64), target[pixels])
    np.testing.assert_allclose(model.weights, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())
    error = features[pixels] @ model.weights + model.offset - target[pixels]
    assert np.abs(error @ features[pixels]).max() < 1e-6 * np.abs(target[pixels] @ features[pixels]).max()


def test_parts_by_scale_add_up_and_hold_their_scales():
    gas = channels(2).astype(np.float32)
    nodes = (3.0, 8.0, 20.0)
    parts = part_by_scale(gas, nodes).reshape(GRID.npix, 2, 3)
    np.testing.assert_allclose(parts.sum(axis=-1), gas, atol=1e-5)
    windows = scale_windows(nodes, 32)
    np.testing.assert_allclose(windows.sum(axis=0), 1)
    assert windows[0, 0] == windows[0, 3] == windows[1, 8] == windows[2, 20] == windows[2, 32] == 1
    assert windows[0, 8] == windows[2, 8] == 0 and 0 < windows[1, 5] < 1


def test_moments_are_sums_over_velocity():
    sky = gas_sky()
    moments = velocity_moments(sky, 3)
    assert sky.velocity is not None
    for m in range(3):
        expected = (sky.inputs * (sky.velocity / 10) ** m * 8).sum(axis=1)
        np.testing.assert_allclose(moments[:, m], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("inputs", "columns"), [("moments", 3), ("integrated", 1), ("scales", 18), ("channels", 6)])
@pytest.mark.parametrize("model", ["unet_sphere_plain", "linear"])
def test_models_see_the_inputs_that_are_asked_for(model: str, inputs: str, columns: int):
    words = [f"model={model}", f"model.inputs={inputs}", "split.sky_fraction=null", "split.centre_margin=0"]
    task = open_task(compose([*words, "model.depth=1", "model.width=2", "data.galaxy.nside=16"]), sky=gas_sky())
    scaling = task.fit_scaling()
    assert task.channels(scaling)[0].columns == columns
    seen = task.columns(task.sky, type(scaling).from_json(json.loads(json.dumps(scaling.to_json()))))
    assert seen.features.shape == (GRID.npix, columns)
    learnt = seen.features[task.learning_pixels]
    np.testing.assert_allclose(learnt.std(axis=0), 1, rtol=1e-3)


def test_moments_need_velocities():
    sky = gas_sky()
    still = Sky(GRID, sky.inputs, sky.targets, sky.input_fields, sky.target_fields)
    words = ["model=unet_sphere_plain", "model.inputs=moments", "model.depth=1", "data.galaxy.nside=16"]
    with pytest.raises(UserError, match="no velocities"):
        open_task(compose([*words, "split.centre_margin=0", "split.sky_fraction=null"]), sky=still).check()
    with pytest.raises(UserError, match="increase"):
        compose(["model=linear_scales", "model.scales=[30,10]"])


def test_the_spectral_network_sees_single_pixels_and_the_order_of_velocities():
    torch.manual_seed(0)
    patch = FlatPatch(4, 60)
    network = SpectralNetwork(patch, 16, 2, width=4, depth=2).eval()
    x = torch.randn(2, 4, 4, 16)
    moved = x.clone()
    moved[:, 0, 0] += 1
    differs = (network(moved, patch) != network(x, patch)).any(dim=-1)
    assert differs[:, 0, 0].all() and differs.sum() == 2
    assert not torch.allclose(network(x.flip(-1), patch), network(x, patch))
    assert SpectralNetwork(patch, 16, 1, zero_output=True)(x, patch).abs().max() == 0


# rows


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dust_paper", "dust_paper_quick"])
def test_every_row_of_the_shipped_study_composes(name: str):
    configs = model_configs([f"experiment={name}", "training.epochs=3"])
    named = {config.model.name: config for config in configs}
    assert named["lambda_60"].loss.lambda_r == 60 and named["lambda_60"].model.arch == "unet"
    assert named["moments_input"].model.inputs == "moments" and named["l2"].loss.l1 == 0 and named["l2"].loss.l2 == 1
    assert {config.training.epochs for config in configs} == {3} and not any(config.rows for config in configs)
    assert {config.training.seed for config in configs if config.model.name == "unet_flat"} == {1, 2, 3}
    assert {config.data.galaxy.velocity_start for config in configs} == {-64.5, -120.0}
    assert {config.split.name for config in configs} == {"north_south", "east_west"}


ROWS = {
    "unet_flat_2": ["model=unet_flat", "training.seed=2", "model.name=unet_flat"],
    "lambda_60": ["model=unet_flat", "loss.lambda_r=60"],
    "wide_linear": ["model=linear", "model.name=linear", "data.name=wide", "data.galaxy.velocity_start=-80"],
    "east_integrated": ["model=integrated", "model.name=integrated", "split=east_west"],
    "east_linear": ["model=linear", "model.name=linear", "split=east_west"],
}


LINES = [*DEMO, "models=[integrated,linear,unet_flat]"]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an experiment of these rows, and where its runs will be."""
    monkeypatch.chdir(tmp_path)
    rows = "{" + ", ".join(f"{name}: [{', '.join(words)}]" for name, words in ROWS.items()) + "}"
    experiment = tmp_path / "configs" / "experiment" / "small.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text(f"# @package _global_\nname: small\nevaluation: {{study: dust_paper}}\nrows: {rows}\n")
    return tmp_path / "runs/small"


def test_rows_are_runs_beside_the_models_and_the_command_line_is_above_them(small: Path):
    configs = model_configs(["experiment=small", *LINES])
    assert [(one.model.name, one.training.seed, one.loss.lambda_r, one.split.name) for one in configs[3:]] == [
        ("unet_flat", 2, 30, "north_south"),
        ("lambda_60", 1, 60, "north_south"),
        ("linear", 1, 30, "north_south"),
        ("integrated", 1, 30, "east_west"),
        ("linear", 1, 30, "east_west"),
    ]
    assert not any(one.rows for one in configs) and {one.training.epochs for one in configs} == {2}
    assert "task=dust" in sphereml("study", "experiment=small", "task=maps", *LINES, "model=linear").refusal


@pytest.mark.slow
def test_the_study_is_restartable_and_says_which_conclusions_hold(small: Path):
    done("train", "experiment=small", *LINES, "model=linear")
    first = done("study", "experiment=small", *LINES)
    assert "linear: already trained" in first.out and "conclusions of arXiv:1904.13265" in first.out
    result = load_result(small)
    assert all(run.manifest()["tested"] for run in find_runs(small))
    skies = result.content["skies"]
    assert set(skies) == {"galaxy-north_south", "wide-north_south", "galaxy-east_west"}
    other_channels = skies["wide-north_south"]["claims"][-1]
    assert other_channels["text"].startswith("With the channels of wide the row linear") and other_channels["rows"]
    claims = {claim["text"]: claim for claim in skies["galaxy-north_south"]["claims"]}
    above = claims["The U-Net is above the integrated column."]
    assert above["rows"] == ["unet_flat, 2 seeds", "integrated"] and above["holds"] in (True, False)
    assert claims["The U-Net on the sphere is not below the flat one."]["holds"] is None
    weights = [row["weights"] for row in result.content["overfitting"]]
    assert weights == sorted(weights) and weights[0] == 1 and weights[-1] == 24
    assert result.content["overfitting"][-1]["train"]["r50"] > result.content["overfitting"][0]["train"]["r50"]
    page = (small / "report.html").read_text()
    assert "lambda_60" in page and "hold" in page
    assert {row["row"] for row in result.rows()} >= {"lambda_60", "unet_flat, 2 seeds"}
