"""The sphere, or any union of coarse HEALPix pixels, as a domain.

Pixels are NEST, ``(batch, pixel, channel)``.  The stencil of a convolution is a neighbour graph (Chebyshev convolution)
or the face grid (nine oriented weights).  Pooling takes the maximum of the four children; all children share the
weights of the upsampling, which keeps a network on a graph equivariant to the rotations and mirrors that permute
pixels.  Spectra are pseudo-spectra of the windowed region.

Typed channels (:mod:`sphereml.domains.channels`) are convolved by their jets (stencil ``spin``).  Between a pixel and
its children odd scalars and spins take means, and spins are carried along the geodesic from frame to frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import healpy
import torch
from torch.nn.functional import linear

from sphereml.domains.channels import Channels
from sphereml.domains.chebyshev import ChebyshevLayout
from sphereml.domains.convolution import Layout, LayoutCache, convolve
from sphereml.domains.mixing import TypedKernel
from sphereml.domains.oriented import OrientedLayout
from sphereml.domains.protocol import Bias, Correlation, Kernel, Stencil
from sphereml.domains.spin import SpinLayout
from sphereml.domains.spin_steps import steps_of
from sphereml.domains.stencils import StencilTables
from sphereml.errors import UserError
from sphereml.harmonics.autograd import SphericalTransform, analysis
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.correlation import centred, sphere_band_correlation
from sphereml.sky.graphs import graph_reach, rescaled_laplacian
from sphereml.sky.regions import Region
from sphereml.sky.tangent import LocalFrames, geodesics

# Layouts kept: neighbour tables of about as many pixels as one sky of Nside 512 (some 0.1 kB each).
LAYOUTS = LayoutCache[Layout](budget=12 * 512**2)
# Jets take some 1.5 kB a pixel; on whole spheres four pixels share them.
STENCILS = LayoutCache[StencilTables](budget=12 * 256**2)


@lru_cache(maxsize=64)
def _transform(region: Region, lmax: int, spin: int = 0) -> SphericalTransform:
    return SphericalTransform(region.nside, lmax, None if region.is_full else region.pixels, spin)


@lru_cache(maxsize=16)
def meridian_frames(nside: int) -> LocalFrames:
    """The frames (south, east) of a grid's pixels."""
    return LocalFrames(nside)


@lru_cache(maxsize=64)
def _family_turns(region: Region, frames: LocalFrames, coarse_frames: LocalFrames) -> torch.Tensor:
    """Angles by which the bearing of the geodesic from every pixel to its parent turns, float64 ``(npix,)``."""
    turns = geodesics(coarse_frames.basis(region.pixels // 4), frames.basis(region.pixels)).turn
    with torch.inference_mode(False):  # kept, and used in training steps too
        return torch.from_numpy(turns)


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

    @property
    def frames(self) -> LocalFrames:
        """The frames of all pixels of this Nside, to which spins refer."""
        return meridian_frames(self.nside)

    @property
    def diagonal(self) -> float:
        return float(2 * healpy.max_pixrad(self.nside, degrees=True))

    def coarser(self) -> HealpixSky:
        return HealpixSky.of(self.region.coarser())

    def taps(self, kernel: int, stencil: Stencil = "adjacent") -> int:
        if stencil == "oriented" and kernel not in (1, 3):
            raise UserError(f"an oriented convolution has no kernel of {kernel}", "use model.kernel=3 (nine weights)")
        if stencil == "spin":
            if kernel not in (1, 3, 5):
                raise UserError(f"a spin convolution has no kernel of {kernel}", "use model.kernel=3 or 5")
            return kernel**2
        return 9 if stencil == "oriented" and kernel == 3 else kernel

    def reach(self, taps: int, stencil: Stencil = "adjacent") -> int:
        if stencil == "spin":
            return round(taps**0.5) // 2
        return taps // 9 if stencil == "oriented" else (taps - 1) * graph_reach(stencil)

    def convolve(
        self, x: torch.Tensor, kernel: Kernel, bias: Bias = None, stencil: Stencil = "adjacent"
    ) -> torch.Tensor:
        if isinstance(kernel, TypedKernel):
            return self._convolve_typed(x, kernel, bias)
        if len(kernel) == 1:
            return linear(x, kernel[0].T, bias)
        return convolve(x, kernel, bias, self.layout(stencil, x))

    def layout(self, stencil: Stencil, x: torch.Tensor) -> Layout:
        """How a convolution of ``x`` is worked through, in its work precision and on its device."""
        if stencil == "oriented":
            return LAYOUTS.get((self.region, stencil, x.device), lambda: OrientedLayout(self.region, x.device))
        if stencil == "spin":
            raise UserError("a spin convolution of a plain kernel", "give it a kernel of typed channels")
        dtype = torch.promote_types(x.dtype, torch.float32)
        return LAYOUTS.get(
            (self.region, stencil, dtype, x.device),
            lambda: ChebyshevLayout(rescaled_laplacian(self.region, stencil), dtype, x.device),
        )

    def _convolve_typed(self, x: torch.Tensor, kernel: TypedKernel, bias: Bias) -> torch.Tensor:
        if not kernel.mixing.degree:
            return linear(x, kernel.dense().T, bias)
        dtype, degree = torch.promote_types(x.dtype, torch.float32), kernel.mixing.degree
        tables = STENCILS.get(
            (self.region, self.frames, degree, dtype, x.device),
            lambda: StencilTables(self.region, self.frames, degree, dtype, x.device),
        )
        offset = kernel.values.new_zeros(kernel.mixing.channels_out.columns) if bias is None else bias
        return convolve(x, kernel.values, offset, SpinLayout(tables, steps_of(kernel.mixing)))

    def convolve_down(
        self, x: torch.Tensor, kernel: Kernel, bias: Bias = None, stencil: Stencil = "adjacent"
    ) -> torch.Tensor:
        """Convolution, then the mean of the four children."""
        if isinstance(kernel, TypedKernel):
            channels = kernel.mixing.channels_out
            return _mean_of_children(channels.turn(self.convolve(x, kernel, bias), self._turns(x)))
        if len(kernel) == 1:  # both are linear and act on other axes: the mean first is cheaper
            return linear(_mean_of_children(x), kernel[0].T, bias)
        return _mean_of_children(self.convolve(x, kernel, bias, stencil))

    def spread(self, x: torch.Tensor, channels: Channels | None = None) -> torch.Tensor:
        children = x.repeat_interleave(4, dim=1)
        if channels is None or channels.are_even:
            return children
        return channels.turn(children, -self._turns(x))

    def pool(self, x: torch.Tensor, channels: Channels | None = None) -> torch.Tensor:
        if channels is None or channels.are_even:
            return x.view(x.shape[0], -1, 4, x.shape[-1]).amax(dim=2)
        children = channels.turn(x, self._turns(x)).unflatten(1, (-1, 4))
        even, others = children.split([channels.even, channels.columns - channels.even], dim=-1)
        return torch.cat([even.amax(dim=2), others.mean(dim=2)], dim=-1)

    def _turns(self, x: torch.Tensor) -> torch.Tensor:
        return _family_turns(self.region, self.frames, self.coarser().frames).to(x.device)

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

    def eb(self, x: torch.Tensor, window: torch.Tensor, lmax: int) -> torch.Tensor:
        """a_lm of E and B of windowed Q and U ``(B, npix, 2)``, complex128 ``(B, 2, nalm)``; differentiable.

        ``alm_cross_power`` makes spectra of them (:mod:`sphereml.harmonics.correlation`).
        """
        windowed = (x.double() * window.double()[..., None]).movedim(-1, -2)
        return analysis(windowed, _transform(self.region, lmax, spin=2), iterations=0)

    def polarization_correlation(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        window: torch.Tensor,
        bands: Bands,
        kind: Correlation,
    ) -> torch.Tensor:
        """See the protocol; multipoles run over the integers ``lo <= ell < hi``."""
        alm_a, alm_b = (self.eb(field, window, bands.lmax).flatten(0, 1) for field in (a, b))
        return sphere_band_correlation(alm_a, alm_b, bands.lmax, bands, kind).unflatten(0, (-1, 2))


def _mean_of_children(x: torch.Tensor) -> torch.Tensor:
    return x.view(x.shape[0], -1, 4, x.shape[-1]).mean(dim=2)
