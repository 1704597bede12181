"""Harmonic transforms against healpy, their adjoints and their gradients."""

from __future__ import annotations

from collections.abc import Callable

import healpy
import numpy as np
import pytest
import torch

from sphereml.harmonics import autograd, transforms
from sphereml.harmonics.autograd import SphericalTransform
from sphereml.sky.ordering import nest_to_ring
from sphereml.sky.regions import Region

NSIDE, LMAX = 16, 32
PIXELS = {
    "sphere": None,
    "tile": Region(NSIDE, (5, 17, 40), 2).pixels,
    "scattered": np.random.default_rng(9).permutation(12 * NSIDE**2)[:500],
}


def random_alm(lmax: int, spin: int, seed: int = 0, batch: tuple[int, ...] = ()) -> np.ndarray:
    """White coefficients of real fields; ell >= spin, as a spin field has no others."""
    ell, order = transforms.alm_index(lmax)
    rng = np.random.default_rng(seed)
    shape = (*batch, *([2] if spin else []), ell.size)
    alm = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    alm[..., order == 0] = alm[..., order == 0].real
    return np.where(ell >= spin, alm, 0)


def deviation(ours: np.ndarray, oracle: np.ndarray) -> float:
    return float(np.abs(ours - oracle).max() / oracle.std())


@pytest.fixture(scope="module")
def close(tolerance: Callable[[torch.dtype, str], float]) -> float:
    return tolerance(torch.float64, "transform")


# --- numpy ----------------------------------------------------------------------------------------------------------


def test_alm_index_is_healpys():
    ell, order = transforms.alm_index(LMAX)
    theirs = healpy.Alm.getlm(LMAX)
    np.testing.assert_array_equal([ell, order], theirs)
    assert transforms.alm_size(LMAX) == healpy.Alm.getsize(LMAX) == ell.size


@pytest.mark.parametrize("lmax", [LMAX, 10, 3 * NSIDE - 1])
def test_synthesis_equals_healpy(close, lmax):
    alm = random_alm(lmax, spin=0)
    ours = nest_to_ring(transforms.synthesis(alm, NSIDE, lmax))
    assert deviation(ours, healpy.alm2map(alm, NSIDE, lmax=lmax)) < close


def test_spin_synthesis_equals_healpy(close):
    alm = random_alm(LMAX, spin=2)
    ours = nest_to_ring(transforms.synthesis(alm, NSIDE, LMAX, spin=2), axis=-1)
    assert deviation(ours, np.stack(healpy.alm2map_spin(list(alm), NSIDE, 2, LMAX))) < close


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_analysis_equals_healpy(close, iterations):
    maps = np.random.default_rng(1).standard_normal(12 * NSIDE**2)
    oracle = healpy.map2alm(nest_to_ring(maps), lmax=LMAX, iter=iterations)
    assert deviation(transforms.analysis(maps, LMAX, iterations=iterations), oracle) < close


@pytest.mark.parametrize("iterations", [0, 3])
def test_spin_analysis_equals_healpy(close, iterations):
    maps = np.random.default_rng(2).standard_normal((2, 12 * NSIDE**2))
    ring = nest_to_ring(maps, axis=-1)
    oracle = np.stack(healpy.map2alm([np.zeros_like(ring[0]), *ring], lmax=LMAX, iter=iterations, pol=True)[1:])
    assert deviation(transforms.analysis(maps, LMAX, spin=2, iterations=iterations), oracle) < close


def test_leading_axes_are_a_batch(close):
    for spin in (0, 2):
        alm = random_alm(LMAX, spin, batch=(3, 2))
        maps = transforms.synthesis(alm, NSIDE, LMAX, spin)
        assert maps.shape == (*alm.shape[:-1], 12 * NSIDE**2)
        assert deviation(maps[2, 1], transforms.synthesis(alm[2, 1], NSIDE, LMAX, spin)) < close
        back = transforms.analysis(maps, LMAX, spin)
        assert deviation(back[1, 0], transforms.analysis(maps[1, 0], LMAX, spin)) < close


@pytest.mark.parametrize("spin", [0, 2])
def test_analysis_inverts_synthesis_up_to_twice_nside(spin):
    alm = random_alm(LMAX, spin)
    maps = transforms.synthesis(alm, NSIDE, LMAX, spin)

    def error(iterations: int) -> float:
        return float((transforms.analysis(maps, LMAX, spin, iterations) - alm).std() / alm.std())

    # The quadrature error of HEALPix to the fourth power, for white alms: 1.7e-5 at Nside 16, 1.5e-6 at Nside 64.
    assert error(3) < 3e-5
    assert error(20) < 1e-9


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """Inner product of maps, or of alms of real fields (m > 0 stands for -m too)."""
    if not np.iscomplexobj(a):
        return float((a * b).sum())
    multiplicity = np.where(transforms.alm_index(LMAX)[1] == 0, 1, 2)
    return float(((a * b.conj()).real * multiplicity).sum())


@pytest.mark.parametrize("spin", [0, 2])
def test_adjoint_of_synthesis(spin):
    alm = random_alm(LMAX, spin)
    maps = np.random.default_rng(3).standard_normal((2, 12 * NSIDE**2)[0 if spin else 1 :])
    forward, backward = transforms.synthesis(alm, NSIDE, LMAX, spin), transforms.adjoint_synthesis(maps, LMAX, spin)
    assert dot(forward, maps) == pytest.approx(dot(alm, backward), rel=1e-12)


def test_spin_without_its_axis_is_refused():
    with pytest.raises(ValueError, match="axis of two"):
        transforms.synthesis(random_alm(LMAX, 0, batch=(3,)), NSIDE, LMAX, spin=2)
    with pytest.raises(ValueError, match="axis of two"):
        autograd.synthesis(torch.from_numpy(random_alm(LMAX, 0, batch=(4,))), SphericalTransform(NSIDE, LMAX, spin=2))


def test_threads_follow_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert transforms.threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert transforms.threads() >= 1


# --- torch ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spin", [0, 2])
@pytest.mark.parametrize("where", PIXELS)
def test_transform_of_a_pixel_set_is_a_part_of_the_sphere(close, spin, where):
    pixels = PIXELS[where]
    transform = SphericalTransform(NSIDE, LMAX, pixels, spin)
    alm = random_alm(LMAX, spin, batch=(2,))
    chosen = slice(None) if pixels is None else pixels
    maps = autograd.synthesis(torch.from_numpy(alm), transform).numpy()
    whole = transforms.synthesis(alm, NSIDE, LMAX, spin)
    assert deviation(maps, whole[..., chosen]) < close
    padded = np.zeros_like(whole)
    padded[..., chosen] = maps
    back = autograd.adjoint_synthesis(torch.from_numpy(maps), transform).numpy()
    assert deviation(back, transforms.adjoint_synthesis(padded, LMAX, spin)) < close


@pytest.mark.parametrize("spin", [0, 2])
@pytest.mark.parametrize("where", PIXELS)
def test_adjointness_on_any_pixels(spin, where):
    transform = SphericalTransform(NSIDE, LMAX, PIXELS[where], spin)
    alm = random_alm(LMAX, spin)
    forward = autograd.synthesis(torch.from_numpy(alm), transform).numpy()
    maps = np.random.default_rng(4).standard_normal(forward.shape)
    back = autograd.adjoint_synthesis(torch.from_numpy(maps), transform).numpy()
    assert dot(forward, maps) == pytest.approx(dot(alm, back), rel=1e-12)


def test_torch_analysis_equals_numpys(close):
    maps = np.random.default_rng(5).standard_normal((3, 12 * NSIDE**2))
    ours = autograd.analysis(torch.from_numpy(maps), SphericalTransform(NSIDE, LMAX)).numpy()
    assert deviation(ours, transforms.analysis(maps, LMAX)) < close
    with pytest.raises(ValueError, match="whole sphere"):
        autograd.analysis(torch.from_numpy(maps), SphericalTransform(NSIDE, LMAX, PIXELS["tile"]))


@pytest.mark.parametrize("spin", [0, 2])
@pytest.mark.parametrize("pixels", [None, np.array([3, 40, 11, 0])])
def test_gradients(spin, pixels):
    transform = SphericalTransform(2, 4, pixels, spin)
    alm = torch.from_numpy(random_alm(4, spin)).requires_grad_()
    torch.autograd.gradcheck(lambda a: autograd.synthesis(a, transform), alm)
    torch.autograd.gradgradcheck(lambda a: autograd.synthesis(a, transform).square(), alm)
    maps = autograd.synthesis(alm, transform).detach().requires_grad_()
    torch.autograd.gradcheck(lambda m: torch.view_as_real(autograd.adjoint_synthesis(m, transform)), maps)
    iterations = 2 if pixels is None else 0
    torch.autograd.gradcheck(lambda m: autograd.analysis(m, transform, iterations).abs().square(), maps)


def test_single_precision_in_double_inside_single_gradient_out():
    transform = SphericalTransform(NSIDE, LMAX)
    maps = torch.randn(2, 12 * NSIDE**2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    alm = autograd.analysis(maps, transform, iterations=1)
    assert alm.dtype == torch.complex128
    exact = autograd.analysis(maps.detach().double(), transform, iterations=1)
    torch.testing.assert_close(alm.detach(), exact, rtol=0, atol=0)
    alm.abs().square().sum().backward()
    assert maps.grad is not None and maps.grad.dtype == torch.float32 and maps.grad.isfinite().all()
    direct = autograd.adjoint_synthesis(maps, transform)
    assert direct.dtype == torch.complex128
    alm32 = torch.from_numpy(random_alm(LMAX, 0)).to(torch.complex64).requires_grad_()
    autograd.synthesis(alm32, transform).square().sum().backward()
    assert alm32.grad is not None and alm32.grad.dtype == torch.complex64
