"""r of two fields on the sphere: known values, the direct sum over modes, gradients, empty fields."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sphereml.harmonics.bands import Bands
from sphereml.harmonics.correlation import alm_cross_power, sphere_band_correlation
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.harmonics.transforms import alm_index

LMAX = 40
BANDS = Bands.edges(2.0, 14.4, 41.0)
ELL, ORDER = alm_index(LMAX)
KINDS = ["mode", "ell"]


def white_alm(batch: int, seed: int, lmax: int = LMAX) -> torch.Tensor:
    _, order = alm_index(lmax)
    rng = np.random.default_rng(seed)
    alm = rng.standard_normal((batch, order.size)) + 1j * rng.standard_normal((batch, order.size))
    alm[:, order == 0] = alm[:, order == 0].real
    return torch.from_numpy(alm)


def direct(a: np.ndarray, b: np.ndarray, lo: float, hi: float, kind: str) -> float:
    """Over every (ell, m) with m of both signs, mode by mode."""
    means = []
    for ell in range(int(np.ceil(lo)), LMAX + 1):
        if ell >= hi:
            break
        pairs = [(a[i], b[i]) for i in np.flatnonzero(ell == ELL) for _ in range(1 if ORDER[i] == 0 else 2)]
        if kind == "mode":
            means += [(x * np.conj(y)).real / (abs(x) * abs(y)) for x, y in pairs]
        else:
            ab, aa, bb = (sum((p[i] * np.conj(p[j])).real for p in pairs) for i, j in ((0, 1), (0, 0), (1, 1)))
            means.append(ab / np.sqrt(aa * bb))
    return float(np.mean(means))


@pytest.mark.parametrize("kind", KINDS)
def test_identical_fields_have_r_one_and_opposite_minus_one(kind):
    a = white_alm(2, 0)
    torch.testing.assert_close(sphere_band_correlation(a, 3 * a, LMAX, BANDS, kind), torch.ones(2, 2).double())
    torch.testing.assert_close(sphere_band_correlation(a, -a, LMAX, BANDS, kind), -torch.ones(2, 2).double())


@pytest.mark.parametrize("kind", KINDS)
def test_independent_fields_have_r_about_zero(kind):
    r = sphere_band_correlation(white_alm(20, 1), white_alm(20, 2), LMAX, BANDS, kind)
    # Each mode's (or ell's) r scatters by at most 1 / sqrt(2): some 100 (10) independent ones in the narrow band.
    assert r.mean(dim=0).abs().max() < 0.08 and r.abs().max() < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_r_equals_the_direct_sum(kind):
    a, noise = white_alm(3, 3), white_alm(3, 4)
    b = a + noise
    ours = sphere_band_correlation(a, b, LMAX, BANDS, kind).numpy()
    theirs = [
        [direct(x, y, lo, hi, kind) for lo, hi in BANDS.limits] for x, y in zip(a.numpy(), b.numpy(), strict=True)
    ]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_cross_power_equals_numpys():
    a, b = white_alm(3, 5), white_alm(3, 6)
    theirs = cross_spectrum(a.numpy(), b.numpy(), LMAX)
    np.testing.assert_allclose(alm_cross_power(a, b, LMAX).numpy(), theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_r_ignores_amplitude_by_multipole(kind):
    a, b = white_alm(1, 7), white_alm(1, 8) + white_alm(1, 7)
    beam = torch.from_numpy(np.exp(-ELL * (ELL + 1) / 300))
    torch.testing.assert_close(
        sphere_band_correlation(a, b * beam, LMAX, BANDS, kind), sphere_band_correlation(a, b, LMAX, BANDS, kind)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gradient(kind):
    a, b = (white_alm(2, seed, lmax=4).requires_grad_() for seed in (9, 10))
    # As real numbers: only the real part of m = 0 is free, and r of a lone real mode is a sign, flat almost everywhere.
    torch.autograd.gradcheck(
        lambda x, y: sphere_band_correlation(x, y, 4, Bands(low=(1, 3), high=(2, 5)), kind), (a, b)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_empty_fields_give_zero_with_a_finite_gradient(kind):
    a = torch.zeros(2, ELL.size, dtype=torch.complex128, requires_grad=True)
    b = white_alm(2, 11).requires_grad_()
    for first, second in ((a, b), (b, a), (a, a)):
        r = sphere_band_correlation(first, second, LMAX, BANDS, kind)
        assert (r == 0).all()
        gradients = torch.autograd.grad(r.sum(), list({first, second}))
        assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1e-80, 1e-75, 1e60])
def test_extreme_amplitudes_keep_gradients_finite(kind, scale):
    a = (scale * white_alm(1, 12)).requires_grad_()
    r = sphere_band_correlation(a, scale * white_alm(1, 13), LMAX, BANDS, kind)
    r.sum().backward()
    assert r.isfinite().all() and a.grad.isfinite().all()


def test_misuse_is_refused():
    a = white_alm(1, 0)
    with pytest.raises(ValueError, match="multipole"):
        sphere_band_correlation(a, a, LMAX, Bands.edges(41.0, 50.0), "ell")
    with pytest.raises(ValueError, match="unknown form"):
        sphere_band_correlation(a, a, LMAX, BANDS, "power")
