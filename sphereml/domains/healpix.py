"""The sphere, or any union of coarse HEALPix pixels, as a domain.

Pixels are NEST, ``(batch, pixel, channel)``.  Convolution is the Chebyshev graph convolution on the 8-neighbour graph;
pooling takes the maximum of the four children; all children share the weights of the upsampling, which keeps the
network equivariant to the rotations that permute pixels.  Spectra are pseudo-spectra of the windowed region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from sphereml.domains.chebyshev import chebyshev_convolution
from sphereml.domains.protocol import Correlation
from sphereml.harmonics.autograd import SphericalTransform, analysis
from sphereml.harmonics.correlation import centred, sphere_band_correlation
from sphereml.sky.graphs import rescaled_laplacian
from sphereml.sky.regions import Region


@lru_cache(maxsize=256)
def _table(region: Region, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Neighbour table of the rescaled Laplacian of a region, built once and shared by all layers.

    A table first asked for in inference mode must serve a training step later, so it is never an inference tensor.
    """
    operator = rescaled_laplacian(region)
    with torch.inference_mode(False):
        return torch.from_numpy(operator.index), torch.from_numpy(operator.weight).to(dtype)


@lru_cache(maxsize=64)
def _transform(region: Region, lmax: int) -> SphericalTransform:
    return SphericalTransform(region.nside, lmax, None if region.is_full else region.pixels)


@dataclass(frozen=True)
class HealpixSky:
    """The part of the HEALPix sphere inside ``coarse_pixels`` of ``coarse_nside`` (None: the whole sphere)."""

    nside: int
    coarse_pixels: tuple[int, ...] | None = None
    coarse_nside: int = 1

    @classmethod
    def of(cls, region: Region) -> HealpixSky:
        return cls(region.nside, region.coarse_pixels, region.coarse_nside)

    @cached_property
    def region(self) -> Region:
        return Region(self.nside, self.coarse_pixels, self.coarse_nside)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.region.npix,)

    def coarser(self) -> HealpixSky:
        return HealpixSky.of(self.region.coarser())

    def taps(self, kernel: int) -> int:
        return kernel

    def convolve(self, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        index, weight = _table(self.region, x.dtype)
        return chebyshev_convolution(x, kernel, index.to(x.device), weight.to(x.device))

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], -1, 4, x.shape[-1]).amax(dim=2)

    @property
    def upsampling_taps(self) -> int:
        return 1

    def upsample(self, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        return (x @ kernel[0]).repeat_interleave(4, dim=1)

    def band_correlation(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        window: torch.Tensor,
        bands: Sequence[Sequence[float]],
        kind: Correlation,
    ) -> torch.Tensor:
        """See the protocol; multipoles run over the integers ``lo <= ell < hi``."""
        lmax = max(int(-(-hi // 1)) - 1 for _, hi in bands)
        transform = _transform(self.region, lmax)
        fields = torch.stack([centred(a, window), centred(b, window)])
        alm = analysis(fields, transform, iterations=0)
        return sphere_band_correlation(alm[0], alm[1], lmax, bands, kind)
