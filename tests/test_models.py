"""Every shipped network against one contract; the paper's widths; the linear baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sphereml.config.compose import compose
from sphereml.config.resources import resource_folder
from sphereml.config.schema import ExperimentConfig
from sphereml.config.validation import CLOSED_FORMS
from sphereml.data.split_files import Split
from sphereml.data.store import Sky, column
from sphereml.domains import Domain, FlatPatch, HealpixSky
from sphereml.errors import UserError
from sphereml.models.baselines import LinearModel, fit_linear
from sphereml.models.layers import ChannelDropout
from sphereml.models.networks import Network, build
from sphereml.models.unet import UNet
from sphereml.sources.batch import Batch
from sphereml.sources.sky_source import SkyColumns
from sphereml.tasks.dust import DustScaling, DustTask
from sphereml.testing import SYMMETRIES, assert_equivariant, network_function

NSIDE = 32
MODELS = sorted(path.stem for path in (resource_folder("configs") / "model").glob("*.yaml"))
NETWORKS = [name for name in MODELS if compose([f"model={name}"]).model.domain != "none"]
every_network = pytest.mark.parametrize("name", NETWORKS)


def shrunk(name: str) -> ExperimentConfig:
    """A shipped model, thin, and on patches of 32 pixels."""
    config = compose([f"model={name}"])
    model = replace(config.model, width=4, max_width=16)
    return replace(config, model=model, patches=replace(config.patches, size=32))


def domains(config: ExperimentConfig) -> list[Domain]:
    """A small and a large piece of sky of the model's kind."""
    if config.model.domain == "flat":
        return [FlatPatch(32, 46.8), FlatPatch(64)]
    return [HealpixSky(NSIDE, (3, 17), 2), HealpixSky(NSIDE)]


def task_of(config: ExperimentConfig, sky: Sky, split: Split) -> DustTask:
    """A task that learns from the training region alone."""
    config = replace(config, training=replace(config.training, join_validation=False))
    return DustTask(config, sky=sky, split=split)


def fitted(config: ExperimentConfig, sky: Sky, split: Split) -> tuple[Network, DustScaling, SkyColumns]:
    task = task_of(config, sky, split)
    scaling = task.fit_scaling()
    return task.network(scaling, NSIDE), scaling, task.columns(sky, scaling)


def widths(config: ExperimentConfig, scaling: DustScaling) -> tuple[int, int]:
    """Columns in and out of a network."""
    channels = DustTask(config).channels(scaling)
    return channels[0].columns, channels[1].columns


def beyond_reach(domain: Domain, reach: int, depth: int) -> np.ndarray:
    """Pixels of a domain that see none beyond its rim: indices into its flattened pixels."""
    if isinstance(domain, FlatPatch):
        row, column = np.indices(domain.shape)
        edge = np.minimum.reduce([row, column, domain.n - 1 - row, domain.n - 1 - column])
        return edge >= reach + 2**depth
    region = domain.region
    outside = np.setdiff1d(np.arange(region.grid.npix), region.pixels)
    vectors = region.grid.vectors()
    nearest = (vectors[region.pixels] @ vectors[outside].T).max(axis=1)
    return np.degrees(np.arccos(np.clip(nearest, -1, 1))) > 1.5 * (reach + 2**depth) * region.grid.resolution


def features(domain: Domain, count: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, *domain.shape, count, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def awaken(network: torch.nn.Module) -> None:
    """Random weights for the output layer; zero ones hide the others' gradients."""
    for weights in network.output.parameters():
        if weights.ndim > 1:
            weights.normal_()


def test_every_shipped_model_is_known():
    assert {"integrated", "linear", "unet_flat", "unet_sphere", "unet_flat_paper"} <= set(MODELS)
    assert {compose([f"model={name}"]).model.arch for name in MODELS} == {
        *CLOSED_FORMS,
        "unet",
        "resunet",
        "stack",
        "spectral",
    }


@every_network
def test_network_runs_forward_and_backward_on_every_size(name, sky32, split32):
    config = shrunk(name)
    network, scaling, _ = fitted(config, sky32, split32)
    awaken(network)
    for domain in domains(config):
        columns_in, columns_out = widths(config, scaling)
        x = features(domain, columns_in).requires_grad_()
        y = network(x, domain)
        assert y.shape == (2, *domain.shape, columns_out) and y.is_contiguous()
        network.zero_grad()
        y.square().mean().backward()
        for key, parameter in network.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None and parameter.grad.isfinite().all(), key
            else:  # a normalization takes it out again
                assert ".convolutions." in key and key.endswith(".bias"), key
        assert x.grad is not None and x.grad.isfinite().all() and x.grad.any()
        idle = [key for key, p in network.named_parameters() if key.endswith("kernel") and not p.grad.any()]
        assert not idle


@every_network
def test_same_weights_on_a_part_and_on_the_whole(name, sky32, split32):
    """The weights know no pixels; on a part alone only its rim differs."""
    config = shrunk(name)
    network, scaling, _ = fitted(config, sky32, split32)
    awaken(network)
    network.eval()
    part, whole = domains(config)
    x = features(whole, len(scaling.feature_mean))
    with torch.inference_mode():
        large = network(x, whole)
        if isinstance(part, HealpixSky):
            large, small = large[:, part.region.pixels], network(x[:, part.region.pixels], part)
        else:
            large, small = large[:, :32, :32], network(x[:, :32, :32].contiguous(), part)
    assert small.shape == large.shape
    differs = (small - large).abs() > 1e-4 * large.std()
    inside = beyond_reach(part, network.reach(part), network.depth)
    assert not differs[:, inside].any(), "only what sees the rim may differ"
    assert bool(differs.any()) == bool(network.reach(part))


@pytest.mark.parametrize("name", [name for name in NETWORKS if shrunk(name).model.domain == "sphere"])
def test_networks_on_the_sphere_keep_the_symmetries_of_their_stencil(name, sky32, split32, tolerance):
    config = shrunk(name)
    network, scaling, _ = fitted(config, sky32, split32)
    awaken(network)
    # In double precision: the symmetry is that of the weights, whatever the number of layers does to rounding.
    function = network_function(network.eval().double(), 16, torch.float64)
    turns_only = config.model.stencil == "oriented"
    for symmetry in SYMMETRIES:
        if not (turns_only and (symmetry.mirror_lat or symmetry.mirror_lon)):
            assert_equivariant(function, 16, symmetry, tolerance(torch.float64, "network"), len(scaling.feature_mean))


@every_network
def test_untrained_physical_network_predicts_the_first_guess(name, sky32, split32):
    config = shrunk(name)
    network, scaling, fields = fitted(config, sky32, split32)
    network.eval()
    domain = domains(config)[0]
    base = torch.from_numpy(np.resize(fields.base, (2, *domain.shape, 1)))
    gains = None
    if fields.gains is not None:
        gains = torch.from_numpy(np.resize(fields.gains, (2, *domain.shape, *fields.gains.shape[1:])))
    with torch.inference_mode():
        x = features(domain, len(scaling.feature_mean))
        batch = Batch(domain, fields.channels, x, base, gains, base, base[..., 0])
        prediction = task_of(config, sky32, split32).combine(batch, network(x, domain), scaling)
    assert torch.equal(prediction, base) == (config.model.form == "physical")


@every_network
def test_first_guess_is_the_baseline(name, sky32, split32):
    config = shrunk(name)
    _, scaling, fields = fitted(config, sky32, split32)
    columns_in, columns_out = widths(config, scaling)
    assert fields.features.shape == (sky32.grid.npix, columns_in)
    assert fields.features[split32.train].std(axis=0) == pytest.approx(1, abs=0.05)
    restored = scaling.restore(torch.from_numpy(fields.target)).numpy()
    np.testing.assert_allclose(restored, sky32.targets, rtol=1e-5, atol=1e-5)
    if fields.gains is None:
        assert (fields.base == 0).all() and columns_out == 1 and config.model.form == "plain"
        return
    assert fields.gains.shape == (sky32.grid.npix, 1, columns_out)
    gas = sky32.inputs.sum(axis=1)
    if config.model.guess == "linear":
        guess = predict(fit_linear(sky32.inputs, sky32.target, split32.train), sky32.inputs)
    else:
        guess = predict(fit_linear(gas[:, None], sky32.target, split32.train), gas[:, None])
    base = scaling.restore(torch.from_numpy(fields.base)).numpy()[:, 0]
    np.testing.assert_allclose(base, guess, rtol=1e-4, atol=1e-4)
    parts = scaling.target_std[0] * fields.gains.sum(axis=(1, 2)) + scaling.guess_offset
    np.testing.assert_allclose(parts, guess, rtol=1e-4, atol=1e-4)


@every_network
def test_scaling_knows_the_training_pixels_alone(name, sky32, split32):
    config = shrunk(name)
    rng = np.random.default_rng(0)
    elsewhere = ~split32.train[:, None]
    other = replace(
        sky32,
        inputs=np.where(elsewhere, rng.uniform(0, 9, sky32.inputs.shape), sky32.inputs).astype(np.float32),
        targets=np.where(elsewhere, rng.uniform(0, 9, sky32.targets.shape), sky32.targets).astype(np.float32),
    )
    scaling = task_of(config, sky32, split32).fit_scaling()
    assert task_of(config, other, split32).fit_scaling() == scaling
    assert DustScaling.from_json(scaling.to_json()) == scaling


@every_network
def test_weights_survive_safetensors(name, sky32, split32, tmp_path: Path):
    config = shrunk(name)
    network, scaling, _ = fitted(config, sky32, split32)
    domain = domains(config)[0]
    awaken(network)
    with torch.no_grad():
        network(features(domain, len(scaling.feature_mean)), domain)  # moves the running statistics
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    reseeded = replace(config, training=replace(config.training, seed=9))
    again = task_of(reseeded, sky32, split32).network(scaling, NSIDE)
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    x = features(domain, len(scaling.feature_mean))
    with torch.inference_mode():
        assert torch.equal(again.eval()(x, domain), network.eval()(x, domain))


@every_network
def test_seed_decides_the_weights(name, sky32, split32):
    config = shrunk(name)
    task = task_of(config, sky32, split32)
    scaling = task.fit_scaling()
    first, second = (task.network(scaling, NSIDE).state_dict() for _ in range(2))
    reseeded = replace(config, training=replace(config.training, seed=2))
    other = task_of(reseeded, sky32, split32).network(scaling, NSIDE).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    drawn = [key for key in first if first[key].ndim > 1 and first[key].any()]
    assert drawn and not any(torch.equal(first[key], other[key]) for key in drawn)


def test_papers_unet_has_the_papers_widths():
    """arXiv:1904.13265, section 3: 64-128-256-512-512, two 3x3 convolutions a step, 2x2 up, dropout 0.3."""
    config = compose(["model=unet_flat_paper"])
    with torch.device("meta"):
        network = build(config.model, FlatPatch(64), 64, 1)
    down = [[tuple(c.kernel.shape) for c in block.convolutions] for block in network.down]
    assert down == [
        [(9, 64, 64), (9, 64, 64)],
        [(9, 64, 128), (9, 128, 128)],
        [(9, 128, 256), (9, 256, 256)],
        [(9, 256, 512), (9, 512, 512)],
        [(9, 512, 512), (9, 512, 512)],
    ]
    up = [[tuple(c.kernel.shape) for c in block.convolutions] for block in network.up]
    assert up == [
        [(9, 128, 64), (9, 64, 64)],
        [(9, 256, 128), (9, 128, 128)],
        [(9, 512, 256), (9, 256, 256)],
        [(9, 1024, 512), (9, 512, 512)],
    ]
    assert [tuple(layer.kernel.shape) for layer in network.upsampling] == [
        (4, 128, 64),
        (4, 256, 128),
        (4, 512, 256),
        (4, 512, 512),
    ]
    assert network.output.kernel.shape == (1, 64, 1)
    assert {block.dropout.probability for block in network.down} == {0.3}
    assert (config.patches.size, config.model.form, config.loss.lambda_r) == (64, "plain", 30.0)


def test_dropout_drops_whole_channels_and_keeps_the_mean():
    dropout = ChannelDropout(0.3)
    torch.manual_seed(0)
    x = torch.ones(200, 5, 7, 8)
    y = dropout(x)
    assert ((y == 0) | torch.isclose(y, torch.tensor(1 / 0.7))).all()
    assert (y.amax(dim=(1, 2)) == y.amin(dim=(1, 2))).all()
    assert y.mean() == pytest.approx(1, abs=0.05)  # 1600 independent channels: 1.6 % standard error
    assert dropout.eval()(x) is x


def test_too_deep_a_network_is_refused():
    config = compose(["model=unet_flat"])
    network = UNet(FlatPatch(64), 3, width=2, depth=config.model.depth)
    with pytest.raises(UserError, match="halved"):
        network(torch.zeros(1, 12, 12, 3), FlatPatch(12))
    sphere = UNet(HealpixSky(8), 3, width=2, depth=config.model.depth)
    with pytest.raises(UserError, match="cannot be pooled"):
        sphere(torch.zeros(2, 4, 3), HealpixSky(8, (4,), 4))


# --- closed-form baselines ------------------------------------------------------------------------------------------


def predict(model: LinearModel, inputs: np.ndarray) -> np.ndarray:
    return inputs.astype(np.float64) @ model.weights + model.offset


def test_linear_model_recovers_known_weights():
    rng = np.random.default_rng(0)
    inputs = (rng.lognormal(size=(5000, 6)) * np.logspace(18, 20, 6)).astype(np.float32)
    weights, pixels = rng.normal(size=6) / np.logspace(18, 20, 6), rng.random(5000) < 0.3
    target = inputs @ weights + 7
    target[~pixels] = np.nan  # never looked at
    model = fit_linear(inputs, target, pixels)
    np.testing.assert_allclose(model.weights, weights, rtol=1e-7)
    assert model.offset == pytest.approx(7, rel=1e-7)
    np.testing.assert_allclose(predict(model, inputs)[pixels], target[pixels], rtol=1e-7)


def test_repeated_channels_share_their_weight():
    rng = np.random.default_rng(1)
    channel = rng.normal(size=(400, 1))
    model = fit_linear(np.concatenate([channel, channel], axis=1), 3 * channel[:, 0] + 1, np.ones(400, dtype=bool))
    np.testing.assert_allclose(model.weights, [1.5, 1.5], rtol=1e-9)
    assert model.offset == pytest.approx(1)


def test_channel_dark_in_training_gets_the_columns_weight():
    rng = np.random.default_rng(3)
    inputs, lit = rng.lognormal(size=(600, 3)), np.arange(600) < 400
    inputs[lit, 2] = 0
    target = inputs.sum(axis=1) * 2 + 1
    model = fit_linear(inputs, target, lit)
    np.testing.assert_allclose([*model.weights, model.offset], [2, 2, 2, 1], rtol=1e-9)
    with pytest.raises(UserError, match="constant"):
        fit_linear(np.ones((600, 3)), target, lit)


@pytest.mark.parametrize("name", ["linear", "integrated"])
def test_a_closed_form_model_is_least_squares_through_the_networks_protocol(name, sky32, split32):
    task = DustTask(compose([f"model={name}"]), sky=sky32, split=split32)
    scaling = task.fit_scaling()
    network, fields = task.network(scaling, NSIDE), task.columns(sky32, scaling)
    task.solve(network, scaling)
    domain = HealpixSky(NSIDE)
    output = network(torch.from_numpy(fields.features.astype(np.float32))[None], domain)
    pixels = split32.train | split32.validation
    raw = sky32.inputs if name == "linear" else column(sky32)[:, None]
    expected = predict(fit_linear(raw, sky32.target, pixels), raw)
    np.testing.assert_allclose(scaling.restore(output)[0, :, 0].numpy(), expected, rtol=1e-5)


def test_a_single_column_recovers_its_gain():
    column = np.random.default_rng(2).lognormal(size=300) * 1e20
    model = fit_linear(column[:, None], 2e-20 * column + 0.5, np.ones(300, dtype=bool))
    np.testing.assert_allclose([*model.weights, model.offset], [2e-20, 0.5], rtol=1e-9)


def test_too_few_pixels_are_refused():
    with pytest.raises(UserError, match="cannot fix"):
        fit_linear(np.ones((10, 5)), np.ones(10), np.arange(10) < 5)
