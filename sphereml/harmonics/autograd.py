"""Differentiable spherical harmonic transforms for torch, on the whole sphere or on any set of its pixels.

Conventions as in ``harmonics.transforms``: pixels last, alms in healpy's m-major order with m >= 0.  All arithmetic is
float64, whatever the input's precision: spectra of float32 maps lose the small modes.

Gradient.  With ``T = S a`` meaning ``T = sum_l a_l0 Y_l0 + 2 Re sum_{l, m>0} a_lm Y_lm``, torch's gradient of a real
loss (``dL/dRe a + i dL/dIm a``) is ``S^T dL/dT`` with the m > 0 coefficients doubled and those of m = 0 real; the
gradient of the adjoint is the synthesis of the m > 0 coefficients halved.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ducc0
import numpy as np
import torch

from sphereml.harmonics.transforms import alm_index, ring_geometry, threads
from sphereml.sky.ordering import nest_to_ring_index


@dataclass(frozen=True, eq=False)
class SphericalTransform:
    """Synthesis and its adjoint on the given NEST pixels of a HEALPix grid; only the rings they touch are computed.

    Args:
        nside: resolution of the grid.
        lmax: highest multipole.
        pixels: NEST indices ``(npix,)`` of the region, or None for the whole sphere.
        spin: 0, or 2 with an axis of two (Q, U) / (E, B) before the last.
    """

    nside: int
    lmax: int
    pixels: np.ndarray | None = None
    spin: int = 0

    @property
    def components(self) -> int:
        return 1 if self.spin == 0 else 2

    @cached_property
    def multiplicity(self) -> torch.Tensor:
        """1 for m = 0 and 2 for m > 0: how often a stored coefficient occurs in the map."""
        with torch.inference_mode(False):  # kept, and used in training steps too
            return torch.from_numpy(np.where(alm_index(self.lmax)[1] == 0, 1.0, 2.0))

    @cached_property
    def _layout(self) -> tuple[dict[str, np.ndarray], np.ndarray, int]:
        """Ring geometry restricted to the touched rings, place of every region pixel in it, and its length."""
        geometry = ring_geometry(self.nside)
        ring_index = nest_to_ring_index(self.nside)
        index = ring_index if self.pixels is None else ring_index[self.pixels]
        start, count = geometry["ringstart"].astype(np.int64), geometry["nphi"].astype(np.int64)
        ring = np.searchsorted(start, index, side="right") - 1
        used = np.unique(ring)
        new_start = np.concatenate([[0], np.cumsum(count[used])])
        place = index - start[ring] + new_start[np.searchsorted(used, ring)]
        subset = {key: geometry[key][used] for key in ("theta", "nphi", "phi0")}
        subset["ringstart"] = new_start[:-1].astype(np.uint64)
        return subset, place, int(new_start[-1])

    def synthesize(self, alm: np.ndarray) -> np.ndarray:
        """Maps ``(batch, ncomp, npix)`` of alms ``(batch, ncomp, nalm)``."""
        geometry, place, _ = self._layout
        rings = ducc0.sht.synthesis(alm=alm, lmax=self.lmax, spin=self.spin, nthreads=threads(), **geometry)
        return rings[..., place]

    def adjoint_synthesize(self, maps: np.ndarray) -> np.ndarray:
        """Transpose of :meth:`synthesize`."""
        geometry, place, size = self._layout
        rings = np.zeros((*maps.shape[:-1], size))
        rings[..., place] = maps
        alm: np.ndarray = ducc0.sht.adjoint_synthesis(
            map=rings, lmax=self.lmax, spin=self.spin, nthreads=threads(), **geometry
        )
        return alm

    def _batched(self, array: torch.Tensor) -> np.ndarray:
        if self.spin and array.shape[-2:-1] != (2,):
            raise ValueError(f"spin {self.spin} needs an axis of two before the last, got shape {tuple(array.shape)}")
        flat = array.detach().cpu().reshape(-1, self.components, array.shape[-1])
        return flat.to(torch.complex128 if flat.is_complex() else torch.float64).numpy()


class _Synthesis(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, alm: torch.Tensor, transform: SphericalTransform) -> torch.Tensor:
        ctx.transform = transform
        maps = transform.synthesize(transform._batched(alm))
        return torch.from_numpy(maps).to(alm.device).reshape(*alm.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        alm = _AdjointSynthesis.apply(grad, ctx.transform)
        doubled = alm * ctx.transform.multiplicity.to(alm.device)
        return doubled, None


class _AdjointSynthesis(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: torch.Tensor, transform: SphericalTransform) -> torch.Tensor:
        ctx.transform, ctx.dtype = transform, maps.dtype
        alm = transform.adjoint_synthesize(transform._batched(maps))
        return torch.from_numpy(alm).to(maps.device).reshape(*maps.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        maps = _Synthesis.apply(grad / ctx.transform.multiplicity.to(grad.device), ctx.transform)
        return maps.to(ctx.dtype), None


def synthesis(alm: torch.Tensor, transform: SphericalTransform) -> torch.Tensor:
    """Differentiable map ``(..., npix)`` float64 of alms ``(..., nalm)``; spin 2 has an axis of two before the last."""
    maps: torch.Tensor = _Synthesis.apply(alm, transform)
    return maps


def adjoint_synthesis(maps: torch.Tensor, transform: SphericalTransform) -> torch.Tensor:
    """Differentiable transpose of :func:`synthesis`: sums over pixels without a quadrature weight."""
    alm: torch.Tensor = _AdjointSynthesis.apply(maps, transform)
    return alm


def analysis(maps: torch.Tensor, transform: SphericalTransform, iterations: int = 3) -> torch.Tensor:
    """Differentiable approximate inverse of :func:`synthesis` by Jacobi iteration (see ``transforms.analysis``).

    Pixels outside the transform's region count as zero, and iterations need the whole sphere.

    Raises:
        ValueError: iterations asked for on a part of the sphere, where they solve another problem.
    """
    if iterations and transform.pixels is not None:
        raise ValueError("iterate on the whole sphere only; on a region use iterations=0")
    area = 4 * np.pi / (12 * transform.nside**2)
    maps = maps.to(torch.float64)
    alm = area * adjoint_synthesis(maps, transform)
    for _ in range(iterations):
        alm = alm + area * adjoint_synthesis(maps - synthesis(alm, transform), transform)
    return alm
