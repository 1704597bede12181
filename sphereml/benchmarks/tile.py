"""Time and memory of a layer or network on the whole sphere, at once and tile by tile, each in a fresh process.

The peak counts everything beyond the features themselves, the output included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sphereml.benchmarks.convolution import LAYERS, layer_of
from sphereml.benchmarks.processes import Cost, in_fresh_process
from sphereml.domains import HealpixSky
from sphereml.models.tiling import TileableNetwork, Tiling
from sphereml.models.unet import UNet
from sphereml.sky.grid import HealpixGrid

_UNET_DEPTH = 2


@dataclass(frozen=True)
class TileBenchmark:
    """Every layer from ``channels`` to ``channels`` and a U-Net of that width; with ``direct`` also at once."""

    nside: int
    channels: int
    tile_nside: int
    direct: bool = True

    def measure(self) -> dict[str, Any]:
        """``{"networks": {NAME: {"tiles": {"seconds", "peak_mb"}, "direct": {..., "difference"} or None}}, ...}``.

        ``difference`` is the largest between both ways, in units of the output's standard deviation.
        """
        grid = HealpixGrid(self.nside)  # refuses an impossible Nside
        names = (*LAYERS, f"unet_depth{_UNET_DEPTH}")
        return {
            "nside": grid.nside,
            "channels": self.channels,
            "tile_nside": self.tile_nside,
            "features_mb": grid.npix * self.channels * 4 / 1e6,
            "networks": {name: self._measured(name) for name in names},
        }

    def _measured(self, name: str) -> dict[str, Any]:
        return {
            "tiles": in_fresh_process(_by_tiles, self, name),
            "direct": in_fresh_process(_at_once, self, name) if self.direct else None,
        }

    def network(self, name: str) -> TileableNetwork:
        torch.manual_seed(0)
        domain = HealpixSky(self.nside)
        if name in LAYERS:
            return layer_of(name, domain, self.channels)
        network = UNet(domain, self.channels, self.channels, width=self.channels, depth=_UNET_DEPTH, convs_per_level=1)
        return network.eval()

    def features(self) -> np.ndarray:
        shape = (HealpixGrid(self.nside).npix, self.channels)
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _by_tiles(benchmark: TileBenchmark, name: str) -> dict[str, Any]:
    network, features = benchmark.network(name), benchmark.features()
    return Cost.of(lambda: Tiling(network, benchmark.nside, benchmark.tile_nside).run(features)).json()


def _at_once(benchmark: TileBenchmark, name: str) -> dict[str, Any]:
    network, features, kept = benchmark.network(name), benchmark.features(), []

    def run() -> None:
        with torch.inference_mode():
            kept.append(network(torch.from_numpy(features)[None], HealpixSky(benchmark.nside))[0].numpy())

    cost = Cost.of(run)
    tiled = Tiling(network, benchmark.nside, benchmark.tile_nside).run(features)
    return cost.json() | {"difference": float(np.abs(tiled - kept[0]).max() / kept[0].std())}
