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
from sphereml.data.splits import Split
from sphereml.data.store import Sky
from sphereml.domains import Domain, FlatPatch, HealpixSky
from sphereml.errors import UserError
from sphereml.models.baselines import fit_integrated, fit_linear
from sphereml.models.layers import ChannelDropout
from sphereml.models.networks import build
from sphereml.models.unet import UNet
from sphereml.tasks.dust import DustScaling, TaskFields, build_fields, combine, fit_scaling
from sphereml.testing import SYMMETRIES, assert_equivariant, network_function
from sphereml.training.fit import build_network

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


def fitted(config: ExperimentConfig, sky: Sky, split: Split) -> tuple[UNet, DustScaling, TaskFields]:
    scaling = fit_scaling(sky, split.train, config.model)
    return build_network(config, scaling, NSIDE), scaling, build_fields(sky, scaling)


def features(domain: Domain, count: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, *domain.shape, count, generator=torch.Generator().manual_seed(0))


def test_every_shipped_model_is_known():
    assert {"integrated", "linear", "unet_flat", "unet_sphere", "unet_flat_paper"} <= set(MODELS)
    assert {compose([f"model={name}"]).model.arch for name in MODELS} == {"integrated", "linear", "unet", "resunet"}


@every_network
def test_network_runs_forward_and_backward_on_every_size(name, sky32, split32):
    config = shrunk(name)
    network, scaling, _ = fitted(config, sky32, split32)
    with torch.no_grad():  # a zero output layer hides the others' gradients
        network.output.kernel.normal_()
    for domain in domains(config):
        x = features(domain, scaling.feature_count).requires_grad_()
        y = network(x, domain)
        assert y.shape == (2, *domain.shape, scaling.output_count) and y.is_contiguous()
        network.zero_grad()
        y.square().mean().backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert x.grad is not None and x.grad.isfinite().all() and x.grad.any()
        idle = [key for key, p in network.named_parameters() if key.endswith("kernel") and not p.grad.any()]
        assert not idle


@every_network
def test_same_weights_on_a_part_and_on_the_whole(name, sky32, split32):
    """The weights know no pixels; on a part alone only its rim differs."""
    config = shrunk(name)
    network, scaling, _ = fitted(config, sky32, split32)
    with torch.no_grad():
        network.output.kernel.normal_()
    network.eval()
    part, whole = domains(config)
    x = features(whole, scaling.feature_count)
    with torch.inference_mode():
        large = network(x, whole)
        if isinstance(part, HealpixSky):
            large, small = large[:, part.region.pixels], network(x[:, part.region.pixels], part)
        else:
            large, small = large[:, :32, :32], network(x[:, :32, :32].contiguous(), part)
    assert small.shape == large.shape
    agree = ((small - large).abs() < 1e-4 * large.std()).float().mean()
    # Depth 0 sees two pixels: of a tile's 16 x 16, 12 x 12 agree.  Deep networks see more than the part.
    assert agree > (0.5 if config.model.depth == 0 else -1) and (small - large).abs().max() > 0


@pytest.mark.parametrize("name", [name for name in NETWORKS if shrunk(name).model.domain == "sphere"])
def test_networks_on_the_sphere_keep_the_symmetries_of_their_stencil(name, sky32, split32, tolerance):
    config = shrunk(name)
    network, scaling, _ = fitted(config, sky32, split32)
    with torch.no_grad():
        network.output.kernel.normal_()
    function = network_function(network.eval(), 16)
    turns_only = config.model.stencil == "oriented"
    for symmetry in SYMMETRIES:
        if not (turns_only and (symmetry.mirror_lat or symmetry.mirror_lon)):
            assert_equivariant(function, 16, symmetry, tolerance(torch.float32, "network"), scaling.feature_count)


@every_network
def test_untrained_physical_network_predicts_the_first_guess(name, sky32, split32):
    config = shrunk(name)
    network, scaling, fields = fitted(config, sky32, split32)
    network.eval()
    domain = domains(config)[0]
    base = torch.from_numpy(np.resize(fields.base, (2, *domain.shape)))
    gain = torch.from_numpy(np.resize(fields.gain, (2, *domain.shape, fields.gain.shape[1])))
    with torch.inference_mode():
        output = network(features(domain, scaling.feature_count), domain)
        prediction = combine(base, gain, output, config.model.gain_limit)
    assert torch.equal(prediction, base) == (config.model.form == "physical")


@every_network
def test_first_guess_is_the_baseline(name, sky32, split32):
    config = shrunk(name)
    _, scaling, fields = fitted(config, sky32, split32)
    assert fields.features.shape == (sky32.grid.npix, scaling.feature_count)
    assert fields.gain.shape == (sky32.grid.npix, scaling.output_count)
    assert fields.features[split32.train].std(axis=0) == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(scaling.restore(fields.target), sky32.target, rtol=1e-5, atol=1e-5)
    if config.model.form == "plain":
        assert (fields.base == 0).all() and (fields.gain == 1).all()
        return
    gas = sky32.inputs.sum(axis=1)
    if config.model.guess == "linear":
        guess = fit_linear(sky32.inputs, sky32.target, split32.train).predict(sky32.inputs)
    else:
        guess = fit_integrated(gas, sky32.target, split32.train).predict(gas[:, None])
    np.testing.assert_allclose(scaling.restore(fields.base), guess, rtol=1e-4, atol=1e-4)
    parts = scaling.target_std * fields.gain.sum(axis=1) + scaling.guess_offset
    np.testing.assert_allclose(parts, guess, rtol=1e-4, atol=1e-4)


@every_network
def test_scaling_knows_the_training_pixels_alone(name, sky32, split32):
    config = shrunk(name)
    rng = np.random.default_rng(0)
    elsewhere = ~split32.train[:, None]
    other = replace(
        sky32,
        inputs=np.where(elsewhere, rng.uniform(0, 9, sky32.inputs.shape), sky32.inputs).astype(np.float32),
        target=np.where(elsewhere[:, 0], rng.uniform(0, 9, sky32.target.shape), sky32.target).astype(np.float32),
    )
    scaling = fit_scaling(sky32, split32.train, config.model)
    assert fit_scaling(other, split32.train, config.model) == scaling
    assert DustScaling.from_json(scaling.to_json()) == scaling


@every_network
def test_weights_survive_safetensors(name, sky32, split32, tmp_path: Path):
    config = shrunk(name)
    network, scaling, _ = fitted(config, sky32, split32)
    domain = domains(config)[0]
    with torch.no_grad():
        network.output.kernel.normal_()
        network(features(domain, scaling.feature_count), domain)  # moves the running statistics
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    again = build_network(replace(config, training=replace(config.training, seed=9)), scaling, NSIDE)
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    x = features(domain, scaling.feature_count)
    with torch.inference_mode():
        assert torch.equal(again.eval()(x, domain), network.eval()(x, domain))


@every_network
def test_seed_decides_the_weights(name, sky32, split32):
    config = shrunk(name)
    scaling = fit_scaling(sky32, split32.train, config.model)
    first, second = (build_network(config, scaling, NSIDE).state_dict() for _ in range(2))
    other = build_network(replace(config, training=replace(config.training, seed=2)), scaling, NSIDE).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["down.0.convolutions.0.kernel"], other["down.0.convolutions.0.kernel"])


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


def test_linear_model_recovers_known_weights():
    rng = np.random.default_rng(0)
    inputs = (rng.lognormal(size=(5000, 6)) * np.logspace(18, 20, 6)).astype(np.float32)
    weights, pixels = rng.normal(size=6) / np.logspace(18, 20, 6), rng.random(5000) < 0.3
    target = inputs @ weights + 7
    target[~pixels] = np.nan  # never looked at
    model = fit_linear(inputs, target, pixels)
    np.testing.assert_allclose(model.weights, weights, rtol=1e-7)
    assert model.offset == pytest.approx(7, rel=1e-7)
    np.testing.assert_allclose(model.predict(inputs)[pixels], target[pixels], rtol=1e-7)


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


def test_integrated_model_recovers_its_gain():
    column = np.random.default_rng(2).lognormal(size=300) * 1e20
    model = fit_integrated(column, 2e-20 * column + 0.5, np.ones(300, dtype=bool))
    np.testing.assert_allclose([*model.weights, model.offset], [2e-20, 0.5], rtol=1e-9)


def test_too_few_pixels_are_refused():
    with pytest.raises(UserError, match="cannot fix"):
        fit_linear(np.ones((10, 5)), np.ones(10), np.arange(10) < 5)
