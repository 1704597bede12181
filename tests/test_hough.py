"""The rolling Hough transform: its kernel, its angles, its signs, another code's maps, its gradient, its verb."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import healpy
import numpy as np
import pytest
import torch
from astropy.io import fits
from fixtures_cli import done, sphereml, write_map
from scipy.special import sph_harm_y

from sphereml.data.gas_channels import open_gas
from sphereml.data.store import Sky, write_store
from sphereml.errors import UserError
from sphereml.filaments.derivatives import second_derivatives
from sphereml.filaments.hough import HoughSettings, HoughTransform
from sphereml.filaments.kernel import stick_coefficients
from sphereml.filaments.tensor import TensorSettings, tensor_stokes
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.ordering import nest_to_ring, ring_to_nest
from sphereml.sky.stokes import directions, tangent_basis

GRID = HealpixGrid(32)
# Windows of 20 degrees on pixels of 1.8: resolved, and short beside the sphere.
SETTINGS = HoughSettings(length=1200, smoothing=600)
REFERENCE = Path(__file__).parent / "reference/sphericalrht_nside16.npz"


def filament(lon: float, lat: float, angle: float, grid: HealpixGrid = GRID) -> tuple[torch.Tensor, int]:
    """A ridge through a pixel at an angle from south towards east (degrees), and that pixel: a thin great circle."""
    pixel = healpy.ang2pix(grid.nside, lon, lat, nest=True, lonlat=True)
    centre = grid.vectors()[pixel]
    _, south, east = tangent_basis(*directions(centre))
    along = np.cos(np.radians(angle)) * south + np.sin(np.radians(angle)) * east
    distance = np.degrees(np.arcsin(grid.vectors() @ np.cross(centre, along)))
    return torch.from_numpy(1 + 5 * np.exp(-0.5 * (distance / 1.5) ** 2)), pixel


def lumpy_map(nside: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    smooth = healpy.smoothing(rng.standard_normal(12 * nside**2), fwhm=np.radians(6))
    return torch.from_numpy(ring_to_nest(np.exp(smooth / smooth.std())))


# the kernel


def test_stick_coefficients_are_the_integrals_of_harmonics_along_the_stick():
    lmax, length, width = 40, 0.6, 0.05
    kernel = stick_coefficients(length, width, lmax)
    place, weight = np.polynomial.legendre.leggauss(400)
    theta = (place + 1) * length / 4
    for ell, order in ((0, 0), (7, 0), (7, 2), (40, 4), (33, 10)):
        integral = np.sum(weight / 2 * sph_harm_y(ell, order, theta, 0.0).real)
        window = np.exp(-0.5 * ell * (ell + 1) * width**2 / (8 * np.log(2)))
        assert kernel[ell, order // 2] == pytest.approx(window * integral, abs=1e-12)


def test_the_stick_holds_one_and_keeps_the_orders_that_matter():
    kernel = stick_coefficients(np.radians(20), np.radians(2), 96)
    assert kernel[0, 0] * np.sqrt(4 * np.pi) == pytest.approx(1.0, rel=1e-12)
    longer = stick_coefficients(np.radians(40), np.radians(2), 96)
    assert 4 < kernel.shape[1] < longer.shape[1]
    assert np.sum(kernel[:, -1] ** 2) < 1e-7 * np.sum(kernel**2)


# angles and signs


@pytest.mark.parametrize(
    ("lon", "lat", "angle"), [(40, 10, 0), (40, 10, 30), (200, -50, 90), (100, 70, 120), (5, 85, 45)]
)
def test_the_response_is_highest_along_the_filament(lon: float, lat: float, angle: float):
    intensity, pixel = filament(lon, lat, angle)
    transform = HoughTransform(GRID, SETTINGS)
    best = np.degrees(transform.angles[int(transform.responses(intensity)[pixel].argmax())])
    assert abs((best - angle + 90) % 180 - 90) <= 180 / SETTINGS.orientations


@pytest.mark.parametrize(("angle", "sign_q", "sign_u"), [(0, -1, 0), (90, 1, 0), (45, 0, -1), (135, 0, 1)])
def test_polarization_is_perpendicular_to_the_filament_in_cosmo_sign(angle: float, sign_q: int, sign_u: int):
    """A field along the filament polarizes across it: a filament along south (the meridian) has Q < 0."""
    intensity, pixel = filament(200, -30, angle)
    q, u = HoughTransform(GRID, SETTINGS).orientation(intensity)[pixel].numpy()
    assert np.hypot(q, u) > 0.8
    assert q == pytest.approx(sign_q * np.hypot(q, u), abs=0.1)
    assert u == pytest.approx(sign_u * np.hypot(q, u), abs=0.1)


def test_the_response_is_the_share_of_the_stick_that_shines():
    """Against sums over the pixels of a smoothed stick, at every angle of one pixel."""
    grid, settings = HealpixGrid(32), HoughSettings(length=1800, smoothing=900, width=300, orientations=8)
    transform, intensity = HoughTransform(grid, settings), lumpy_map(32)
    mask, fine = transform.excess(intensity).numpy(), HealpixGrid(128).vectors()
    responses, pixel = transform.responses(intensity).numpy(), 5000
    centre = grid.vectors()[pixel]
    near = fine @ centre > np.cos(np.radians(30))
    _, south, east = tangent_basis(*directions(centre))
    for number, angle in enumerate(transform.angles):
        along = np.cos(angle) * south + np.sin(angle) * east
        steps = np.radians(np.linspace(-15, 15, 61))
        line = np.cos(steps)[:, None] * centre + np.sin(steps)[:, None] * along
        density = np.exp((fine[near] @ line.T - 1) / (np.radians(5) ** 2 / (8 * np.log(2)))).sum(axis=1)
        expected = np.sum(density * mask[near]) / np.sum(density)
        assert responses[pixel, number] == pytest.approx(expected, abs=0.02)


def test_channels_are_weighed_and_added_and_a_flat_map_is_unpolarized():
    transform = HoughTransform(GRID, SETTINGS)
    channels = torch.stack([lumpy_map(32, 1), lumpy_map(32, 2)], dim=1)
    both = transform.stokes(channels, torch.tensor([1.0, 3.0]))
    apart = transform.stokes(channels[:, :1]) + 3 * transform.stokes(channels[:, 1:])
    torch.testing.assert_close(both, apart)
    assert torch.linalg.vector_norm(transform.orientation(channels[:, 0]), dim=1).max() <= 1 + 1e-9
    assert transform.stokes(torch.zeros(GRID.npix, 1)).abs().max() == 0


def test_it_turns_with_the_sky():
    """Turned by 90 degrees about the polar axis pixels fall on pixels, and Q and U turn with them."""
    transform, intensity = HoughTransform(GRID, SETTINGS), lumpy_map(32)
    lon, lat = GRID.lonlat()
    turned = healpy.ang2pix(GRID.nside, lon + 90, lat, nest=True, lonlat=True)
    before, after = transform.orientation(intensity), transform.orientation(intensity[turned])
    torch.testing.assert_close(after, before[turned], atol=1e-6, rtol=0)


# another code


def test_it_is_sphericalrhts():
    """sphericalrht 2.0.1 with a stick of 2400', a mask of 900', a threshold of .5 and 25 angles, the last the first."""
    reference = np.load(REFERENCE)
    grid, settings = HealpixGrid(16), HoughSettings(2400, 900, 0.5, orientations=24)
    transform = HoughTransform(grid, settings)
    intensity = torch.from_numpy(ring_to_nest(reference["intensity"].astype(float)))
    responses = nest_to_ring(transform.responses(intensity).numpy())
    stokes = nest_to_ring(transform.stokes(intensity[:, None]).numpy())
    for column, theirs in zip((0, 5, 12), reference["responses"], strict=True):
        assert np.corrcoef(responses[:, column], theirs)[0, 1] > 0.999
    assert np.corrcoef(stokes[:, 0], reference["q"])[0, 1] > 0.98
    assert np.corrcoef(stokes[:, 1], reference["u"])[0, 1] > 0.98


# the soft form


def test_soft_thresholds_become_clarks():
    intensity = lumpy_map(16)
    hard = HoughTransform(HealpixGrid(16), HoughSettings(1800, 900, 0.5)).orientation(intensity)
    scatter = []
    for softness in (0.1, 1e-3, 1e-5):
        soft = HoughTransform(HealpixGrid(16), HoughSettings(1800, 900, 0.5, softness=softness))
        scatter.append(float((soft.orientation(intensity) - hard).std()))
    assert scatter[0] > scatter[1] > scatter[2] and scatter[2] < 0.02 * float(hard.std()), scatter


def test_the_soft_transform_has_the_gradient_of_finite_differences():
    transform = HoughTransform(HealpixGrid(4), HoughSettings(4800, 2400, 0.5, softness=0.1))
    generator = torch.Generator().manual_seed(0)
    intensity = torch.exp(0.3 * torch.randn(192, generator=generator, dtype=torch.float64)).requires_grad_()
    direction = torch.randn(192, generator=generator, dtype=torch.float64)
    probe = torch.randn(192, 2, generator=generator, dtype=torch.float64)

    def loss(maps: torch.Tensor) -> torch.Tensor:
        return (transform.stokes(maps[:, None]) * probe).sum()

    (gradient,) = torch.autograd.grad(loss(intensity), intensity)
    step = 1e-5
    with torch.no_grad():
        difference = (loss(intensity + step * direction) - loss(intensity - step * direction)) / (2 * step)
    assert float(gradient @ direction) == pytest.approx(float(difference), rel=1e-6)


@pytest.mark.parametrize(
    "bad",
    [
        {"length": 0},
        {"smoothing": -1},
        {"threshold": 1.0},
        {"orientations": 2},
        {"softness": -1},
        {"subpixels": 3},
        {"length": float("nan")},
    ],
)
def test_impossible_settings_are_refused(bad: dict[str, float]):
    with pytest.raises(UserError):
        HoughSettings(**bad)  # type: ignore[arg-type]


# the verb

FLAGS = ["--length", 1200, "--smoothing", 600, "--threshold", 0.7, "--orientations", 25]


def test_the_verb_writes_cosmo_q_and_u_that_healpy_reads(tmp_path: Path):
    intensity, pixel = filament(200, -30, 45)
    write_map(tmp_path / "map.fits", nest_to_ring(intensity.numpy()), "cm^-2")
    done("hough", tmp_path / "map.fits", *map(str, FLAGS), "--out", tmp_path / "qu.fits")
    q, u = ring_to_nest(healpy.read_map(tmp_path / "qu.fits", field=(0, 1), dtype=float), axis=1)
    expected = HoughTransform(GRID, SETTINGS).stokes(intensity.float()[:, None]).numpy()
    np.testing.assert_allclose(np.stack([q, u], axis=1), expected, atol=1e-5)
    header = fits.getheader(tmp_path / "qu.fits", 1)
    assert header["POLCCONV"] == "COSMO" and header["TUNIT1"] == "cm^-2" and header["COORDSYS"] == "G"
    assert u[pixel] < -3


def test_the_verb_writes_iau_with_the_other_sign_of_u(tmp_path: Path):
    from sphereml.surface import read_map

    intensity, _ = filament(200, -30, 30)
    write_map(tmp_path / "map.fits", nest_to_ring(intensity.numpy()), "cm^-2")
    for convention in ("COSMO", "IAU"):
        out = tmp_path / f"{convention}.fits"
        done("hough", tmp_path / "map.fits", *map(str, FLAGS), "--out", out, "--polcconv", convention)
        assert fits.getheader(out, 1)["POLCCONV"] == convention
    cosmo, iau = (healpy.read_map(tmp_path / f"{name}.fits", field=1, dtype=float) for name in ("COSMO", "IAU"))
    np.testing.assert_array_equal(iau, -cosmo)
    maps = read_map(tmp_path / "IAU.fits").values  # the reader knows the card
    np.testing.assert_array_equal(maps[:, 1], ring_to_nest(cosmo))


def test_the_verb_adds_a_stores_channels_by_their_widths(tmp_path: Path):
    grid = HealpixGrid(16)
    cube = torch.stack([lumpy_map(16, 1), lumpy_map(16, 2)], dim=1).float()
    velocity = np.array([-2.0, 3.0])
    channels, dust = (Field("a", "K"), Field("b", "K")), (Field("dust", "uK_RJ"),)
    sky = Sky(grid, cube.numpy(), cube[:, :1].numpy(), channels, dust, velocity=velocity)
    write_store(tmp_path / "sky.zarr", sky)
    done("hough", tmp_path / "sky.zarr", "--length", "2400", "--smoothing", "900", "--out", tmp_path / "qu.fits")
    expected = HoughTransform(grid, HoughSettings(2400, 900)).stokes(5 * cube).numpy()
    q = ring_to_nest(healpy.read_map(tmp_path / "qu.fits", field=0, dtype=float))
    np.testing.assert_allclose(q, expected[:, 0], rtol=1e-4, atol=1e-4)
    assert fits.getheader(tmp_path / "qu.fits", 1)["TUNIT1"] == "K km/s"
    mixed = Sky(grid, cube.numpy(), cube[:, :1].numpy(), (Field("a", "K"), Field("b", "cm^-2")), dust)
    write_store(tmp_path / "mixed.zarr", mixed)
    assert "one unit" in sphereml("hough", tmp_path / "mixed.zarr", "--out", tmp_path / "other.fits").refusal


def test_a_stores_channels_are_read_a_few_at_a_time(tmp_path: Path):
    channels = np.arange(40, dtype=np.float32) * np.ones((192, 1), np.float32)
    fields = tuple(Field(f"v{i}", "cm^-2") for i in range(40))
    write_store(tmp_path / "sky.zarr", Sky(HealpixGrid(4), channels, channels[:, :0], fields, ()))
    gas, widths = open_gas(tmp_path / "sky.zarr", [0]), []

    def read(some: slice) -> np.ndarray:
        widths.append(gas.read(some).shape[1])
        return gas.read(some)

    watched = replace(gas, read=read)
    np.testing.assert_array_equal(np.stack(list(watched), axis=1), channels)
    assert widths == [16, 16, 8]
    assert gas.mean() == pytest.approx(channels.sum() / 192)


@pytest.mark.parametrize("source", ["map.fits", "sky.zarr"])
def test_the_verb_has_the_tensor_and_the_derivatives(tmp_path: Path, source: str):
    """Of channels one by one they are what Python gives for all, and both polarize across filaments, as Hough does."""
    ridges = torch.stack([filament(200, -30, angle)[0] for angle in (0, 20)], dim=1).numpy().astype(np.float32)
    write_map(tmp_path / "map.fits", nest_to_ring(ridges).T, "cm^-2")
    fields = (Field("a", "cm^-2"), Field("b", "cm^-2"))
    write_store(tmp_path / "sky.zarr", Sky(GRID, ridges, ridges[:, :0], fields, ()))
    expected = {
        "tensor": tensor_stokes(ridges, TensorSettings(1, 12, 4)),
        "derivatives": -second_derivatives(ridges, (1.0,)).sum(axis=1),
    }
    pixel = filament(200, -30, 0)[1]
    for method, stokes in expected.items():
        flags = ["--method", method, "--fine", "1", "--field", "0", "1"]
        flags += ["--coarse", "12", "--neighbourhood", "4"] if method == "tensor" else []
        done("hough", tmp_path / source, *flags, "--out", tmp_path / f"{method}.fits")
        maps = ring_to_nest(healpy.read_map(tmp_path / f"{method}.fits", field=(0, 1), dtype=float), axis=1).T
        np.testing.assert_allclose(maps, stokes, atol=1e-5 * np.abs(stokes).max())
        assert maps[pixel, 0] < 0 and fits.getheader(tmp_path / f"{method}.fits", 1)["FINE"] == 1
    bad = sphereml("hough", tmp_path / source, "--method", "tensor", "--fine", "9", "--out", tmp_path / "other.fits")
    assert "fine < coarse" in bad.refusal


def test_the_verb_refuses_what_it_cannot_do(tmp_path: Path):
    write_map(tmp_path / "map.fits", np.ones(192), "cm^-2")
    line = ["hough", tmp_path / "map.fits", "--out", tmp_path / "qu.fits"]
    assert "threshold" in sphereml(*line, "--threshold", "1.5").refusal
    assert "field" in sphereml(*line, "--field", "4").refusal
    for words in (["--fine", "0.5"], ["--method", "tensor", "--length", "75"],
                  ["--method", "derivatives", "--coarse", "6"]):  # fmt: skip
        assert f"{words[-2]} says nothing to --method" in sphereml(*line, *words).refusal
    assert "no file" in sphereml("hough", tmp_path / "other.fits", "--out", tmp_path / "qu.fits").refusal
    assert not (tmp_path / "qu.fits").exists()
    (tmp_path / "qu.fits").write_text("")
    assert "exists" in sphereml(*line).refusal
