"""Tiles with a halo give what the whole sphere gives: every kind of layer, whole networks, every corner of the grid."""

from __future__ import annotations

from typing import Any

import healpy
import numpy as np
import pytest
import torch

from sphereml.domains import Domain, HealpixSky
from sphereml.domains.protocol import Stencil
from sphereml.errors import UserError
from sphereml.models.layers import Convolution
from sphereml.models.tiling import TileableNetwork, Tiling
from sphereml.models.unet import UNet
from sphereml.sky.regions import Region
from sphereml.testing import SYMMETRIES, assert_equivariant, network_function

SMALL: dict[str, Any] = {"width": 4, "depth": 2, "convs_per_level": 1}
LAYERS: dict[str, tuple[Stencil, int]] = {
    "K3": ("adjacent", 3),
    "K5": ("adjacent", 5),
    "nearest8": ("nearest8", 3),
    "nearest20": ("nearest20", 3),
    "nearest60": ("nearest60", 2),
    "oriented": ("oriented", 3),
}
NETWORKS = {
    "depth_2": SMALL,
    "depth_1": SMALL | {"depth": 1, "convs_per_level": 2},
    "nearest20": SMALL | {"depth": 1, "stencil": "nearest20"},
    "oriented": SMALL | {"stencil": "oriented", "convs_per_level": 2},
}
# Pixels of Nside 8: corners where three base pixels meet (7 neighbours), where four meet, a pole, and one inside.
TILES = {
    "three": 21,
    "three_equator": 64 * 4 + 63,
    "three_south": 64 * 8 + 42,
    "four": 64 * 5 + 21,
    "pole": 63,
    "inner": 92,
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relative(ours: torch.Tensor, oracle: torch.Tensor) -> float:
    return float((ours - oracle).abs().max() / oracle.std())


def small_unet(domain: Domain, options: dict[str, Any], channels: int = 3) -> UNet:
    """A network whose biases and running statistics are those of no empty sky, so that a wrong halo shows."""
    torch.manual_seed(0)
    network = UNet(domain, channels, **options)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
        network.train()
        network(noise(1, *domain.shape, channels, seed=3), domain)
    return network.eval()


def on_tile(network: TileableNetwork, x: torch.Tensor, tile: Region, reach: int) -> tuple[torch.Tensor, Region]:
    """The network's output on a tile's own pixels, run on the tile and its halo alone."""
    wide = tile.split(tile.nside >> network.depth).grown(reach)
    with torch.inference_mode():
        output = network(x[:, wide.pixels], HealpixSky.of(wide))
    return output[:, wide.locate(tile.pixels)], wide


def differences(network: TileableNetwork, nside: int, reach: int) -> dict[str, float]:
    """Largest difference on every tile, in units of the output's standard deviation."""
    sphere, x = HealpixSky(nside), noise(1, 12 * nside**2, 3)
    with torch.inference_mode():
        whole = network(x, sphere)
    found = {}
    for name, pixel in TILES.items():
        tile = Region(nside, (pixel,), 8)
        ours, wide = on_tile(network, x, tile, reach)
        assert wide.npix < 0.6 * 12 * nside**2, "the halo must leave a part of the sphere out"
        found[name] = relative(ours, whole[:, tile.pixels])
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_layers_on_tiles_equal_the_whole_sphere(name, tolerance):
    stencil, kernel = LAYERS[name]
    torch.manual_seed(0)
    layer = Convolution(HealpixSky(32), 3, 4, kernel, stencil)
    limit = tolerance(torch.float32, "layer")
    assert all(value < limit for value in differences(layer, 32, layer.reach(HealpixSky(32))).values())


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_on_tiles_equal_the_whole_sphere(name, tolerance):
    sphere = HealpixSky(64)
    network = small_unet(sphere, NETWORKS[name])
    limit = tolerance(torch.float32, "network")
    found = differences(network, 64, network.reach(sphere))
    assert all(value < limit for value in found.values()), found


@pytest.mark.parametrize("name", ["depth_2", "depth_1"])
def test_a_halo_too_narrow_shows(name):
    sphere = HealpixSky(64)
    network = small_unet(sphere, NETWORKS[name])
    coarsest = 1 << network.depth
    assert max(differences(network, 64, network.reach(sphere) - 2 * coarsest).values()) > 1e-4


def test_reach_of_a_unet():
    """By hand, depth 1 and K = 3: up 2 is 1 coarse pixel, bottom 2 more are 6 fine ones, down 2: 8."""
    sphere = HealpixSky(16)
    one = SMALL | {"depth": 1}
    assert UNet(sphere, 3, **one).reach(sphere) == 8
    assert UNet(sphere, 3, **one, kernel=5).reach(sphere) == 16
    assert UNet(sphere, 3, **one, kernel=1).reach(sphere) == 0
    assert UNet(sphere, 3, **one, stencil="oriented").reach(sphere) == 5


def test_tiles_hold_corners_with_seven_neighbours():
    for name, pixel in TILES.items():
        around = healpy.get_all_neighbours(64, Region(64, (pixel,), 8).pixels, nest=True)
        assert (around < 0).any() == name.startswith("three")


@pytest.mark.parametrize("tile_nside", [1, 2])
def test_the_whole_sphere_by_tiles(tile_nside, tolerance):
    sphere = HealpixSky(32)
    network, features = small_unet(sphere, SMALL), noise(sphere.shape[0], 3).numpy()
    with torch.inference_mode():
        whole = network(torch.from_numpy(features)[None], sphere)[0]
    tiled = torch.from_numpy(Tiling(network, 32, tile_nside).run(features))
    assert relative(tiled, whole) < tolerance(torch.float32, "network")


def test_tiles_too_small_to_pool_are_refused():
    with pytest.raises(UserError, match="use tiles of Nside 2 or lower"):
        Tiling(small_unet(HealpixSky(8), SMALL), 8, 4)


def test_union_of_tiles_is_the_whole_sphere(tolerance):
    """All twelve base pixels as a list are the sphere."""
    sphere, union = HealpixSky(8), HealpixSky(8, tuple(range(12)))
    network, x = small_unet(sphere, SMALL), noise(1, *sphere.shape, 3)
    with torch.inference_mode():
        assert relative(network(x, union), network(x, sphere)) < tolerance(torch.float32, "network")


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=str)
@pytest.mark.parametrize("stencil", ["adjacent", "nearest20"])
def test_unet_keeps_every_symmetry_of_the_grid(stencil, symmetry, tolerance):
    network = small_unet(HealpixSky(16), SMALL | {"convs_per_level": 2, "stencil": stencil})
    assert_equivariant(network_function(network, 16), 16, symmetry, tolerance(torch.float32, "network"))


def test_tiling_covers_every_pixel_once():
    tiles = np.concatenate([tile.pixels for tile, _ in Tiling(small_unet(HealpixSky(8), SMALL), 8, 2)])
    np.testing.assert_array_equal(np.sort(tiles), np.arange(768))
