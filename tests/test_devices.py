"""Where the code asks for the device, every device gives what one CPU gives in double precision.

On a machine without an accelerator only the CPU's side runs, in single precision and with the torch transform.
"""

from __future__ import annotations

import copy

import pytest
import torch

from sphereml.domains import HealpixSky
from sphereml.domains.channels import Channels
from sphereml.harmonics import autograd
from sphereml.harmonics.autograd import SphericalTransform
from sphereml.harmonics.rings import alm_index
from sphereml.models.layers import Convolution
from sphereml.models.unet import UNet

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SKY = HealpixSky(8)

pytestmark = pytest.mark.parametrize("device", DEVICES)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outcome(module: torch.nn.Module, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """Output, and gradients by the input and by every weight, back on the CPU in double precision."""
    own = copy.deepcopy(module).to(device, dtype)
    x = noise(2, 768, 4).to(device, dtype).requires_grad_()
    y = own(x, SKY)
    y.backward(noise(*y.shape, seed=1).to(device, dtype))
    return [one.detach().cpu().double() for one in (y, x.grad, *(w.grad for w in own.parameters())) if one is not None]


def assert_alike(module: torch.nn.Module, device: str, tolerance: float) -> None:
    ours, exact = outcome(module, device, torch.float32), outcome(module, "cpu", torch.float64)
    assert len(ours) == len(exact)
    for one, other in zip(ours, exact, strict=True):
        assert (one - other).abs().max() < tolerance * max(float(other.std(correction=0)), 1.0)


@pytest.mark.parametrize("stencil", ["adjacent", "nearest8", "oriented", "spin"])
def test_layers(device, stencil):
    torch.manual_seed(0)
    typed = stencil == "spin"
    channels = (Channels(even=2, spin2=1), Channels(even=1, spin2=2)) if typed else (4, 5)
    assert_alike(Convolution(SKY, *channels, kernel=3, stencil=stencil), device, 1e-4)


def test_network(device):
    torch.manual_seed(0)
    assert_alike(UNet(SKY, channels_in=4, channels_out=2, width=8, depth=2, dropout=0.0), device, 1e-3)


@pytest.mark.parametrize("spin", [0, 2])
def test_transforms(device, spin):
    exact, ours = SphericalTransform(8, 16, spin=spin), SphericalTransform(8, 16, spin=spin, engine="torch")
    ell, order = alm_index(16)
    shape = (2, 2, ell.size) if spin else (2, ell.size)
    alm = torch.complex(noise(*shape), noise(*shape, seed=1) * torch.from_numpy(order > 0))
    alm = torch.where(torch.from_numpy(ell >= spin), alm, 0)
    maps = autograd.synthesis(alm, exact)
    torch.testing.assert_close(autograd.synthesis(alm.to(device), ours).cpu(), maps, rtol=0, atol=1e-10)
    again = autograd.analysis(maps.to(device), ours, iterations=1).cpu()
    torch.testing.assert_close(again, autograd.analysis(maps, exact, iterations=1), rtol=0, atol=1e-10)
