"""Template marginalization: unbiased amplitudes, calibrated errors, a CMB left alone."""

import json
from pathlib import Path

import healpy
import numpy as np
import pytest

from sphereml.data.healpix_fits import HealpixMaps
from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.transforms import alm_index, alm_size, synthesis
from sphereml.sky.grid import HealpixGrid
from sphereml.templates.cleaning import clean
from sphereml.templates.map_choice import ChosenMaps
from sphereml.templates.marginalization import clean_component, marginalize, power_left, signal_loss
from sphereml.templates.polarization import marginalize_polarization

NSIDE, LMAX = 32, 64
NPIX = 12 * NSIDE**2
BANDS = Bands(low=(2, 15), r50=(14.4, 100), beyond=(200, 300))


def gaussian_sky(rng: np.random.Generator, slope: float, amplitude: float = 1.0) -> np.ndarray:
    """Isotropic Gaussian sky with ``C_l ~ l^slope`` from l = 2."""
    ell, order = alm_index(LMAX)
    alm = rng.standard_normal(alm_size(LMAX)) + 1j * rng.standard_normal(alm_size(LMAX))
    alm = np.where(order == 0, np.sqrt(2) * alm.real, alm) / np.sqrt(2)
    return synthesis(amplitude * alm * np.where(ell < 2, 0, np.maximum(ell, 1) ** (slope / 2)), NSIDE, LMAX)


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    _, lat = healpy.pix2ang(NSIDE, np.arange(NPIX), nest=True, lonlat=True)
    return np.clip((np.abs(lat) - 15) / 10, 0, 1)


@pytest.fixture(scope="module")
def templates() -> np.ndarray:
    """Two dust-like maps, lognormal and concentrated to the plane, partly alike."""
    rng = np.random.default_rng(8)
    _, lat = healpy.pix2ang(NSIDE, np.arange(NPIX), nest=True, lonlat=True)
    disc = 1 / (np.abs(np.sin(np.radians(lat))) + 0.1)
    first, second = (disc * np.exp(0.8 * g / g.std()) for g in (gaussian_sky(rng, -2.8) for _ in range(2)))
    return np.stack([first, 0.5 * first + second])


def test_amplitudes_are_unbiased_and_errors_match_the_scatter(templates, mask):
    truth = np.array([0.03, -0.02])
    results = []
    for index in range(60):
        cmb = gaussian_sky(np.random.default_rng([11, index]), -2.0)
        results.append(marginalize(cmb + truth @ templates + 7.0, templates, mask))
    amplitudes = np.array([r.amplitudes for r in results])
    scatter = amplitudes.std(axis=0, ddof=1)
    errors = np.sqrt(np.mean([r.errors**2 for r in results], axis=0))
    assert np.all(np.abs(amplitudes.mean(axis=0) - truth) < 3 * scatter / np.sqrt(60))
    np.testing.assert_allclose(errors, scatter, rtol=0.15)


def test_pure_template_is_removed_exactly(templates, mask):
    result = marginalize(
        2.5 * templates[0] - 1.0 + 1e-6 * gaussian_sky(np.random.default_rng(1), 0), templates[0], mask
    )
    assert result.amplitudes == pytest.approx([2.5], abs=1e-6)
    assert result.after[2:].max() < 1e-8 * result.before[2:].max()


def test_power_left_and_signal_loss(templates, mask):
    cmb = gaussian_sky(np.random.default_rng(12), -2.0)
    dust = 0.5 * templates[0]
    result = marginalize(cmb + dust, templates[0], mask, bands=BANDS)
    left = power_left(dust, result.cleaned - cmb, mask, BANDS)
    assert set(left) == {"low", "r50"}
    assert max(left.values()) < 0.01
    kept = signal_loss(cmb, clean_component(result, cmb, templates[0], mask), mask, BANDS)
    assert all(0.97 < share < 1.03 for share in kept.values())
    residual = clean_component(result, dust, templates[0], mask)
    assert np.abs(residual).max() < 1e-10 * dust.max()


def test_cleaned_components_sum_to_the_cleaned_sky(templates, mask):
    rng = np.random.default_rng(13)
    parts = [gaussian_sky(rng, -2.0), templates[1] + gaussian_sky(rng, 0.0, 0.1)]
    result = marginalize(sum(parts), templates, mask)
    np.testing.assert_allclose(
        sum(clean_component(result, p, templates, mask) for p in parts), result.cleaned, atol=1e-9
    )


def test_units_scale_the_amplitudes(templates, mask):
    sky = gaussian_sky(np.random.default_rng(14), -2.0) + templates[0]
    one, other = marginalize(sky, templates, mask), marginalize(1e6 * sky, 1e-3 * templates, mask)
    np.testing.assert_allclose(other.amplitudes, 1e9 * one.amplitudes, rtol=1e-7)
    np.testing.assert_allclose(other.errors, 1e9 * one.errors, rtol=1e-7)


def chosen(name: str, *columns: np.ndarray) -> ChosenMaps:
    """Maps as if read from ``NAME.fits``: I, or Q and U."""
    names = ("I",) if len(columns) == 1 else ("Q", "U")
    grid = HealpixGrid.of_size(columns[0].size)
    return ChosenMaps(Path(f"{name}.fits"), HealpixMaps(np.stack(columns, axis=1), names, "K", "G", grid, ""), ())


def test_saved_result_has_bands_clipped_to_the_fit(tmp_path, templates, mask):
    result = marginalize(templates[0], templates[1], mask, bands=BANDS)
    clean(chosen("sky", templates[0]), [chosen("t", templates[1])], mask, BANDS).save(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "marginalization.json").read_text())
    assert content["amplitudes"] == pytest.approx(result.amplitudes.tolist())
    assert len(content["after"]) == LMAX + 1
    assert (content["bands"]["r50"]["lo"], content["bands"]["r50"]["hi"]) == (14.4, LMAX + 1)
    assert set(content["bands"]) == {"low", "r50"}


def test_q_and_u_are_cleaned_as_one_field(tmp_path, templates, mask):
    dust, rest = np.stack([templates[0], templates[1]]), np.random.default_rng(3).standard_normal((2, NPIX))
    sky = rest + 0.7 * dust
    result = clean(chosen("sky", *sky), [chosen("dust", *dust)], mask, BANDS)
    np.testing.assert_array_equal(result.fit.amplitudes, marginalize_polarization(sky, dust, mask).amplitudes)
    assert abs(result.fit.amplitudes[0] - 0.7) < 4 * result.fit.errors[0]
    assert set(result.power_left()) == {"EE", "BB"} and result.labels == [("dust", "K")]
    result.save(tmp_path)
    content = json.loads((tmp_path / "marginalization.json").read_text())
    assert set(content["before"]) == {"EE", "BB"} and set(content["bands"]["low"]["after"]) == {"EE", "BB"}
    cleaned = healpy.read_map(tmp_path / "cleaned.fits", field=(0, 1), nest=True, dtype=np.float64)
    np.testing.assert_allclose(cleaned, result.fit.cleaned, rtol=1e-6, atol=1e-6)


def test_bad_input_is_refused(templates, mask):
    sky = templates[0]
    holed = np.where(mask > 0.5, np.nan, sky)
    cases = {
        "constant": lambda: marginalize(sky, np.ones(NPIX), mask),
        "the sky is constant": lambda: marginalize(np.full(NPIX, 7.0), sky, mask),
        "template 2 is constant": lambda: marginalize(sky, np.stack([sky, np.zeros(NPIX)]), mask),
        "linearly dependent": lambda: marginalize(sky, np.stack([sky, 2 * sky + 3]), mask),
        "empty": lambda: marginalize(sky, templates, np.zeros(NPIX)),
        "shape": lambda: marginalize(sky, templates, mask[:48]),
        "pixels, sky of": lambda: marginalize(sky, templates[:, :48], mask),
        "missing values": lambda: marginalize(holed, templates, mask),
        "lmax": lambda: marginalize(sky, templates, mask, lmax=3 * NSIDE),
    }
    for says, call in cases.items():
        with pytest.raises(UserError, match=says):
            call()
