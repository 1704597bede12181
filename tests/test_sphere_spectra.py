"""Spectra on the sphere against healpy.anafast, and the algebra of r(ell), bands and masks."""

import healpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.spectra import (
    band_mean,
    band_power,
    correlation,
    cross_spectrum,
    fsky,
    masked_spectra,
    spectrum,
)
from sphereml.harmonics.transforms import alm_size
from sphereml.sky.ordering import nest_to_ring

NSIDE, LMAX = 16, 32
NPIX = 12 * NSIDE**2
SPECTRUM_RTOL = 1e-10  # float64, equal Jacobi iterations, sums in another order


@pytest.fixture(scope="module")
def maps() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((3, NPIX)) + 5.0


def strip_mask(width: float) -> np.ndarray:
    _, lat = healpy.pix2ang(NSIDE, np.arange(NPIX), nest=True, lonlat=True)
    return (np.abs(lat) > width).astype(float)


@pytest.mark.parametrize("iterations", [0, 3])
def test_spectrum_equals_anafast(maps, iterations):
    ring = nest_to_ring(maps, axis=-1)
    ours = spectrum(maps[0], maps[1], lmax=LMAX, iterations=iterations)
    oracle = healpy.anafast(ring[0], ring[1], lmax=LMAX, iter=iterations)
    np.testing.assert_allclose(ours, oracle, rtol=SPECTRUM_RTOL, atol=1e-12 * np.abs(oracle[2:]).max())
    auto = healpy.anafast(ring[0], lmax=LMAX, iter=iterations)
    np.testing.assert_allclose(spectrum(maps[0], lmax=LMAX, iterations=iterations), auto, rtol=SPECTRUM_RTOL)


def test_polarized_spectrum_equals_anafast(maps):
    ring = nest_to_ring(maps, axis=-1)
    _, ee, bb, *_ = healpy.anafast(ring, lmax=LMAX, iter=3, pol=True)
    ours = spectrum(maps[1:], lmax=LMAX, spin=2)
    np.testing.assert_allclose(ours[:, 2:], [ee[2:], bb[2:]], rtol=SPECTRUM_RTOL)


def test_masked_spectra_equal_anafast_of_masked_maps(maps):
    mask = strip_mask(20.0)
    holed = np.where(mask > 0, maps, np.nan)
    ours = masked_spectra(holed, mask, lmax=LMAX)
    centred = [mask * (m - np.average(m, weights=mask)) for m in maps]
    oracle = healpy.anafast(nest_to_ring(centred[0]), nest_to_ring(centred[2]), lmax=LMAX, iter=3)
    np.testing.assert_allclose(ours[0, 2], oracle, rtol=1e-9, atol=1e-12 * np.abs(oracle).max())
    np.testing.assert_array_equal(ours, ours.swapaxes(0, 1))
    assert fsky(mask) == pytest.approx(mask.mean())


@given(gain=st.floats(0.1, 10), offset=st.floats(-100, 100))
@settings(max_examples=8, deadline=None)
def test_correlation_ignores_gain_and_offset(gain, offset):
    rng = np.random.default_rng(0)
    first = rng.standard_normal(NPIX)
    second = first + rng.standard_normal(NPIX)
    mask = strip_mask(30.0)

    def r(other):
        cl = masked_spectra(np.stack([first, other]), mask, lmax=LMAX)
        return correlation(cl[0, 1], cl[0, 0], cl[1, 1])[2:]

    np.testing.assert_allclose(r(gain * second + offset), r(second), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(r(gain * first + offset), 1.0, rtol=1e-8)


def test_correlation_is_bounded_and_zero_without_power(maps):
    cl = masked_spectra(maps, np.ones(NPIX), lmax=LMAX)
    assert np.all(np.abs(correlation(cl[0, 1], cl[0, 0], cl[1, 1])) <= 1 + 1e-12)
    np.testing.assert_array_equal(correlation(np.zeros(3), np.zeros(3), np.ones(3)), np.zeros(3))


def test_white_noise_keeps_its_level_in_bins():
    rng = np.random.default_rng(4)
    alm = rng.standard_normal((1000, alm_size(LMAX))) + 1j * rng.standard_normal((1000, alm_size(LMAX)))
    alm[:, : LMAX + 1] = np.sqrt(2) * alm[:, : LMAX + 1].real  # m = 0 is real; every mode has variance 2
    bands = Bands.edges(2, 10, 33)
    power = band_power(cross_spectrum(alm, alm, LMAX), bands)
    np.testing.assert_allclose(power.mean(axis=0), 2.0, rtol=0.02)  # 4 standard errors of 96000 modes in the lower bin
    assert bands.centers[0] == pytest.approx(np.average(np.arange(2, 10), weights=2 * np.arange(2, 10) + 1))


def test_bands_are_half_open_and_clipped():
    r, bands = np.arange(33.0), Bands(narrow=(14.4, 17), wide=(14.4, 100), above=(100, 200), between=(32.5, 40))
    assert bands.clipped(32) == Bands(narrow=(14.4, 17), wide=(14.4, 33))
    np.testing.assert_allclose(band_mean(r, bands.clipped(32)), [15.5, np.arange(15, 33).mean()])
    assert band_mean(r, bands.clipped(10)).shape == band_power(r, bands.clipped(10)).shape == (0,)
    for measure in (band_mean, band_power):
        with pytest.raises(ValueError, match="band 20-40"):
            measure(r, Bands.edges(20, 40))


@pytest.mark.parametrize(
    ("mask", "says"),
    [(np.zeros(NPIX), "empty"), (np.ones(48), "shape"), (np.full(NPIX, np.nan), "0..1"), (np.full(NPIX, 2.0), "0..1")],
)
def test_unusable_masks_are_refused(maps, mask, says):
    with pytest.raises(UserError, match=says):
        masked_spectra(maps, mask, lmax=LMAX)
