"""B below ``lmin_b`` reaches neither networks nor estimators: filters are blind to it, plain maps are projected."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fixtures_lensing import WEAK, lensing_config, seeded, toy_spectra

from sphereml.errors import UserError
from sphereml.harmonics.rings import alm_index, alm_size
from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.lensing.flat_filters import DenseFilter, WienerFilter
from sphereml.lensing.noise import NoiseModel
from sphereml.lensing.observation import Observation
from sphereml.lensing.patch_model import PatchModel
from sphereml.lensing.reconstruction import Legs, SphereReconstruction
from sphereml.lensing.sky_features import SkyFeatures
from sphereml.lensing.sky_passes import PassCurves, PassEstimator
from sphereml.simulate.fields import draw_alm
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import latitude_cut
from sphereml.tasks.lensing import LensingTask

CUT = 600


def patch_of_b(task: LensingTask, low: int, high: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Masked Q and U of B alone with ``low <= ell < high``, cut from a sky of four times the side."""
    power = np.zeros(3001)
    power[low:high] = 1e-6
    sky = task.patch.with_size(8 * task.patch.size)
    b = sky.draw(power, 4, seeded(3))
    q, u = (sky.to_images(part)[:, : task.patch.size, : task.patch.size] for part in sky.to_qu(torch.zeros_like(b), b))
    return task.mask * q, task.mask * u


@pytest.mark.parametrize("form", ["plain", "physical"])
def test_features_do_not_see_b_of_low_ell(form: str):
    """B from below the cut leaves a hundredth of what it leaves without the cut; B from above stays."""
    tasks = [
        LensingTask(
            lensing_config(f"lensing.lmin_b={cut}", f"model.form={form}", "lensing.outputs=[kappa]"),
            spectra=toy_spectra(strength=WEAK),
        )
        for cut in (0, CUT)
    ]
    chosen = slice(None) if form == "plain" else slice(3, 5)  # the inverse-variance filtered Q and U
    low, high = (
        [task.features(*patch_of_b(task, *span))[0][..., chosen].square().mean().sqrt() for task in tasks]
        for span in ((20, CUT - 100), (CUT + 400, 1500))
    )
    assert low[1] < 0.01 * low[0] and high[1] > 0.8 * high[0], (low, high)


def test_iterations_are_as_blind_as_the_matrix():
    task = LensingTask(lensing_config(f"lensing.lmin_b={CUT}"), spectra=toy_spectra(strength=WEAK))
    model = PatchModel(task.patch, task.spectra, task.observation, task.mask.double())
    sample = task.observe(task.drawn().draw(2, seeded(1)), seeded(2))
    one, other = (chosen(sample.q, sample.u) for chosen in (DenseFilter(model), WienerFilter(model)))
    for a, b in ((one.e, other.e), (one.b_inverse, other.b_inverse)):
        assert (a - b).abs().square().sum() < 1e-4 * b.abs().square().sum()


def test_less_b_means_more_noise_and_estimators_agree_on_it():
    spectra, whole, cut = toy_spectra(), Observation(lmax=1500), Observation(lmax=1500, lmin_b=CUT)
    assert cut.lowest_b == CUT and not cut.filtered_b(spectra.bb_lensed)[:CUT].any()
    np.testing.assert_array_equal(cut.filtered_b(spectra.bb_lensed)[CUT:], whole.filtered_b(spectra.bb_lensed)[CUT:])
    noises = [NoiseModel(spectra, one, 1000).eb()[2:] for one in (whole, cut)]
    assert (noises[1] > noises[0]).all()
    with pytest.raises(UserError, match="lmin_b 1500"):
        Observation(lmax=1500, lmin_b=1500)


def test_a_masked_sphere_is_blind_to_it():
    """Kappa does not change with B below the cut, whole sky or masked."""
    nside, lmax, low = 32, 64, 40
    spectra, grid, rng = toy_spectra(), HealpixGrid(32), np.random.default_rng(1)
    alm = np.stack([draw_alm(power[: lmax + 1], rng) for power in (spectra.ee_lensed, spectra.bb_lensed)])
    extra = np.zeros((2, alm_size(low - 10)), complex)
    extra[1] = draw_alm(np.full(low - 9, 1e-6), rng)
    maps, other = synthesis(alm, nside, lmax, spin=2), synthesis(extra, nside, low - 10, spin=2)
    noise = np.where(latitude_cut(grid, -40, 40), 3.0, np.inf)
    for pixels, cut in ((None, 1), (noise, 1), (noise, 0)):
        observation = Observation(3.0, 0.0, 10, lmax, low * cut)
        chosen = SphereReconstruction(spectra, observation, nside, lmax, "MV", pixels)
        first, second = (chosen.estimate(chosen.legs(one)) for one in (maps, maps + other))
        changed = np.abs(second - first).max() / np.abs(first).max()
        assert changed < 0.01 if cut else changed > 0.1, changed


def test_a_whole_sky_loses_its_low_b_and_nothing_else():
    """In what a network of the plain form sees."""
    rng, nside, lmax, low = np.random.default_rng(2), 32, 60, 30
    alm = np.stack([draw_alm(np.arange(lmax + 1.0) > 1, rng) for _ in range(2)])
    model = NoiseModel(toy_spectra(), Observation(1.0, 0.0, 2, lmax, low), lmax)
    features = SkyFeatures(PassEstimator(model, PassCurves.of_first(model, np.ones(lmax + 1))), nside, "plain")
    left = analysis(features(Legs(alm[0], alm[1], alm[0])).T.astype(float), lmax, spin=2)
    wanted = alm.copy()
    wanted[1] = np.where(alm_index(lmax)[0] < low, 0, alm[1])
    np.testing.assert_allclose(left, wanted, atol=1e-4)
