"""Banded spectra of estimates against estimates of known gain and noise."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from sphereml.errors import UserError
from sphereml.evaluation.statistics import jackknife_error, leave_one_out
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.flat import FlatModes
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.lensing.patch_spectra import (
    PatchBands,
    PatchPowers,
    correlation_of,
    noise_of,
    residual_of,
    response_of,
)

SKY, BANDS = FlatSky(32, 4.0), Bands.edges(200, 500, 1000, 2000)
MODES = FlatModes(SKY)
POWER = 1e-7 / (1 + np.arange(4000.0) / 300)


def drawn(power: np.ndarray, count: int, seed: int) -> torch.Tensor:
    return SKY.to_images(SKY.draw(power, count, torch.Generator().manual_seed(seed)))


def reconstruction(gain: float, noise: float, count: int, seed: int) -> PatchPowers:
    truth = drawn(POWER, count, 2 * seed)
    estimate = gain * (truth + drawn(noise * POWER, count, 2 * seed + 1))
    return PatchPowers.measure(PatchBands(MODES, BANDS), estimate, truth)


def test_power_is_that_of_the_modes_drawn():
    bands, images = PatchBands(MODES, BANDS), drawn(POWER, 400, 1)
    power = bands.power(images, images).mean(axis=0)
    np.testing.assert_allclose(power, bands.average(POWER), rtol=0.02)
    assert (np.diff(bands.centers) > 0).all()
    assert ((BANDS.lower <= bands.centers) & (bands.centers < BANDS.upper)).all()
    assert bands.edges == (200, 500, 1000, 2000)


def test_a_window_keeps_the_power_and_drops_the_mean():
    edge = torch.sin((torch.arange(32) + 0.5) * np.pi / 32)
    bands, images = PatchBands(MODES, BANDS, edge[:, None] * edge[None]), drawn(POWER, 400, 1)
    np.testing.assert_allclose(bands.power(images, images).mean(axis=0), bands.average(POWER), rtol=0.06)
    np.testing.assert_allclose(bands.power(images + 1, images), bands.power(images, images), rtol=1e-3)


def noise_samples(means: np.ndarray) -> np.ndarray:
    return noise_of(means, means)


STATISTICS = {"response": response_of, "noise": noise_samples, "correlation": correlation_of, "residual": residual_of}


def test_response_noise_correlation_and_residual_are_those_put_in():
    powers = reconstruction(gain=0.7, noise=0.5, count=600, seed=3)
    added = 0.5 * powers.bands.average(POWER)
    expected = {"response": 0.7, "noise": added, "correlation": 1.5**-0.5, "residual": 0.3**2 + 0.7**2 * 0.5}
    for name, value in expected.items():
        samples = STATISTICS[name](leave_one_out(powers.stacked))
        error = jackknife_error(samples)
        assert np.abs((samples[0] - value) / error).max() < 4
        assert error.max() < 0.05 * np.max(value)


def test_errors_are_the_scatter_of_repeated_measurements():
    results = [leave_one_out(reconstruction(0.9, 1.0, 40, seed).stacked) for seed in range(60)]
    for statistic in STATISTICS.values():
        samples = [statistic(means) for means in results]
        scatter = np.std([sample[0] for sample in samples], axis=0)
        claimed = np.mean([jackknife_error(sample) for sample in samples], axis=0)
        np.testing.assert_allclose(claimed, scatter, rtol=0.35)


def test_patches_of_one_sky_are_one_group():
    """Copies of a patch tell nothing new."""
    powers = reconstruction(0.9, 1.0, 30, 1)
    copied = PatchPowers(powers.bands, *(np.tile(part, (3, 1)) for part in (powers.auto, powers.cross, powers.truth)))
    once = noise_samples(leave_one_out(powers.stacked))
    thrice = noise_samples(leave_one_out(copied.stacked, np.tile(np.arange(30), 3)))
    np.testing.assert_allclose(thrice, once)
    assert (jackknife_error(noise_samples(leave_one_out(copied.stacked))) < 0.7 * jackknife_error(once)).all()


def test_the_ratio_of_two_noises_on_the_same_patches_is_sharper_than_of_each():
    truth, noise, own = (drawn(POWER, 200, seed) for seed in (11, 12, 13))
    measure = partial(PatchPowers.measure, PatchBands(MODES, BANDS))
    powers = (measure(0.5 * (truth + 0.7 * noise + 0.1 * own), truth), measure(truth + noise, truth))
    first, second = (noise_samples(leave_one_out(part.stacked)) for part in powers)
    np.testing.assert_allclose(first[0] / second[0], 0.5, rtol=0.05)
    assert (jackknife_error(first / second) < 0.3 * jackknife_error(second) / second[0]).all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PatchBands(MODES, Bands.edges(10, 20)), "no Fourier mode"),
        (lambda: leave_one_out(reconstruction(1, 1, 4, 0).stacked, [1, 2]), "groups"),
        (lambda: leave_one_out(reconstruction(1, 1, 4, 0).stacked, [1, 1, 1, 1]), "at least two groups"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, says: str):
    with pytest.raises(UserError, match=says):
        make()
