"""Lensed patches by FFTs: against exact values at deflected positions, and the spectra that they must have."""

from __future__ import annotations

from dataclasses import fields
from functools import partial

import numpy as np
import pytest
import torch
from fixtures_lensing import toy_spectra as any_toy_spectra

from sphereml.errors import UserError
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.simulate.flat_lensing import FlatLensing, LensedPatches, deflect

PATCH = FlatSky(32, 5.0)


toy_spectra = partial(any_toy_spectra, first_order=True, fall=(500.0, 2.0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def relative_power(sky: FlatSky, modes: torch.Tensor, curve: np.ndarray, lo: float, hi: float) -> float:
    """Mean over the modes of a band of their power over the curve's: every mode counts alike."""
    ell = sky.ell(modes)
    band = (ell >= lo) & (ell < hi)
    ratio = (modes.abs() ** 2).mean(dim=0)[band] / (sky.area * sky.weights(curve, modes)[band])
    return float(ratio.mean())


def test_values_at_deflected_positions_are_those_of_the_waves():
    """A few plane waves, whose value anywhere is known, deflected by half a pixel or so."""
    lensing = FlatLensing(PATCH, toy_spectra())
    sky = lensing.sky
    rng = np.random.default_rng(1)
    unit, coordinate = sky.fundamental_ell, sky.step * np.arange(sky.size)
    x, y = np.meshgrid(coordinate, coordinate)
    waves = [(*rng.integers(-25, 26, 2), *rng.normal(size=2)) for _ in range(8)]  # up to 40 % of the Nyquist multipole

    def field(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return sum((a + 1j * b) * np.exp(1j * unit * (i * x + j * y)) for i, j, a, b in waves)

    phi = 0.3 * sky.step / unit * torch.from_numpy(np.cos(unit * x) + np.sin(unit * 2 * y))
    phi_modes = sky.to_modes(phi)
    along, across = (sky.to_images(part).numpy() for part in sky.gradient(phi_modes))
    plain = torch.from_numpy(field(x, y))
    lensed = deflect(sky, (sky.to_modes(plain.real)[None], sky.to_modes(plain.imag)[None]), phi_modes[None])[0]
    exact = field(x + along, y + across)
    assert np.abs(lensed.numpy() - exact).max() < 2e-3 * exact.std()
    assert np.abs(plain.numpy() - exact).max() > 0.5 * exact.std()


def test_spectra_are_those_asked_for():
    """E and kappa as drawn; the lensed B as first-order theory has it, of a weak potential that fits the sky."""
    spectra = toy_spectra(strength=0.01, lowest=90)
    lensing = FlatLensing(PATCH, spectra)
    skies = lensing.draw_skies(60, seeded())
    sky = lensing.sky
    _, b = sky.to_eb(*(sky.to_modes(part.double()) for part in (skies.q, skies.u)))
    unlensed, kappa = (sky.to_modes(part.double()) for part in (skies.e, skies.kappa))
    for modes, curve in ((unlensed, spectra.ee), (b, spectra.bb_lensed), (kappa, spectra.kappa)):
        for lo, hi in ((200, 500), (500, 900)):
            assert relative_power(sky, modes, curve, lo, hi) == pytest.approx(1, abs=0.03)


def test_unlensed_fields_have_no_b_and_belong_to_their_e():
    lensing = FlatLensing(PATCH, toy_spectra())
    skies = lensing.draw_skies(2, seeded())
    sky = lensing.sky
    e, b = sky.to_eb(*(sky.to_modes(part) for part in (skies.q_unlensed, skies.u_unlensed)))
    assert b.abs().max() < 1e-5 * e.abs().max()
    assert torch.allclose(sky.to_images(e), skies.e, atol=1e-4 * float(skies.e.std()))


def test_gaussian_skies_have_the_lensed_spectra_and_know_nothing_of_kappa():
    spectra = toy_spectra()
    lensing = FlatLensing(PATCH, spectra, gaussian=True)
    skies = lensing.draw_skies(40, seeded())
    sky = lensing.sky
    _, b = sky.to_eb(*(sky.to_modes(part.double()) for part in (skies.q, skies.u)))
    assert relative_power(sky, b, spectra.bb_lensed, 200, 900) == pytest.approx(1, abs=0.03)


def test_patches_tile_their_sky():
    lensing = FlatLensing(PATCH, toy_spectra())
    across = lensing.sky.size // PATCH.size
    skies, patches = lensing.draw_skies(1, seeded()), lensing.draw(across**2, seeded())
    rows = patches.q.view(across, across, 32, 32).permute(0, 2, 1, 3).reshape(1, 32 * across, 32 * across)
    assert torch.equal(rows, skies.q)


def test_patches_are_a_function_of_the_generator():
    lensing = FlatLensing(PATCH, toy_spectra())
    first, again, other = (lensing.draw(3, seeded(seed)) for seed in (5, 5, 6))
    for field in fields(LensedPatches):
        assert torch.equal(getattr(first, field.name), getattr(again, field.name))
        assert not torch.equal(getattr(first, field.name), getattr(other, field.name))
    assert len(first[:2]) == 2


@pytest.mark.parametrize(
    ("patch", "lmax", "words"), [(FlatSky(31, 5.0), 3000, "even"), (FlatSky(32, 2.0), 3000, "spectra_lmax")]
)
def test_what_cannot_be_drawn_is_refused(patch, lmax, words):
    with pytest.raises(UserError, match=words):
        FlatLensing(patch, toy_spectra(lmax))
