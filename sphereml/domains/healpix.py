"""The sphere, or any union of coarse HEALPix pixels, as a domain.

Pixels are NEST, ``(batch, pixel, channel)``.  The stencil of a convolution is a neighbour graph (Chebyshev convolution)
or the face grid (nine oriented weights).  Pooling takes the maximum of the four children; all children share the
weights of the upsampling, which keeps a network on a graph equivariant to the rotations and mirrors that permute
pixels.  Spectra are pseudo-spectra of the windowed region.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch.nn.functional import linear

from sphereml.domains.chebyshev import ChebyshevLayout
from sphereml.domains.convolution import Layout, LayoutCache, convolve
from sphereml.domains.oriented import OrientedLayout
from sphereml.domains.protocol import Correlation, Stencil
from sphereml.errors import UserError
from sphereml.harmonics.autograd import SphericalTransform, analysis
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.correlation import centred, sphere_band_correlation
from sphereml.sky.graphs import graph_reach, rescaled_laplacian
from sphereml.sky.regions import Region

# Layouts kept: neighbour tables of about as many pixels as one sky of Nside 512 (some 0.1 kB each).
LAYOUTS = LayoutCache(budget=12 * 512**2)


@lru_cache(maxsize=64)
def _transform(region: Region, lmax: int) -> SphericalTransform:
    return SphericalTransform(region.nside, lmax, None if region.is_full else region.pixels)


@dataclass(frozen=True)
class HealpixSky:
    """The part of the HEALPix sphere inside ``coarse_pixels`` of ``coarse_nside`` (None: the whole sphere).

    Example:
        >>> import sphereml as sm
        >>> sm.HealpixSky(64, (0, 1, 2, 3)).shape
        (16384,)
    """

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
    def correlation(self) -> Correlation:
        return "ell"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.region.npix,)

    def coarser(self) -> HealpixSky:
        return HealpixSky.of(self.region.coarser())

    def taps(self, kernel: int, stencil: Stencil = "adjacent") -> int:
        if stencil == "oriented" and kernel not in (1, 3):
            raise UserError(f"an oriented convolution has no kernel of {kernel}", "use model.kernel=3 (nine weights)")
        return 9 if stencil == "oriented" and kernel == 3 else kernel

    def reach(self, taps: int, stencil: Stencil = "adjacent") -> int:
        return taps // 9 if stencil == "oriented" else (taps - 1) * graph_reach(stencil)

    def convolve(
        self, x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None = None, stencil: Stencil = "adjacent"
    ) -> torch.Tensor:
        if len(kernel) == 1:
            return linear(x, kernel[0].T, bias)
        return convolve(x, kernel, bias, self.layout(stencil, x))

    def layout(self, stencil: Stencil, x: torch.Tensor) -> Layout:
        """How a convolution of ``x`` is worked through, in its work precision and on its device."""
        if stencil == "oriented":
            return LAYOUTS.get((self.region, stencil, x.device), lambda: OrientedLayout(self.region, x.device))
        dtype = torch.promote_types(x.dtype, torch.float32)
        return LAYOUTS.get(
            (self.region, stencil, dtype, x.device),
            lambda: ChebyshevLayout(rescaled_laplacian(self.region, stencil), dtype, x.device),
        )

    def convolve_down(
        self, x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None = None, stencil: Stencil = "adjacent"
    ) -> torch.Tensor:
        """Convolution, then the mean of the four children."""
        if len(kernel) == 1:  # both are linear and act on other axes: the mean first is cheaper
            return linear(_mean_of_children(x), kernel[0].T, bias)
        return _mean_of_children(self.convolve(x, kernel, bias, stencil))

    def spread(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(4, dim=1)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], -1, 4, x.shape[-1]).amax(dim=2)

    @property
    def upsampling_taps(self) -> int:
        return 1

    def upsample(self, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        return self.spread(x @ kernel[0])

    def band_correlation(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        window: torch.Tensor,
        bands: Bands,
        kind: Correlation,
    ) -> torch.Tensor:
        """See the protocol; multipoles run over the integers ``lo <= ell < hi``."""
        transform = _transform(self.region, bands.lmax)
        # Apart: the gradient of a target, which nobody asks for, would cost a synthesis.
        alm_a, alm_b = (analysis(centred(field, window), transform, iterations=0) for field in (a, b))
        return sphere_band_correlation(alm_a, alm_b, bands.lmax, bands, kind)


def _mean_of_children(x: torch.Tensor) -> torch.Tensor:
    return x.view(x.shape[0], -1, 4, x.shape[-1]).mean(dim=2)
