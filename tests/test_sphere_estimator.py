"""Full-sky estimates of kappa: direct sums over 3j symbols, Gaussian and lensed skies, rotations, wrong input."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from itertools import product

import ducc0
import numpy as np
import pytest

from sphereml.benchmarks import reconstruction
from sphereml.benchmarks.reconstruction import ReconstructionBenchmark, synthetic_spectra
from sphereml.cli.main import main
from sphereml.errors import UserError
from sphereml.harmonics.rings import alm_index, alm_size
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.lensing import sphere_estimator
from sphereml.lensing.noise import NoiseModel
from sphereml.lensing.observation import Observation
from sphereml.lensing.sphere_estimator import SphereEstimator
from sphereml.simulate.cmb_spectra import load_spectra
from sphereml.simulate.fields import draw_alm
from sphereml.simulate.lensed_sky import draw_sky, lensed_alm

ESTIMATORS: dict[str, Callable[[SphereEstimator, np.ndarray, np.ndarray], np.ndarray]] = {
    "eb": lambda estimator, e, b: estimator.eb(e, b),
    "ee": lambda estimator, e, b: estimator.ee(e),
    "minimum_variance": lambda estimator, e, b: estimator.minimum_variance(e, b),
}


@lru_cache(maxsize=4)
def estimator(lmin: int, lmax: int, lmax_kappa: int) -> SphereEstimator:
    return SphereEstimator(NoiseModel(synthetic_spectra(400), Observation(3.0, 20.0, lmin, lmax), lmax_kappa))


def noisy_legs(model: NoiseModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian E and B with the lensed spectra and noise, and no lensing."""
    top, noise = model.observation.lmax + 1, model.observation.noise_spectrum()
    spectra = model.spectra
    return draw_alm(spectra.ee_lensed[:top] + noise, rng), draw_alm(spectra.bb_lensed[:top] + noise, rng)


def of_order(alm: np.ndarray, ell: int, m: int, lmax: int) -> complex:
    value = complex(alm[abs(m) * (2 * lmax + 1 - abs(m)) // 2 + ell])
    return value if m >= 0 else (-1) ** m * value.conjugate()


def coupling(k: int, ell: int, big: int) -> float:
    """F of Okamoto & Hu 2003 without its 3j symbol."""
    norm = np.sqrt((2 * k + 1) * (2 * big + 1) * (2 * ell + 1) / (16 * np.pi))
    return float(norm * (big * (big + 1) + ell * (ell + 1) - k * (k + 1)))


def direct_estimate(
    model: NoiseModel, alm_e: np.ndarray, bar: np.ndarray, parity: int
) -> dict[tuple[int, int], complex]:
    """``g_LM``, M >= 0, of Pbar with E (even l + L + k) or B alone (odd): a sum over the multipoles of both legs."""
    lmax, ee = model.observation.lmax, model.spectra.ee_lensed
    wiener, phase = model.observation.filtered(ee, ee, 1), 1 if parity > 0 else 1j
    sums: dict[tuple[int, int], complex] = {}
    for k, ell in product(range(2, lmax + 1), repeat=2):
        lowest, spins = ducc0.misc.wigner3j_int(k, ell, 2, -2)
        for mk, ml in product(range(-k, k + 1), range(-ell, ell + 1)):
            start, orders = ducc0.misc.wigner3j_int(k, ell, -mk, ml)
            legs = of_order(bar, k, mk, lmax) * wiener[ell] * np.conj(of_order(alm_e, ell, ml, lmax))
            for big in range(max(lowest, start, 2), min(model.lmax_kappa, k + ell) + 1):
                if (-1) ** (k + ell + big) == parity and mk >= ml:
                    term = coupling(k, ell, big) * spins[big - lowest] * orders[big - start] * (-1) ** mk * phase * legs
                    sums[big, mk - ml] = sums.get((big, mk - ml), 0) + term
    return sums


@pytest.mark.parametrize("name", ["eb", "ee"])
def test_an_estimate_equals_the_sum_over_3j_symbols(name: str):
    chosen = estimator(3, 6, 8)
    model, (alm_e, alm_b) = chosen.model, noisy_legs(chosen.model, np.random.default_rng(1))
    power, leg, parity = (model.spectra.bb_lensed, alm_b, -1) if name == "eb" else (model.spectra.ee_lensed, alm_e, 1)
    inverse = model.observation.filtered(power, power, 0)[alm_index(6)[0]]
    noise, kappa = getattr(model, name)(), ESTIMATORS[name](chosen, alm_e, alm_b)
    for (big, m), gradient in direct_estimate(model, alm_e, inverse * leg, parity).items():
        wanted = gradient * noise[big] * 2 / (big * (big + 1))
        assert of_order(kappa, big, m, 8) == pytest.approx(wanted, rel=1e-10, abs=1e-12 * np.abs(kappa).max())


def test_both_together_are_the_sum_weighted_by_inverse_noise_whatever_the_blocks(monkeypatch):
    chosen = estimator(2, 60, 80)
    model, legs = chosen.model, noisy_legs(chosen.model, np.random.default_rng(2))
    ell = alm_index(80)[0]
    together = chosen.minimum_variance(*legs)
    monkeypatch.setattr(sphere_estimator, "_BLOCK", 3_000)
    monkeypatch.setattr(sphere_estimator, "_CACHED", 700)
    with np.errstate(invalid="ignore"):
        sums = chosen.eb(*legs) / model.eb()[ell] + chosen.ee(legs[0]) / model.ee()[ell]
        sums *= np.where(ell < 2, 0, model.minimum_variance()[ell])
    np.testing.assert_allclose(together[ell > 1], sums[ell > 1], rtol=1e-9, atol=1e-12 * np.abs(together).max())
    assert not together[ell < 2].any()


def test_gaussian_skies_give_n0_and_no_mean_field():
    chosen, rng, count = estimator(2, 200, 250), np.random.default_rng(3), 16
    ell, order = alm_index(250)
    skies = [noisy_legs(chosen.model, rng) for _ in range(count)]
    for name, estimate in ESTIMATORS.items():
        kappa = np.stack([estimate(chosen, *legs) for legs in skies])
        noise = getattr(chosen.model, name)()
        power = cross_spectrum(kappa, kappa, 250).mean(axis=0) / np.where(np.isfinite(noise), noise, 1)
        for first, last in ((5, 60), (60, 120), (120, 190), (190, 251)):
            weights = 2 * np.arange(first, last) + 1
            error = np.sqrt(2 / (count * weights.sum()))
            ratio = np.average(power[first:last], weights=weights)
            assert ratio == pytest.approx(1, abs=min(0.03, 5 * error)), (name, first, ratio, error)
        # The mean of n skies, in units of its scatter: of modulus one on average.
        significance = np.abs(kappa.mean(axis=0))[ell > 1] ** 2 * count / noise[ell[ell > 1]]
        assert significance.mean() == pytest.approx(1, abs=0.05)
        assert significance[order[ell > 1] == 0].mean() == pytest.approx(1, abs=0.5)


def lensed_to_first_order(alm_e: np.ndarray, potential: np.ndarray, lmax: int) -> np.ndarray:
    """E and B of ``grad phi . grad P``, by products on a grid that holds them, up to the lmax of both ``(2, nalm)``."""
    ell = alm_index(lmax)[0].astype(float)
    grid = {"lmax": lmax, "ntheta": 2 * lmax + 1, "nphi": 4 * lmax + 2, "geometry": "GL"}

    def field(alm: np.ndarray, spin: int, mode: str = "GRAD_ONLY") -> np.ndarray:
        pair = ducc0.sht.synthesis_2d(alm=alm[None], spin=spin, mode=mode, **grid)
        return pair[0] + 1j * pair[1]

    gradient = field(potential, 1, "DERIV1")
    lower = field(-np.sqrt(np.maximum((ell + 2) * (ell - 1), 0)) * alm_e, 1)
    upper = field(np.sqrt(np.maximum((ell - 2) * (ell + 3), 0)) * alm_e, 3)
    change = -(gradient * lower + gradient.conj() * upper) / 2
    return ducc0.sht.analysis_2d(map=np.stack([change.real, change.imag]), lmax=lmax, spin=2, geometry="GL")


def test_a_small_potential_is_recovered_with_unit_response():
    chosen, rng, lmax = estimator(2, 200, 150), np.random.default_rng(4), 200
    spectra, ell = chosen.model.spectra, alm_index(lmax)[0]
    band = np.where(np.arange(lmax + 1) > 150, 0, spectra.potential[: lmax + 1])
    sums: dict[str, np.ndarray] = dict.fromkeys(ESTIMATORS, np.zeros(2))
    for _ in range(5):
        alm_e, potential = draw_alm(spectra.ee_lensed[: lmax + 1], rng), draw_alm(band, rng)
        change = lensed_to_first_order(alm_e, potential, lmax)
        kappa = cut(ell * (ell + 1) / 2 * potential, 150)
        for name, estimate in ESTIMATORS.items():
            # The part that is linear in phi: what Gaussian skies give is gone, and so is the second order.
            up, down = (estimate(chosen, alm_e + sign * change[0], sign * change[1]) for sign in (1, -1))
            products = [cross_spectrum(one, kappa, 150) for one in ((up - down) / 2, kappa)]
            weights = (2 * np.arange(151) + 1) / np.where(np.arange(151) > 1, spectra.kappa[:151], np.inf)
            sums[name] = sums[name] + [(weights * one).sum() for one in products]
    for name, (cross, power) in sums.items():
        assert cross / power == pytest.approx(1, abs=0.03), name


def cut(alm: np.ndarray, lmax: int) -> np.ndarray:
    """The a_lm up to a lower lmax."""
    own = (int(np.sqrt(8 * len(alm) + 1)) - 3) // 2
    ell, order = alm_index(lmax)
    return alm[order * (2 * own + 1 - order) // 2 + ell]


@pytest.mark.slow
def test_eb_on_a_lensed_sky_has_unit_response_and_the_noise_of_lensed_skies():
    """Multipoles up to 3000 at 1 uK-arcmin; the proxy auto / R^2 - C^kk holds N1, 1.45 to 1.12 x N0 (DESIGN.md)."""
    spectra, lmax_kappa = load_spectra(), 1800
    model = NoiseModel(spectra, Observation(lmax=3000), lmax_kappa)
    sky, rng = draw_sky(spectra, 3500, (7, 0)), np.random.default_rng(1)
    noise = model.observation.noise_spectrum()
    kappa = SphereEstimator(model).eb(*(leg + draw_alm(noise, rng) for leg in lensed_alm(sky, 3000)))
    wanted = cut(sky.kappa, lmax_kappa)
    pairs = (kappa, kappa), (kappa, wanted), (wanted, wanted)
    curves = np.stack([*(cross_spectrum(*pair, lmax_kappa) for pair in pairs), model.eb()])
    for big, excess in ((300, 1.45), (500, 1.39), (1000, 1.24), (1500, 1.12)):
        near = np.arange(int(0.85 * big), int(1.15 * big))
        auto, cross, power, n0 = np.average(curves[:, near], axis=1, weights=2 * near + 1)
        assert cross / power == pytest.approx(1, abs=0.03)
        assert (auto / (cross / power) ** 2 - power) / n0 == pytest.approx(excess, rel=0.03)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_estimate_of_a_rotated_sky_is_the_rotated_estimate(name: str):
    chosen, angles = estimator(2, 60, 80), (0.4, 1.1, -2.3)
    legs = noisy_legs(chosen.model, np.random.default_rng(5))
    moved = ESTIMATORS[name](chosen, *(ducc0.sht.rotate_alm(leg, 60, *angles) for leg in legs))
    kappa = ducc0.sht.rotate_alm(ESTIMATORS[name](chosen, *legs), 80, *angles)
    np.testing.assert_allclose(moved, kappa, atol=1e-10 * np.abs(kappa).max())


def test_longer_and_single_precision_legs_give_the_same_estimate():
    chosen = estimator(2, 60, 80)
    legs = [draw_alm(chosen.model.spectra.ee_lensed[:101], np.random.default_rng(seed)) for seed in (6, 7)]
    kappa = chosen.minimum_variance(*(cut(leg, 60) for leg in legs))
    np.testing.assert_array_equal(chosen.minimum_variance(*legs), kappa)
    single = chosen.minimum_variance(*(leg.astype(np.complex64) for leg in legs))
    np.testing.assert_allclose(single, kappa, atol=1e-6 * np.abs(kappa).max())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (np.zeros(alm_size(60) + 1, complex), r"a_lm of B of shape \(1892,\) .* belong to no lmax"),
        (np.zeros((2, alm_size(60)), complex), "a_lm of B of shape"),
        (np.zeros(alm_size(60)), "type float64 belong to no lmax"),
        (np.zeros(0, complex), "end at ell=-1"),
        (np.zeros(alm_size(59), complex), "a_lm of B end at ell=59, below lmax 60"),
        (np.full(alm_size(60), np.nan + 0j), "a_lm of B are not finite"),
    ],
)
def test_coefficients_that_do_not_fit_are_refused(wrong: np.ndarray, says: str):
    good = np.zeros(alm_size(60), complex)
    with pytest.raises(UserError, match=says):
        estimator(2, 60, 80).eb(good, wrong)
    with pytest.raises(UserError, match=says.replace("of B", "of E")):
        estimator(2, 60, 80).minimum_variance(wrong, good)


def test_the_benchmark_prints_one_object_and_refuses_in_one_line(capsys):
    assert main(["bench", "qe", "--lmax", "40", "--runs", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["lmax"] == 40
    assert result["eb"]["seconds"] > 0
    assert reconstruction._peak_mb(ReconstructionBenchmark(40)) >= 0
    assert main(["bench", "qe", "--lmax", "2"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
