"""Domains: one contract for all, Chebyshev convolution against scipy, tiles against the whole sphere, symmetries."""

from __future__ import annotations

from collections.abc import Callable

import healpy
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d

from sphereml.domains import Domain, FlatPatch, HealpixSky
from sphereml.domains.protocol import Stencil
from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.transforms import alm_index
from sphereml.models.layers import Convolution
from sphereml.models.unet import UNet
from sphereml.sky.graphs import rescaled_laplacian
from sphereml.sky.regions import Region
from sphereml.testing import SYMMETRIES, Symmetry, assert_equivariant, network_function, rotation_error

SPHERE = HealpixSky(8)
TILE = HealpixSky(8, (3, 17, 18), 2)
PATCH = FlatPatch(16, 200.0)
GRAPHS: tuple[Stencil, ...] = ("adjacent", "nearest8", "nearest20", "nearest40", "nearest60")
DOMAINS = {"sphere": SPHERE, "tile": TILE, "patch": PATCH}
every_domain = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def relative(ours: torch.Tensor, oracle: torch.Tensor) -> float:
    return float((ours - oracle).abs().max() / oracle.std())


# --- the contract ---------------------------------------------------------------------------------------------------


def check(y: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    assert y.shape == shape and y.dtype == dtype and y.is_contiguous() and y.isfinite().all()


@every_domain
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (2, 3)])
def test_every_layer_keeps_shape_type_and_layout(domain: Domain, dtype, batch, channels):
    x = noise(batch, *domain.shape, channels, dtype=dtype)
    y = domain.convolve(x, noise(domain.taps(3), channels, 5, dtype=dtype))
    check(y, (batch, *domain.shape, 5), dtype)
    check(domain.convolve(y, noise(domain.taps(1), 5, 1, dtype=dtype)), (batch, *domain.shape, 1), dtype)
    coarse = domain.coarser()
    pooled = domain.pool(y)
    check(pooled, (batch, *coarse.shape, 5), dtype)
    up = domain.upsample(pooled, noise(domain.upsampling_taps, 5, channels, dtype=dtype))
    check(up, (batch, *domain.shape, channels), dtype)


@every_domain
def test_no_layer_writes_into_its_input(domain: Domain):
    x, kernel = noise(2, *domain.shape, 3), noise(domain.taps(3), 3, 3)
    before = x.clone(), kernel.clone()
    domain.convolve(x, kernel)
    domain.upsample(domain.pool(x), noise(domain.upsampling_taps, 3, 3))
    assert (x == before[0]).all() and (kernel == before[1]).all()


@every_domain
def test_members_of_a_batch_do_not_mix(domain: Domain, tolerance):
    x = noise(3, *domain.shape, 4)
    kernel, up = noise(domain.taps(3), 4, 4, seed=1), noise(domain.upsampling_taps, 4, 4, seed=2)

    def act(y: torch.Tensor) -> torch.Tensor:
        return domain.upsample(domain.pool(domain.convolve(y, kernel)), up)

    assert relative(act(x)[1:2], act(x[1:2])) < tolerance(torch.float32, "layer")


@every_domain
def test_pixel_axes_shrink_by_four_down_to_the_end(domain: Domain):
    while True:
        try:
            coarse = domain.coarser()
        except UserError:
            break
        assert np.prod(domain.shape) == 4 * np.prod(coarse.shape)
        domain = coarse
    assert np.prod(domain.shape) < 20


@every_domain
def test_pooling_takes_maxima_and_upsampling_puts_children_in_their_place(domain: Domain):
    x = noise(1, *domain.shape, 2)
    pooled = domain.pool(x)
    shared = torch.eye(2).expand(domain.upsampling_taps, 2, 2)
    spread = domain.upsample(pooled, shared)
    assert (spread >= x).all() and (domain.pool(spread) == pooled).all()
    assert torch.equal((spread == x).sum(), torch.tensor(pooled.numel()))


@every_domain
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["mode", "ell"])
def test_band_correlation_contract(domain: Domain, dtype, kind):
    bands = Bands.edges(7, 20, 50) if domain is PATCH else Bands.edges(2, 9, 16)
    a, b = noise(3, *domain.shape, seed=1, dtype=dtype).requires_grad_(), noise(3, *domain.shape, seed=2, dtype=dtype)
    window = (noise(3, *domain.shape, seed=3) > -1).to(dtype)
    same = domain.band_correlation(a, 2 * a + 3, window, bands, kind)
    torch.testing.assert_close(same, torch.ones(3, 2).double(), rtol=0, atol=1e-5)
    r = domain.band_correlation(a, b, window, bands, kind)
    check(r, (3, 2), torch.float64)
    assert (r.abs() <= 1 + 1e-12).all()
    symmetric = domain.band_correlation(b, a, window, bands, kind)
    torch.testing.assert_close(symmetric, r)
    r.sum().backward()
    assert a.grad is not None and a.grad.dtype == dtype and a.grad.isfinite().all()
    assert (a.grad[window == 0] == 0).all()


@every_domain
@pytest.mark.parametrize("kind", ["mode", "ell"])
@pytest.mark.parametrize("empty", ["zero", "constant", "masked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_band_correlation_of_empty_fields_is_zero_with_a_finite_gradient(domain: Domain, kind, empty, dtype):
    bands = Bands.edges(7, 50) if domain is PATCH else Bands.edges(2, 16)
    window = torch.zeros(2, *domain.shape) if empty == "masked" else noise(2, *domain.shape).abs().clamp_max(1)
    a = torch.full((2, *domain.shape), 0.7 if empty == "constant" else 0.0, dtype=dtype, requires_grad=True)
    r = domain.band_correlation(a, noise(2, *domain.shape, dtype=dtype), window, bands, kind)
    assert r.abs().max() < 1e-12
    r.sum().backward()
    assert a.grad is not None and a.grad.isfinite().all()


def test_bands_without_a_mode_are_refused():
    x, window = noise(1, 16, 16), torch.ones(1, 16, 16)
    for kind in ("mode", "ell"):
        with pytest.raises(UserError, match="choose a band"):
            PATCH.band_correlation(x, x, window, Bands.edges(100, 200), kind)


# --- convolutions against independent code --------------------------------------------------------------------------


def explicit_chebyshev(region: Region, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """``sum_k T_k(L) x W_k`` with scipy and the definition ``T_k = 2 L T_{k-1} - T_{k-2}``."""
    matrix = rescaled_laplacian(region).matrix()
    terms = [x, matrix @ x]
    while len(terms) < len(kernel):
        terms.append(2 * (matrix @ terms[-1]) - terms[-2])
    return sum(term @ weights for term, weights in zip(terms, kernel, strict=False))


@pytest.mark.parametrize("domain", [SPHERE, TILE], ids=["sphere", "tile"])
@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chebyshev_convolution_equals_the_explicit_sum(domain: HealpixSky, order, dtype, tolerance):
    x, kernel = noise(2, *domain.shape, 4, dtype=dtype), noise(order, 4, 3, seed=1, dtype=dtype)
    ours = domain.convolve(x, kernel)
    theirs = np.stack([explicit_chebyshev(domain.region, one.double().numpy(), kernel.double().numpy()) for one in x])
    assert relative(ours.double(), torch.from_numpy(theirs)) < tolerance(dtype, "layer")


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("domain", [HealpixSky(2), HealpixSky(2, (4, 7), 1)], ids=["sphere", "tile"])
def test_chebyshev_gradients(domain: HealpixSky, order):
    x = noise(2, *domain.shape, 3, dtype=torch.float64).requires_grad_()
    kernel = noise(order, 3, 2, seed=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(domain.convolve, (x, kernel), fast_mode=True)


def test_chebyshev_accepts_any_strides(tolerance):
    x, kernel = noise(4, *SPHERE.shape, 2), noise(3, 4, 3, seed=1)
    strided = x.permute(2, 1, 0).requires_grad_()
    compact = strided.detach().contiguous().requires_grad_()
    ours, theirs = SPHERE.convolve(strided, kernel), SPHERE.convolve(compact, kernel)
    assert torch.equal(ours, theirs)
    # A broadcast gradient has strides of zero.
    ours.sum().backward()
    theirs.backward(torch.ones_like(theirs))
    assert relative(x_grad(strided), x_grad(compact)) < tolerance(torch.float32, "layer")


def x_grad(x: torch.Tensor) -> torch.Tensor:
    assert x.grad is not None
    return x.grad


def test_flat_layers_equal_torchs():
    x, kernel, up = noise(2, 16, 16, 3), noise(9, 3, 4, seed=1), noise(4, 3, 5, seed=2)
    first = x.permute(0, 3, 1, 2).contiguous()
    theirs = conv2d(first, kernel.view(3, 3, 3, 4).permute(3, 2, 0, 1).contiguous(), padding=1)
    torch.testing.assert_close(PATCH.convolve(x, kernel), theirs.permute(0, 2, 3, 1))
    theirs = conv_transpose2d(first, up.view(2, 2, 3, 5).permute(2, 3, 0, 1), stride=2)
    torch.testing.assert_close(FlatPatch(32, 100.0).upsample(x, up), theirs.permute(0, 2, 3, 1))
    with pytest.raises(UserError, match="centre"):
        PATCH.taps(2)
    with pytest.raises(UserError, match="halved"):
        FlatPatch(9).coarser()
    assert PATCH.coarser() == FlatPatch(8, 400.0)


# --- symmetries -----------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """One call of a domain as a network."""

    def __init__(self, act: Callable[[torch.Tensor, HealpixSky], torch.Tensor]) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: torch.Tensor, domain: HealpixSky) -> torch.Tensor:
        return self.act(x, domain)


def convolution(stencil: Stencil, kernel: int) -> Layer:
    def act(x: torch.Tensor, domain: HealpixSky) -> torch.Tensor:
        return domain.convolve(x, noise(domain.taps(kernel, stencil), 3, 2, seed=1, dtype=x.dtype), stencil=stencil)

    return Layer(act)


def pooling_and_back(x: torch.Tensor, domain: HealpixSky) -> torch.Tensor:
    return domain.upsample(domain.pool(x), noise(1, 3, 2, seed=1, dtype=x.dtype))


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=str)
def test_layers_keep_every_symmetry_of_the_grid(symmetry, tolerance):
    for layer in (convolution("adjacent", 4), Layer(pooling_and_back)):
        for dtype in (torch.float32, torch.float64):
            assert_equivariant(network_function(layer, 8, dtype), 8, symmetry, tolerance(dtype, "layer"))
    for graph in GRAPHS:  # many products to a sum: in float64
        function = network_function(convolution(graph, 3), 8, torch.float64)
        assert_equivariant(function, 8, symmetry, tolerance(torch.float64, "layer"))


@pytest.mark.parametrize("turns", range(4))
def test_oriented_convolution_keeps_quarter_turns(turns, tolerance):
    function = network_function(convolution("oriented", 3), 8, torch.float64)
    assert_equivariant(function, 8, Symmetry(turns), tolerance(torch.float64, "layer"))


def test_oriented_convolution_knows_left_from_right():
    function = network_function(convolution("oriented", 3), 8, torch.float64)
    with pytest.raises(AssertionError, match="deviation"):
        assert_equivariant(function, 8, Symmetry(mirror_lon=True), 0.1)


def test_sixteen_symmetries_form_the_group_of_the_grid():
    sources = {tuple(symmetry.source(4)) for symmetry in SYMMETRIES}
    assert len(sources) == 16
    for symmetry in SYMMETRIES:
        np.testing.assert_array_equal(np.sort(symmetry.source(4)), np.arange(192))
        moved = symmetry.matrix() @ np.stack(healpy.pix2vec(4, symmetry.source(4), nest=True))
        np.testing.assert_allclose(moved, np.stack(healpy.pix2vec(4, np.arange(192), nest=True)), atol=1e-12)


def test_harness_catches_what_is_not_equivariant():
    z = np.stack(healpy.pix2vec(8, np.arange(768), nest=True))
    mirror, turn = SYMMETRIES[1], next(s for s in SYMMETRIES if s.quarter_turns == 1)
    assert mirror.mirror_lat
    assert_equivariant(lambda maps: maps * z[2][:, None], 8, turn, 1e-12)
    for position, symmetry in ((z[2], mirror), (z[0], turn)):
        with pytest.raises(AssertionError, match="deviation"):
            assert_equivariant(lambda maps, position=position: maps * position[:, None], 8, symmetry, 0.1)


def smooth_alm(nside: int, lmax: int, channels: int = 3) -> np.ndarray:
    ell, order = alm_index(2 * nside)
    rng = np.random.default_rng(6)
    alm = rng.standard_normal((channels, ell.size)) + 1j * rng.standard_normal((channels, ell.size))
    alm[:, order == 0] = alm[:, order == 0].real
    return np.where(ell <= lmax, alm / (ell + 1.0), 0)


ANGLES = (0.4, 1.1, 2.3)


def test_general_rotations_of_a_convolution_on_a_smooth_map():
    """The graph is not isotropic: the error grows as ell^2, to 10 % at ell = nside / 2 for a random kernel."""
    torch.manual_seed(0)
    layer = Convolution(HealpixSky(32), 3, 2, 4).double()
    error = rotation_error(network_function(layer, 32, torch.float64), smooth_alm(32, 32), 32, ANGLES)
    assert error[1:9].max() < 0.03 and error[1:17].max() < 0.15


def test_rotation_error_of_what_is_isotropic_and_what_is_not():
    alm = smooth_alm(16, 16)
    # What three Jacobi iterations leave at Nside 16.
    assert rotation_error(lambda maps: 2 * maps, alm, 16, ANGLES)[:17].max() < 1e-4
    z = np.stack(healpy.pix2vec(16, np.arange(3072), nest=True))[2]
    assert rotation_error(lambda maps: maps * z[:, None], alm, 16, ANGLES)[2:17].min() > 0.1


def test_tables_first_built_in_inference_mode_serve_training():
    sky = HealpixSky(8, (3, 17), 2)
    x, kernel = torch.randn(1, *sky.shape, 2), torch.randn(3, 2, 2, requires_grad=True)
    with torch.inference_mode():
        sky.convolve(x, kernel)
        sky.band_correlation(x[..., 0], x[..., 1], torch.ones(1, *sky.shape), Bands.edges(2, 9), "mode")
    y = sky.convolve(x, kernel)
    r = sky.band_correlation(y[..., 0], y[..., 1], torch.ones(1, *sky.shape), Bands.edges(2, 9), "mode")
    (y.sum() + r.sum()).backward()
    assert torch.isfinite(kernel.grad).all()


def test_networks_are_checked_on_maps_of_ones_own():
    torch.manual_seed(0)
    maps = torch.randn(2, *HealpixSky(8).shape, 2)
    graph, oriented = (UNet(HealpixSky(8), 2, depth=1, width=4, stencil=name) for name in ("adjacent", "oriented"))
    assert_equivariant(graph, maps)
    assert graph.training
    with pytest.raises(AssertionError, match="mirror"):
        assert_equivariant(oriented, maps[0])
