"""A square patch of the tangent plane as a domain.

Tensors are ``(batch, row, column, channel)``; permuted to ``(batch, channel, row, column)`` they are torch's
channels_last format, so ``conv2d`` runs on them without a copy.  Rows grow northward and columns eastward, so the
frames of typed channels (south, east) are (-row, column) everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn.functional import avg_pool2d, conv2d, linear, max_pool2d

from sphereml.domains.channels import Channels
from sphereml.domains.lattice import lattice_kernel
from sphereml.domains.mixing import TypedKernel
from sphereml.domains.protocol import Bias, Correlation, Kernel, Stencil
from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.correlation import centred, safe_ratio
from sphereml.harmonics.flat import FlatModes
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.sky.plane import SquareGrid


@dataclass(frozen=True)
class FlatPatch:
    """``n`` x ``n`` pixels of ``pixel_size`` arcmin in the plane of a projection (which only labels it).

    Example:
        >>> import sphereml as sm
        >>> sm.FlatPatch(64, 23.4).coarser()
        FlatPatch(n=32, pixel_size=46.8, projection='gnomonic')
    """

    n: int
    pixel_size: float = 23.4
    projection: str = "gnomonic"

    @property
    def correlation(self) -> Correlation:
        return "mode"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.n)

    @classmethod
    def of(cls, grid: SquareGrid, projection: str = "gnomonic") -> FlatPatch:
        """The domain on the pixels of a grid, e.g. those of a patch of the sky."""
        return cls(grid.size, grid.pixel_arcmin, projection)

    @cached_property
    def grid(self) -> SquareGrid:
        return SquareGrid(self.n, self.pixel_size)

    @cached_property
    def modes(self) -> FlatModes:
        return FlatModes(self.grid)

    @property
    def diagonal(self) -> float:
        return 2**0.5 * self.pixel_size / 60

    def coarser(self) -> FlatPatch:
        if self.n % 2:
            raise UserError(f"a patch of {self.n} pixels cannot be halved", "use a smaller depth or a size 2^k")
        return FlatPatch(self.n // 2, 2 * self.pixel_size, self.projection)

    def taps(self, kernel: int, stencil: Stencil = "adjacent") -> int:
        if kernel % 2 == 0:
            raise UserError(f"a flat kernel of side {kernel} has no centre", "use an odd kernel: 3 or 5")
        return kernel * kernel

    def reach(self, taps: int, stencil: Stencil = "adjacent") -> int:
        return round(taps**0.5) // 2

    def convolve(
        self, x: torch.Tensor, kernel: Kernel, bias: Bias = None, stencil: Stencil = "adjacent"
    ) -> torch.Tensor:
        return _convolve(x, kernel, bias, stride=1)

    def convolve_down(
        self, x: torch.Tensor, kernel: Kernel, bias: Bias = None, stencil: Stencil = "adjacent"
    ) -> torch.Tensor:
        """Convolution of stride 2: a coarse pixel looks from its first child."""
        return _convolve(x, kernel, bias, stride=2)

    def spread(self, x: torch.Tensor, channels: Channels | None = None) -> torch.Tensor:
        return x.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)

    def pool(self, x: torch.Tensor, channels: Channels | None = None) -> torch.Tensor:
        images = x.permute(0, 3, 1, 2)
        if channels is None or channels.are_even:
            return max_pool2d(images, 2).permute(0, 2, 3, 1)
        even, others = images.split([channels.even, channels.columns - channels.even], dim=1)
        return torch.cat([max_pool2d(even, 2), avg_pool2d(others, 2)], dim=1).permute(0, 2, 3, 1)

    @property
    def upsampling_taps(self) -> int:
        return 4

    def upsample(self, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """Transposed 2x2 convolution of stride 2: every child pixel is its own linear map of the parent."""
        batch, rows, columns, _ = x.shape
        children = (x @ kernel.permute(1, 0, 2).flatten(1)).view(batch, rows, columns, 2, 2, -1)
        return children.permute(0, 1, 3, 2, 4, 5).reshape(batch, 2 * rows, 2 * columns, -1)

    def band_correlation(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        window: torch.Tensor,
        bands: Bands,
        kind: Correlation,
    ) -> torch.Tensor:
        """See the protocol.  Form ``ell`` correlates the power summed over a ring one ell_F wide, ring by ring.

        Raises:
            UserError: a band holds no mode (no ring's mean multipole) of the patch.
        """
        if kind == "mode":
            return self.modes.band_mean(self.modes.per_mode_r(a, b, window), bands)
        return self._ring_correlation(centred(a, window), centred(b, window), bands)

    def eb(self, x: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        """Images of E and B of windowed Q and U ``(B, n, n, 2)``, float64 ``(B, 2, n, n)``; differentiable.

        The patch counts as periodic, and its size must be even.
        """
        sky = FlatSky(self.n, self.pixel_size)
        modes = (sky.to_modes(field) for field in (x.double() * window.double()[..., None]).unbind(-1))
        return torch.stack([sky.to_images(part) for part in sky.to_eb(*modes)], dim=1)

    def polarization_correlation(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        window: torch.Tensor,
        bands: Bands,
        kind: Correlation,
    ) -> torch.Tensor:
        """See the protocol; modes and rings as in :meth:`band_correlation`."""
        a, b = self.eb(a, window), self.eb(b, window)
        if kind == "mode":
            return self.modes.band_mean(self.modes.per_mode_r(a, b), bands)
        return self._ring_correlation(a, b, bands)

    def _ring_correlation(self, a: torch.Tensor, b: torch.Tensor, bands: Bands) -> torch.Tensor:
        ab, aa, bb = (self.modes.bin_mean(self.modes.cross_power(*pair)) for pair in ((a, b), (a, a), (b, b)))
        r = safe_ratio(ab, aa * bb)
        return torch.stack([r[..., self.modes.bins_in_band(lo, hi)].mean(dim=-1) for lo, hi in bands.limits], dim=-1)


def _convolve(x: torch.Tensor, kernel: Kernel, bias: Bias, stride: int) -> torch.Tensor:
    if isinstance(kernel, TypedKernel):
        kernel = lattice_kernel(kernel)
    if len(kernel) == 1:  # torch 2.13's gradient of a 1x1 conv2d of stride 2 writes beyond its memory on a CPU
        return linear(x[:, ::stride, ::stride], kernel[0].T, bias)
    side = round(kernel.shape[0] ** 0.5)
    filters = kernel.view(side, side, *kernel.shape[1:]).permute(3, 2, 0, 1)
    images = x.permute(0, 3, 1, 2)  # of (B, H, W, C): channels_last already
    return conv2d(images, filters, bias, stride, padding=side // 2).permute(0, 2, 3, 1)
