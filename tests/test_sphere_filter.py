"""The masked sky's filter: a dense solution by healpy's harmonics, no leak of E into B, warm starts, wrong input."""

from __future__ import annotations

from functools import lru_cache

import healpy
import numpy as np
import pytest
from fixtures_lensing import toy_spectra

from sphereml.errors import UserError
from sphereml.harmonics.filters import gaussian_beam
from sphereml.harmonics.rings import alm_index, alm_lmax, alm_size, resize_alm
from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.lensing.sphere_filter import SphereFilter
from sphereml.simulate.fields import draw_alm
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import latitude_cut
from sphereml.sky.ordering import ring_to_nest

ARCMIN = np.pi / 10800


def sky_filter(nside: int, lmax: int, noise: np.ndarray, tolerance: float = 1e-5) -> SphereFilter:
    spectra = toy_spectra()
    signal = np.stack([spectra.ee_lensed[: lmax + 1], spectra.bb_lensed[: lmax + 1]])
    return SphereFilter(signal, gaussian_beam(lmax, 60.0), noise, tolerance)


def belt(nside: int, noise: float, half_width: float = 25.0) -> np.ndarray:
    return np.where(latitude_cut(HealpixGrid(nside), -half_width, half_width), noise, np.inf)


def observe(chosen: SphereFilter, alm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    grid = HealpixGrid.of_size(len(chosen.noise))
    maps = synthesis(alm * chosen.transfer[alm_index(chosen.lmax)[0]], grid.nside, chosen.lmax, spin=2)
    level = np.where(np.isfinite(chosen.noise), chosen.noise, 0) * ARCMIN / np.sqrt(grid.pixel_area)
    return maps + level * rng.standard_normal(maps.shape)


@lru_cache(maxsize=2)
def real_harmonics(nside: int, lmax: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns ``(2 npix, unknown)`` of unit real unknowns by healpy, with component and ell of each."""
    ell, order = alm_index(lmax)
    columns, component, multipole = [], [], []
    for field in range(2):
        for index in np.flatnonzero(ell >= 2):
            for unit in (1.0, 1.0j) if order[index] else (1.0,):
                alm = np.zeros((2, ell.size), complex)
                alm[field, index] = unit / (np.sqrt(2) if order[index] else 1)
                maps = healpy.alm2map_spin(alm, nside, 2, lmax)
                columns.append(ring_to_nest(np.stack(maps), axis=1).ravel())
                component.append(field)
                multipole.append(ell[index])
    return np.stack(columns, axis=1), np.array(component), np.array(multipole)


def test_the_solution_is_that_of_a_dense_matrix():
    nside, lmax, rng = 4, 8, np.random.default_rng(0)
    depth = belt(nside, 300.0, 35.0) * (1 + rng.random(12 * nside**2))
    chosen = sky_filter(nside, lmax, depth, 1e-11)
    maps = 2 * rng.standard_normal((2, 12 * nside**2))
    columns, component, ell = real_harmonics(nside, lmax)
    design = columns * chosen.transfer[ell]
    weights = np.tile(HealpixGrid(nside).pixel_area / (depth * ARCMIN) ** 2, 2)
    matrix = design.T @ (weights[:, None] * design) + np.diag(1 / chosen.signal[component, ell])
    solution = np.linalg.solve(matrix, design.T @ (weights * maps.ravel()))
    wanted = (columns @ solution).reshape(2, -1)
    found = synthesis(chosen(maps).wiener, nside, lmax, spin=2)
    np.testing.assert_allclose(found, wanted, atol=1e-8 * np.abs(wanted).max())


def test_e_of_a_masked_sky_does_not_become_b_and_the_middle_is_that_of_the_whole_sky():
    nside, lmax, rng = 64, 150, np.random.default_rng(1)
    spectra = toy_spectra()
    alm = np.stack([draw_alm(power[: lmax + 1], rng) for power in (spectra.ee_lensed, spectra.bb_lensed)])
    masked = sky_filter(nside, lmax, belt(nside, 0.5))
    maps = observe(masked, alm, rng)
    result = masked(maps)
    ell, grid = alm_index(lmax)[0], HealpixGrid(nside)
    high = ell > 60  # scales well below the belt's width
    naive = analysis(np.where(np.isfinite(masked.noise), maps, 0), lmax, spin=2)[1] / masked.transfer[ell]
    truth, found, leaked = (synthesis(high * b, nside, lmax) for b in (alm[1], result.wiener[1], naive))
    middle, belt_of_all = latitude_cut(grid, -15, 15), latitude_cut(grid, -24, 24)
    assert np.std((found - truth)[middle]) < 0.2 * np.std(truth[middle])
    assert np.std((leaked - truth)[belt_of_all]) > 2 * np.std((found - truth)[belt_of_all])
    assert result.residual <= 1e-5 and result.steps < 300
    assert 0 < result.facts()["transform_seconds_per_step"] <= result.facts()["seconds_per_step"]


def test_a_warm_start_ends_where_a_cold_one_does_with_fewer_steps_and_progress_is_told():
    rng, chosen = np.random.default_rng(2), sky_filter(32, 70, belt(32, 5.0))
    spectra = toy_spectra()
    alm = np.stack([draw_alm(power[:71], rng) for power in (spectra.ee_lensed, spectra.bb_lensed)])
    maps, lines = observe(chosen, alm, rng), []
    cold = chosen(maps, say=lines.append)
    assert chosen(maps, start=cold.wiener).steps == 0
    half = SphereFilter(chosen.signal, chosen.transfer, chosen.noise, 1e-3)(maps)
    warm = chosen(maps, start=half.wiener)
    assert 0 < warm.steps < cold.steps
    np.testing.assert_allclose(warm.wiener, cold.wiener, atol=1e-3 * np.abs(cold.wiener).max())
    assert "step 10, residual" in lines[0] and "s left" in lines[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"noise": np.zeros(12 * 16**2)}, "needs noise above 0"),
        ({"noise": np.full(12 * 16**2, np.inf)}, "no pixel is left"),
        ({"transfer": np.ones(49)}, "lmax 48 is above what Nside 16 holds"),
    ],
)
def test_an_impossible_filter_is_refused(change: dict[str, np.ndarray], says: str):
    good = {"signal": np.ones((2, 31)), "transfer": np.ones(31), "noise": np.ones(12 * 16**2)}
    with pytest.raises(UserError, match=says):
        SphereFilter(**(good | change))


def test_missing_pixels_and_hopeless_solutions_are_refused():
    chosen = sky_filter(16, 30, belt(16, 1.0))
    with pytest.raises(UserError, match="missing values where the mask keeps"):
        chosen(np.full((2, 12 * 16**2), np.nan))
    maps = np.random.default_rng(3).standard_normal((2, 12 * 16**2))
    with pytest.raises(UserError, match="after 2 steps"):
        SphereFilter(chosen.signal, chosen.transfer, chosen.noise, 1e-8, most_steps=2)(maps)
    with pytest.raises(UserError, match="a start of shape"):
        chosen(maps, start=np.zeros((2, 3), complex))


def test_coefficients_change_their_length():
    alm = draw_alm(np.ones(31), np.random.default_rng(4))
    longer = resize_alm(alm, 40)
    assert alm_lmax(longer) == 40 and longer.shape == (alm_size(40),)
    np.testing.assert_array_equal(resize_alm(longer, 30), alm)
    np.testing.assert_allclose(synthesis(longer, 16, 40), synthesis(alm, 16, 30), atol=1e-12)
