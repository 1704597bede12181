"""Convolutions cut into pieces, the oriented stencil against healpy's neighbours, half precision."""

from __future__ import annotations

import healpy
import numpy as np
import pytest
import torch

from sphereml.domains import HealpixSky, convolution, oriented
from sphereml.domains.chebyshev import ChebyshevLayout
from sphereml.domains.convolution import LayoutCache, convolve
from sphereml.domains.oriented import NEIGHBOUR_STEPS, OrientedLayout, bordered_blocks
from sphereml.errors import UserError
from sphereml.models.layers import Convolution
from sphereml.sky.faces import face_coordinates
from sphereml.sky.graphs import rescaled_laplacian
from sphereml.sky.regions import Region

REGIONS = {"sphere": Region(16), "tile": Region(16, (3, 17, 18), 2), "corners": Region(16, (5, 6, 26, 64, 149, 191), 4)}
every_region = pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS.keys())


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def results(layout: ChebyshevLayout | OrientedLayout, taps: int, batch: int) -> list[torch.Tensor]:
    """Output and all gradients of one convolution."""
    leaves = noise(batch, layout.npix, 3), noise(taps, 3, 4, seed=1), noise(4, seed=2)
    x, kernel, bias = (leaf.requires_grad_() for leaf in leaves)
    y = convolve(x, kernel, bias, layout)
    y.backward(noise(*y.shape, seed=3))
    return [y, *(leaf.grad for leaf in (x, kernel, bias) if leaf.grad is not None)]


def same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    assert len(ours) == len(theirs) == 4
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


# --- pieces ---------------------------------------------------------------------------------------------------------


@every_region
@pytest.mark.parametrize("taps", [2, 5])
@pytest.mark.parametrize("graph", ["adjacent", "nearest20"])
def test_graph_convolution_does_not_depend_on_the_pieces(region, taps, graph, monkeypatch):
    operator = rescaled_laplacian(region, graph)
    whole = results(ChebyshevLayout(operator, torch.float64), taps, 3)
    monkeypatch.setattr(convolution, "_piece_rows", lambda *_: 20)
    cut = ChebyshevLayout(operator, torch.float64)
    assert len(cut.pieces(taps, 1, 20)) > 1
    same(results(cut, taps, 3), whole)


@every_region
def test_oriented_convolution_does_not_depend_on_the_pieces(region, monkeypatch):
    whole = results(OrientedLayout(region), 9, 3)
    monkeypatch.setattr(convolution, "_piece_rows", lambda *_: 16)
    monkeypatch.setattr(oriented, "_BLOCK_SIDE", 2)
    cut = OrientedLayout(region)
    assert len(cut.pieces(9, 1, 16)) > 3
    same(results(cut, 9, 3), whole)


@pytest.mark.parametrize("stencil", ["adjacent", "oriented"])
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_the_pieces_and_repeat_to_the_last_bit(stencil, threads, monkeypatch):
    monkeypatch.setattr(convolution, "_piece_rows", lambda *_: 100)
    monkeypatch.setattr(convolution, "_WORTH_THREADS", 0)
    monkeypatch.setattr(oriented, "_BLOCK_SIDE", 8)
    taps = 9 if stencil == "oriented" else 4

    def layout() -> ChebyshevLayout | OrientedLayout:
        return (
            OrientedLayout(Region(16)) if taps == 9 else ChebyshevLayout(rescaled_laplacian(Region(16)), torch.float64)
        )

    alone = results(layout(), taps, 2)
    torch.set_num_threads(threads)
    try:
        first, second = (results(layout(), taps, 2) for _ in range(2))
        with torch.inference_mode():
            leaves = noise(2, 3072, 3), noise(taps, 3, 4, seed=1), noise(4, seed=2)
            assert torch.equal(convolve(*leaves, layout()), first[0])
    finally:
        torch.set_num_threads(1)
    same(first, alone)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_copy_of_the_sky_is_the_same_sky():
    """Small domains fill a piece together."""
    sky = HealpixSky(8, (3, 17), 2)
    x, kernel = noise(50, *sky.shape, 2), noise(3, 2, 2, seed=1)
    for stencil, weights in (("adjacent", kernel), ("oriented", noise(9, 2, 2, seed=1))):
        together = sky.convolve(x, weights, stencil=stencil)
        alone = torch.cat([sky.convolve(one[None], weights, stencil=stencil) for one in x])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_layouts_are_kept_within_the_budget():
    cache, built = LayoutCache(budget=4 * 256), []

    def get(pixel: int) -> None:
        region = Region(16, (pixel,), 1)
        cache.get(region, lambda: built.append(pixel) or OrientedLayout(region))

    for pixel in (0, 1, 0, 2, 3, 4, 5, 6, 6):
        get(pixel)
    assert built == [0, 1, 2, 3, 4, 5, 6]
    get(0)
    assert built[-1] == 0


# --- the oriented stencil -------------------------------------------------------------------------------------------


def explicit_oriented(region: Region, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    around = healpy.get_all_neighbours(region.nside, region.pixels, nest=True)
    y = x @ kernel[0]
    for pixels, weights in zip(around, kernel[1:], strict=True):
        place = region.locate(pixels)
        y += np.where(place[:, None] >= 0, x[place], 0) @ weights
    return y


@every_region
def test_oriented_convolution_equals_the_explicit_sum(region):
    y, kernel, bias = noise(2, region.npix, 3), noise(9, 3, 4, seed=1), noise(4, seed=2)
    ours = HealpixSky.of(region).convolve(y, kernel, bias, "oriented")
    theirs = [explicit_oriented(region, one.numpy(), kernel.numpy()) + bias.numpy() for one in y]
    np.testing.assert_allclose(ours.numpy(), np.stack(theirs), atol=1e-12)


@pytest.mark.parametrize("region", [Region(2), Region(2, (4, 7), 1), Region(4, (0, 5, 30), 2)], ids=str)
def test_oriented_gradients(region):
    sky = HealpixSky.of(region)
    leaves = noise(2, region.npix, 2), noise(9, 2, 3, seed=1), noise(3, seed=2)
    x, kernel, bias = (leaf.requires_grad_() for leaf in leaves)

    def act(*tensors: torch.Tensor) -> torch.Tensor:
        return sky.convolve(*tensors, "oriented")

    assert torch.autograd.gradcheck(act, (x, kernel, bias), fast_mode=True)


def test_blocks_have_their_neighbours_around_them():
    """On the whole sphere only 24 border pixels do not exist: eight corners of three faces, seen from each."""
    places = bordered_blocks(Region(8), 8)
    assert (places < 0).sum() == 24
    _, x, y = face_coordinates(8, np.arange(64))
    around = healpy.get_all_neighbours(8, np.arange(768), nest=True).reshape(8, 12, 64)
    for (dx, dy), neighbour in zip(NEIGHBOUR_STEPS[1:], around, strict=True):
        np.testing.assert_array_equal(places[:, y + 1 + dy, x + 1 + dx], neighbour)


def test_oriented_kernel_of_five_is_refused():
    with pytest.raises(UserError, match=r"model\.kernel=3"):
        Convolution(HealpixSky(8), 2, 2, 5, "oriented")


# --- precision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stencil", "kernel"), [("adjacent", 5), ("oriented", 3)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(stencil, kernel, dtype):
    """The result is the float32 one rounded: within one unit in the last place of half precision."""
    sky = HealpixSky(16)
    x, weights = noise(1, *sky.shape, 4, dtype=dtype), noise(sky.taps(kernel, stencil), 4, 4, dtype=dtype)
    ours = sky.convolve(x, weights, stencil=stencil)
    theirs = sky.convolve(x.float(), weights.float(), stencil=stencil)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs.to(dtype), rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("stencil", ["adjacent", "oriented"])
def test_autocast_leaves_sums_over_neighbours_in_float32(stencil):
    sky = HealpixSky(16)
    torch.manual_seed(0)
    layer = Convolution(sky, 4, 4, 3, stencil)
    x = noise(1, *sky.shape, 4, dtype=torch.float32)
    plain = layer(x, sky)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x, sky)
        assert torch.equal(y, plain)
        layer(x.bfloat16(), sky).square().mean().backward()
    assert layer.kernel.grad is not None and layer.kernel.grad.isfinite().all()
