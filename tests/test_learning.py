"""Networks learn: one batch by heart, a linear relation from the sky; and learn nothing from a masked pixel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sphereml.config.compose import compose
from sphereml.config.schema import ExperimentConfig, LossConfig
from sphereml.data.splits import Split
from sphereml.data.store import Sky
from sphereml.domains import FlatPatch, HealpixSky
from sphereml.harmonics.bands import Bands
from sphereml.models.layers import Convolution
from sphereml.tasks.dust import build_fields, combine, fit_scaling
from sphereml.tasks.losses import CorrelationLoss
from sphereml.training.batches import Batch, SkyBatches, sky_batches
from sphereml.training.fit import build_network, footprint
from sphereml.training.regression import standardized_prediction

NSIDE = 32
# What a patch or tile of 25 degrees and pixels of 1.8 degrees resolves.
BANDS = Bands(r50=(14.4, 40), r150=(40, 60))
LOSS = CorrelationLoss.of(LossConfig(), BANDS)
DOMAINS = {"flat": ["patches.size=16", "patches.pixel_arcmin=93.6"], "sphere": []}
every_domain = pytest.mark.parametrize("domain", DOMAINS)


def tiny(domain: str, form: str) -> ExperimentConfig:
    config = compose([f"model=unet_{domain}", f"model.form={form}", "data.galaxy.nside=32", *DOMAINS[domain]])
    model = replace(config.model, width=8, depth=2, dropout=0.0, input_noise=0.0)
    return replace(config, model=model, training=replace(config.training, batch_size=4, tile_nside=2))


def batches_of(config: ExperimentConfig, sky: Sky, split: Split) -> SkyBatches:
    fields = build_fields(sky, fit_scaling(sky, split.train, config.model))
    return sky_batches(fields, split.train, footprint(config, NSIDE, split.train), 4, 150, seed=1)


def descend(network: nn.Module, batch: Batch, steps: int, rate: float) -> list[float]:
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    history = []
    for _ in range(steps):
        loss, _ = LOSS(standardized_prediction(network, batch, 0.0), batch.target, batch.weight, batch.domain)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return history


@every_domain
@pytest.mark.parametrize("form", ["plain", "physical"])
def test_unet_learns_one_batch_by_heart(domain, form, sky32, split32):
    config = tiny(domain, form)
    batch = batches_of(config, sky32, split32).batch(0)
    network = build_network(config, fit_scaling(sky32, split32.train, config.model), NSIDE)
    history = descend(network, batch, steps=55, rate=1e-2)
    assert np.mean(history[-5:]) < history[0] / 20, history
    assert all(np.isfinite(history))


@every_domain
def test_same_seed_learns_the_same(domain, sky32, split32):
    config = tiny(domain, "physical")
    batch = batches_of(config, sky32, split32).batch(0)
    scaling = fit_scaling(sky32, split32.train, config.model)
    first, second = (descend(build_network(config, scaling, NSIDE), batch, 4, 1e-2) for _ in range(2))
    assert first == second


@every_domain
def test_linear_relation_is_recovered_from_batches(domain, sky32, split32):
    """Target = sum of w_c channel_c; one pixelwise layer, fresh batches.

    The weight of r is lowered: it says nothing of the amplitude, which Adam then finds in hundreds of steps.
    """
    loss_of = CorrelationLoss.of(LossConfig(lambda_r=1), BANDS)
    weights = np.float32([0.8, -0.3, 0.5, 0.1])
    sky = replace(sky32, target=sky32.inputs @ weights + 2)
    config = tiny(domain, "plain")
    scaling = fit_scaling(sky, split32.train, config.model)
    torch.manual_seed(0)
    layer = Convolution(FlatPatch(16, 93.6) if domain == "flat" else HealpixSky(NSIDE), 4, 1, 1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
    for batch in batches_of(config, sky, split32):
        prediction = combine(batch.base, batch.gain, layer(batch.features, batch.domain), 0.0)
        loss, _ = loss_of(prediction, batch.target, batch.weight, batch.domain)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    learnt = layer.kernel.detach().numpy()[0, :, 0] * scaling.target_std / scaling.feature_std
    np.testing.assert_allclose(learnt, weights, atol=0.02)


@every_domain
def test_masked_pixels_teach_nothing(domain, sky32, split32):
    """The gradient is the same whatever target stands under the mask."""
    config = tiny(domain, "plain")
    scaling = fit_scaling(sky32, split32.train, config.model)
    batch = batches_of(config, sky32, split32).batch(0)
    weight = batch.weight * (torch.rand(batch.weight.shape, generator=torch.Generator().manual_seed(0)) > 0.3)
    spoiled = torch.where(weight > 0, batch.target, 50.0)
    gradients = []
    for target in (batch.target, spoiled):
        network = build_network(config, scaling, NSIDE)
        prediction = standardized_prediction(network, batch, 0.0)
        LOSS(prediction, target, weight, batch.domain)[0].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4 * float(gradients[0].abs().max()))
