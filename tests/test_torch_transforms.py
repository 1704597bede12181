"""The torch transform against ducc0, its adjoint and its gradients; its parts against closed forms."""

from __future__ import annotations

import ducc0
import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from sphereml.harmonics import autograd
from sphereml.harmonics.autograd import SphericalTransform
from sphereml.harmonics.ducc_transform import DuccTransform
from sphereml.harmonics.legendre import LegendreChunk, legendre_table
from sphereml.harmonics.ring_fourier import RingFourier
from sphereml.harmonics.rings import RingLayout, alm_index
from sphereml.harmonics.torch_transform import TableBudget, TorchTransform
from sphereml.sky.ordering import ring_to_nest_index
from sphereml.sky.regions import Region

CPU = torch.device("cpu")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 3e-6}  # of the largest deviation, relative to the standard deviation


def random_alm(lmax: int, spin: int, batch: int = 2) -> np.ndarray:
    """White coefficients ``(batch, ncomp, nalm)``; those of m = 0 with an imaginary part, which no map shows."""
    ell, _ = alm_index(lmax)
    rng = np.random.default_rng(lmax + spin)
    shape = (batch, 2 if spin else 1, ell.size)
    return np.where(ell >= spin, rng.standard_normal(shape) + 1j * rng.standard_normal(shape), 0)


def deviation(ours: np.ndarray, oracle: np.ndarray) -> float:
    return float(np.abs(ours - oracle).max() / oracle.std())


def check_against_ducc(transform: TorchTransform, batch: int = 2) -> None:
    """Synthesis and adjoint equal ducc0's on the same rings."""
    layout, spin, lmax = transform.layout, transform.spin, transform.lmax
    options = {"lmax": lmax, "spin": spin, "nthreads": 2, **layout.geometry}
    alm = random_alm(lmax, spin, batch)
    rings = ducc0.sht.synthesis(alm=alm, **options)
    maps = transform.synthesize(torch.from_numpy(alm)).numpy()
    assert deviation(maps, rings[..., layout.place]) < TOLERANCE[transform.dtype]
    values = np.random.default_rng(1).standard_normal(maps.shape)
    rings = np.zeros_like(rings)
    rings[..., layout.place] = values
    back = transform.adjoint_synthesize(torch.from_numpy(values)).numpy()
    assert deviation(back, ducc0.sht.adjoint_synthesis(map=rings, **options)) < TOLERANCE[transform.dtype]


# --- the transform ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spin", [0, 1, 2])
@pytest.mark.parametrize(("nside", "lmax"), [(1, 2), (4, 8), (16, 32), (16, 47), (32, 50), (64, 128), (64, 191)])
def test_equals_ducc_on_the_sphere(nside, lmax, spin):
    check_against_ducc(TorchTransform(RingLayout(nside), lmax, spin, CPU))


@pytest.mark.parametrize("spin", [3, 4, 7, 12])
def test_equals_ducc_at_the_higher_spins_of_oriented_kernels(spin):
    check_against_ducc(TorchTransform(RingLayout(16), 40, spin, CPU))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("spin", [0, 2])
@pytest.mark.parametrize("where", ["tile", "polar", "scattered", "southern"])
def test_equals_ducc_on_the_rings_of_a_region(where, spin, dtype):
    pixels = {
        "tile": Region(32, (5, 17, 40), 2).pixels,
        "polar": Region(32, (3,), 1).pixels,
        "scattered": np.random.default_rng(0).permutation(12 * 32**2)[:40],
        "southern": ring_to_nest_index(32)[-500:],
    }[where]
    check_against_ducc(TorchTransform(RingLayout(32, pixels), 64, spin, CPU, dtype))


@pytest.mark.parametrize("spin", [0, 2])
def test_many_chunks_and_tables_not_kept(spin):
    transform = TorchTransform(RingLayout(16), 40, spin, CPU, budget=TableBudget(chunk=40_000, kept=0))
    assert len(transform._blocks) > 5 and not transform._kept_tables
    check_against_ducc(transform)


@pytest.mark.parametrize("spin", [0, 2])
def test_high_orders_near_the_poles_do_not_underflow(spin):
    """At Nside 256 and lmax 512 ``sin(theta)^m`` of the first ring is 1e-1277 for the highest m."""
    pixels = ring_to_nest_index(256)[np.array([0, 5, 3000, 100_000, 400_000, -1])]
    check_against_ducc(TorchTransform(RingLayout(256, pixels), 512, spin, CPU), batch=1)


# --- through autograd -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spin", [0, 1, 2, 4])
@pytest.mark.parametrize("pixels", [None, np.array([3, 40, 11, 0])])
def test_gradients(spin, pixels):
    transform = SphericalTransform(2, 4, pixels, spin, engine="torch")
    alm = torch.from_numpy(random_alm(4, spin, 1)[0]).requires_grad_()
    torch.autograd.gradcheck(lambda a: autograd.synthesis(a, transform), alm)
    torch.autograd.gradgradcheck(lambda a: autograd.synthesis(a, transform).square(), alm)
    maps = autograd.synthesis(alm, transform).detach().requires_grad_()
    iterations = 2 if pixels is None else 0
    torch.autograd.gradcheck(lambda m: autograd.analysis(m, transform, iterations).abs().square(), maps)


@pytest.mark.parametrize("spin", [0, 2])
def test_both_engines_give_one_loss_and_one_gradient(spin):
    shape = (3, 2, 12 * 16**2) if spin else (3, 12 * 16**2)
    results = []
    for engine in ("auto", "torch"):
        maps = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
        alm = autograd.analysis(maps, SphericalTransform(16, 32, spin=spin, engine=engine), iterations=1)
        alm.abs().pow(3).sum().backward()
        results.append((alm.detach(), maps.grad))
    for ours, oracle in zip(*results, strict=True):
        assert deviation(ours.numpy(), oracle.numpy()) < 1e-10


@pytest.mark.parametrize("engine", ["auto", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_has_the_precision_of_the_maps(engine, dtype):
    maps = torch.randn(2, 12 * 8**2, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    alm = autograd.analysis(maps, SphericalTransform(8, 16, engine=engine), iterations=0)
    assert alm.dtype == torch.complex128
    alm.abs().square().sum().backward()
    assert maps.grad is not None and maps.grad.dtype == dtype and maps.grad.isfinite().all()


def test_single_precision_arithmetic_on_request():
    maps = torch.randn(2, 12 * 16**2, generator=torch.Generator().manual_seed(0))
    single = SphericalTransform(16, 32, engine="torch", dtype=torch.float32)
    alm = autograd.analysis(maps, single, iterations=0)
    exact = autograd.analysis(maps, SphericalTransform(16, 32), iterations=0)
    assert 1e-9 < deviation(alm.numpy(), exact.numpy()) < TOLERANCE[torch.float32]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("spin", [0, 2])
def test_a_gpu_gives_what_the_cpu_gives(spin):
    shape = (3, 2, 12 * 32**2) if spin else (3, 12 * 32**2)
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    transform = SphericalTransform(32, 64, spin=spin)
    there = autograd.analysis(maps.cuda(), transform, iterations=1)
    assert there.is_cuda
    assert deviation(there.cpu().numpy(), autograd.analysis(maps, transform, iterations=1).numpy()) < 1e-10


# --- ducc0 with threads, and the parts --------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("spin", [0, 2])
def test_maps_shared_among_threads_equal_one_call_of_ducc(spin, batch, monkeypatch):
    monkeypatch.setattr("sphereml.harmonics.ducc_transform._WORTH_A_THREAD", 0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    layout = RingLayout(16, Region(16, (5, 17, 40), 2).pixels)
    transform = DuccTransform(layout, 32, spin)
    alm = random_alm(32, spin, batch)
    weight = 1.0 + alm_index(32)[1]
    rings = ducc0.sht.synthesis(alm=alm * weight, lmax=32, spin=spin, **layout.geometry)
    assert deviation(transform.synthesize(alm, weight), rings[..., layout.place]) < 1e-12
    assert transform.synthesize(alm, dtype=np.float32).dtype == np.float32
    maps = np.random.default_rng(0).standard_normal((batch, 2 if spin else 1, len(layout.place)))
    rings = np.zeros_like(rings)
    rings[..., layout.place] = maps
    oracle = weight * ducc0.sht.adjoint_synthesis(map=rings, lmax=32, spin=spin, **layout.geometry)
    strided = np.ascontiguousarray(maps.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert deviation(transform.adjoint_synthesize(strided, weight), oracle) < 1e-12


@pytest.mark.parametrize(("first", "last"), [(0, 5), (60, 64), (150, 151)])
def test_legendre_tables_are_spherical_harmonics_at_zero_azimuth(first, last):
    lmax, theta = 150, np.array([1e-3, 0.1, 1.2, np.pi / 2])
    chunk = LegendreChunk(lmax, first, last, (0,))
    alpha, shift, kappa = chunk.coefficients()
    table = legendre_table(chunk, theta, torch.from_numpy(alpha), torch.from_numpy(shift)).numpy() * kappa[..., None]
    for m in range(first, last):
        oracle = np.stack([sph_harm_y(ell, m, theta, 0).real for ell in range(m, lmax + 1)])
        np.testing.assert_allclose(table[: len(oracle), 0, m - first], oracle, rtol=0, atol=1e-11)


def test_ring_sums_equal_the_definition():
    """Rings shorter and longer than 2 lmax + 1, so with and without aliasing."""
    layout, lmax = RingLayout(4), 11
    rings = RingFourier(layout.geometry, lmax, CPU, torch.float64)
    rng = np.random.default_rng(0)
    fourier = rng.standard_normal((1, 15, lmax + 1)) + 1j * rng.standard_normal((1, 15, lmax + 1))
    values = torch.empty(1, layout.size, dtype=torch.float64)
    rings.synthesize(torch.from_numpy(fourier), values)
    phi = np.concatenate(
        [
            phi0 + 2 * np.pi * np.arange(n) / n
            for phi0, n in zip(layout.geometry["phi0"], layout.geometry["nphi"].astype(int), strict=True)
        ]
    )
    ring = np.repeat(np.arange(15), layout.geometry["nphi"].astype(int))
    waves = np.exp(1j * phi[:, None] * np.arange(lmax + 1))
    twice = np.where(np.arange(lmax + 1) == 0, 1, 2)
    np.testing.assert_allclose(values[0].numpy(), (fourier[0, ring] * waves * twice).real.sum(axis=1), atol=1e-12)
    back = rings.analyze(values).numpy()[0]
    oracle = np.stack([(values[0].numpy()[ring == r, None] * waves[ring == r].conj()).sum(axis=0) for r in range(15)])
    np.testing.assert_allclose(back, oracle, atol=1e-11)
