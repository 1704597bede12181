"""Errors of kappa on a masked sky, by pixel and by mode: fitted on some skies, right on others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sphereml.evaluation.calibration import BinnedError, coverage
from sphereml.harmonics.rings import alm_index
from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.lensing.full_sky import EstimateSettings, wiener_kappa
from sphereml.lensing.mean_field import Simulated, Simulations
from sphereml.simulate.cmb_spectra import load_spectra
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import apodize, latitude_cut

NSIDE, LMAX, TOP = 256, 600, 250
FITTED, JUDGED = range(5), range(5, 7)


def residual_of(one: Simulated, simulations: Simulations) -> np.ndarray:
    """Pixels of the most likely kappa minus the true one."""
    chosen = simulations.reconstruction
    power = chosen.spectra.kappa[: TOP + 1]
    found = wiener_kappa(one.estimate.astype(complex), power, 1.3 * chosen.n0, np.ones(TOP + 1))
    return synthesis(found - one.kappa, NSIDE // 2, TOP)


@pytest.mark.slow
def test_the_error_of_a_masked_estimate_covers_pixels_and_modes(tmp_path: Path):
    """f_sky 0.4 at 1 uK-arcmin, 5 degrees and more from the edge: 68.3 and 95.4 % to four points."""
    grid, coarse = HealpixGrid(NSIDE), HealpixGrid(NSIDE // 2)
    edge = np.degrees(np.arcsin(0.4))
    settings = EstimateSettings(noise=1.0, beam=1.0, lmax=LMAX, lmax_kappa=TOP)
    mask = latitude_cut(grid, -edge, edge).astype(float)
    chosen = settings.reconstruction(grid.npix, mask, None, load_spectra())
    simulations = Simulations(chosen, seed=3, folder=tmp_path)
    residuals = np.stack([residual_of(simulations.simulate(n), simulations) for n in (*FITTED, *JUDGED)])
    count = len(FITTED)
    residuals -= residuals[:count].mean(axis=0)  # the mean field
    residuals[:count] *= count / (count - 1)  # of all but the sky itself, as the judged skies have no share in theirs
    taper = apodize(latitude_cut(coarse, -edge, edge), coarse, 15.0)
    inside = np.flatnonzero(taper > apodize_at(5.0, 15.0))
    pixels, distance = residuals[:, inside], np.minimum((taper[inside] * 5).astype(int), 4)
    window = apodize(latitude_cut(coarse, -edge + 5, edge - 5), coarse, 5.0)
    ell, order = alm_index(TOP)
    modes = np.stack([analysis(window * one, TOP, iterations=0) for one in residuals])[:, (ell > 30) & (order > 0)]
    for values, bins in ((pixels, distance), (modes, (ell[(ell > 30) & (order > 0)] - 30) // 10)):
        fitted, judged = values[: len(FITTED)], values[len(FITTED) :]
        shares = coverage(judged, BinnedError.fit(fitted, bins).sigma(bins))
        print(f"within one and two sigma: {shares[0]:.4f} {shares[1]:.4f}")
        assert shares == pytest.approx((0.683, 0.954), abs=0.04)


def apodize_at(distance: float, width: float) -> float:
    """The taper's value at this distance from the edge, degrees."""
    x = distance / width
    return x - float(np.sin(2 * np.pi * x)) / (2 * np.pi)
