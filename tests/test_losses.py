"""Equation 2.3 of arXiv:1904.13265 on cases worked by hand, and what must not matter to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sphereml.config.schema import BandsConfig, LossConfig
from sphereml.domains import Domain, FlatPatch, HealpixSky
from sphereml.domains.channels import Channels
from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.transforms import alm_index, synthesis
from sphereml.sources.batch import Batch
from sphereml.tasks.losses import CorrelationLoss, resolved_bands

PATCH = FlatPatch(64, 23.4)
SPHERE = HealpixSky(16)
TILE = HealpixSky(16, (2, 9, 30), 2)
CASES = {
    "patch": (PATCH, Bands(r50=(14.4, 100), r150=(100, 200))),
    "sphere": (SPHERE, Bands(r50=(4, 14.4), r150=(14.4, 32))),
    "tile": (TILE, Bands(r50=(4, 14.4), r150=(14.4, 32))),
}
every_case = pytest.mark.parametrize(("domain", "bands"), CASES.values(), ids=CASES.keys())


def fields(domain: Domain, count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, *domain.shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def measured(
    loss: CorrelationLoss, prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, domain: Domain
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of one output and r of its bands ``(nband,)``."""
    target = target[..., None]
    value, r = loss(prediction[..., None], Batch(domain, Channels(1), target, target, None, target, weight))
    return value, torch.stack(list(r.values())) if r else torch.zeros(0)


def test_flat_loss_of_a_hand_made_pair():
    """All modes below ell = 50 have their sign turned, those from 150 to 160 are taken away."""
    rng = np.random.default_rng(0)
    target = rng.standard_normal((64, 64))
    target -= target.mean()
    step = 360 / (64 * 23.4 / 60)
    ell = step * np.hypot(*np.meshgrid(np.fft.fftfreq(64, 1 / 64), np.fft.fftfreq(64, 1 / 64)))
    factor = np.where(ell < 50, -1.0, np.where((ell >= 150) & (ell < 160), 0.0, 1.0))
    prediction = np.fft.ifft2(factor * np.fft.fft2(target)).real
    low, high = (ell >= 14.4) & (ell < 100), (ell >= 100) & (ell < 200)
    r50 = 1 - 2 * (low & (ell < 50)).sum() / low.sum()
    r150 = 1 - (high & (ell >= 150) & (ell < 160)).sum() / high.sum()
    expected = 30 * ((1 - r50) + (1 - r150)) + np.abs(target - prediction).mean()
    loss = CorrelationLoss.of(LossConfig(), resolved_bands(BandsConfig(), 512))
    ours, r = measured(
        loss, *(torch.from_numpy(x)[None] for x in (prediction, target)), torch.ones(1, 64, 64).double(), PATCH
    )
    assert ours.item() == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(r.numpy(), [r50, r150], rtol=1e-9)


def test_spherical_loss_of_a_hand_made_pair():
    """Form ell: each multipole below 8 has r = -1, the others 1."""
    ell, order = alm_index(31)
    rng = np.random.default_rng(1)
    alm = rng.standard_normal(ell.size) + 1j * rng.standard_normal(ell.size)
    alm[order == 0] = alm[order == 0].real
    alm[ell == 0] = 0
    target, prediction = synthesis(np.stack([alm, np.where(ell < 8, -alm, alm)]), 16, 31)
    r50 = (7 - 4) / 11  # ell = 4..7 turned, 8..14 not
    expected = 30 * (1 - r50) + np.abs(target - prediction).mean()
    loss = CorrelationLoss.of(LossConfig(), CASES["sphere"][1])
    ours, r = measured(
        loss, *(torch.from_numpy(x)[None] for x in (prediction, target)), torch.ones(1, 3072).double(), SPHERE
    )
    # The quadrature of HEALPix leaks 1e-3 of the amplitude between multipoles without iterations.
    assert ours.item() == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(r.numpy(), [r50, 1], atol=1e-3)


@pytest.mark.parametrize(
    ("nside", "expected"),
    [
        (512, Bands(r_low=(2, 15), r50=(14.4, 100), r150=(100, 200))),
        (64, Bands(r_low=(2, 15), r50=(14.4, 100), r150=(100, 128))),
        (32, Bands(r_low=(2, 15), r50=(14.4, 64))),
        (4, Bands(r_low=(2, 8))),
    ],
)
def test_bands_are_clipped_to_what_the_map_resolves(nside, expected):
    assert resolved_bands(BandsConfig(), nside) == expected
    in_loss = expected.chosen(["r50", "r150"])
    if in_loss:
        assert CorrelationLoss.of(LossConfig(), expected).bands == in_loss
    else:
        with pytest.raises(UserError, match="resolves none of the loss's bands"):
            CorrelationLoss.of(LossConfig(), expected)


@every_case
@pytest.mark.parametrize("form", ["auto", "mode", "ell"])
def test_loss_is_least_where_prediction_is_target(domain, bands, form):
    loss = CorrelationLoss.of(LossConfig(correlation=form), bands)
    target, weight = fields(domain, 2), torch.ones(2, *domain.shape).double()
    least, r = measured(loss, target, target, weight, domain)
    assert least.abs() < 1e-9 and (r - 1).abs().max() < 1e-12
    for seed, size in ((1, 1e-3), (2, 0.1), (3, 10.0)):
        assert measured(loss, target + size * fields(domain, 2, seed), target, weight, domain)[0] > 1e-4 * size


@every_case
@pytest.mark.parametrize("form", ["auto", "mode", "ell"])
def test_masked_pixels_do_not_matter(domain, bands, form):
    loss = CorrelationLoss.of(LossConfig(correlation=form), bands)
    weight = (fields(domain, 2, 4) > -0.5).double()
    prediction, target = fields(domain, 2, 5), fields(domain, 2, 6)
    junk = torch.where(weight > 0, 0.0, 30 * fields(domain, 2, 7))
    clean = measured(loss, prediction, target, weight, domain)[0]
    spoiled = measured(loss, prediction + junk, target - junk, weight, domain)[0]
    assert spoiled.item() == pytest.approx(clean.item(), rel=1e-9)
    prediction = prediction.requires_grad_()
    measured(loss, prediction, target, weight, domain)[0].backward()
    assert prediction.grad is not None and (prediction.grad[weight == 0] == 0).all()
    assert prediction.grad[weight > 0].abs().min() > 0


@every_case
def test_terms_can_be_switched_off(domain, bands):
    prediction, target = fields(domain, 2, 8), fields(domain, 2, 9)
    weight = torch.ones(2, *domain.shape).double()
    both, r = measured(CorrelationLoss.of(LossConfig(30, 1), bands), prediction, target, weight, domain)
    error, none = measured(CorrelationLoss.of(LossConfig(0, 1), bands), prediction, target, weight, domain)
    correlation, _ = measured(CorrelationLoss.of(LossConfig(30, 0), bands), prediction, target, weight, domain)
    assert error.item() == pytest.approx((prediction - target).abs().mean().item())
    assert both.item() == pytest.approx(error.item() + correlation.item())
    assert r.shape == (2,) and not none.numel()


@every_case
def test_loss_of_single_precision_fields(domain, bands):
    loss = CorrelationLoss.of(LossConfig(), bands)
    prediction = fields(domain, 2, 10, torch.float32).requires_grad_()
    value, r = measured(loss, prediction, fields(domain, 2, 11, torch.float32), torch.ones(2, *domain.shape), domain)
    assert value.dtype == torch.float32 and not r.requires_grad
    value.backward()
    assert prediction.grad is not None and prediction.grad.dtype == torch.float32 and prediction.grad.isfinite().all()


@every_case
def test_a_member_without_sky_is_harmless(domain, bands):
    loss = CorrelationLoss.of(LossConfig(), bands)
    weight = torch.ones(2, *domain.shape).double()
    weight[1] = 0
    prediction = fields(domain, 2, 12).requires_grad_()
    value, _ = measured(loss, prediction, fields(domain, 2, 13), weight, domain)
    value.backward()
    assert value.isfinite() and prediction.grad is not None and prediction.grad.isfinite().all()
