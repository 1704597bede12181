"""Structure tensor and second derivatives: signs, frames, oracles, and the published table of the real sample."""

from __future__ import annotations

import healpy
import numpy as np
import pytest
from fixtures_cli import REAL_SKY, needs_real_sky

from sphereml.data.healpix_fits import read_healpix
from sphereml.errors import UserError
from sphereml.filaments.derivatives import fit_polarization, second_derivatives
from sphereml.filaments.tensor import TensorSettings, gaussian_window, gradient, tensor_stokes
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.harmonics.transforms import alm_index, analysis, synthesis
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.ordering import nest_to_ring, ring_to_nest

GRID = HealpixGrid(32)


def log_gas(seed: int = 0, lmax: int = 48) -> np.ndarray:
    """A smooth map ``(npix,)`` NEST of unit variance."""
    ell, order = alm_index(lmax)
    rng = np.random.default_rng(seed)
    alm = (rng.standard_normal(ell.size) + 1j * rng.standard_normal(ell.size)) / (ell + 4.0) ** 1.4
    alm[order == 0] = alm[order == 0].real
    sky = synthesis(alm, GRID.nside, lmax)
    return (sky - sky.mean()) / sky.std()


def ridge(east_west: bool) -> np.ndarray:
    """A ridge through (100, 0): along the equator, or along the meridian."""
    lon, lat = GRID.lonlat()
    across = lat if east_west else (lon - 100 + 180) % 360 - 180
    return 1 + 10 * np.exp(-0.5 * (across / 4) ** 2)


@pytest.mark.parametrize("averaging", ["spin", "components"])
@pytest.mark.parametrize(("east_west", "sign"), [(True, 1), (False, -1)])
def test_the_tensor_polarizes_across_the_ridge(averaging: str, east_west: bool, sign: int):
    """Q > 0 is polarization along the meridian, hence across a ridge that runs east."""
    settings = TensorSettings(1, 12, 4, averaging=averaging)  # type: ignore[arg-type]
    pixel = healpy.ang2pix(GRID.nside, 100, 1.0, nest=True, lonlat=True)
    gas = ridge(east_west)
    q, u = tensor_stokes(gas[:, None], settings)[pixel] / gas[pixel]
    assert sign * q > 0.8 and abs(u) < 0.1


def test_the_gradient_is_healpys():
    sky = log_gas()
    window = gaussian_window(48, 2.0)
    alm = healpy.almxfl(analysis(sky, 48), window)
    expected = healpy.alm2map_der1(alm, GRID.nside, lmax=48)[1:]
    for ours, theirs in zip(gradient(sky, window), expected, strict=True):
        np.testing.assert_allclose(ours, ring_to_nest(theirs), atol=1e-8 * np.abs(theirs).max())


def rotated(sky: np.ndarray, spin: int) -> np.ndarray:
    """A band-limited map ``(npix,)`` or ``(2, npix)`` of a sky turned by 90 degrees about y."""
    alm = np.atleast_2d(analysis(sky, 64, spin))
    for row in alm:
        healpy.rotate_alm(row, 0.0, np.pi / 2, 0.0, lmax=64)
    return synthesis(alm if spin else alm[0], GRID.nside, 64, spin)


def test_spin_averages_do_not_know_where_the_poles_are():
    """The tensor of the turned sky is the turned tensor; averages of components err by several times as much."""
    gas = np.exp(0.3 * log_gas(lmax=24))
    error = {}
    for averaging in ("spin", "components"):
        settings = TensorSettings(2, 12, 8, floor=0.01, averaging=averaging)  # type: ignore[arg-type]
        turned = tensor_stokes(rotated(gas, 0)[:, None], settings).T
        expected = rotated(tensor_stokes(gas[:, None], settings).T, 2)
        error[averaging] = np.std(turned - expected) / np.std(expected)
    assert error["spin"] < 0.01 < error["components"] / 5, error


def test_second_derivatives_are_healpys_spin_2_field():
    sky = log_gas()
    features = second_derivatives(sky[:, None], smoothings=(0.0, 3.0), scale_free=False)
    assert features.shape == (GRID.npix, 2, 2)
    ell = np.arange(65)
    raised = healpy.almxfl(analysis(sky, 64), np.sqrt(np.maximum((ell + 2.0) * (ell + 1) * ell * (ell - 1), 0)))
    expected = healpy.alm2map_spin([-raised, np.zeros_like(raised)], GRID.nside, 2, 64)
    for column in (0, 1):
        np.testing.assert_allclose(features[:, 0, column], ring_to_nest(expected[column]), atol=1e-6 * raised.std())


def test_second_derivatives_have_the_sign_of_flat_ones():
    """Across a ridge along the meridian f_yy < 0, so Q = f_xx - f_yy > 0 on it."""
    pixel = healpy.ang2pix(GRID.nside, 100, 1.0, nest=True, lonlat=True)
    for scale_free in (True, False):
        q, u = second_derivatives(ridge(east_west=False)[:, None], (2.0,), scale_free)[pixel, 0]
        assert q > 0 and abs(u) < 0.2 * q


def test_least_squares_recovers_the_weights():
    gas = np.stack([log_gas(seed) for seed in range(3)], axis=1)
    features = second_derivatives(gas)
    weights = np.array([2.0, -1.0, 0.5])
    _, lat = GRID.lonlat()
    found = fit_polarization(features, np.einsum("pfs,f->ps", features, weights), lat > 10)
    np.testing.assert_allclose(found, weights, rtol=1e-8)
    with pytest.raises(UserError, match="larger training region"):
        fit_polarization(features, np.zeros((GRID.npix, 2)), lat > 89.9)


def test_impossible_smoothings_are_refused():
    with pytest.raises(UserError, match="fine < coarse"):
        TensorSettings(fine=6, coarse=1)


# the real sample: the table in its README (columns lr71 and lr42, all and b < -8)

TABLE = {
    # (mask, south only, neighbourhood): r_EE, r_BB, r(Q), r(U) of the column, and of the rings
    ("lr71", False, 4): ((0.421, 0.303, 0.623, 0.432), (0.422, 0.322, 0.639, 0.456)),
    ("lr71", False, 8): ((0.371, 0.325, 0.576, 0.493), (0.435, 0.378, 0.660, 0.516)),
    ("lr42", False, 4): ((0.410, 0.370, 0.571, 0.470), (0.444, 0.409, 0.618, 0.512)),
    ("lr42", False, 8): ((0.458, 0.468, 0.619, 0.509), (0.503, 0.524, 0.677, 0.565)),
    ("lr71", True, 8): ((0.348, 0.366, 0.587, 0.280), (0.451, 0.414, 0.675, 0.335)),
    ("lr42", True, 8): ((0.414, 0.452, 0.610, 0.337), (0.471, 0.530, 0.665, 0.432)),
}


@pytest.fixture(scope="module")
def templates() -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """By neighbourhood: Q and U of the column and of the twelve rings, ``(npix, 2)`` NEST."""
    column = read_healpix(REAL_SKY / "nhi_hi4pi_n64.fits", unit="cm^-2").values[:, :1]
    rings = read_healpix(REAL_SKY / "nhi_rings_n64.fits", unit="cm^-2").values
    made = {}
    for neighbourhood in (4, 8):
        settings = TensorSettings(neighbourhood=neighbourhood, averaging="components")
        made[neighbourhood] = (tensor_stokes(column, settings), tensor_stokes(rings, settings))
    return made


@needs_real_sky
@pytest.mark.parametrize(("mask", "south", "neighbourhood"), TABLE)
def test_the_tensor_gives_the_real_samples_table(
    templates: dict[int, tuple[np.ndarray, np.ndarray]], mask: str, south: bool, neighbourhood: int
):
    keep = ring_to_nest(healpy.read_map(REAL_SKY / f"mask_{mask}_like_n64.fits", dtype=float))
    if south:
        keep = keep * (HealpixGrid(64).lonlat()[1] < -8)
    weights = keep * ring_to_nest(healpy.smoothing(nest_to_ring(keep), sigma=np.radians(1.5)))
    dust = read_healpix(REAL_SKY / "dust_353_iqu_n64.fits", [1, 2], "uK_RJ").values.astype(float)
    for template, expected in zip(templates[neighbourhood], TABLE[mask, south, neighbourhood], strict=True):
        seen = keep > 0
        pixels = [np.corrcoef(template[seen, column], dust[seen, column])[0, 1] for column in (0, 1)]
        np.testing.assert_allclose([*band_correlations(template, dust, weights), *pixels], expected, atol=0.005)


def band_correlations(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """r_EE and r_BB of masked Q and U from the power in 10 <= ell < 60."""
    alms = [analysis(weights * stokes.T, 128, spin=2) for stokes in (a, b)]
    modes = 2 * np.arange(10, 60) + 1

    def power(first: int, second: int) -> np.ndarray:
        return cross_spectrum(alms[first], alms[second], 128)[:, 10:60] @ modes

    return np.asarray(power(0, 1) / np.sqrt(power(0, 0) * power(1, 1)))
