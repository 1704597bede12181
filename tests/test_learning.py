"""Networks learn: one batch by heart, a linear relation from the sky; and learn nothing from a masked pixel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sphereml.config.compose import compose
from sphereml.config.schema import ExperimentConfig, LossConfig
from sphereml.data.split_files import Split
from sphereml.data.store import Sky
from sphereml.domains import FlatPatch, HealpixSky
from sphereml.harmonics.bands import Bands
from sphereml.models.layers import Convolution
from sphereml.sources.batch import Batch, EpochSeeds
from sphereml.tasks.dust import DustScaling, DustTask
from sphereml.tasks.losses import CorrelationLoss
from sphereml.tasks.protocol import add_gains

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


def batches_of(config: ExperimentConfig, sky: Sky, split: Split) -> tuple[DustTask, DustScaling, Iterator[Batch]]:
    """The task, its scaling and 150 batches."""
    task = DustTask(config, sky=sky, split=split)
    scaling = task.fit_scaling()
    source = task.sources(scaling)["train"]
    return task, scaling, (source.batch(seed, 4, "cpu") for seed in EpochSeeds(1, 0, 150))


def predicted(network: nn.Module, batch: Batch) -> torch.Tensor:
    return add_gains(batch.base, batch.gains, network(batch.features, batch.domain))


def descend(network: nn.Module, batch: Batch, steps: int, rate: float) -> list[float]:
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    history = []
    for _ in range(steps):
        loss, _ = LOSS(predicted(network, batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return history


@every_domain
@pytest.mark.parametrize("form", ["plain", "physical"])
def test_unet_learns_one_batch_by_heart(domain, form, sky32, split32):
    config = tiny(domain, form)
    task, scaling, batches = batches_of(config, sky32, split32)
    history = descend(task.network(scaling, NSIDE), next(batches), steps=55, rate=1e-2)
    assert np.mean(history[-5:]) < history[0] / 20, history
    assert all(np.isfinite(history))


@every_domain
def test_same_seed_learns_the_same(domain, sky32, split32):
    config = tiny(domain, "physical")
    task, scaling, batches = batches_of(config, sky32, split32)
    batch = next(batches)
    first, second = (descend(task.network(scaling, NSIDE), batch, 4, 1e-2) for _ in range(2))
    assert first == second


@every_domain
def test_linear_relation_is_recovered_from_batches(domain, sky32, split32):
    """Target = sum of w_c channel_c; one pixelwise layer, fresh batches.

    The weight of r is lowered: it says nothing of the amplitude, which Adam then finds in hundreds of steps.
    """
    loss_of = CorrelationLoss.of(LossConfig(lambda_r=1), BANDS)
    weights = np.float32([0.8, -0.3, 0.5, 0.1])
    sky = replace(sky32, targets=(sky32.inputs @ weights + 2)[:, None])
    _, scaling, batches = batches_of(tiny(domain, "plain"), sky, split32)
    torch.manual_seed(0)
    layer = Convolution(FlatPatch(16, 93.6) if domain == "flat" else HealpixSky(NSIDE), 4, 1, 1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
    for batch in batches:
        loss, _ = loss_of(predicted(layer, batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    learnt = layer.kernel.detach().numpy()[0, :, 0] * scaling.target_std[0] / scaling.feature_std
    np.testing.assert_allclose(learnt, weights, atol=0.02)


@every_domain
def test_masked_pixels_teach_nothing(domain, sky32, split32):
    """The gradient is the same whatever target stands under the mask."""
    task, scaling, batches = batches_of(tiny(domain, "plain"), sky32, split32)
    batch = next(batches)
    weight = batch.weight * (torch.rand(batch.weight.shape, generator=torch.Generator().manual_seed(0)) > 0.3)
    spoiled = torch.where(weight[..., None] > 0, batch.target, 50.0)
    gradients = []
    for target in (batch.target, spoiled):
        network = task.network(scaling, NSIDE)
        LOSS(predicted(network, batch), replace(batch, target=target, weight=weight))[0].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4 * float(gradients[0].abs().max()))
