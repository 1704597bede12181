"""Deprojection's bias against direct algebra in pixels and simulations of patches; one amplitude for Q and U."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sphereml.errors import UserError
from sphereml.harmonics.coupling import Components
from sphereml.harmonics.deprojection import Deprojection, deprojection_bias, noise_bias
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.harmonics.masked_field import MaskedField
from sphereml.harmonics.masked_patch import MaskedPatch
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import apodize
from sphereml.templates.marginalization import marginalize
from sphereml.templates.polarization import marginalize_polarization

NSIDE, LMAX = 4, 11
GRID = HealpixGrid(NSIDE)
MASK = apodize(np.abs(GRID.lonlat()[1]) > 10, GRID, 40.0)


def pixel_response(deprojection: Deprojection, components: int) -> np.ndarray:
    """Coefficients ``(value, ncomp, nalm)`` of every single pixel value, cleaned, masked and transformed."""
    units = np.eye(components * GRID.npix).reshape(-1, components, GRID.npix)
    return np.stack(
        [deprojection.field.alms(deprojection.subtract(one, deprojection.amplitudes(one))) for one in units]
    )


def expected_bias(deprojection: Deprojection, covariance: np.ndarray, components: int) -> np.ndarray:
    """Pseudo-spectra with less those without deprojection for a covariance ``(value, value)``, mode by mode."""
    field = deprojection.field
    units = np.eye(components * GRID.npix).reshape(-1, components, GRID.npix)
    plain = field.alms(units)
    roots = np.linalg.cholesky(covariance + 1e-12 * covariance.max() * np.eye(len(covariance)))
    both = []
    for response in (pixel_response(deprojection, components), plain):
        drawn = np.tensordot(roots.T, response, axes=1)
        both.append(np.sum([field.cross_spectra(alm, alm) for alm in drawn], axis=0))
    return both[0] - both[1]


@pytest.mark.parametrize("spin", [0, 2])
def test_noise_bias_is_that_of_the_algebra_in_pixels(spin):
    components = 1 + spin // 2
    rng = np.random.default_rng(1)
    field = MaskedField(MASK, Components(spin), LMAX)
    deprojection = Deprojection(field, rng.standard_normal((2, components, GRID.npix)))
    variance = rng.random(GRID.npix)
    expected = expected_bias(deprojection, np.diag(np.tile(variance, components)), components)
    np.testing.assert_allclose(noise_bias(deprojection, variance), expected, atol=1e-10 * np.abs(expected).max())


def test_signal_bias_is_that_of_the_algebra_in_pixels():
    """Without iterations, where the analysis is the adjoint; with three the bias is 2 % off here."""
    rng = np.random.default_rng(2)
    field = MaskedField(MASK, Components(2), 2 * NSIDE, iterations=0)
    ell = np.arange(2 * NSIDE + 1)
    smooth = field.synthesis(rng.standard_normal((2, 2, 45)) * np.where(np.arange(45) < 9, 1, 1 + 1j))
    deprojection = Deprojection(field, smooth)
    guess = np.where(ell < 2, 0, 1 / (ell + 1.0) ** 2) * np.array([[1, 0], [0, 0.3]])[..., None]
    units = np.eye(2 * GRID.npix).reshape(-1, 2, GRID.npix)
    adjoint = field.plain_alms(units, 0) / GRID.pixel_area
    covariance = np.stack([field.synthesis(field.filtered(one, guess)).ravel() for one in adjoint])
    expected = expected_bias(deprojection, covariance, 2)
    found = deprojection_bias(deprojection, deprojection, guess, (field, field))
    assert np.abs(found - expected).max() < 1e-8 * np.abs(expected).max()


def test_an_auto_spectrum_equals_its_long_form():
    rng = np.random.default_rng(3)
    field = MaskedField(MASK, Components(2, pure_b=True), LMAX)
    templates = rng.standard_normal((2, 2, GRID.npix))
    one, other = Deprojection(field, templates), Deprojection(field, templates)
    guess = rng.random(LMAX + 1) * np.array([[1, 0.1], [0.1, 0.5]])[..., None]
    short = deprojection_bias(one, one, guess, (field, field))
    np.testing.assert_allclose(short, deprojection_bias(one, other, guess, (field, field)), atol=1e-12)
    zero = deprojection_bias(None, None, guess, (field, field))
    assert not zero.any()


def test_templates_are_gone_and_dependent_ones_do_no_harm():
    rng = np.random.default_rng(4)
    field = MaskedField(MASK, Components(0), LMAX)
    first = rng.standard_normal((1, 1, GRID.npix))
    sky = rng.standard_normal((1, GRID.npix))
    for templates in (first, np.concatenate([first, 2 * first])):
        deprojection = Deprojection(field, templates)
        cleaned = [deprojection.subtract(d, deprojection.amplitudes(d)) for d in (sky, sky + 7 * first[0])]
        np.testing.assert_allclose(*cleaned, atol=1e-10)
    with pytest.raises(UserError, match="zero on the mask"):
        Deprojection(field, 0 * first)
    holed = np.where(MASK.max() == MASK, np.nan, first)
    with pytest.raises(UserError, match="missing"):
        Deprojection(field, holed)


@pytest.mark.parametrize("spin", [0, 2])
def test_deprojection_on_a_patch_is_unbiased(spin):
    sky = FlatSky(32, 40.0)
    edge = np.clip((1 - np.abs(np.linspace(-1, 1, 32))) * 3, 0, 1)
    patch = MaskedPatch(sky, np.outer(edge, edge), [30, 60, 100, 200], spin)
    generator = torch.Generator().manual_seed(1)
    curve = 1 / (np.arange(700) + 30.0) ** 2
    guess = np.array([[curve]]) if spin == 0 else np.array([[curve, 0 * curve], [0 * curve, 0.2 * curve]])

    def draw() -> np.ndarray:
        parts = [sky.draw(guess[i, i], 1, generator)[0].to(torch.complex128) for i in range(1 + spin // 2)]
        modes = torch.stack(sky.to_qu(*parts)) if spin else parts[0]
        return sky.to_images(modes).numpy()

    templates = np.stack([draw() for _ in range(3)])
    differences = []
    for _ in range(200):
        image = draw()
        with_templates = patch.spectra(image + 3 * templates[0] - templates[1], templates, guess)
        differences.append(with_templates - patch.spectra(image))
    error = np.std(differences, axis=0) / np.sqrt(200)
    assert np.abs(np.mean(differences, axis=0) / error).max() < 4
    with pytest.raises(UserError, match="patch of shape"):
        patch.spectra(np.zeros((5, 5)))


def test_explicit_amplitudes_of_polarization_are_unbiased_with_right_errors():
    nside, lmax = 16, 32
    grid = HealpixGrid(nside)
    _, lat = grid.lonlat()
    mask = np.clip((np.abs(lat) - 15) / 10, 0, 1)
    field = MaskedField(np.ones(grid.npix), Components(2), lmax)
    gain = np.where(np.arange(lmax + 1) < 2, 0, 1 / (np.arange(lmax + 1) + 1.0)) * np.array([[[1.0]], [[0.5]]])

    def draw(rng: np.random.Generator) -> np.ndarray:
        alm = field.plain_alms(rng.standard_normal((2, grid.npix)))
        return field.synthesis(np.concatenate([field.filtered(alm[i : i + 1], gain[i : i + 1]) for i in range(2)]))

    templates = np.stack([draw(np.random.default_rng([5, i])) * np.exp(-np.abs(lat) / 20) for i in range(2)])
    truth = np.array([0.3, -0.2])
    results = []
    for index in range(60):
        sky = draw(np.random.default_rng([6, index])) + np.tensordot(truth, templates, axes=1)
        results.append(marginalize_polarization(sky, templates, mask))
    amplitudes = np.array([result.amplitudes for result in results])
    scatter = amplitudes.std(axis=0, ddof=1)
    assert np.all(np.abs(amplitudes.mean(axis=0) - truth) < 4 * scatter / np.sqrt(60))
    errors = np.sqrt(np.mean([result.errors**2 for result in results], axis=0))
    np.testing.assert_allclose(errors, scatter, rtol=0.25)
    exact = marginalize_polarization(2.5 * templates[0] + 1e-6 * sky, templates[0], mask)
    assert exact.amplitudes == pytest.approx([2.5], abs=1e-5)
    with pytest.raises(UserError, match="dependent"):
        marginalize_polarization(sky, np.stack([templates[0], 2 * templates[0]]), mask)
    with pytest.raises(UserError, match="Q and U"):
        marginalize_polarization(sky[0], templates, mask)
    assert marginalize(sky[0], templates[0, 0], mask).amplitudes.shape == (1,)
