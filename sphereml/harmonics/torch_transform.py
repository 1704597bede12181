"""Synthesis and adjoint synthesis on HEALPix rings in torch, made of large matrix products: the path of a GPU.

Conventions of alms and maps are those of ``harmonics.transforms``.  For a chunk of orders m the Legendre functions of
the northern rings are a table, and the sum over l of all maps is one product ``(ring x l) @ (l x map)`` per m, batched
over m.  North and south share the table.  At spin 0 ``lambda_lm(pi - theta) = (-1)^{l+m} lambda_lm(theta)``: even and
odd l are summed apart, their sum is the north and their difference the south.  At spin 2 the helicities separate,
``(Q +- iU)_m = sum_l D+-_lm (E +- iB)_lm``, and ``D+-(pi - theta) = (-1)^{l+m} D-+(theta)``: the south reads the other
table.  Either way the work is half of the naive one.

Memory: a table takes ``8 nspin rows orders depth`` bytes, with ``rows`` the northern rings, and a chunk has as many
orders as fit ``TableBudget.chunk`` (twice that while it is filled in float64 for float32 use).  At Nside 512, lmax 1024
and spin 0 all tables together take 4.4 GB.  Beside them 64 maps hold 2.1 GB of Fourier coefficients in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from sphereml.harmonics.legendre import LegendreChunk, legendre_table
from sphereml.harmonics.ring_fourier import RingFourier
from sphereml.harmonics.rings import RingLayout, alm_size, ring_geometry

_MIB = 2**20


class TableBudget(NamedTuple):
    """Bytes of Legendre tables: of one chunk of orders, and of all together above which none is kept between calls."""

    chunk: int
    kept: int

    @classmethod
    def of(cls, device: torch.device) -> TableBudget:
        """A chunk near the caches of a CPU; on a GPU one that hides the launches, and an eighth of its memory kept."""
        if device.type == "cuda":
            return cls(1024 * _MIB, torch.cuda.get_device_properties(device).total_memory // 8)
        return cls(16 * _MIB, 256 * _MIB)


class _Block(NamedTuple):
    """One chunk of orders on the device; ``nm`` orders by ``depth`` offsets."""

    chunk: LegendreChunk
    place: torch.Tensor  # (nm, depth) place of a coefficient, 0 where l > lmax
    factor: torch.Tensor  # (nm, depth, 1) what a table lacks, 0 where l > lmax
    parity: torch.Tensor  # (nm, depth, 1) of l + m, as +-1
    steps: tuple[torch.Tensor, torch.Tensor]

    @property
    def orders(self) -> slice:
        return slice(self.chunk.first, self.chunk.last)


@dataclass(frozen=True, eq=False)
class TorchTransform:
    """Transform of one spin of ``(batch, ncomp, n)`` tensors on the touched rings of a set of pixels.

    Args:
        layout: the rings, and the pixels on them.
        lmax: highest multipole.
        spin: 0 or more.
        device: where tables live and arithmetic happens.
        dtype: float64, or float32 (tables are computed in float64 and then rounded).
        budget: sizes of the Legendre tables; None: as suits the device.
    """

    layout: RingLayout
    lmax: int
    spin: int
    device: torch.device
    dtype: torch.dtype = torch.float64
    budget: TableBudget | None = None

    def synthesize(self, alm: torch.Tensor) -> torch.Tensor:
        """Maps ``(batch, ncomp, npix)`` of alms ``(batch, ncomp, nalm)``."""
        alm = alm.to(self.device, self.dtype.to_complex())
        alm = self._signed(_helicities(alm)) if self.spin else alm
        fourier = alm.new_empty((*alm.shape[:2], len(self.layout.rings), self.lmax + 1))
        for block, table in self._tables():
            fourier[..., block.orders] = self._sum_over_ell(alm, block, table)
        fourier = (_stokes(fourier) if self.spin else fourier).flatten(0, 1)
        rings = torch.empty((len(fourier), self.layout.size), dtype=self.dtype, device=self.device)
        self._ring_fourier.synthesize(fourier, rings)
        return rings.index_select(1, self._place).unflatten(0, alm.shape[:2])

    def adjoint_synthesize(self, maps: torch.Tensor) -> torch.Tensor:
        """Transpose of :meth:`synthesize`."""
        maps = maps.to(self.device, self.dtype)
        rings = maps.new_zeros((maps.shape[:2].numel(), self.layout.size))
        rings.index_copy_(1, self._place, maps.flatten(0, 1))
        fourier = self._ring_fourier.analyze(rings).unflatten(0, maps.shape[:2])
        fourier = _helicities(fourier) if self.spin else fourier
        alm = fourier.new_zeros((*maps.shape[:2], alm_size(self.lmax)))
        for block, table in self._tables():
            inside = (block.factor != 0).squeeze(-1)
            alm[..., block.place[inside]] = self._sum_over_rings(fourier, block, table)[..., inside]
        return _stokes(self._signed(alm)) if self.spin else alm

    def _signed(self, helicities: torch.Tensor) -> torch.Tensor:
        """What odd spins change in ``Q +- iU = -sum (E +- iB) +-sY``: the sign of the upper line, as in ducc0."""
        sign = torch.tensor([-1.0 if self.spin % 2 else 1.0, 1.0], device=helicities.device, dtype=self.dtype)
        return helicities * sign[:, None]

    def _sum_over_ell(self, alm: torch.Tensor, block: _Block, table: torch.Tensor) -> torch.Tensor:
        """Fourier coefficients ``(batch, ncomp, nring, nm)`` of one chunk."""
        terms = alm[..., block.place].permute(1, 2, 3, 0) * block.factor  # (ncomp, nm, depth, batch)
        if self.spin:
            first = _product(_by_ring(table[:, 0]), terms[0], block.parity * terms[1])
            second = _product(_by_ring(table[:, 1]), terms[1], block.parity * terms[0])
            north, south = torch.stack([first[0], second[0]]), torch.stack([second[1], first[1]])
        else:
            even, odd = (_product(_by_ring(table[p::2, 0]), terms[0, :, p::2])[0] for p in (0, 1))
            north, south = (even + odd)[None], (even - odd)[None]
        both = torch.stack([north, south])
        hemisphere, row = self._place_of_ring
        return both[hemisphere, :, :, row].permute(3, 1, 0, 2)

    def _sum_over_rings(self, fourier: torch.Tensor, block: _Block, table: torch.Tensor) -> torch.Tensor:
        """Coefficients ``(batch, ncomp, nm, depth)`` of one chunk."""
        nbatch, ncomp = fourier.shape[:2]
        nm, depth = block.place.shape
        both = fourier.new_zeros((2, ncomp, nm, len(self._theta), nbatch))
        hemisphere, row = self._place_of_ring
        both[hemisphere, :, :, row] = fourier[..., block.orders].permute(2, 1, 3, 0)
        north, south = both
        if self.spin:
            first = _product(_by_offset(table[:, 0]), north[0], south[1])
            second = _product(_by_offset(table[:, 1]), north[1], south[0])
            terms = torch.stack([first[0] + block.parity * second[1], second[0] + block.parity * first[1]])
        else:
            terms = fourier.new_empty((1, nm, depth, nbatch))
            for p, part in enumerate((north[0] + south[0], north[0] - south[0])):
                terms[0, :, p::2] = _product(_by_offset(table[p::2, 0]), part)[0]
        return (terms * block.factor).permute(3, 0, 1, 2)

    @cached_property
    def _ring_fourier(self) -> RingFourier:
        return RingFourier(self.layout.geometry, self.lmax, self.device, self.dtype)

    @cached_property
    def _place(self) -> torch.Tensor:
        return torch.tensor(self.layout.place, device=self.device)

    @cached_property
    def _northern(self) -> tuple[np.ndarray, np.ndarray]:
        """Northern rings that the touched ones mirror (or are), and the place of each touched one among them."""
        ring = self.layout.rings
        return np.unique(np.minimum(ring, 4 * self.layout.nside - 2 - ring), return_inverse=True)

    @cached_property
    def _theta(self) -> np.ndarray:
        theta: np.ndarray = ring_geometry(self.layout.nside)["theta"][self._northern[0]]
        return theta

    @cached_property
    def _place_of_ring(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Hemisphere (1 the south) and northern row of every touched ring."""
        south = (self.layout.rings >= 2 * self.layout.nside).astype(np.int64)
        return torch.from_numpy(south).to(self.device), torch.from_numpy(self._northern[1]).to(self.device)

    @cached_property
    def _blocks(self) -> list[_Block]:
        budget = self.budget or TableBudget.of(self.device)
        spins = (-self.spin, self.spin) if self.spin else (0,)
        blocks, first = [], 0
        while first <= self.lmax:
            bytes_per_order = (
                8 * len(spins) * len(self._theta) * LegendreChunk(self.lmax, first, first + 1, spins).depth
            )
            last = min(first + max(budget.chunk // bytes_per_order, 1), self.lmax + 1)
            blocks.append(self._block(LegendreChunk(self.lmax, first, last, spins)))
            first = last
        return blocks

    def _block(self, chunk: LegendreChunk) -> _Block:
        alpha, shift, kappa = chunk.coefficients()
        order, offset = np.arange(chunk.first, chunk.last)[:, None], np.arange(chunk.depth)
        ell = chunk.lowest[:, None] + offset
        index = np.where(ell <= self.lmax, order * (2 * self.lmax + 1 - order) // 2 + ell, 0)
        sign = -1.0 if self.spin else 1.0  # Q + iU = -sum (E + iB) 2Y
        factor = np.where(ell <= self.lmax, sign * kappa[:, 0].T, 0.0)
        on_device = [torch.from_numpy(part).to(self.device) for part in (index, alpha, shift)]
        real = [
            torch.from_numpy(part[..., None]).to(self.device, self.dtype)
            for part in (factor, 1.0 - 2 * ((ell + order) % 2))
        ]
        return _Block(chunk, on_device[0], real[0], real[1], (on_device[1], on_device[2]))

    def _tables(self) -> Iterator[tuple[_Block, torch.Tensor]]:
        """Chunks with their tables ``(depth, nspin, nm, row)``."""
        kept = self._kept_tables
        for place, block in enumerate(self._blocks):
            yield block, kept[place] if kept else self._table(block)

    def _table(self, block: _Block) -> torch.Tensor:
        return legendre_table(block.chunk, self._theta, *block.steps).to(self.dtype)

    @cached_property
    def _kept_tables(self) -> list[torch.Tensor]:
        budget = self.budget or TableBudget.of(self.device)
        size = sum(8 * block.steps[0].numel() * len(self._theta) for block in self._blocks)
        return [self._table(block) for block in self._blocks] if size <= budget.kept else []


def _product(matrix: torch.Tensor, *columns: torch.Tensor) -> list[torch.Tensor]:
    """A real matrix ``(nm, i, j)`` times complex columns ``(nm, j, batch)`` each: complex ``(nm, i, batch)`` each."""
    real = [torch.view_as_real(part.contiguous()).flatten(-2) for part in columns]
    product = torch.bmm(matrix, torch.cat(real, dim=-1) if len(real) > 1 else real[0])
    return [
        torch.view_as_complex(part.unflatten(-1, (-1, 2)).contiguous()) for part in product.chunk(len(real), dim=-1)
    ]


def _by_ring(table: torch.Tensor) -> torch.Tensor:
    """A table ``(depth, nm, row)`` as matrices ``(nm, row, depth)``, without a copy."""
    return table.permute(1, 2, 0)


def _by_offset(table: torch.Tensor) -> torch.Tensor:
    """A table ``(depth, nm, row)`` as matrices ``(nm, depth, row)``, without a copy."""
    return table.permute(1, 0, 2)


def _helicities(components: torch.Tensor) -> torch.Tensor:
    """``(X + iY, X - iY)`` of complex (X, Y) on axis 1."""
    first, second = components[:, 0], 1j * components[:, 1]
    return torch.stack([first + second, first - second], dim=1)


def _stokes(helicities: torch.Tensor) -> torch.Tensor:
    """Inverse of :func:`_helicities`."""
    plus, minus = helicities[:, 0], helicities[:, 1]
    return torch.stack([(plus + minus) / 2, (plus - minus) / 2j], dim=1)
