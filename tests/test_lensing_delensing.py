"""What reports of lensing say beyond noise: response to fiducials, templates of the lensing B, errors of modes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fixtures_lensing import WEAK, lensing_config, seeded, toy_spectra

from sphereml.evaluation.calibration import BinnedError, coverage
from sphereml.evaluation.lensing.delensing import Delensing, KnownPatches, ell_cut, wiener_weights
from sphereml.evaluation.lensing.estimates import QuadraticEstimate
from sphereml.evaluation.lensing.noise import patch_bands
from sphereml.evaluation.lensing.responses import response_slope
from sphereml.harmonics.filters import multiply
from sphereml.harmonics.rings import alm_size
from sphereml.lensing.patch_spectra import PatchBands, PatchPowers, response_of
from sphereml.tasks.lensing import LensingTask


def test_a_cut_below_the_lowest_band_is_none():
    assert [ell_cut(one) for one in (0, 1, 30, 31, 300)] == [300, 300, 300, 31, 300]
    for asked, found in ((0, 300), (1, 300), (250, 250)):
        task = task_of(f"lensing.lmin_b={asked}")
        assert KnownPatches(task, 1, 1).cut == found


def task_of(*overrides: str) -> LensingTask:
    config = lensing_config("lensing.outputs=[kappa]", *overrides)
    return LensingTask(config, spectra=toy_spectra(strength=WEAK, first_order=True))


def fiducial_maps(strength: float, task: LensingTask) -> torch.Tensor:
    return task.patch.to_images(task.patch.draw(strength * task.spectra.kappa, 40, seeded(1)))


def measured(task: LensingTask, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Slope and collapse of an estimate of known behaviour over A_lens."""
    bands, maps = patch_bands(task), {strength: fiducial_maps(strength, task) for strength in (0.8, 1.0, 1.2)}
    noise = task.patch.to_images(task.patch.draw(task.spectra.kappa, 40, seeded(2)))
    estimates = {
        "half": {strength: 0.5 * (truth + noise) for strength, truth in maps.items()},
        "noise that grows": {strength: truth + strength * noise for strength, truth in maps.items()},
        "prior amplitude": {strength: truth / strength**0.5 + noise for strength, truth in maps.items()},
        "prior": dict.fromkeys(maps, noise),
        "mean": {strength: torch.zeros_like(noise) for strength in maps},
    }[kind]
    powers = {strength: PatchPowers.measure(bands, estimates[strength], maps[strength]) for strength in maps}
    found = response_slope(powers, response_of(powers[1.0].stacked.mean(axis=0)), np.arange(40))
    return found.slope, found.collapsed


@pytest.mark.parametrize(("kind", "slope"), [("half", 1.0), ("noise that grows", 1.0), ("prior amplitude", 0.0)])
def test_the_slope_is_that_of_the_part_that_follows_the_truth(kind: str, slope: float):
    """Noise is no signal, even where it grows with the sky; a prior's amplitude on true phases is none either."""
    found, collapsed = measured(task_of(), kind)
    assert found[1:].mean() == pytest.approx(slope, abs=0.1)
    assert collapsed[1:].all() == (slope == 0)


@pytest.mark.parametrize("kind", ["prior", "mean"])
def test_a_network_that_returns_its_prior_is_caught(kind: str):
    assert measured(task_of(), kind)[1].all()


def test_errors_by_bin_cover_modes_and_pixels():
    rng, bins = np.random.default_rng(1), np.arange(600) % 3
    residual = (rng.standard_normal((30, 600)) + 1j * rng.standard_normal((30, 600))) * (1 + bins)
    error = BinnedError.fit(residual[:20], bins)
    np.testing.assert_allclose(error.deviation, [1, 2, 3], rtol=0.05)
    assert coverage(residual[20:], error.sigma(bins)) == pytest.approx((0.683, 0.954), abs=0.02)


def delensed(task: LensingTask, count: int, batch: int) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Of the fair quadratic estimators, weighted by what the true kappa says."""
    fair = QuadraticEstimate("fair", task)
    known = next(iter(KnownPatches(task, batch, batch)))
    bands, truth = patch_bands(task), known.sample.truth["kappa"]
    weights = {
        name: wiener_weights(PatchPowers.measure(bands, maps["kappa"], truth))
        for name, maps in fair(known.sample).items()
    }
    patches = KnownPatches(task, count, batch)
    found: dict[str, dict[str, dict[str, list[float]]]]
    found = Delensing(task, [fair], fair, {}, weights, "qe_mv", patches).measure()["models"]
    return found


def test_weights_reach_as_far_as_the_coefficients():
    task = task_of()
    bands, kappa = patch_bands(task), torch.randn(4, task.patch.size, task.patch.size)
    powers, top = PatchPowers.measure(bands, kappa, kappa), int(bands.edges[-1]) + 150
    np.testing.assert_allclose(wiener_weights(powers, top), np.ones(top + 1))
    with pytest.raises(ValueError, match=f"a gain to ell={top - 1}"):
        multiply(np.zeros(alm_size(top), complex), np.ones(top))


def test_templates_leave_less_than_all_and_passes_less_than_one():
    found = delensed(task_of("lensing.passes=2"), 32, 32)
    left = {name: np.mean(model["left"]["value"]) for name, model in found.items()}
    assert left["truth"] < left["iterated"] < left["qe_mv"] < 1, left
    assert max(found["iterated"]["ratio"]["value"]) < 1


def test_known_patches_carry_their_b():
    task = task_of()
    plain, mixed = (next(iter(KnownPatches(task, 8, 8, other))) for other in (False, True))
    assert torch.equal(plain.lensing, mixed.lensing) and torch.equal(plain.other, mixed.other)
    assert not torch.equal(plain.sample.q, mixed.sample.q)
    low = PatchBands(patch_bands(task).modes, patch_bands(task).bands, task.mask.double())
    assert (low.power(plain.other, plain.other)[:, -1] < 1e-2 * low.power(plain.lensing, plain.lensing)[:, -1]).all()


@pytest.mark.slow
def test_only_with_the_cut_is_a_template_blind_to_other_b():
    """Below ell_cut: correlated with the lensing B either way, with an added B at five errors without lmin_b alone."""
    found = {cut: delensed(LensingTask(_real(cut)), 400, 50) for cut in (0, 300)}
    for name in ("qe_mv", "iterated"):
        without, with_cut = found[0][name], found[300][name]
        assert min(one["follows_lensing"]["value"][0] for one in (without, with_cut)) > 0.5
        (value,), (error,) = without["follows_other"].values()
        assert value > 5 * error, (name, value, error)
        (value,), (error,) = with_cut["follows_other"].values()
        assert abs(value) < 2.5 * error and error < 0.05, (name, value, error)


def _real(cut: int):
    from sphereml.config.compose import compose

    return compose(["experiment=lensing_quick", "lensing.passes=3", f"lensing.lmin_b={cut}"])
