"""Banded spectra of estimates against estimates of known gain and noise."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch

from sphereml.errors import UserError
from sphereml.harmonics.flat import FlatModes
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.lensing.patch_spectra import Bands, PatchPowers, compare_noise, summarize

SKY, EDGES = FlatSky(32, 4.0), (200.0, 500.0, 1000.0, 2000.0)
MODES = FlatModes(32, 4 / 60)
POWER = 1e-7 / (1 + np.arange(4000.0) / 300)


def drawn(power: np.ndarray, count: int, seed: int) -> torch.Tensor:
    return SKY.to_images(SKY.draw(power, count, torch.Generator().manual_seed(seed)))


def reconstruction(gain: float, noise: float, count: int, seed: int) -> PatchPowers:
    truth = drawn(POWER, count, 2 * seed)
    estimate = gain * (truth + drawn(noise * POWER, count, 2 * seed + 1))
    return PatchPowers.measure(Bands(MODES, EDGES), estimate, truth)


def test_power_is_that_of_the_modes_drawn():
    bands, images = Bands(MODES, EDGES), drawn(POWER, 400, 1)
    power = bands.power(images, images).mean(axis=0)
    np.testing.assert_allclose(power, bands.average(POWER), rtol=0.02)
    assert (np.diff(bands.centers) > 0).all()
    assert all(lo <= center < hi for lo, center, hi in zip(EDGES, bands.centers, EDGES[1:], strict=False))


def test_a_window_keeps_the_power_and_drops_the_mean():
    edge = torch.sin((torch.arange(32) + 0.5) * np.pi / 32)
    bands, images = Bands(MODES, EDGES, edge[:, None] * edge[None]), drawn(POWER, 400, 1)
    np.testing.assert_allclose(bands.power(images, images).mean(axis=0), bands.average(POWER), rtol=0.06)
    np.testing.assert_allclose(bands.power(images + 1, images), bands.power(images, images), rtol=1e-3)


def test_response_noise_and_correlation_are_those_put_in():
    powers = reconstruction(gain=0.7, noise=0.5, count=600, seed=3)
    result = summarize(powers)
    expected = {"response": 0.7, "noise": 0.5 * powers.bands.average(POWER), "correlation": 1.5**-0.5}
    for name, value in expected.items():
        pull = (np.array(getattr(result, name)) - value) / np.array(getattr(result, f"{name}_error"))
        assert np.abs(pull).max() < 4
        assert np.abs(getattr(result, f"{name}_error")).max() < 0.05 * np.max(value)
    assert json.loads(result.to_json())["patches"] == 600


def test_errors_are_the_scatter_of_repeated_measurements():
    results = [summarize(reconstruction(0.9, 1.0, 40, seed)) for seed in range(60)]
    for name in ("response", "noise", "correlation"):
        scatter = np.std([getattr(result, name) for result in results], axis=0)
        claimed = np.mean([getattr(result, f"{name}_error") for result in results], axis=0)
        np.testing.assert_allclose(claimed, scatter, rtol=0.35)


def test_patches_of_one_sky_are_one_group():
    """Copies of a patch tell nothing new."""
    powers = reconstruction(0.9, 1.0, 30, 1)
    copied = PatchPowers.join([powers, powers, powers])
    once, thrice = summarize(powers), summarize(copied, groups=np.tile(np.arange(30), 3))
    np.testing.assert_allclose(thrice.noise, once.noise)
    np.testing.assert_allclose(thrice.noise_error, once.noise_error)
    assert (np.array(summarize(copied).noise_error) < 0.7 * np.array(once.noise_error)).all()


def test_the_ratio_of_two_noises_on_the_same_patches_is_sharper_than_of_each():
    truth, noise, own = (drawn(POWER, 200, seed) for seed in (11, 12, 13))
    measure = partial(PatchPowers.measure, Bands(MODES, EDGES))
    second, first = measure(truth + noise, truth), measure(0.5 * (truth + 0.7 * noise + 0.1 * own), truth)
    ratio = compare_noise(first, second)
    np.testing.assert_allclose(ratio.ratio, 0.5, rtol=0.05)
    noises = summarize(second)
    assert (np.array(ratio.error) < 0.3 * np.array(noises.noise_error) / np.array(noises.noise)).all()
    assert json.loads(ratio.to_json())["edges"] == list(EDGES)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Bands(MODES, (500.0,)), "bands of L"),
        (lambda: Bands(MODES, (500.0, 300.0)), "bands of L"),
        (lambda: Bands(MODES, (10.0, 20.0)), "no Fourier mode"),
        (lambda: summarize(reconstruction(1, 1, 4, 0), groups=[1, 2]), "groups"),
        (lambda: summarize(reconstruction(1, 1, 4, 0), groups=[1, 1, 1, 1]), "at least two groups"),
        (lambda: compare_noise(reconstruction(1, 1, 4, 0), reconstruction(1, 1, 5, 0)), "the same patches"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, says: str):
    with pytest.raises(UserError, match=says):
        make()
