"""A network on the whole sphere, tile by tile: the same result, in memory bounded by a tile.

A tile is one superpixel with a halo at least as wide as the network's reach, made of whole pixels of its coarsest level
or larger, so that pooling never splits one.  The zeros that a convolution takes beyond the halo then never reach the
tile, and its own pixels come out as on the whole sphere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from sphereml.domains import Domain, HealpixSky
from sphereml.errors import UserError
from sphereml.sky.regions import Region

# Halos grow by squares of this many pixels a side.
_HALO_SIDE = 8


class TileableNetwork(Protocol):
    """What tiling asks of a layer or network; ``depth`` counts its poolings."""

    @property
    def depth(self) -> int: ...

    def reach(self, domain: Domain) -> int:
        """Pixels that an output sees beyond the pixel of the coarsest level it lies in, to every side."""

    def __call__(self, x: torch.Tensor, domain: Domain) -> torch.Tensor: ...


@dataclass(frozen=True)
class Tiling:
    """The sphere of ``nside`` in superpixels of ``tile_nside``.

    Raises:
        UserError: a tile would be smaller than a pixel of the network's coarsest level.
    """

    network: TileableNetwork
    nside: int
    tile_nside: int

    def __post_init__(self) -> None:
        if self.tile_nside > self._coarsest_nside:
            raise UserError(
                f"tiles of Nside {self.tile_nside} cannot be pooled {self.network.depth} times from Nside {self.nside}",
                f"use tiles of Nside {max(self._coarsest_nside, 1)} or lower",
            )

    def __iter__(self) -> Iterator[tuple[Region, Region]]:
        """Every tile, alone and with its halo."""
        reach = self.network.reach(HealpixSky(self.nside))
        for pixel in range(12 * self.tile_nside**2):
            tile = Region(self.nside, (pixel,), self.tile_nside)
            yield tile, tile.split(self._halo_nside).grown(reach)

    def run(self, features: np.ndarray, device: torch.device | str = "cpu") -> np.ndarray:
        """The network's output ``(npix, Cout)`` float32 for features ``(npix, Cin)``, NEST; put it in ``eval()`` first.

        Features are read tile by tile and may be a memory map.
        """
        output: np.ndarray | None = None
        for tile, wide in self:
            x = torch.from_numpy(np.asarray(features[wide.pixels], dtype=np.float32))
            with torch.inference_mode():
                y = self.network(x[None].to(device), HealpixSky.of(wide))[0].cpu().numpy()
            if output is None:
                output = np.empty((len(features), y.shape[1]), dtype=np.float32)
            output[tile.pixels] = y[wide.locate(tile.pixels)]
        assert output is not None
        return output

    @property
    def _coarsest_nside(self) -> int:
        return self.nside >> self.network.depth

    @property
    def _halo_nside(self) -> int:
        """Of the coarse pixels that make up a halo: never split by pooling, and not too many of them."""
        return max(self.tile_nside, min(self._coarsest_nside, self.nside // _HALO_SIDE))
