"""Chebyshev graph convolution ``y = b + sum_k T_k(L) x W_k`` over a fixed-width neighbour table.

``T_k`` are the Chebyshev polynomials of the rescaled Laplacian L (Defferrard et al. 2016, arXiv:1606.09375, eq. 4):
``T_1 x = L x``, ``T_k x = 2 L T_{k-1} x - T_{k-2} x``.  L is symmetric, so every ``T_k(L)`` is its own adjoint and the
backward pass is the same recurrence on the gradient.

A piece is a run of consecutive pixels, in NEST order a superpixel, followed by the pixels of its halo in the order of
their distance in hops: ``T_k`` is needed on the piece and one hop less with every order, which is always the first rows
of the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from sphereml.domains.convolution import Gradients
from sphereml.sky.graphs import NeighbourOperator

# Wide tables reach several pixels a hop; larger pieces keep the halo a small part.
_WIDE = 16


@dataclass(frozen=True, eq=False)
class ChebyshevPiece:
    """Rows ``start:stop``.

    ``gather`` lists these rows, then the halo's; ``counts[h]`` of them lie within h hops.  ``index`` and ``weight``
    ``(counts[-2], width)`` are the table of ``2 L`` on the gathered rows but for the outermost hop.
    """

    start: int
    stop: int
    gather: torch.Tensor | None
    counts: tuple[int, ...]
    index: torch.Tensor
    weight: torch.Tensor

    def apply(self, rows: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, out: torch.Tensor) -> None:
        own = out[self.start : self.stop]
        for order, polynomial in enumerate(self._polynomials(rows)):
            torch.addmm(own if order else bias, polynomial, kernel[order], out=own)

    def pull_back(self, rows: torch.Tensor, grad: torch.Tensor, kernel: torch.Tensor, sums: Gradients) -> None:
        transposed = rows[self.start : self.stop].T
        for order, polynomial in enumerate(self._polynomials(grad)):
            if sums.rows is not None:
                sums.rows[self.start : self.stop].addmm_(polynomial, kernel[order].T)
            sums.kernel[order].addmm_(transposed, polynomial)

    def _polynomials(self, rows: torch.Tensor) -> Iterator[torch.Tensor]:
        """``T_k(L) rows`` on this piece, for k = 0, 1, ..."""
        size = self.stop - self.start
        before, current = None, self._gathered(rows)
        yield current[:size]
        for count in reversed(self.counts[:-1]):
            product = embedding_bag(self.index[:count], current, per_sample_weights=self.weight[:count], mode="sum")
            product = product.mul_(0.5) if before is None else product.sub_(before[:count])
            before, current = current, product
            yield current[:size]

    def _gathered(self, rows: torch.Tensor) -> torch.Tensor:
        return rows[self.start : self.stop] if self.gather is None else rows.index_select(0, self.gather)


@dataclass(frozen=True, eq=False)
class ChebyshevLayout:
    """The graph of a symmetric ``operator``, its weights in ``dtype`` on ``device``."""

    operator: NeighbourOperator
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _made: dict[tuple[int, int, int], tuple[ChebyshevPiece, ...]] = field(default_factory=dict)

    @property
    def npix(self) -> int:
        return len(self.operator.index)

    def copies(self, rows: int) -> int:
        return rows // self.npix

    def pieces(self, taps: int, copies: int, rows: int) -> tuple[ChebyshevPiece, ...]:
        rows = 4 * rows if self.operator.index.shape[1] > _WIDE else rows
        if (taps, copies, rows) not in self._made:
            whole = self.npix <= rows
            self._made[taps, copies, rows] = (self._whole(taps, copies),) if whole else tuple(self._cut(taps - 1, rows))
        return self._made[taps, copies, rows]

    def _whole(self, taps: int, copies: int) -> ChebyshevPiece:
        """All copies as one piece, which needs no halo."""
        offset = np.arange(copies, dtype=np.int32)[:, None, None] * np.int32(self.npix)
        index = (self.operator.index + offset).reshape(-1, self.operator.index.shape[1])
        return self._piece(0, (len(index),) * taps, None, index, np.tile(self.operator.weight, (copies, 1)))

    def _cut(self, hops: int, size: int) -> Iterator[ChebyshevPiece]:
        """One copy in pieces of ``size`` rows with halos of ``hops``."""
        place = np.full(self.npix, -1, dtype=np.int32)  # in the piece's rows
        for start in range(0, self.npix, size):
            frontier = np.arange(start, min(start + size, self.npix))
            gathered, counts = [], [0]
            for hop in range(hops + 1):
                if hop:
                    reached = np.unique(self.operator.index[frontier])
                    frontier = reached[place[reached] < 0]
                place[frontier] = np.arange(counts[-1], counts[-1] + len(frontier))
                gathered.append(frontier)
                counts.append(counts[-1] + len(frontier))
            rows = np.concatenate(gathered)
            inner = rows[: counts[-2]]
            index, weight = place[self.operator.index[inner]], self.operator.weight[inner]
            place[rows] = -1
            yield self._piece(start, tuple(counts[1:]), rows, index, weight)

    def _piece(
        self, start: int, counts: tuple[int, ...], gather: np.ndarray | None, index: np.ndarray, weight: np.ndarray
    ) -> ChebyshevPiece:
        doubled = torch.from_numpy(2 * weight).to(self.device, self.dtype)
        rows = None if gather is None else torch.from_numpy(gather).to(self.device)
        return ChebyshevPiece(start, start + counts[0], rows, counts, torch.from_numpy(index).to(self.device), doubled)
