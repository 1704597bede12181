"""r_EE and r_BB of Q and U on the sphere, on a part of it and on patches, with their gradients."""

from __future__ import annotations

import healpy
import numpy as np
import pytest
import torch

from sphereml.domains import FlatPatch, HealpixSky
from sphereml.harmonics.autograd import SphericalTransform, analysis
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.correlation import alm_cross_power
from sphereml.harmonics.flat_polarization import FlatSky

BANDS = Bands(low=(2, 10), high=(10, 24))
REGION = HealpixSky(16, (3, 4, 20, 21), 2)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def window_of(domain: HealpixSky | FlatPatch) -> torch.Tensor:
    return torch.rand((1, *domain.shape), generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def test_spectra_of_a_region_are_healpys():
    """E and B of windowed Q and U, against healpy's map2alm_spin without iterations."""
    x, window = noise(1, *REGION.shape, 2), window_of(REGION)
    alm = REGION.eb(x, window, 32)
    maps = np.zeros((2, 12 * 16**2))
    maps[:, REGION.region.pixels] = (x * window[..., None])[0].numpy().T
    ring = healpy.nest2ring(16, np.arange(maps.shape[1]))
    in_rings = np.empty_like(maps)
    in_rings[:, ring] = maps
    oracle = np.stack(healpy.map2alm_spin(list(in_rings), 2, lmax=32))
    assert np.abs(alm[0].numpy() - oracle).max() < 1e-10 * np.abs(oracle).max()
    power = alm_cross_power(alm, alm, 32)[0].numpy()
    np.testing.assert_allclose(power, healpy.alm2cl(list(oracle))[[0, 1]], rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("domain", [HealpixSky(16), REGION, FlatPatch(32, 120)], ids=str)
@pytest.mark.parametrize("kind", ["mode", "ell"])
def test_r_of_a_field_with_itself_is_one_and_signs_count(domain, kind):
    bands = BANDS if isinstance(domain, HealpixSky) else Bands(low=(6, 20), high=(20, 60))
    x, other, window = noise(2, *domain.shape, 2), noise(2, *domain.shape, 2, seed=1), window_of(domain)
    r = domain.polarization_correlation(x, x, window, bands, kind)
    assert r.shape == (2, 2, 2) and torch.allclose(r, torch.ones_like(r))
    assert torch.allclose(domain.polarization_correlation(x, -2 * x, window, bands, kind), -torch.ones_like(r))
    assert domain.polarization_correlation(x, other, window, bands, kind).abs().max() < 0.8


def test_e_and_b_are_told_apart():
    """Skies that share E alone: r_EE is 1 and r_BB is that of independent fields."""
    sky, patch = FlatSky(64, 60), FlatPatch(64, 60)
    e, b, c = sky.draw(np.ones(2000), 3, torch.Generator().manual_seed(0)).to(torch.complex128)
    first, second = (torch.stack([sky.to_images(mode) for mode in sky.to_qu(e, odd)], dim=-1)[None] for odd in (b, c))
    window = torch.ones(1, 64, 64)
    r = patch.polarization_correlation(first, second, window, Bands(all=(12, 150)), "mode")[0, :, 0]
    assert r[0] == pytest.approx(1, abs=1e-3) and abs(float(r[1])) < 0.1


@pytest.mark.parametrize("domain", [HealpixSky(4), HealpixSky(4, (1, 5), 1), FlatPatch(8, 400)], ids=str)
def test_gradients(domain):
    bands = Bands(all=(2, 7)) if isinstance(domain, HealpixSky) else Bands(all=(7, 24))
    x, y = noise(1, *domain.shape, 2).requires_grad_(), noise(1, *domain.shape, 2, seed=1)
    window = window_of(domain)
    for kind in ("mode", "ell"):
        assert torch.autograd.gradcheck(
            lambda a, kind=kind: domain.polarization_correlation(a, y, window, bands, kind), (x,), fast_mode=True
        )


def test_the_torch_transform_agrees():
    """What an accelerator computes: the same E and B without ducc0."""
    x = noise(1, 2, REGION.shape[0])
    ours, oracle = (
        analysis(x, SphericalTransform(16, 32, REGION.region.pixels, 2, engine), iterations=0)
        for engine in ("torch", "auto")
    )
    assert (ours - oracle).abs().max() < 1e-9 * oracle.abs().max()
