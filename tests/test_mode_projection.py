"""Mode projection against its analytic form among the modes of a full sky, and against simulations of a cut one."""

from __future__ import annotations

import numpy as np
import pytest

from sphereml.errors import UserError
from sphereml.harmonics.mode_projection import ModeProjection, degrade
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.harmonics.transforms import alm_index, synthesis
from sphereml.sky.grid import HealpixGrid

NSIDE, LMAX = 4, 11
GRID = HealpixGrid(NSIDE)
ELL, ORDER = alm_index(LMAX)
EACH = list(range(2, LMAX + 2))


def fiducial(spin: int) -> np.ndarray:
    return 1 / (np.arange(LMAX + 1) + 1.0) ** 2 * np.array([[1.0], [0.3]])[: 1 + spin // 2]


def draw(rng: np.random.Generator, spectra: np.ndarray) -> np.ndarray:
    """Coefficients ``(ncomp, nalm)`` of Gaussian fields with these spectra, from ell = 2."""
    alm = rng.standard_normal((len(spectra), ELL.size)) + 1j * rng.standard_normal((len(spectra), ELL.size))
    return np.where(ELL < 2, 0, np.where(ORDER == 0, alm.real, alm / np.sqrt(2)) * np.sqrt(spectra[:, ELL]))


def sky_of(alm: np.ndarray) -> np.ndarray:
    return synthesis(alm if len(alm) == 2 else alm[0], NSIDE, LMAX, 2 * (len(alm) - 1))


def real_modes(alm: np.ndarray) -> np.ndarray:
    """Real orthonormal coefficients of every component: cosines, then sines."""
    kept, scale = ELL >= 2, np.where(ORDER > 0, np.sqrt(2), 1)
    return np.concatenate([np.r_[(scale * a.real)[kept], (scale * a.imag)[kept & (ORDER > 0)]] for a in alm])


def analytic(alm: np.ndarray, template: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    """The quadratic estimator among modes, whose covariance is diagonal but for the template."""
    ell = np.r_[ELL[ELL >= 2], ELL[(ELL >= 2) & (ORDER > 0)]]
    inverse = 1 / np.concatenate([row[ell] for row in spectra])
    sky, t = real_modes(alm), real_modes(template)
    weight = np.diag(inverse) - np.outer(inverse * t, inverse * t) / (t @ (inverse * t))
    derivatives = []
    for a, b in [(0, 0), (0, 1), (1, 1)] if len(spectra) == 2 else [(0, 0)]:
        for multipole in EACH[:-1]:
            matrix, place = np.zeros_like(weight), np.flatnonzero(ell == multipole)
            matrix[a * ell.size + place, b * ell.size + place] = 1
            derivatives.append(matrix if a == b else matrix + matrix.T)
    power = np.array([0.5 * (weight @ sky) @ p @ (weight @ sky) for p in derivatives])
    fisher = np.array([[0.5 * np.sum((weight @ p @ weight) * q) for q in derivatives] for p in derivatives])
    return np.linalg.solve(fisher, power)


@pytest.mark.parametrize("spin", [0, 2])
def test_on_a_full_sky_it_is_the_analytic_answer(spin):
    rng = np.random.default_rng(1)
    spectra = fiducial(spin)
    alm, template = draw(rng, spectra), draw(rng, spectra)
    plain = ModeProjection(np.ones(GRID.npix), EACH, spectra).estimate(sky_of(alm))
    autos = cross_spectrum(alm, alm, LMAX)[:, 2:]
    np.testing.assert_allclose(plain.values[[0, -1] if spin else [0]], autos, rtol=1e-8)
    projected = ModeProjection(np.ones(GRID.npix), EACH, spectra, templates=sky_of(template)[None])
    found = projected.estimate(sky_of(alm) + 100 * sky_of(template)).values
    expected = analytic(alm, template, spectra).reshape(found.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


def test_the_monopole_and_dipole_are_templates_too():
    sky = sky_of(draw(np.random.default_rng(2), fiducial(0)))
    estimator = ModeProjection((np.abs(GRID.lonlat()[1]) > 25).astype(float), [2, 4, 8, 12], fiducial(0), 1e-3)
    dipole = 50 * GRID.vectors()[:, 0] - 30 * GRID.vectors()[:, 2] + 2.7e6
    np.testing.assert_allclose(estimator.estimate(sky + dipole).values, estimator.estimate(sky).values, rtol=1e-6)


@pytest.mark.parametrize("spin", [0, 2])
def test_on_a_cut_sky_it_is_unbiased_and_its_errors_are_the_scatter(spin):
    spectra, sigma = fiducial(spin), 0.05
    template = sky_of(draw(np.random.default_rng(3), spectra))
    beam = np.exp(-np.arange(LMAX + 1) * np.arange(1, LMAX + 2) * 0.003)
    mask = (np.abs(GRID.lonlat()[1]) > 20).astype(float)
    estimator = ModeProjection(mask, [2, 5, 8, 12], spectra, sigma**2, template[None], beam)
    values = []
    for index in range(300):
        rng = np.random.default_rng([4, index])
        sky = sky_of(draw(rng, spectra) * beam[ELL])
        sky = sky + sigma * rng.standard_normal(sky.shape) + 20 * template
        result = estimator.estimate(np.where(mask > 0, sky, np.nan))
        values.append(result.values)
    theory = spectra if spin == 0 else np.stack([spectra[0], 0 * spectra[0], spectra[1]])
    scatter = np.std(values, axis=0, ddof=1)
    deviates = (np.mean(values, axis=0) - result.predict(theory)) * np.sqrt(300) / scatter
    assert np.abs(deviates).max() < 4
    np.testing.assert_allclose(result.errors, scatter, rtol=0.2)  # of 300 skies: 4 %, at most nine of them


def test_a_degraded_map_has_the_beam_that_is_said():
    lmax = 3 * NSIDE - 1
    fine = synthesis(draw(np.random.default_rng(5), fiducial(0))[0], 16, LMAX)
    coarse, beam = degrade(fine, NSIDE, lmax)
    expected = synthesis(draw(np.random.default_rng(5), fiducial(0))[0] * beam[ELL], NSIDE, LMAX)
    np.testing.assert_allclose(coarse, expected, atol=1e-5 * expected.std())


@pytest.mark.parametrize("options, says", [
    ({"mask": np.ones(12 * 32**2)}, "degrade"), ({"bins": [2, 20]}, "let bands end"),
    ({"mask": np.zeros(192)}, "empty"), ({"fiducial": np.zeros((1, 12))}, "not positive"),
    ({"noise_variance": 0.0}, "not positive"),
])  # fmt: skip
def test_impossible_settings_are_refused(options, says):
    with pytest.raises(UserError, match=says):
        ModeProjection(**{"mask": np.ones(192), "bins": [2, 6, 12], "fiducial": fiducial(0)} | options)
