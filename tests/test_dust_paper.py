"""The dust study: linear weights as the paper gives them, inputs, the spectral network, rows, conclusions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_cli import DEMO, PATCHES, TINY, done, sphereml

from sphereml.cli.experiment import model_configs
from sphereml.config.compose import compose
from sphereml.data.store import Sky
from sphereml.domains import FlatPatch
from sphereml.errors import UserError
from sphereml.evaluation.paper.domains import hotelling_test
from sphereml.evaluation.protocol import StudyOptions, load_result, open_study
from sphereml.evaluation.statistics import jackknife_covariance, leave_one_out
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


# selection without peeking


@pytest.mark.parametrize("model", ["linear", "unet_flat", "unet_sphere_plain"])
def test_no_choice_sees_the_test_side(model: str):
    """Other dust and gas there leave the scaling, the first guess and every batch, also of validation, as they were."""
    words = [f"model={model}", "split.sky_fraction=null", "data.galaxy.nside=16", *PATCHES, "training.tile_nside=2"]
    sky = gas_sky()
    task = open_task(compose([*words, "model.depth=1", "model.width=2"]), sky=sky)
    test = task.split.test
    assert test.mean() > 0.3
    other = open_task(
        task.config,
        sky=replace(
            sky,
            inputs=np.where(test[:, None], 7 * sky.inputs[::-1], sky.inputs),
            targets=np.where(test[:, None], -3 * sky.targets[::-1], sky.targets),
        ),
    )
    scaling, changed = task.fit_scaling(), other.fit_scaling()
    assert scaling.to_json() == changed.to_json()
    if not task.closed_form:
        for part in ("train", "validation"):
            one, two = task.sources(scaling)[part].batch(3, 4), other.sources(changed)[part].batch(3, 4)
            seen = one.weight > 0
            assert seen.any() and torch.equal(one.weight, two.weight)
            for name in ("features", "target"):
                assert torch.equal(getattr(one, name)[seen], getattr(two, name)[seen])


def test_the_first_scoring_is_in_the_manifest(tmp_path: Path):
    """Training and prediction leave none; the first measurement does, and a later one keeps its time."""
    done("train", "experiment=dust_demo", *TINY, "models=[integrated]", f"output={tmp_path}", f"data.stores={tmp_path}")
    (run,) = find_runs(tmp_path / "demo")
    done("predict", run.folder)
    assert "tested" not in run.manifest()
    study = open_study([run], StudyOptions(lambda line: None))
    study.measure()
    assert run.manifest()["tested"]
    run.update(tested="2000-01-01T00:00:00+00:00")
    study.measure()
    assert run.manifest()["tested"] == "2000-01-01T00:00:00+00:00"


# the sphere against the plane


def test_the_paired_chi_square_knows_no_difference_from_one():
    """Of 400 draws without a difference 5 % have p < .05; a shift of half a standard deviation of a group is found."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6))
    size, found = np.ones(24), []
    for shift in (0.0, 2.0):
        draws = rng.normal(size=(400, 24, 6)) @ mixing + shift * mixing.sum(axis=0)
        samples = [leave_one_out(one) for one in draws]
        tests = [hotelling_test(one[0], jackknife_covariance(one, size), 24) for one in samples]
        found.append(np.array([one.probability for one in tests], float))
    assert found[0].mean() == pytest.approx(0.5, abs=0.05) and (found[0] < 0.05).mean() == pytest.approx(0.05, abs=0.03)
    assert found[1].max() < 1e-3


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
    galaxies = [config.data.galaxy for config in configs]
    spans = {(one.velocity_start, round(one.channels * one.channel_width)) for one in galaxies}
    assert spans == {(-64.5, 82), (-120.0, 240)}
    assert all(len([one for one in configs if one == config]) == 1 for config in configs)
    assert {config.split.name for config in configs} == {"north_south", "east_west"}


ROWS = {
    "lambda_60": ["model=unet_flat", "loss.lambda_r=60"],
    "wide_linear": ["model=linear", "model.name=linear", "data.name=wide", "data.galaxy.velocity_start=-80"],
    "east_integrated": ["model=integrated", "model.name=integrated", "split=east_west"],
    "east_linear": ["model=linear", "model.name=linear", "split=east_west"],
}


FIGURES = (
    "patch",
    "patch_residual",
    "joint_flat",
    "joint_sphere",
    "r_sphere",
    "r_flat",
    "gain",
    "lambda_flat",
    "lambda_sphere",
    "weights",
)
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


def test_networks_are_trained_once_a_seed():
    lines = ["models=[linear,unet_flat]", "seeds=[4,5]"]
    found = [(one.model.name, one.training.seed, one.seeds) for one in model_configs(lines)]
    assert found == [("linear", 1, []), ("unet_flat", 4, []), ("unet_flat", 5, [])]
    assert [one.training.seed for one in model_configs([*lines, "training.seed=3"])] == [3, 3]


def test_rows_are_runs_beside_the_models_and_the_command_line_is_above_them(small: Path):
    configs = model_configs(["experiment=small", *LINES])
    assert [(one.model.name, one.training.seed, one.loss.lambda_r, one.split.name) for one in configs[3:]] == [
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
    first = done("study", "experiment=small", *TINY, "models=[integrated,linear,unet_flat,unet_sphere]", "seeds=[1,2]")
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
    assert claims["Moments in place of channels are no better."]["holds"] is None
    domains = skies["galaxy-north_south"]["domains"]["unet_sphere"]
    assert domains["rows"] == ["unet_sphere, 2 seeds", "unet_flat, 2 seeds"]
    assert not skies["wide-north_south"]["domains"]
    for place in (domains["patches"], domains["sphere"]):
        assert place["seeds"]["r50"]["mean"] == pytest.approx(place["bands"]["r50"]["mean"], abs=1e-9)
        assert 0 <= place["probability"] <= 1 and len(place["ell"]) == len(place["sem"]) == place["bins"]
    drawn = {path.stem for path in (small / "figures").glob("*.png")}
    assert drawn == set(FIGURES)
    weights = [row["weights"] for row in result.content["overfitting"]]
    assert weights == sorted(weights) and weights[0] == 1 and weights[-1] == 24
    assert result.content["overfitting"][-1]["train"]["r50"] > result.content["overfitting"][0]["train"]["r50"]
    page = (small / "report.html").read_text()
    assert "lambda_60" in page and "hold" in page
    assert {row["row"] for row in result.rows()} >= {"lambda_60, 2 seeds", "unet_flat, 2 seeds"}
