"""Spin convolutions: what jets recover, gradients, frames, symmetries, tiles, and the flat counterpart."""

from __future__ import annotations

from functools import lru_cache

import healpy
import numpy as np
import pytest
import torch

from sphereml.domains import Domain, FlatPatch, HealpixSky
from sphereml.domains.channels import Channels
from sphereml.domains.convolution import convolve
from sphereml.domains.mixing import Mixing, TypedKernel
from sphereml.domains.spin import SpinLayout
from sphereml.domains.spin_steps import steps_of
from sphereml.domains.stencils import StencilTables
from sphereml.errors import UserError
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.harmonics.transforms import alm_index, analysis, synthesis
from sphereml.models.layers import Convolution
from sphereml.models.resunet import ResUNet
from sphereml.models.tiling import Tiling
from sphereml.models.unet import UNet
from sphereml.sky.jets import Jets, lattice_coefficients
from sphereml.sky.regions import Region
from sphereml.sky.tangent import LocalFrames, geodesics
from sphereml.testing import (
    SYMMETRIES,
    Symmetry,
    TurnedSky,
    assert_equivariant,
    assert_frame_free,
    interpolation_floor,
    network_function,
    rotation_error,
)

ALL = Channels(2, 2, 2, 2)
WIDE = Channels(4, 2, 2, 2)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gaussian_alm(lmax: int, spectrum: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """a_lm ``(count, nalm)`` from ell = 2."""
    ell, order = alm_index(lmax)
    rng = np.random.default_rng(seed)
    alm = rng.standard_normal((count, ell.size)) + 1j * rng.standard_normal((count, ell.size))
    alm[:, order == 0] = np.sqrt(2) * alm[:, order == 0].real
    return alm * np.sqrt(np.where(ell < 2, 0, spectrum[ell]) / 2)


def raised(ell: np.ndarray) -> np.ndarray:
    """``-sqrt((l + 2)! / (l - 2)!)``."""
    return -np.sqrt(np.maximum((ell + 2.0) * (ell + 1) * ell * (ell - 1), 0))


@lru_cache(maxsize=4)
def recovered(nside: int, lmax: int, degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``D*^2 (Q + iU)`` by jets, what it should be, both complex, and the area of a pixel's neighbours' defects."""
    ell = np.arange(lmax + 1)
    alm = gaussian_alm(lmax, 1 / np.maximum(raised(ell) ** 2, 1), 2)  # white after two derivatives
    q, u = synthesis(alm[None], nside, lmax, spin=2)[0]
    e, b = synthesis(raised(alm_index(lmax)[0]) * alm, nside, lmax)
    jets = Jets(Region(nside), LocalFrames(nside), np.arange(q.size), degree)
    side = healpy.nside2resol(nside)
    found = ((q + 1j * u)[jets.neighbours] * jets.coefficients(2, 0, 2)).sum(axis=1) / side**2
    return found, e + 1j * b, jets.present


@pytest.mark.parametrize(
    ("degree", "band", "least"), [(2, 0.5, 0.9998), (2, 1, 0.998), (2, 2, 0.974), (4, 0.5, 0.99998), (4, 1, 0.9998)]
)
def test_jets_recover_e_and_b(degree, band, least):
    """At least as well as the prototype: .9997, .998, .974 on 3x3, .9998 at ell = nside on 5x5; the sign too."""
    found, true, present = recovered(32, round(32 * band), degree)
    for part in ("real", "imag"):
        ours, expected = getattr(found, part), getattr(true, part)
        assert np.corrcoef(ours, expected)[0, 1] > least
        assert np.corrcoef(ours, getattr(true, {"real": "imag", "imag": "real"}[part]))[0, 1] == pytest.approx(
            np.corrcoef(true.real, true.imag)[0, 1], abs=0.03
        )
        poor = ~present.all(axis=1)
        error = np.abs(ours - expected) / expected.std()
        assert error[poor].max() < max(3 * error[~poor].max(), 0.1), "corners of base pixels"


@pytest.mark.parametrize("degree", [2, 4])
def test_a_lattice_gives_exact_derivatives_of_polynomials(degree):
    steps = np.arange(-(degree // 2), degree // 2 + 1)
    x, y = (grid.ravel() for grid in np.meshgrid(steps, steps, indexing="ij"))
    south, east = -y, x
    field = 2 + 3 * south - east + 0.5 * south**2 + 2 * east * south - 1.5 * east**2
    assert lattice_coefficients(1, 0, degree) @ field == pytest.approx(3 - 1j)
    assert lattice_coefficients(1, 1, degree) @ field == pytest.approx(1 - 3)
    assert lattice_coefficients(2, 0, degree) @ field == pytest.approx(1 + 3 + 4j)


def test_transport_along_a_meridian_and_a_parallel():
    """Between points at colatitude theta the turn is ``2 arctan(cos theta tan(dphi / 2))``: all of dphi at the pole."""
    for nside, ring in ((64, np.arange(4)), (2, np.arange(4, 12)), (2, np.arange(20, 28))):
        pixels = healpy.ring2nest(nside, ring)  # eastward
        near, far = (LocalFrames(nside).basis(own) for own in (pixels, np.roll(pixels, -1)))
        theta, step = healpy.pix2ang(nside, ring[0])[0], 2 * np.pi / len(ring)
        turn = np.angle(geodesics(near, far).phase)
        np.testing.assert_allclose(turn, 2 * np.arctan(np.cos(theta) * np.tan(step / 2)), atol=1e-12)
    polar, equatorial = LocalFrames(64).basis(np.array([4095])), LocalFrames(64).basis(np.array([0]))
    assert abs(geodesics(polar, equatorial).turn[0]) < 1e-12


# --- gradients and pieces --------------------------------------------------------------------------------------------


def layer_function(region: Region, mixing: Mixing, tables: StencilTables | None = None):
    tables = tables or StencilTables(region, LocalFrames(region.nside), mixing.degree, torch.float64)
    layout = SpinLayout(tables, steps_of(mixing))

    def function(x: torch.Tensor, bias: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        kernel = mixing.kernel(dict(zip(mixing.shapes, weights, strict=True)))
        return convolve(x, kernel.values, bias, layout)

    return function


def leaves(mixing: Mixing, npix: int, batch: int = 2) -> list[torch.Tensor]:
    shapes = [(batch, npix, mixing.channels_in.columns), (mixing.channels_out.columns,), *mixing.shapes.values()]
    return [noise(*shape, seed=i, dtype=torch.float64).requires_grad_() for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("region", [Region(1), Region(4), Region(8, (3, 7, 100), 4)], ids=str)
@pytest.mark.parametrize("degree", [2, 4])
@pytest.mark.parametrize("chiral", [False, True])
def test_gradients(region, degree, chiral):
    if degree == 4 and region.nside == 1:
        with pytest.raises(UserError, match="5x5 pixels at Nside 1"):
            Jets(region, LocalFrames(1), np.arange(12), 4)
        return
    for own, other in (
        (ALL, Channels(1, 2, 2, 1)),
        (Channels(spin2=2), Channels(1, 1)),
        (Channels(2), Channels(1, 0, 1)),
    ):
        mixing = Mixing(own, other, degree, chiral)
        assert torch.autograd.gradcheck(layer_function(region, mixing), leaves(mixing, region.npix), fast_mode=True)


@pytest.mark.parametrize("degree", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_pieces_that_share_tables_equal_the_whole(degree):
    """Nside 32: four faces at a time, against the twelve faces as a list, which share nothing, and one piece."""
    mixing, region = Mixing(ALL, ALL, degree), Region(32)
    args, results = leaves(mixing, region.npix, batch=1), []
    for own in (region, Region(32, tuple(range(12)))):
        y = layer_function(own, mixing)(*args)
        results.append([y, *torch.autograd.grad(y.square().sum(), args)])
    for ours, oracle in zip(*results, strict=True):
        assert (ours - oracle).abs().max() < 1e-9 * oracle.abs().max()


def test_the_layer_is_the_sum_of_its_terms():
    """Against jets applied one by one, complex, with the weights in the order that ``shapes`` counts them."""
    mixing, region = Mixing(Channels(spin2=1), Channels(1, 1), 2), Region(8)
    x = noise(1, region.npix, 2, dtype=torch.float64)
    weights = [torch.full(shape, 2.0, dtype=torch.float64) for shape in mixing.shapes.values()]
    y = layer_function(region, mixing)(x, torch.zeros(2, dtype=torch.float64), *weights)[0].numpy()
    jets = Jets(region, LocalFrames(8), np.arange(region.npix))
    z = x[0, :, 0].numpy() + 1j * x[0, :, 1].numpy()
    term = (z[jets.neighbours] * jets.coefficients(2, 0, 2)).sum(axis=1) / np.linalg.norm(lattice_coefficients(0, 2, 2))
    np.testing.assert_allclose(y[:, 0] + 1j * y[:, 1], 2 * term, atol=1e-12)


# --- frames and symmetries -------------------------------------------------------------------------------------------


def network(kind: type[UNet] | type[ResUNet], nside: int = 16, kernel: int = 3, **options) -> UNet | ResUNet:
    """A network whose biases and running statistics are those of no empty sky."""
    torch.manual_seed(0)
    made = kind(HealpixSky(nside), ALL, ALL, width=WIDE, depth=1, kernel=kernel, stencil="spin", dropout=0.0, **options)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "bias" in name or "products" in name:
                parameter.normal_(0, 0.3)
        made.train()
        made(noise(1, 12 * nside**2, ALL.columns, seed=3), HealpixSky(nside))
    return made.eval()


@pytest.mark.parametrize(
    ("kind", "options"), [(UNet, {"products": True}), (ResUNet, {"chiral": True}), (ResUNet, {"kernel": 5})]
)
def test_frames_are_but_names(kind, options):
    assert_frame_free(network(kind, 8, **options), HealpixSky(8), ALL, ALL)


def test_frames_matter_to_what_ignores_them():
    """The check has teeth: a network that takes Q and U as bare numbers fails it."""
    with pytest.raises(AssertionError, match="turned frames"):
        assert_frame_free(
            UNet(HealpixSky(8), ALL.columns, ALL.columns, width=4, depth=1).eval(), HealpixSky(8), ALL, ALL
        )


@pytest.mark.parametrize("kind", [UNet, ResUNet])
def test_networks_keep_every_symmetry_of_the_grid(kind, tolerance):
    function = network_function(network(kind, 8, products=True), 8)
    for symmetry in SYMMETRIES:
        assert_equivariant(function, 8, symmetry, tolerance(torch.float32, "network"), ALL, ALL)


def test_complex_weights_see_mirrors():
    function = network_function(network(UNet, 8, chiral=True), 8)
    assert_equivariant(function, 8, Symmetry(1), 1e-4, ALL, ALL)
    with pytest.raises(AssertionError, match="deviation"):
        assert_equivariant(function, 8, Symmetry(0, mirror_lat=True), 1e-2, ALL, ALL)


def test_moves_are_symmetries_of_transforms():
    """A mirror of Q and U is a mirror of E, and minus that of B; likewise spin 1."""
    maps = synthesis(gaussian_alm(32, np.ones(33), 4).reshape(2, 2, -1)[:1], 16, 32, spin=2)[0]
    one = synthesis(gaussian_alm(32, np.ones(33), 2)[None], 16, 32, spin=1)[0]
    for symmetry in SYMMETRIES:
        for spin, field in ((1, one), (2, maps)):
            own = Channels(0, 0, spin == 1, spin == 2)
            scalars = Channels(1, 1)
            moved = symmetry.move(field.T, own).T
            before, after = (synthesis(analysis(m[None], 32, spin)[0], 16, 32).T for m in (field, moved))
            np.testing.assert_allclose(after, symmetry.move(before, scalars), atol=1e-3)


def test_general_rotations_err_less_than_interpolation():
    """One layer at ell <= nside: the error of its grid is below that of rotating a map by bilinear interpolation."""
    torch.manual_seed(0)
    nside, own, angles = 32, Channels(1, 0, 0, 1), (0.3, 1.1, -0.7)
    layer = Convolution(HealpixSky(nside), own, Channels(2, 1, 1, 1), 3, "spin")
    alm = np.zeros((3, alm_index(2 * nside)[0].size), dtype=complex)
    within = alm_index(2 * nside)[0] <= nside
    alm[:, within] = gaussian_alm(2 * nside, np.ones(2 * nside + 1), 3)[:, within]
    error = rotation_error(network_function(layer, nside), alm, nside, angles, own, Channels(2, 1, 1, 1))
    floor = interpolation_floor(alm, nside, angles, own)
    assert (error[2:nside] < np.maximum(floor[2:nside], 0.01)).all()
    assert error[16:nside].mean() < 0.4 * floor[16:nside].mean()


# --- tiles, pooling, networks ----------------------------------------------------------------------------------------


# Pixels of Nside 4: corners where three base pixels meet, one with a pole, one inside.
TILES = (5, 4 * 16 + 15, 15, 4 * 16 + 6)


@pytest.mark.parametrize(
    ("kind", "kernel"), [(UNet, 3), (ResUNet, 3), pytest.param(ResUNet, 5, marks=pytest.mark.slow)]
)
def test_tiles_equal_the_whole_sphere(kind, kernel):
    nside = 32
    made = network(kind, nside, kernel)
    x = noise(1, 12 * nside**2, ALL.columns)
    with torch.inference_mode():
        whole = made(x, HealpixSky(nside))
        for pixel, (tile, wide) in enumerate(Tiling(made, nside, 4)):
            if pixel in TILES:
                own = made(x[:, wide.pixels], HealpixSky.of(wide))[:, wide.locate(tile.pixels)]
                assert wide.npix < 0.8 * x.shape[1]
                assert (own - whole[:, tile.pixels]).abs().max() < 1e-5 * whole.std(), pixel


def test_pooling_carries_spins_from_frame_to_frame():
    """A smooth spin-2 field comes back from the coarser grid, at the poles too; without turning it would not."""
    nside, channels = 64, Channels(spin2=1)
    ell = np.arange(9)
    alm = gaussian_alm(8, np.where(ell == 2, 1.0, 0), 2)[None]
    fine, coarse = (torch.from_numpy(synthesis(alm, n, 8, spin=2)[0].T)[None] for n in (nside, nside // 2))
    sky = HealpixSky(nside)
    for ours, true in ((sky.pool(fine, channels), coarse), (sky.spread(coarse, channels), fine)):
        assert (ours - true).abs().max() < 0.06 * true.std()
    polar = np.abs(healpy.pix2vec(nside // 2, np.arange(coarse.shape[1]), nest=True)[2]) > 0.99
    plain = fine.view(1, -1, 4, 2).mean(dim=2)
    assert (plain - coarse)[:, polar].abs().max() > 0.3 * coarse.std()


def test_max_pooling_is_for_even_scalars_alone():
    x = noise(1, 48, 2)
    pooled = HealpixSky(2).pool(x, Channels(1, 1))
    children = x.view(1, 12, 4, 2)
    assert torch.equal(pooled[..., 0], children[..., 0].amax(dim=2))
    assert torch.allclose(pooled[..., 1], children[..., 1].mean(dim=2))


@pytest.mark.parametrize("domain", [FlatPatch(16), HealpixSky(8), HealpixSky(8, (3, 7))], ids=str)
@pytest.mark.parametrize("kind", [UNet, ResUNet])
def test_networks_run_forward_and_backward_everywhere(kind, domain):
    made = kind(domain, Channels(1, spin2=1), Channels(1, 1, 0, 1), width=WIDE, depth=2, stencil="spin", products=True)
    y = made(noise(2, *domain.shape, 3), domain)
    assert y.shape == (2, *domain.shape, 4)
    y.square().mean().backward()
    for name, parameter in made.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.isfinite().all()), name


def test_even_skies_stay_even_and_that_is_said():
    with pytest.raises(UserError, match="makes no odd channels"):
        UNet(HealpixSky(8), 2, 1, width=WIDE, stencil="spin")
    with pytest.raises(UserError, match="no even scalar to gate"):
        UNet(HealpixSky(8), Channels(spin2=1), Channels(spin2=1), width=Channels(spin2=2), stencil="spin")
    with pytest.raises(UserError, match="types need the stencil 'spin'"):
        Convolution(HealpixSky(8), Channels(spin2=1), 1, 3)


def test_spin_of_plain_channels_is_isotropic(tolerance):
    """Even scalars alone: the value and its Laplacian, which every symmetry of the grid keeps."""
    torch.manual_seed(0)
    plain = UNet(HealpixSky(16), 3, 1, width=4, depth=1, stencil="spin").eval()
    for symmetry in SYMMETRIES[:8]:
        assert_equivariant(network_function(plain, 16), 16, symmetry, tolerance(torch.float32, "network"))


# --- flat ------------------------------------------------------------------------------------------------------------


def flat_eb(patch: FlatPatch, degree: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``D*^2 (Q + iU)`` of a smooth random patch by a layer, and by its Fourier modes: even and odd columns."""
    sky = FlatSky(patch.n, patch.pixel_size)
    spectrum = np.exp(-((np.arange(20000) / (0.15 * np.pi / sky.step)) ** 2))
    e, b = sky.draw(spectrum, 2, torch.Generator().manual_seed(0)).to(torch.complex128).unbind(0)
    x = torch.stack([sky.to_images(mode) for mode in sky.to_qu(e, b)], dim=-1)[None]
    mixing = Mixing(Channels(spin2=1), Channels(1, 1), degree)
    shapes = mixing.shapes
    weights = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    for weight in weights.values():
        weight[0] = np.linalg.norm(lattice_coefficients(0, 2, degree)) / sky.step**2
    found = patch.convolve(x, mixing.kernel(weights))[0]
    scale = -(sky.ell(e) ** 2)
    return found, torch.stack([sky.to_images(scale * mode) for mode in (e, b)], dim=-1)


@pytest.mark.parametrize("degree", [2, 4])
def test_flat_layers_have_the_spheres_signs(degree):
    found, true = (part[8:-8, 8:-8] for part in flat_eb(FlatPatch(64), degree))
    for column in range(2):
        assert np.corrcoef(found[..., column].ravel(), true[..., column].ravel())[0, 1] > 0.98


def test_flat_networks_keep_quarter_turns_and_mirrors():
    """Rows grow northward: a quarter turn takes (south, east) to (east, -south)."""
    patch, torch_seed = FlatPatch(16), 0
    torch.manual_seed(torch_seed)
    made = UNet(patch, ALL, ALL, width=WIDE, depth=1, stencil="spin", products=True).eval().double()
    x = noise(1, 16, 16, ALL.columns, dtype=torch.float64)

    def turned(maps: torch.Tensor) -> torch.Tensor:
        """Turned by 90 degrees from the column's axis (east) to the row's (north)."""
        return ALL.turn(torch.rot90(maps, -1, (1, 2)), torch.full((16, 16), np.pi / 2, dtype=torch.float64))

    def mirrored(maps: torch.Tensor) -> torch.Tensor:
        signs = [1, 1, -1, -1, 1, -1, 1, -1, 1, -1, 1, -1]
        return maps.flip(2) * torch.tensor(signs, dtype=torch.float64)

    for move in (turned, mirrored):
        ours, expected = made(move(x), patch), move(made(x, patch))
        assert (ours - expected).abs().max() < 1e-9 * expected.std()


def test_turned_sky_is_a_domain():
    sky: Domain = TurnedSky(8, (3, 7), 1)
    assert sky.coarser().shape == (2 * 16,)
    kernel = Mixing(Channels(spin2=1), Channels(spin2=1), 0).kernel({"spin2": torch.ones(1, 1)})
    assert isinstance(kernel, TypedKernel) and torch.equal(kernel.dense(), torch.eye(2))
