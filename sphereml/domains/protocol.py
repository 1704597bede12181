"""What a network, a loss and a metric ask of a domain.

Conventions: tensors are channel-last and contiguous, ``(batch, *shape, channel)``; fields without channel are
``(batch, *shape)``.  A kernel is a tensor ``(taps, channels_in, channels_out)`` whose taps only the domain can read, so
the same network holds weights for any domain and no geometry.

Typed channels (:mod:`sphereml.domains.channels`) come with a kernel that knows their types, and where a method takes
``channels``; without, all are even scalars.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch

from sphereml.domains.channels import Channels
from sphereml.domains.mixing import TypedKernel
from sphereml.harmonics.bands import Bands

Kernel = torch.Tensor | TypedKernel
Bias = torch.Tensor | None
Correlation = Literal["mode", "ell"]
# What a convolution on the sphere sums over: Chebyshev polynomials of a graph's Laplacian, by the graph's name (see
# ``sky.graphs``), the nine pixels of the face grid, or the jets of typed channels.  A flat patch tells only the last
# one from the others.
Stencil = Literal["adjacent", "nearest8", "nearest20", "nearest40", "nearest60", "oriented", "spin"]


class Domain(Protocol):
    """A frozen piece of pixelized sky."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the pixel axes."""

    @property
    def correlation(self) -> Correlation:
        """The form of r that a loss takes unless it is told: of single modes on a patch, of spectra on the sphere."""

    def taps(self, kernel: int, stencil: Stencil = "adjacent") -> int:
        """Number of taps of a convolution: ``kernel`` is its side (flat, oriented, spin) or counts polynomials (graph).

        Raises:
            UserError: there is no such kernel.
        """

    def reach(self, taps: int, stencil: Stencil = "adjacent") -> int:
        """How many pixels beyond its own a convolution of so many taps sees, to every side."""

    @property
    def diagonal(self) -> float:
        """Degrees between the centres of neighbouring pixels, corner to corner, at most."""

    def coarser(self) -> Domain:
        """The domain after one pooling step; raises UserError when it cannot be pooled further."""

    def convolve(
        self, x: torch.Tensor, kernel: Kernel, bias: Bias = None, stencil: Stencil = "adjacent"
    ) -> torch.Tensor:
        """Convolution ``(B, *shape, Cin) -> (B, *shape, Cout)`` with zero padding beyond the domain.

        A kernel of typed channels is one of jets, whatever the stencil; on the sphere these are fitted to what lies
        inside the domain.
        """

    def convolve_down(
        self, x: torch.Tensor, kernel: Kernel, bias: Bias = None, stencil: Stencil = "adjacent"
    ) -> torch.Tensor:
        """Convolution and halving in one: ``(B, *shape, Cin)`` to ``(B, *coarser shape, Cout)``."""

    def spread(self, x: torch.Tensor, channels: Channels | None = None) -> torch.Tensor:
        """From the coarser domain to this one: every child takes its parent's value, in its own frame."""

    def pool(self, x: torch.Tensor, channels: Channels | None = None) -> torch.Tensor:
        """Maximum over the four children of every pixel of the coarser domain; of odd scalars and spins the mean."""

    def upsample(self, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """From the coarser domain to this one; the kernel has ``upsampling_taps`` taps."""

    @property
    def upsampling_taps(self) -> int:
        """4 where each child has weights of its own (transposed convolution), 1 where all share them."""

    def band_correlation(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        window: torch.Tensor,
        bands: Bands,
        kind: Correlation,
    ) -> torch.Tensor:
        """Correlation r of two fields ``(B, *shape)`` under a window in bands of multipoles: ``(B, nband)`` float64."""

    def polarization_correlation(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        window: torch.Tensor,
        bands: Bands,
        kind: Correlation,
    ) -> torch.Tensor:
        """r_EE and r_BB of two fields Q and U ``(B, *shape, 2)`` under a window, by band: ``(B, 2, nband)`` float64.

        Q and U are with respect to the frames of the domain's typed channels.  E and B are those of the windowed
        fields: they mix at the window's edges, alike in both.  Differentiable.
        """
