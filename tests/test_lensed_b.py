"""Lensing-B templates: the first order by products on a grid, all orders by the simulator, what each leaves of B."""

from __future__ import annotations

import numpy as np
import pytest
from fixtures_lensing import toy_spectra
from test_sphere_estimator import lensed_to_first_order

from sphereml.errors import UserError
from sphereml.harmonics.rings import resize_alm
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.lensing.full_sky import TemplateInputs, e_of_maps, wiener_kappa
from sphereml.lensing.lensed_b import lensed_b
from sphereml.simulate.fields import draw_alm
from sphereml.simulate.lensed_sky import LensedSky, draw_sky, lensed_alm

LMAX = 250


def strongly_lensed() -> LensedSky:
    """A deflection that matters at these scales: orders beyond the first make some per cent of B."""
    return draw_sky(toy_spectra(strength=1e3), LMAX, (5, 0), np.complex128)


def power(alm: np.ndarray, low: int = 30, high: int = 151) -> float:
    ell = np.arange(low, high)
    return float(((2 * ell + 1) * cross_spectrum(alm, alm, high - 1)[ell]).sum())


def test_the_gradient_order_is_the_product_of_gradients():
    sky = strongly_lensed()
    found = lensed_b(sky.e, sky.kappa, LMAX)
    wanted = lensed_to_first_order(sky.e, sky.potential, LMAX)[1]
    np.testing.assert_allclose(found, wanted, atol=1e-9 * np.abs(wanted).max())
    shorter = lensed_b(resize_alm(sky.e, 200), resize_alm(sky.kappa, 150), 100)
    assert shorter.shape == (101 * 102 // 2,)


def test_all_orders_leave_nothing_and_the_gradient_order_of_the_lensed_e_leaves_little():
    sky = strongly_lensed()
    single = LensedSky(LMAX, sky.e.astype(np.complex64), sky.potential.astype(np.complex64))
    lensed_e, b = lensed_alm(single, LMAX).astype(np.complex128)
    b = resize_alm(b, 150)
    left = {
        "all": power(b - lensed_b(sky.e, sky.kappa, 150, "all")) / power(b),
        "lensed": power(b - lensed_b(lensed_e, sky.kappa, 150)) / power(b),
        "unlensed": power(b - lensed_b(sky.e, sky.kappa, 150)) / power(b),
    }
    assert left["all"] < 1e-8
    assert left["lensed"] < 0.5 * left["unlensed"], left


def test_a_template_is_q_and_u_of_b_alone_and_what_cannot_be_is_refused():
    sky = strongly_lensed()
    inputs = TemplateInputs(sky.kappa, sky.e, 64, 120)
    maps = inputs.template()
    assert maps.shape == (2, 12 * 64**2)
    b = lensed_b(sky.e, sky.kappa, 120)
    # What the quadrature of pixels leaves after three iterations.
    assert np.abs(e_of_maps(maps, 120)).max() < 1e-5 * np.abs(b).max()
    with pytest.raises(UserError, match="no expansion 'second'"):
        inputs.template("second")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="lmax 120 is above what Nside 32 holds"):
        TemplateInputs(sky.kappa, sky.e, 32, 120).template()


def test_the_most_likely_kappa_has_the_least_error():
    rng, top = np.random.default_rng(6), 100
    signal, n0, response = np.full(top + 1, 2.0), np.full(top + 1, 3.0), np.full(top + 1, 0.9)
    n0[:2] = np.inf
    kappa, noise = draw_alm(signal, rng), draw_alm(np.full(top + 1, 3.0), rng)
    found = wiener_kappa(0.9 * kappa + noise, signal, n0, response)
    errors = [power(scale * found - kappa, 2, top + 1) for scale in (0.9, 1.0, 1.1)]
    assert errors[1] == min(errors)
    assert not resize_alm(found, 1).any()
