"""The residual U-Net: the paper's size and receptive field, on a patch, on the sphere and on its tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from sphereml.config.compose import compose
from sphereml.domains import Domain, FlatPatch, HealpixSky
from sphereml.models.layers import Convolution
from sphereml.models.networks import build
from sphereml.models.resunet import ResUNet
from sphereml.models.tiling import Tiling
from sphereml.testing import SYMMETRIES, assert_equivariant, network_function

SMALL: dict[str, Any] = {"width": 4, "depth": 2, "dropout": 0.0}
DOMAINS = {"flat": FlatPatch(16), "sphere": HealpixSky(8), "part": HealpixSky(8, (3, 7))}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network_on(domain: Domain, channels: int = 3, **options: Any) -> ResUNet:
    torch.manual_seed(0)
    network = ResUNet(domain, channels, 2, **SMALL | options)
    with torch.no_grad():  # biases and running means of no empty sky, so that a wrong edge shows
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            if name.endswith(("bias", "running_mean")):
                value.normal_(0, 0.3)
    return network.eval()


def test_the_papers_network_has_its_size():
    """arXiv:1810.01483: 5.4 million parameters, 64 -> 128 -> 256 channels, 5x5."""
    config = compose(["model=resunet_paper"]).model
    network = build(config, FlatPatch(128), 2, 2)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == pytest.approx(5.4e6, rel=0.05)
    convolutions = [layer for layer in network.modules() if isinstance(layer, Convolution) and len(layer.kernel) > 1]
    assert len(convolutions) == 14 and {len(layer.kernel) for layer in convolutions} == {25}
    assert max(layer.kernel.shape[2] for layer in convolutions) == 256
    assert config.dropout == 0.3


@pytest.mark.parametrize("position", [64, 65, 66, 67])
def test_the_papers_network_sees_101_pixels(position):
    patch = FlatPatch(128)
    network = ResUNet(patch, 2, kernel=5, norm="none", **SMALL)
    x = noise(1, 128, 128, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x, patch)[0, position, position, 0], x)
    seen = gradient.abs().sum(dim=-1)[0].nonzero()
    extent = seen.amax(dim=0) - seen.amin(dim=0) + 1
    assert extent.tolist() == [101, 101]


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_it_runs_forward_and_backward_everywhere(domain, depth):
    network = ResUNet(domain, 3, 2, width=4, depth=depth)
    network(noise(2, *domain.shape, 3), domain).square().mean().backward()
    for parameter in network.parameters():  # but for biases that a normalization takes out again
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.isfinite().all())
    assert network(noise(2, *domain.shape, 3), domain).shape == (2, *domain.shape, 2)


def test_zero_output_starts_at_zero():
    patch = DOMAINS["flat"]
    assert not ResUNet(patch, 3, 2, zero_output=True, **SMALL)(noise(1, 16, 16, 3), patch).any()


@pytest.mark.parametrize("symmetry", SYMMETRIES[:6])
def test_it_keeps_the_symmetries_of_the_grid(symmetry, tolerance):
    network = network_on(HealpixSky(8))
    assert_equivariant(network_function(network, 8), 8, symmetry, tolerance(torch.float32, "network"), channels=3)


@pytest.mark.parametrize("kernel", [2, 3])
def test_tiles_equal_the_whole_sphere(kernel, tolerance):
    sky = HealpixSky(16)
    network = network_on(sky, depth=1, kernel=kernel)
    features = noise(sky.shape[0], 3).numpy()
    with torch.inference_mode():
        whole = network(torch.from_numpy(features)[None], sky)[0].numpy()
    tiled = Tiling(network, 16, 2).run(features)
    assert np.abs(tiled - whole).max() < tolerance(torch.float32, "network") * whole.std()


def test_convolution_of_stride_two_equals_torchs():
    patch, kernel, bias = FlatPatch(16), noise(25, 3, 5), noise(5)
    x = noise(2, 16, 16, 3)
    oracle = conv2d(x.permute(0, 3, 1, 2), kernel.view(5, 5, 3, 5).permute(3, 2, 0, 1), bias, stride=2, padding=2)
    assert torch.allclose(patch.convolve_down(x, kernel, bias), oracle.permute(0, 2, 3, 1), atol=1e-5)


@pytest.mark.parametrize("taps", [1, 3])
def test_halving_on_the_sphere_takes_the_mean_of_children(taps):
    sky = HealpixSky(8, (3, 7))
    x, kernel, bias = noise(2, *sky.shape, 3), noise(taps, 3, 5), noise(5)
    fine = sky.convolve(x, kernel, bias)
    coarse = fine.view(2, -1, 4, 5).mean(dim=2)
    assert torch.allclose(sky.convolve_down(x, kernel, bias), coarse, atol=1e-5)


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_spreading_gives_children_their_parents_value(domain):
    coarse = noise(1, *domain.coarser().shape, 2)
    fine = domain.spread(coarse)
    assert fine.shape == (1, *domain.shape, 2)
    assert torch.equal(domain.pool(fine), coarse) and torch.equal(-domain.pool(-fine), coarse)
