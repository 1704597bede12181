"""Differentiable spherical harmonic transforms for torch, on the whole sphere or on any set of its pixels.

Conventions as in ``harmonics.transforms``: pixels last, alms in healpy's m-major order with m >= 0.  Arithmetic is
float64 whatever the input's precision, since spectra of float32 maps lose the small modes, unless float32 is asked for.
Tensors on a CPU go through ducc0, all others through the torch transform on their own device.

Gradient.  With ``T = S a`` meaning ``T = sum_l a_l0 Y_l0 + 2 Re sum_{l, m>0} a_lm Y_lm``, torch's gradient of a real
loss (``dL/dRe a + i dL/dIm a``) is ``S^T dL/dT`` with the m > 0 coefficients doubled and those of m = 0 real; the
gradient of the adjoint is the synthesis of the m > 0 coefficients halved.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from sphereml.harmonics.ducc_transform import DuccTransform
from sphereml.harmonics.rings import RingLayout, alm_index
from sphereml.harmonics.torch_transform import TorchTransform

Engine = Literal["auto", "torch"]
Count = Literal["once", "twice", "half"]


@dataclass(frozen=True, eq=False)
class SphericalTransform:
    """Synthesis and its adjoint on the given NEST pixels of a HEALPix grid; only the rings they touch are computed.

    Args:
        nside: resolution of the grid.
        lmax: highest multipole.
        pixels: NEST indices ``(npix,)`` of the region, or None for the whole sphere.
        spin: 0, or more with an axis of two (Q, U) / (E, B) before the last.
        engine: "auto" chooses by device, "torch" takes the torch transform on a CPU too.
        dtype: precision of the torch transform's arithmetic; ducc0's is float64.
    """

    nside: int
    lmax: int
    pixels: np.ndarray | None = None
    spin: int = 0
    engine: Engine = "auto"
    dtype: torch.dtype = torch.float64
    _on_device: dict[torch.device, TorchTransform] = field(default_factory=dict, init=False, repr=False)

    @property
    def components(self) -> int:
        return 1 if self.spin == 0 else 2

    @cached_property
    def multiplicity(self) -> torch.Tensor:
        """1 for m = 0 and 2 for m > 0: how often a stored coefficient occurs in the map."""
        with torch.inference_mode(False):  # kept, and used in training steps too
            return torch.from_numpy(np.where(alm_index(self.lmax)[1] == 0, 1.0, 2.0))

    @cached_property
    def _layout(self) -> RingLayout:
        return RingLayout(self.nside, self.pixels)

    @cached_property
    def _ducc(self) -> DuccTransform:
        return DuccTransform(self._layout, self.lmax, self.spin)

    def torch_transform(self, device: torch.device) -> TorchTransform:
        """The torch transform on a device, its tables kept with this object."""
        if device not in self._on_device:
            made = TorchTransform(self._layout, self.lmax, self.spin, device, self.dtype)
            self._on_device[device] = made
        return self._on_device[device]

    def uses_ducc(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == "cpu" and self.engine == "auto"

    def _weight(self, scale: float, count: Count, device: torch.device) -> torch.Tensor:
        """What coefficients are multiplied by: the scale, and their multiplicity or its inverse."""
        if count == "once":
            return torch.tensor(scale, dtype=torch.float64)
        return scale * (self.multiplicity if count == "twice" else 1 / self.multiplicity).to(device)

    def _batched(self, array: torch.Tensor) -> torch.Tensor:
        if self.spin and array.shape[-2:-1] != (2,):
            raise ValueError(f"spin {self.spin} needs an axis of two before the last, got shape {tuple(array.shape)}")
        array = array.detach().resolve_conj().resolve_neg()
        return array.reshape(-1, self.components, array.shape[-1])

    def maps_of(self, alm: torch.Tensor, scale: float, count: Count, dtype: torch.dtype) -> torch.Tensor:
        """Map in the given precision of ``scale * alm``, the m > 0 coefficients counted as ``count`` says."""
        weight, batch = self._weight(scale, count, alm.device), self._batched(alm)
        if self.uses_ducc(alm):
            numpy_dtype = np.float64 if dtype == torch.float64 else np.float32
            maps = torch.from_numpy(self._ducc.synthesize(batch.numpy(), weight.numpy(), numpy_dtype))
        else:
            maps = self.torch_transform(alm.device).synthesize(batch * weight)
        return maps.to(dtype).reshape(*alm.shape[:-1], -1)

    def alms_of(self, maps: torch.Tensor, scale: float, count: Count) -> torch.Tensor:
        """``scale`` times the adjoint of the map, the m > 0 coefficients counted as ``count`` says."""
        weight, batch = self._weight(scale, count, maps.device), self._batched(maps)
        if self.uses_ducc(maps):
            exact = batch if batch.dtype in (torch.float32, torch.float64) else batch.float()
            alm = torch.from_numpy(self._ducc.adjoint_synthesize(exact.numpy(), weight.numpy()))
        else:
            alm = self.torch_transform(maps.device).adjoint_synthesize(batch) * weight
        return alm.reshape(*maps.shape[:-1], -1)


class _Synthesis(torch.autograd.Function):
    """``S (scale w a)``; its gradient is ``scale w S^T g`` with every m > 0 coefficient counted twice."""

    @staticmethod
    def forward(
        ctx: Any, alm: torch.Tensor, transform: SphericalTransform, scale: float, count: Count, dtype: torch.dtype
    ) -> torch.Tensor:
        ctx.transform, ctx.scale, ctx.count = transform, scale, count
        return transform.maps_of(alm, scale, count, dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        count = "twice" if ctx.count == "once" else "once"
        return _AdjointSynthesis.apply(grad, ctx.transform, ctx.scale, count), None, None, None, None


class _AdjointSynthesis(torch.autograd.Function):
    """``scale w S^T T``; its gradient is ``S (scale w g)`` with every m > 0 coefficient counted half."""

    @staticmethod
    def forward(
        ctx: Any, maps: torch.Tensor, transform: SphericalTransform, scale: float, count: Count
    ) -> torch.Tensor:
        ctx.transform, ctx.scale, ctx.count, ctx.dtype = transform, scale, count, maps.dtype
        return transform.alms_of(maps, scale, count)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        count = "half" if ctx.count == "once" else "once"
        return _Synthesis.apply(grad, ctx.transform, ctx.scale, count, ctx.dtype), None, None, None


def synthesis(alm: torch.Tensor, transform: SphericalTransform) -> torch.Tensor:
    """Differentiable map ``(..., npix)`` float64 of alms ``(..., nalm)``; spin 2 has an axis of two before the last."""
    maps: torch.Tensor = _Synthesis.apply(alm, transform, 1.0, "once", torch.float64)
    return maps


def adjoint_synthesis(maps: torch.Tensor, transform: SphericalTransform, scale: float = 1.0) -> torch.Tensor:
    """Differentiable transpose of :func:`synthesis`, times ``scale``: sums over pixels without a quadrature weight."""
    alm: torch.Tensor = _AdjointSynthesis.apply(maps, transform, scale, "once")
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
    alm = adjoint_synthesis(maps, transform, area)
    for _ in range(iterations):
        alm = alm + adjoint_synthesis(maps - synthesis(alm, transform), transform, area)
    return alm
