"""Flat r(ell) and spectra against the reference file, full-sky spectra and plain numpy."""

from __future__ import annotations

import os
from pathlib import Path

import healpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.flat import FlatModes
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.sampling import sample_patches
from sphereml.sky.ordering import ring_to_nest
from sphereml.sky.plane import SquareGrid
from sphereml.sky.rotations import frame_towards, uniform_centres

REFERENCE = (
    Path(os.environ.get("SPHEREML_REFERENCE", Path(__file__).resolve().parents[1] / "../shared/reference"))
    / "flat_r_bands_64.npz"
)


def fields(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.skipif(not REFERENCE.exists(), reason=f"no reference file at {REFERENCE}")
def test_reference_bands_and_bins_are_reproduced() -> None:
    reference = np.load(REFERENCE)
    modes = FlatModes(SquareGrid(64, 180 / 460 * 60))
    a, b = (torch.from_numpy(reference[name]) for name in "ab")
    assert modes.grid.fundamental_ell == pytest.approx(float(reference["ell_F"]), abs=1e-12)
    bands = Bands(r50=(modes.grid.fundamental_ell, 100), r150=(100, 200))
    assert modes.in_band(modes.grid.fundamental_ell, 100).size == reference["n50"]
    assert modes.in_band(100, 200).size == reference["n150"]
    expected = np.stack([reference["r50"], reference["r150"]], axis=-1)
    r = modes.per_mode_r(a, b)
    np.testing.assert_allclose(modes.band_mean(r, bands), expected, atol=1e-12)
    np.testing.assert_allclose(modes.bin_mean(r), reference["r_binned"], atol=1e-12)
    np.testing.assert_allclose(modes.band_mean(modes.per_mode_r(a.float(), b.float()), bands), expected, atol=1e-5)


@pytest.mark.parametrize("size", [8, 9])
def test_independent_modes_take_each_pair_once(size: int) -> None:
    """Parseval: with each pair counted once and k = 0 removed, twice the power is the variance of the field."""
    modes = FlatModes(SquareGrid(size, 60))
    self_conjugate = 3 if size % 2 == 0 else 0
    assert modes.ell.size == (size * size - 1 - self_conjugate) // 2 + self_conjugate
    full = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size))) * size * modes.grid.fundamental_ell
    np.testing.assert_allclose(np.unique(modes.ell.round(6)), np.unique(full.round(6))[1:])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-20, 1e20), st.floats(-10, 10))
def test_r_is_bounded_symmetric_and_free_of_gain_and_offset(seed: int, gain: float, offset: float) -> None:
    modes = FlatModes(SquareGrid(16, 60))
    a, b = fields(2, 16, 16, seed=seed), fields(2, 16, 16, seed=seed + 1)
    r = modes.per_mode_r(a, b)
    assert r.shape == (2, modes.ell.size) and r.abs().max() <= 1 + 1e-12
    torch.testing.assert_close(modes.per_mode_r(b, a), r)
    torch.testing.assert_close(modes.per_mode_r(gain * (a + offset), b), r, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(modes.per_mode_r(a, -gain * a), -torch.ones_like(r))


def test_modes_without_power_have_zero_r_and_a_finite_gradient() -> None:
    modes = FlatModes(SquareGrid(16, 60))
    flat = torch.full((16, 16), 0.1, requires_grad=True)
    r = modes.per_mode_r(flat, fields(16, 16))
    r.sum().backward()
    assert (r == 0).all() and torch.isfinite(flat.grad).all() and (flat.grad == 0).all()
    # A single wave: its mode is exact, all others are rounding noise and count as uncorrelated.
    wave = torch.cos(2 * torch.pi * torch.arange(16, dtype=torch.float64) / 16).expand(16, 16)
    alive = modes.per_mode_r(wave, wave)
    assert alive.sum() == pytest.approx(1) and (alive > 0.5).sum() == 1


def test_gradients_of_r_and_spectra_are_right() -> None:
    modes = FlatModes(SquareGrid(8, 60))
    a, b = fields(2, 8, 8).requires_grad_(), fields(2, 8, 8, seed=1).requires_grad_()
    window = torch.from_numpy(np.outer(np.hanning(10)[1:-1], np.hanning(10)[1:-1]))
    bands = Bands.edges(modes.grid.fundamental_ell, 100.0)
    for r in (
        lambda x, y: modes.band_mean(modes.per_mode_r(x, y), bands),
        lambda x, y: modes.bin_mean(modes.per_mode_r(x, y, window)),
    ):
        assert torch.autograd.gradcheck(r, (a, b), fast_mode=True)
    assert torch.autograd.gradcheck(lambda x, y: modes.cross_power(x, y, window), (a, b), fast_mode=True)


def test_window_removes_the_weighted_mean() -> None:
    modes, a, b = FlatModes(SquareGrid(16, 60)), fields(16, 16), fields(16, 16, seed=1)
    window = torch.from_numpy(np.outer(np.hanning(16), np.hanning(16)))
    torch.testing.assert_close(modes.per_mode_r(a + 50, b, window), modes.per_mode_r(a, b, window))
    ones = torch.ones(16, 16)
    torch.testing.assert_close(modes.bin_mean(modes.per_mode_r(a, b, ones)), modes.bin_mean(modes.per_mode_r(a, b)))
    torch.testing.assert_close(modes.cross_power(a, b, ones), modes.cross_power(a, b))


def test_white_noise_has_the_pixel_area_as_spectrum() -> None:
    modes = FlatModes(SquareGrid(64, 30))
    white = fields(50, 64, 64)
    power = modes.bin_mean(modes.cross_power(white, white)).mean(dim=0)
    expected = np.radians(0.5) ** 2
    weight = torch.from_numpy(modes.modes_per_bin).double()
    assert float((power * weight).sum() / weight.sum()) == pytest.approx(expected, rel=0.01)
    np.testing.assert_allclose(power, expected, rtol=0.3)


def test_bands_without_modes_and_images_of_another_size_are_refused() -> None:
    modes = FlatModes(SquareGrid(16, 60))
    with pytest.raises(UserError, match="no Fourier mode"):
        modes.in_band(1, 5)
    with pytest.raises(ValueError, match="size 16"):
        modes.per_mode_r(fields(8, 8), fields(8, 8))


def test_patches_of_a_gaussian_sky_have_its_spectrum_to_ten_percent() -> None:
    """Cosine window, mean over patches, from 3 ell_F on: below, the window's mixing of a steep spectrum adds more."""
    ell = np.arange(513)
    spectrum = np.where(ell > 1, 1.0 / np.maximum(ell, 2) ** 2.0, 0.0)
    np.random.seed(11)  # noqa: NPY002 (healpy draws from the global state)
    sky = ring_to_nest(healpy.synfast(spectrum, 512, lmax=512))
    rng, patch = np.random.default_rng(0), GnomonicPatch()
    centres = uniform_centres(rng, 150, np.ones(12, dtype=bool))
    patches = torch.from_numpy(sample_patches(sky, frame_towards(centres, rng.uniform(0, 360, 150)), patch))
    modes = FlatModes(patch)
    taper = np.sin(np.pi * (np.arange(64) + 0.5) / 64)
    power = modes.cross_power(patches, patches, torch.from_numpy(np.outer(taper, taper))).mean(dim=0)
    power = modes.bin_mean(power).numpy()
    # The expectation in a bin is the mean of C_ell over its modes.
    expected = np.bincount(modes.bin_of_mode, np.interp(modes.ell, ell, spectrum), modes.bin_count + 1)[:-1]
    ratio = power / (expected / modes.modes_per_bin)
    band = (modes.bin_ell > 3 * modes.grid.fundamental_ell) & (modes.bin_ell < 200)
    assert abs(ratio[band].mean() - 1) < 0.05
    np.testing.assert_allclose(ratio[band], 1, atol=0.1)
