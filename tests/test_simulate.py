"""The simulators: random fields, the synthetic Galaxy, the CMB."""

from __future__ import annotations

import dataclasses

import healpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sphereml.config.schema import GalaxyConfig
from sphereml.data.velocity import VelocityAxis
from sphereml.errors import UserError
from sphereml.harmonics.filters import gaussian_beam
from sphereml.harmonics.transforms import analysis
from sphereml.simulate.cmb import cmb_spectrum, simulate_cmb
from sphereml.simulate.fields import (
    draw_alm,
    field_variance,
    gaussian_field,
    lognormal_field,
    power_law,
    smooth,
)
from sphereml.simulate.galaxy import Galaxy, dark_column, simulate_galaxy
from sphereml.simulate.phases import PHASES, plane_envelope
from sphereml.simulate.spectral_cube import COLUMN_PER_BRIGHTNESS
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.ordering import ring_to_nest

CONFIG = GalaxyConfig(nside=32, seed=3)


@pytest.fixture(scope="module")
def galaxy() -> Galaxy:
    return simulate_galaxy(CONFIG)


@pytest.fixture(scope="module")
def noiseless() -> Galaxy:
    return simulate_galaxy(dataclasses.replace(CONFIG, noise_mk=0.0))


@pytest.fixture(scope="module")
def theory() -> np.ndarray:
    return cmb_spectrum(256)


def _column(galaxy: Galaxy) -> np.ndarray:
    width = galaxy.velocity[1] - galaxy.velocity[0]
    return COLUMN_PER_BRIGHTNESS * width * galaxy.brightness.sum(axis=1, dtype=np.float64)


# fields


def test_power_law_has_unit_variance_and_the_asked_slope():
    spectrum = power_law(20000, -2.8, 8.0)
    assert field_variance(spectrum) == pytest.approx(1.0)
    assert np.log(spectrum[4000] / spectrum[400]) / np.log(10) == pytest.approx(-2.8, abs=1e-3)


def test_power_law_refuses_a_divergent_slope():
    with pytest.raises(ValueError, match="finite variance"):
        power_law(16, -1.9, 8.0)


def test_field_spectrum_has_the_slope_of_its_power_law():
    spectrum = 0.01 * power_law(128, -2.8, 2.0)
    for field in (gaussian_field, lognormal_field):
        power = np.mean(
            [healpy.alm2cl(analysis(field(64, spectrum, np.random.default_rng([seed, 5])), 128)) for seed in range(4)],
            axis=0,
        )
        ell = np.arange(20, 100)
        slope = np.polyfit(np.log(ell), np.log(power[ell]), 1)[0]
        assert slope == pytest.approx(-2.8, abs=0.1)


@settings(max_examples=10, deadline=None)
@given(low=st.integers(1, 20), more=st.integers(0, 20), seed=st.integers(0, 2**32))
def test_large_scales_of_a_seed_do_not_depend_on_lmax(low: int, more: int, seed: int):
    def coefficients(lmax: int) -> np.ndarray:
        return draw_alm(np.ones(lmax + 1), np.random.default_rng(seed))

    fine = coefficients(low + more)
    index = [healpy.Alm.getidx(low + more, ell, m) for m in range(low + 1) for ell in range(m, low + 1)]
    np.testing.assert_array_equal(coefficients(low), fine[index])


def test_gaussian_beam_is_healpys():
    np.testing.assert_allclose(gaussian_beam(200, 16.2), healpy.gauss_beam(np.radians(16.2 / 60), lmax=200), rtol=1e-12)


def test_smoothing_of_a_band_limited_map_multiplies_its_alm():
    alm = draw_alm(power_law(64, -2.8, 8.0), np.random.default_rng(0))
    window = gaussian_beam(64, 120.0)
    sky = ring_to_nest(healpy.alm2map(alm, 32, lmax=64))
    expected = ring_to_nest(healpy.alm2map(healpy.almxfl(alm, window), 32, lmax=64))
    assert np.std(smooth(sky, window) - expected) < 1e-3 * expected.std()


def test_smoothing_of_an_unresolved_source_does_not_ring():
    source = np.zeros(HealpixGrid(32).npix)
    source[1000] = 1.0
    assert smooth(source, gaussian_beam(64, 16.2)).min() > -2e-3


# the synthetic Galaxy


def test_galaxy_has_the_promised_layout(galaxy: Galaxy):
    assert galaxy.grid == HealpixGrid(32)
    assert galaxy.brightness.shape == (galaxy.grid.npix, 64) and galaxy.brightness.dtype == np.float32
    assert galaxy.dust.shape == (galaxy.grid.npix,) and galaxy.dust.dtype == np.float32
    assert galaxy.velocity[0] == pytest.approx(-64.5 + 1.288 / 2, abs=1e-3)
    assert galaxy.velocity[-1] == pytest.approx(17.95 - 1.288 / 2, abs=1e-2)
    assert all(part.dtype == np.float32 and part.shape == galaxy.dust.shape for part in galaxy.components.values())


def test_same_seed_same_sky_and_another_seed_another(galaxy: Galaxy):
    again = simulate_galaxy(CONFIG)
    np.testing.assert_array_equal(again.brightness, galaxy.brightness)
    np.testing.assert_array_equal(again.dust, galaxy.dust)
    other = simulate_galaxy(dataclasses.replace(CONFIG, seed=4))
    assert abs(np.corrcoef(np.log(_column(other)), np.log(_column(galaxy)))[0, 1]) < 0.95
    assert not np.array_equal(other.dust, galaxy.dust)


def test_the_noise_of_the_cube_leaves_the_truth_alone(galaxy: Galaxy, noiseless: Galaxy):
    np.testing.assert_array_equal(galaxy.dust, noiseless.dust)
    noise = galaxy.brightness - noiseless.brightness
    assert noise.std() == pytest.approx(0.043, rel=0.01)


def test_dust_parts_sum_to_the_dust(galaxy: Galaxy):
    parts = [part for name, part in galaxy.components.items() if name.startswith("dust_")]
    np.testing.assert_allclose(np.sum(parts, axis=0, dtype=np.float64), galaxy.dust, rtol=1e-6, atol=1e-4)


def test_channel_integral_recovers_the_columns(noiseless: Galaxy):
    columns = sum(noiseless.components[f"column_{phase.name}"].astype(np.float64) for phase in PHASES)
    share_in_band = _column(noiseless) / columns
    assert np.all(share_in_band < 1 + 1e-4)
    assert np.median(share_in_band) > 0.95


def test_a_band_that_holds_every_line_recovers_all_the_gas():
    wide = GalaxyConfig(nside=16, seed=3, channels=60, velocity_start=-150.0, channel_width=5.0, noise_mk=0.0)
    galaxy = simulate_galaxy(wide)
    columns = sum(galaxy.components[f"column_{phase.name}"].astype(np.float64) for phase in PHASES)
    np.testing.assert_allclose(_column(galaxy), columns, rtol=1e-5)


def test_columns_are_those_of_the_galaxy(galaxy: Galaxy):
    _, lat = galaxy.grid.lonlat()
    column = _column(galaxy)
    assert 1e20 < np.median(column[np.abs(lat) > 60]) < 5e20
    assert 2e21 < np.median(column[np.abs(lat) < 2]) < 3e22


def test_large_scales_agree_between_resolutions(noiseless: Galaxy):
    coarse = simulate_galaxy(dataclasses.replace(CONFIG, nside=16, noise_mk=0.0))
    fine = noiseless.components["column_wnm"].reshape(-1, 4).mean(axis=1)
    _, lat = coarse.grid.lonlat()
    high = np.abs(lat) > 20
    ratio = coarse.components["column_wnm"][high] / fine[high]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.03) and ratio.std() < 0.2


def test_dark_gas_rises_faster_than_the_cold_column():
    cold = np.array([1e19, 1e20, 1e21])
    assert np.all(np.diff(dark_column(cold) / cold) > 0)


def test_envelope_is_the_cosecant_away_from_the_plane():
    np.testing.assert_allclose(plane_envelope(np.array([90.0, 30.0, -30.0]), 0.02), [1.0, 2.0, 2.0], rtol=1e-3)
    assert plane_envelope(np.array([0.0]), 0.02)[0] == pytest.approx(50.0, rel=1e-3)


def test_progress_is_reported_and_any_axis_is_allowed():
    lines: list[str] = []
    galaxy = simulate_galaxy(GalaxyConfig(nside=8, channels=5, channel_width=16.0), lines.append)
    assert galaxy.brightness.shape == (768, 5) and len(lines) >= 4
    np.testing.assert_allclose(galaxy.velocity, VelocityAxis.uniform(-56.5, 16.0, 5).centres)


@pytest.mark.parametrize(
    "bad",
    [
        {"nside": 100},
        {"channels": 0},
        {"noise_mk": -1.0},
        {"channel_width": 0.0},
        {"seed": -1},
        {"noise_mk": float("nan")},
    ],
)
def test_impossible_settings_are_refused(bad: dict[str, float]):
    with pytest.raises(UserError):
        simulate_galaxy(dataclasses.replace(GalaxyConfig(nside=8), **bad))


def test_the_line_profile_tells_more_than_linear_weights_can(galaxy: Galaxy):
    """Weights of channels fitted in the north, against a gain that knows how narrow the line is, wherever it lies."""
    _, lat = galaxy.grid.lonlat()
    fit, judge = lat > 20, lat < -20
    column = _column(galaxy)[:, None] / 1e20
    profile = galaxy.brightness / galaxy.brightness.sum(axis=1, keepdims=True)
    lags = [np.sum(profile[:, lag:] * profile[:, : 64 - lag], axis=1) for lag in (1, 2, 4, 6, 8, 12, 16)]
    log_column = np.log(column)
    shape = np.column_stack([np.ones(len(column)), log_column, *lags, profile.reshape(-1, 16, 4).sum(axis=2)[:, 1:]])
    features = {
        "linear": np.column_stack([np.ones(len(column)), galaxy.brightness]),
        "nonlinear": column * np.column_stack([shape, log_column * shape]),
    }
    scatter = {}
    for name, table in features.items():
        weights = np.linalg.lstsq(table[fit], galaxy.dust[fit], rcond=1e-10)[0]
        scatter[name] = np.std(galaxy.dust[judge] - table[judge] @ weights)
    assert scatter["nonlinear"] < 0.75 * scatter["linear"], scatter


# the CMB


def test_cmb_spectrum_is_c_ell_and_not_d_ell(theory: np.ndarray):
    assert theory.shape == (257,) and theory[0] == theory[1] == 0
    assert theory[220] == pytest.approx(5700 * 2 * np.pi / (220 * 221), rel=0.05)


def test_cmb_skies_have_the_spectrum_of_theory(theory: np.ndarray):
    skies, lmax = 12, 128
    power = np.mean(
        [
            healpy.alm2cl(analysis(simulate_cmb(64, lmax, np.random.default_rng([9, sky]), theory), lmax))
            for sky in range(skies)
        ],
        axis=0,
    )
    ell = np.arange(2, lmax + 1)
    pull = (power[ell] / theory[ell] - 1) * np.sqrt((2 * ell + 1) * skies / 2)
    assert np.abs(pull).max() < 5
    assert pull.std() == pytest.approx(1.0, abs=0.25)


def test_cmb_spectrum_must_reach_lmax(theory: np.ndarray):
    with pytest.raises(ValueError, match="below lmax"):
        simulate_cmb(64, 300, np.random.default_rng(0), theory)
