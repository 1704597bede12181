"""Lensed skies at any position, and Lambert patches of them.  Oracles: healpy, astropy, ducc0, finite differences."""

from __future__ import annotations

import ducc0
import healpy
import numpy as np
import pytest
import torch
from astropy.wcs import WCS
from fixtures_lensing import toy_spectra
from hypothesis import given, settings
from hypothesis import strategies as st

from sphereml.errors import UserError
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.harmonics.rings import alm_index
from sphereml.patches.lambert import LambertPatch
from sphereml.simulate.cmb_spectra import load_spectra
from sphereml.simulate.lensed_sky import (
    LensedSky,
    deflect,
    draw_sky,
    lensed_alm,
    lensed_fields,
    lensed_patches,
    lensed_rings,
)
from sphereml.sky.rotations import frame_at
from sphereml.sky.stokes import directions, tangent_basis, transport

FRONT = frame_at(0.0, 0.0, 0.0)
# (lon, lat, position angle); the last one's pixels surround the pole.
FRAMES = frame_at(np.array([10.0, 200.0, 77.0]), np.array([70.0, -33.0, 89.5]), np.array([0.0, 250.0, 40.0]))
SMALL = LambertPatch(size=9, pixel_arcmin=30)


def toy_sky(lmax: int, seed: int = 3, strength: float = 1.0, lmin: int = 2) -> LensedSky:
    return draw_sky(toy_spectra(lmax, strength, lmin), lmax, (seed,), np.complex128)


def values(alm: np.ndarray, lmax: int, spin: int, vectors: np.ndarray, mode: str = "STANDARD") -> np.ndarray:
    """ducc0 at any position, ``(ncomp, ...)``; a lone E has no B."""
    place = np.stack(directions(vectors.reshape(-1, 3)), axis=-1)
    stack = alm[None] if spin == 0 or mode != "STANDARD" else np.stack([alm, 0 * alm])
    found = ducc0.sht.synthesis_general(alm=stack, spin=spin, lmax=lmax, loc=place, epsilon=1e-12, mode=mode)
    return found.reshape(-1, *vectors.shape[:-1])


def turned(alm: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Coefficients of the field that has at ``matrix @ n`` what this one has at n."""
    result = alm.copy()
    healpy.rotate_alm(result, matrix=matrix)
    return result


# --- the projection -------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 360), st.floats(-89, 89), st.floats(0, 360), st.floats(1, 600))
def test_plane_inverts_vectors(lon: float, lat: float, angle: float, pixel: float):
    patch, frame = LambertPatch(9, pixel), frame_at(lon, lat, angle)
    vectors = patch.vectors(frame)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, rtol=1e-14)
    column, row, inside = patch.plane(frame, vectors.reshape(-1, 3))
    expected = np.indices((9, 9)).reshape(2, -1)
    np.testing.assert_allclose(np.stack([row, column]), expected, atol=1e-8)
    assert inside.all()


def test_pixels_lie_where_the_zenithal_equal_area_projection_of_the_fits_standard_puts_them():
    patch, lon, lat = LambertPatch(32, 60), 40.0, 55.0
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---ZEA", "DEC--ZEA"], [lon, lat]
    wcs.wcs.crpix, wcs.wcs.cdelt = [16.5, 16.5], [patch.pixel_arcmin / 60] * 2
    row, column = np.indices((32, 32))
    expected = healpy.ang2vec(*wcs.wcs_pix2world(column.ravel(), row.ravel(), 0), lonlat=True)
    np.testing.assert_allclose(patch.vectors(frame_at(lon, lat)).reshape(-1, 3), expected, atol=1e-10)


def test_every_pixel_covers_the_same_solid_angle():
    patch = LambertPatch(101, 60)
    rows, columns = np.gradient(patch.vectors(FRONT), np.radians(1), axis=(0, 1))
    areas = np.linalg.norm(np.cross(columns, rows), axis=-1)[1:-1, 1:-1]
    np.testing.assert_allclose(areas, 1, rtol=2e-4)  # second differences at one degree


def test_extent_is_that_of_deepcmb_and_the_far_side_is_outside():
    patch = LambertPatch()
    assert patch.extent == 5 and patch.fundamental_ell == 72 and patch.half_diagonal == pytest.approx(3.5367, abs=1e-3)
    _, _, inside = patch.plane(FRONT, np.array([[-1.0, 0, 0], [0, 1.0, 0]]))
    assert not inside.any()


@pytest.mark.parametrize(("size", "pixel"), [(128, 80.0), (0, 1.0), (16, -1.0), (16, float("nan"))])
def test_patches_that_the_projection_cannot_hold_are_refused(size: int, pixel: float):
    with pytest.raises(UserError, match=r"projection of the whole sphere|impossible"):
        LambertPatch(size, pixel)


# --- rotation of Q and U --------------------------------------------------------------------------------------------


def test_rotation_is_the_orthogonal_factor_of_the_projection():
    step = 1e-6
    vectors = SMALL.vectors(FRAMES)
    _, south, east = tangent_basis(*directions(vectors))

    def slope(direction: np.ndarray) -> np.ndarray:
        ends = [(vectors + sign * step * direction).reshape(3, -1, 3) for sign in (1, -1)]
        ahead, behind = (np.stack(SMALL.plane(FRAMES, end)[:2], axis=-1) for end in ends)
        return (ahead - behind) / (2 * step)

    left, _, right = np.linalg.svd(np.stack([slope(south), slope(east)], axis=-1))
    factor = left @ right
    psi = np.arctan2(-factor[..., 1, 1], -factor[..., 1, 0])  # from south to -y, towards east
    # The image of a vector that leaves the sphere is off by the step's square.
    np.testing.assert_allclose(np.exp(-2j * psi), SMALL.rotation(FRAMES).reshape(3, -1), atol=1e-7)


def test_rotated_q_and_u_are_those_of_the_sphere_turned_until_the_frame_is_in_front():
    lmax = 48
    alm = toy_sky(lmax).e
    for frame in FRAMES:
        q, u = values(turned(alm, FRONT @ frame.T), lmax, 2, SMALL.vectors(FRONT))
        expected = (q + 1j * u) * SMALL.rotation(FRONT)
        q, u = values(alm, lmax, 2, SMALL.vectors(frame))
        here, factor = q + 1j * u, SMALL.rotation(frame)
        scale = np.abs(expected).std()
        np.testing.assert_allclose(here * factor, expected, atol=1e-9 * scale)
        # Left out, or of the wrong sign, it is nowhere near.
        assert min(np.abs(here - expected).max(), np.abs(here * factor.conj() - expected).max()) > 0.05 * scale


def test_rotation_is_nothing_at_the_centre_of_a_patch_in_front_and_twice_its_position_angle():
    np.testing.assert_allclose(SMALL.rotation(FRONT)[4, 4], 1, atol=1e-14)
    turned_by_90 = LambertPatch(1, 1.0).rotation(frame_at(30.0, 20.0, 45.0))
    # y points north-east: U < 0 of the sky (COSMO, along north-east) is Q > 0 of the patch.
    np.testing.assert_allclose(-1j * turned_by_90, 1, atol=1e-13)


def test_transport_keeps_angles_with_the_great_circle():
    rng = np.random.default_rng(0)
    start, end = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in rng.normal(size=(2, 50, 3)))
    axis = np.cross(start, end)
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    np.testing.assert_allclose(transport(axis, start, end), axis, atol=1e-12)
    np.testing.assert_allclose(transport(np.cross(axis, start), start, end), np.cross(axis, end), atol=1e-10)


# --- lensing --------------------------------------------------------------------------------------------------------


def test_deflection_and_rotation_are_ducc0s():
    lmax, count = 64, 400
    sky = toy_sky(lmax, strength=3e3)
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(count, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    theta, phi = directions(vectors)
    gradient = values(sky.potential, lmax, 1, vectors, "DERIV1")
    place, factor = deflect(theta, phi, gradient, tangent_basis(theta, phi)[2])
    rings = {"nphi": np.ones(count, np.uint64), "ringstart": np.arange(count, dtype=np.uint64)}
    oracle = ducc0.misc.get_deflected_angles(
        theta=theta, phi0=phi, deflect=np.ascontiguousarray(gradient.T), calc_rotation=True, **rings
    )
    np.testing.assert_allclose(place, oracle[:, :2], atol=1e-13)
    np.testing.assert_allclose(factor, np.exp(2j * oracle[:, 2]), atol=1e-13)
    assert np.abs(factor - 1).max() > 0.1


def test_gradient_points_where_the_potential_grows():
    lmax = 32
    sky = toy_sky(lmax)
    vectors = SMALL.vectors(FRAMES[1]).reshape(-1, 3)
    theta, phi = directions(vectors)
    gradient, step = values(sky.potential, lmax, 1, vectors, "DERIV1"), 1e-4
    for component, direction in zip(gradient, tangent_basis(theta, phi)[1:], strict=True):
        ends = [vectors * np.cos(step) + sign * np.sin(step) * direction for sign in (1, -1)]
        ahead, behind = (values(sky.potential, lmax, 0, end)[0] for end in ends)
        np.testing.assert_allclose((ahead - behind) / (2 * step), component, atol=1e-5 * component.std())


def test_lensing_commutes_with_a_turn_of_the_sphere():
    lmax, patch = 48, LambertPatch(7, 40)
    sky = toy_sky(lmax, strength=1e3)
    for frame in FRAMES:
        e, potential = (turned(alm, FRONT @ frame.T) for alm in (sky.e, sky.potential))
        ahead = lensed_patches(LensedSky(lmax, e, potential), patch, FRONT)
        here = lensed_patches(sky, patch, frame)
        for name, expected in vars(ahead).items():
            np.testing.assert_allclose(getattr(here, name), expected, atol=1e-8 * expected.std(), err_msg=name)
        assert np.abs(here.q - here.q_unlensed).std() > 0.05 * here.q.std()


def test_a_sky_without_a_potential_is_not_lensed():
    sky = toy_sky(48)
    fields = lensed_patches(LensedSky(48, sky.e, 0 * sky.potential), SMALL, FRAMES)
    np.testing.assert_allclose(fields.q, fields.q_unlensed, atol=1e-9)
    np.testing.assert_allclose(fields.u, fields.u_unlensed, atol=1e-9)
    assert not fields.kappa.any()


def test_lensed_coefficients_give_the_fields_that_were_deflected_pixel_by_pixel():
    lmax, wide = 80, 320
    sky = toy_sky(lmax)
    alm = lensed_alm(sky, wide, margin=20)
    vectors = SMALL.vectors(FRAMES)
    place = np.stack(directions(vectors.reshape(-1, 3)), axis=-1)
    q, u = ducc0.sht.synthesis_general(alm=alm, spin=2, lmax=wide, loc=place, epsilon=1e-12)
    expected = lensed_fields(sky, vectors, tangent_basis(*directions(vectors))[2])
    for found, field, plain in ((q, expected.q, expected.q_unlensed), (u, expected.u, expected.u_unlensed)):
        effect = (field - plain).std()
        np.testing.assert_allclose(found.reshape(field.shape), field, atol=1e-3 * effect)
    assert np.abs(alm[1]).max() > 0


def test_single_precision_serves_for_patches():
    sky = toy_sky(200)
    single = LensedSky(200, sky.e.astype(np.complex64), sky.potential.astype(np.complex64))
    rough, fine = (lensed_patches(one, SMALL, FRAMES) for one in (single, sky))
    for name, expected in vars(fine).items():
        found = getattr(rough, name)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-5 * expected.std(), err_msg=name)


def test_maps_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch):
    sky = draw_sky(toy_spectra(128), 128, (1, 2))
    found = []
    for number in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", number)
        found.append(lensed_patches(sky, SMALL, FRAMES))
    for name, expected in vars(found[0]).items():
        np.testing.assert_array_equal(getattr(found[1], name), expected)


def test_seeds_make_skies_whose_large_scales_do_not_depend_on_lmax():
    low, high = (draw_sky(toy_spectra(60), lmax, (1, 7), np.complex128) for lmax in (40, 60))
    kept = alm_index(60)[0] <= 40
    np.testing.assert_array_equal(low.e, high.e[kept])
    np.testing.assert_array_equal(low.potential, high.potential[kept])
    assert not np.array_equal(draw_sky(toy_spectra(60), 40, (1, 8)).e, low.e.astype(np.complex64))
    with pytest.raises(ValueError, match="end at ell=60"):
        draw_sky(toy_spectra(60), 61, (1,))


def test_rings_hold_the_multipoles_that_were_asked_for():
    assert lensed_rings(toy_sky(20), 30).shape == (2, 31, 63)


# --- the flat sky's conventions -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tapered():
    """A 12-degree patch, its potential, taper and interior; only modes that the taper does not confuse."""
    size, pixel, lmax = 64, 11.25, 600
    patch, sky, frame = LambertPatch(size, pixel), toy_sky(lmax, lmin=200), FRAMES[0]
    potential = values(sky.potential, lmax, 0, patch.vectors(frame))[0]
    edge = np.minimum(np.arange(size) + 0.5, size - 0.5 - np.arange(size)) / 20
    ramp = np.sin(np.pi / 2 * np.minimum(edge, 1)) ** 2
    return lensed_patches(sky, patch, frame), potential, np.outer(ramp, ramp), np.s_[22:42, 22:42], FlatSky(size, pixel)


def test_stored_e_is_the_flat_skys_e_of_the_rotated_q_and_u(tapered):
    fields, _, mask, interior, flat = tapered
    q, u = (flat.to_modes(torch.from_numpy(mask * image)) for image in (fields.q_unlensed, fields.u_unlensed))
    e, b = (flat.to_images(modes).numpy()[interior] for modes in flat.to_eb(q, u))
    assert np.corrcoef(e.ravel(), fields.e[interior].ravel())[0, 1] > 0.995
    assert e.std() == pytest.approx(fields.e[interior].std(), rel=0.02)
    assert b.std() < 0.1 * e.std()


def test_stored_kappa_is_minus_half_the_flat_laplacian(tapered):
    fields, potential, mask, interior, flat = tapered
    modes = flat.to_modes(torch.from_numpy(mask * potential))
    kappa = flat.to_images(0.5 * flat.ell(modes) ** 2 * modes).numpy()[interior]
    np.testing.assert_allclose(kappa, fields.kappa[interior], atol=0.03 * fields.kappa.std())


# --- the lensed B ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_lensed_b_of_five_skies_is_cambs_to_half_a_per_cent():
    spectra, lmax, top = load_spectra(), 4000, 2000
    ell, order = alm_index(top)
    weights = np.where(order > 0, 2.0, 1.0)
    power = np.zeros((2, top + 1))
    for sky in range(5):
        for total, alm in zip(power, lensed_alm(draw_sky(spectra, lmax, (11, sky)), top, margin=300), strict=True):
            total += np.bincount(ell, weights * np.abs(alm) ** 2) / 5
    band = slice(200, top + 1)
    for total, theory in zip(power, (spectra.ee_lensed, spectra.bb_lensed), strict=True):
        modes = 2.0 * np.arange(top + 1) + 1
        ratio = total[band] / (modes * theory[: top + 1])[band]
        assert np.average(ratio, weights=modes[band]) == pytest.approx(1, abs=5e-3)
