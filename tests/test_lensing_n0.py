"""N0 of EB and EE, iterated N0, against direct sums over 3j symbols, flat-sky integrals and the reference curves."""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import ducc0
import numpy as np
import pytest
from fixtures_lensing import toy_spectra as any_toy_spectra
from hypothesis import given, settings
from hypothesis import strategies as st

from sphereml.cli import lensing_n0 as verb
from sphereml.cli.main import main
from sphereml.config.lensing import Cosmology
from sphereml.errors import UserError
from sphereml.lensing.iterated import EFilter, Iteration, Residual, first_order_bb, iterate_eb
from sphereml.lensing.noise import NoiseModel
from sphereml.lensing.observation import Observation
from sphereml.lensing.wigner import quadrature, wigner_integrals, wigner_series
from sphereml.simulate import cmb_spectra
from sphereml.simulate.cmb_spectra import PLANCK_2013, CmbSpectra, load_spectra, spectra_path

REFERENCE = Path(__file__).parents[1] / "../shared/reference/lensing_n0.json"


toy_spectra = partial(any_toy_spectra, lensed=0.98, first_order=True)


def wigner_d(ell: int, m: int, s: int, theta: np.ndarray) -> np.ndarray:
    """The explicit sum (Varshalovich et al. 1988, sec. 4.3.1)."""
    fact, total = math.factorial, np.zeros_like(theta)
    norm = math.sqrt(fact(ell + m) * fact(ell - m) * fact(ell + s) * fact(ell - s))
    for k in range(max(0, s - m), min(ell + s, ell - m) + 1):
        divisor = fact(ell + s - k) * fact(k) * fact(m - s + k) * fact(ell - m - k)
        cosine, sine = np.cos(theta / 2) ** (2 * ell - m + s - 2 * k), np.sin(theta / 2) ** (m - s + 2 * k)
        total += (-1) ** (m - s + k) * norm / divisor * cosine * sine
    return total


@pytest.mark.parametrize(("m", "s"), [(1, 1), (3, 3), (1, 3), (2, 2), (1, 2), (3, 2)])
def test_wigner_series_and_integrals_agree_with_the_explicit_sum(m: int, s: int):
    nodes, coefficients = quadrature(40), np.random.default_rng(m + s).normal(size=9)
    ells = range(max(m, s), 9)
    for sign, curve in zip((1, -1), wigner_series(coefficients, nodes, m, s), strict=True):
        terms = [(2 * k + 1) / (4 * np.pi) * coefficients[k] * wigner_d(k, m, sign * s, nodes.theta) for k in ells]
        np.testing.assert_allclose(curve, sum(terms), atol=1e-13)
    plus, minus = np.cos(nodes.theta), np.sin(nodes.theta) ** 2
    integrals = wigner_integrals(plus, minus, nodes, m, s, 8)
    for k in ells:
        integrand = plus * wigner_d(k, m, s, nodes.theta) + minus * wigner_d(k, m, -s, nodes.theta)
        assert integrals[k] == pytest.approx((nodes.weights * integrand).sum(), abs=1e-13)


def coupling(ell: int, other: int) -> tuple[np.ndarray, np.ndarray]:
    """F of Okamoto & Hu 2003 for an E at ``ell`` lensed into ``other``, by L, and (-1)^(l+L+k)."""
    lowest, three_j = ducc0.misc.wigner3j_int(other, ell, -2, 2)
    big = np.arange(ell + other + 1)
    symbol = np.zeros(len(big))
    symbol[lowest:] = np.asarray(three_j)[: len(big) - lowest]
    factor = big * (big + 1) + ell * (ell + 1) - other * (other + 1)
    norm = np.sqrt((2 * ell + 1) * (2 * other + 1) * (2 * big + 1) / (16 * np.pi))
    return factor * norm * symbol, (-1.0) ** (ell + other + big)


def direct_sums(spectra: CmbSpectra, observation: Observation, lmax_kappa: int) -> dict[str, np.ndarray]:
    """Responses of EB and EE to phi and first-order B, term by term."""
    noise, top = observation.noise_spectrum(), lmax_kappa + 1
    ee, bb, phi = spectra.ee_lensed, spectra.bb_lensed, spectra.potential
    sums = {"eb": np.zeros(top), "ee": np.zeros(top), "bb": np.zeros(spectra.lmax + 1)}
    for one in range(2, spectra.lmax + 1):
        for two in range(2, spectra.lmax + 1):
            there, sign = coupling(one, two)
            back, _ = coupling(two, one)
            odd, even, reach = sign < 0, sign > 0, min(top, one + two + 1)
            potential = np.pad(phi, (0, spectra.lmax))[: len(there)]
            sums["bb"][two] += spectra.ee[one] * (potential * there**2)[odd].sum() / (2 * two + 1)
            if min(one, two) < observation.lmin or max(one, two) > observation.lmax:
                continue
            legs = (ee[one] + noise[one]) * np.array([bb[two] + noise[two], 2 * (ee[two] + noise[two])])
            sums["eb"][:reach] += (ee[one] ** 2 * there**2 * odd / legs[0])[:reach]
            sums["ee"][:reach] += ((ee[one] * there + ee[two] * back) ** 2 * even / legs[1])[:reach]
    ell = np.arange(top)
    return {name: values if name == "bb" else values / (2 * ell + 1) for name, values in sums.items()}


@pytest.mark.parametrize(("lmin", "lmax"), [(2, 40), (15, 33)])
def test_n0_and_lensed_b_equal_direct_sums_over_3j_symbols(lmin: int, lmax: int):
    spectra, observation = toy_spectra(40), Observation(noise=3.0, beam=20.0, lmin=lmin, lmax=lmax)
    lmax_kappa = 2 * lmax - 1
    model, direct = NoiseModel(spectra, observation, lmax_kappa), direct_sums(spectra, observation, lmax_kappa)
    ell = np.arange(2.0, lmax_kappa + 1)
    to_kappa = (ell * (ell + 1) / 2) ** 2
    np.testing.assert_allclose(model.eb()[2:], to_kappa / direct["eb"][2:], rtol=1e-9)
    np.testing.assert_allclose(model.ee()[2:], to_kappa / direct["ee"][2:], rtol=1e-9)
    np.testing.assert_allclose(first_order_bb(spectra, 40)[2:], direct["bb"][2:], rtol=1e-9)


def flat_n0_eb(spectra: CmbSpectra, observation: Observation, big: int) -> float:
    """The flat-sky integral over ``|l| = ell + 1/2``: a sum over rings of l and angles, kappa kappa."""
    noise = observation.noise_spectrum()
    ell = np.arange(observation.lmin, observation.lmax + 1)[:, None]
    angle = (np.arange(4000) + 0.5) * 2 * np.pi / 4000
    length, wanted = ell + 0.5, big + 0.5
    x, y = wanted - length * np.cos(angle), -length * np.sin(angle)
    other = np.hypot(x, y) - 0.5
    inside = (other >= observation.lmin - 0.5) & (other < observation.lmax + 0.5)
    total_b = np.interp(other, np.arange(observation.lmax + 1), spectra.bb_lensed[: observation.lmax + 1] + noise)
    ee = spectra.ee_lensed[ell]
    response = ee * wanted * length * np.cos(angle) * np.sin(2 * (angle - np.arctan2(y, x)))
    integrand = np.where(inside, response**2 / (ee + noise[ell]) / total_b, 0.0)
    return (wanted**2 / 2) ** 2 / float((integrand * length).sum() * 2 * np.pi / 4000 / (2 * np.pi) ** 2)


@pytest.mark.parametrize("big", [60, 300, 900])
def test_n0_of_eb_is_the_flat_integral(big: int):
    spectra, observation = toy_spectra(1500), Observation(noise=2.0, beam=3.0, lmin=30, lmax=1200)
    curved = NoiseModel(spectra, observation, 1000).eb()[big]
    assert curved == pytest.approx(flat_n0_eb(spectra, observation, big), rel=3e-3)


@given(noise=st.floats(0.5, 20), beam=st.floats(0, 10))
@settings(max_examples=8, deadline=None)
def test_more_noise_or_a_wider_beam_or_fewer_multipoles_raise_n0(noise: float, beam: float):
    spectra, observation = toy_spectra(600), Observation(noise, beam, lmin=10, lmax=400)
    best = NoiseModel(spectra, observation, 300)
    worse = {"noise": noise * 1.1, "beam": beam + 1, "lmin": 20, "lmax": 380}
    for name, value in worse.items():
        other = NoiseModel(spectra, replace(observation, **{name: value}), 300)
        assert (other.eb()[2:] > best.eb()[2:]).all()
    together = best.minimum_variance()[2:]
    assert (together < best.eb()[2:]).all()
    assert (together < best.ee()[2:]).all()


def test_a_common_factor_of_signal_and_noise_does_not_change_n0():
    spectra, observation = toy_spectra(600), Observation(3.0, 2.0, lmin=10, lmax=400)
    brighter = replace(spectra, **{name: 4 * getattr(spectra, name) for name in ("ee", "ee_lensed", "bb_lensed")})
    one = NoiseModel(spectra, observation, 300)
    two = NoiseModel(brighter, replace(observation, noise=6.0), 300)
    np.testing.assert_allclose(two.minimum_variance()[2:], one.minimum_variance()[2:], rtol=1e-10)
    np.testing.assert_allclose(iterate_eb(two).n0[2:], iterate_eb(one).n0[2:], rtol=1e-10)


@pytest.mark.parametrize("residual", get_args(Residual))
@pytest.mark.parametrize("e_filter", get_args(EFilter))
def test_iterated_n0_is_below_the_estimate_and_a_fixed_point(residual: Residual, e_filter: EFilter):
    model = NoiseModel(toy_spectra(1500), Observation(2.0, 1.0, lmin=10, lmax=1000), 800)
    result = iterate_eb(model, Iteration(residual, e_filter))
    assert (result.n0[2:] < model.eb()[2:]).all()
    tighter = iterate_eb(model, Iteration(residual, e_filter, tolerance=1e-8))
    assert tighter.steps > result.steps
    np.testing.assert_allclose(result.n0[2:], tighter.n0[2:], rtol=1e-3)


def test_iterated_n0_does_not_depend_on_the_range_of_l_asked_for():
    observation = Observation(2.0, 1.0, lmin=10, lmax=500)
    short, long = (iterate_eb(NoiseModel(toy_spectra(600), observation, lmax)).n0 for lmax in (300, 900))
    np.testing.assert_allclose(short[2:], long[2:301], rtol=1e-6)  # L = 2 keeps seven digits


def test_without_noise_the_unlensed_filter_holds_and_too_much_delensing_is_refused():
    spectra, observation = toy_spectra(1500), Observation(0.0, 1.0, lmin=10, lmax=1200)
    faded = np.where(np.arange(1501) % 2, 0.02, 1.0) * spectra.ee  # where lensing dims E, the lensed filter exceeds one
    faint = NoiseModel(replace(spectra, ee_lensed=faded), observation, 600)
    assert np.isfinite(iterate_eb(faint, Iteration(e_filter="unlensed")).n0[2:]).all()
    with pytest.raises(UserError, match=r"more B at ell=\d+ than there is"):
        iterate_eb(faint)


def test_where_the_beam_leaves_nothing_n0_is_infinite():
    model = NoiseModel(toy_spectra(600), Observation(10.0, 300.0, lmin=2, lmax=500), 500)
    noise = model.minimum_variance()
    assert np.isfinite(noise[2:100]).all()
    assert np.isinf(noise[[0, 1, 500]]).all()
    assert np.isinf(iterate_eb(model).n0[500])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"noise": -1.0}, "noise -1 is impossible"),
        ({"noise": math.nan}, "noise nan"),
        ({"beam": -0.5}, "beam -0.5 is impossible"),
        ({"lmin": 1}, "lmin 1"),
        ({"lmin": 300, "lmax": 300}, "lmin 300 is not below lmax 300"),
    ],
)
def test_impossible_observations_are_refused(wrong: dict[str, float], says: str):
    with pytest.raises(UserError, match=says):
        Observation(**wrong)


def test_multipoles_out_of_reach_are_refused():
    with pytest.raises(UserError, match="spectra end at ell=40"):
        NoiseModel(toy_spectra(40), Observation(lmin=2, lmax=50), 40).eb()
    with pytest.raises(UserError, match="L 100 is out of the reach"):
        NoiseModel(toy_spectra(40), Observation(lmin=2, lmax=40), 100)


def test_the_verb_prints_one_object_and_refuses_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(cmb_spectra, "load_spectra", lambda lmax, cosmology: toy_spectra(1000, cosmology.H0 / 67.94))
    line = ["lensing", "n0", "--noise", "2", "--lmax", "800", "--spectra-lmax", "1000"]
    assert main([*line, "--json"]) == 0
    curves = json.loads(capsys.readouterr().out)
    model = NoiseModel(toy_spectra(1000), Observation(noise=2.0, lmax=800), curves["L"][-1])
    assert curves["L"] == list(range(2, 1600))
    assert curves["N0_EB"] == [value if np.isfinite(value) else None for value in model.eb()[2:]]
    assert {len(curves[name]) for name in ("N0_EB_iterated", "N0_EE", "N0_MV")} == {len(curves["L"])}
    assert main([*line, "--H0", "80", "--Lmax", "300"]) == 0
    assert "N0_EB_iterated" in capsys.readouterr().out
    for wrong in (["--noise", "-1"], ["--lmax", "2000"], ["--lmin", "800"], ["--Lmax", "1"], ["--beam", "-1"]):
        assert main([*line, *wrong]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_verb_knows_every_convention_and_parameter():
    assert get_args(Residual) == verb._RESIDUALS
    assert get_args(EFilter) == verb._E_FILTERS
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    given = vars(parser.parse_args([]))
    assert {name: given[name] for name in Cosmology.__dataclass_fields__} == vars(Cosmology())


def test_spectra_are_computed_once_and_a_damaged_file_is_made_anew(tmp_path: Path, monkeypatch):
    runs = []
    monkeypatch.setattr(cmb_spectra, "compute_spectra", lambda *what: runs.append(what) or toy_spectra(40))
    first, again = load_spectra(40, folder=tmp_path), load_spectra(40, folder=tmp_path)
    assert len(runs) == 1
    np.testing.assert_array_equal(first.bb_lensed, again.bb_lensed)
    path = spectra_path(40, folder=tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    load_spectra(40, folder=tmp_path)
    load_spectra(40, Cosmology(omch2=0.1085), folder=tmp_path)
    assert len(runs) == 3
    assert sorted(tmp_path.iterdir()) == sorted({path, spectra_path(40, Cosmology(omch2=0.1085), folder=tmp_path)})


def assert_meets_the_reference(spectra: CmbSpectra) -> None:
    reference = json.loads(REFERENCE.read_text())
    ells = np.array(reference["L"])
    np.testing.assert_allclose(spectra.kappa[ells], reference["Ckk_nonlinear"], rtol=1e-3)
    for case in reference["cases"]:
        observation = Observation(
            case["noise_uK_arcmin_pol"], case["fwhm_arcmin"], lmin=case["lmin"], lmax=case["lmax"]
        )
        model = NoiseModel(spectra, observation, int(ells[-1]))
        np.testing.assert_allclose(model.eb()[ells], case["N0kk_QE_EB"], rtol=1e-3)
        np.testing.assert_allclose(iterate_eb(model, Iteration(case["resid"])).n0[ells], case["N0kk_iterEB"], rtol=4e-3)


needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason=f"{REFERENCE} is absent")


@needs_reference
def test_reference_curves_from_kept_spectra():
    if not spectra_path().exists():
        pytest.skip("no kept CAMB spectra: run `sphereml lensing n0` once")
    assert_meets_the_reference(load_spectra())


@pytest.mark.slow
@needs_reference
def test_reference_curves_from_camb_within_their_time(tmp_path: Path):
    spectra = load_spectra(6000, PLANCK_2013, tmp_path)
    assert_meets_the_reference(spectra)
    model, start = NoiseModel(spectra, Observation(), 3000), time.perf_counter()
    model.minimum_variance()
    estimated = time.perf_counter()
    iterate_eb(model)
    assert estimated - start < 1.0
    assert time.perf_counter() - estimated < 10.0
