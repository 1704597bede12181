"""Convolutions ``y = b + sum_k F_k x W_k`` on the sphere, piece by piece so that everything but x and y stays in cache.

The ``F_k`` are fixed sparse operators on pixels (Chebyshev polynomials of a Laplacian, shifts to a neighbour) and the
``W_k`` small matrices on channels.  A *layout* cuts the pixels into pieces; a piece makes its rows of y, and its part
of the gradients ``dx = sum_k F_k^T dy W_k^T`` and ``dW_k = (F_k x)^T dy``, from the rows that it needs.  Nothing but x
is kept between the passes, and no ``F_k x`` is ever stored for more than one piece.

Half precision is for storage: sums over neighbours are made in float32 and rounded once, at the end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True, eq=False)
class Gradients:
    """Sums that the pieces add to, zero at the start; ``rows`` ``(n, Cin)`` is None where nobody asks for it."""

    rows: torch.Tensor | None
    kernel: torch.Tensor


class Piece(Protocol):
    """Some of the pixels; ``rows`` ``(n, Cin)`` are all those of one copy of the domain, or of several."""

    def apply(self, rows: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, out: torch.Tensor) -> None:
        """Write this piece's rows of ``out`` ``(n, Cout)``."""

    def pull_back(self, rows: torch.Tensor, grad: torch.Tensor, kernel: torch.Tensor, sums: Gradients) -> None:
        """Add this piece's part of the gradients; ``grad`` ``(n, Cout)`` is that of ``out``."""


class Layout(Protocol):
    """A domain of ``npix`` pixels, to be worked through in pieces of about ``piece_rows`` rows."""

    @property
    def npix(self) -> int: ...

    @property
    def piece_rows(self) -> int: ...

    def pieces(self, taps: int, copies: int) -> Sequence[Piece]:
        """The pieces of ``copies`` copies of the domain, one after the other."""


class LayoutCache:
    """Layouts by key, the least recently used dropped beyond ``budget`` pixels in all."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._layouts: OrderedDict[Hashable, Layout] = OrderedDict()

    def get(self, key: Hashable, build: Callable[[], Layout]) -> Layout:
        if key not in self._layouts:
            # Built in an inference pass, a layout must serve a training step later.
            with torch.inference_mode(False):
                self._layouts[key] = build()
        self._layouts.move_to_end(key)
        while len(self._layouts) > 1 and sum(layout.npix for layout in self._layouts.values()) > self._budget:
            self._layouts.popitem(last=False)
        return self._layouts[key]


def convolve(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None, layout: Layout) -> torch.Tensor:
    """The convolution of ``x`` ``(B, V, Cin)`` with ``kernel`` ``(taps, Cin, Cout)``: ``(B, V, Cout)`` in x's dtype."""
    work = torch.promote_types(x.dtype, torch.float32)
    offset = kernel.new_zeros(kernel.shape[-1]) if bias is None else bias
    y: torch.Tensor = _Convolution.apply(x.to(work).contiguous(), kernel.to(work), offset.to(work), layout)
    return y.to(x.dtype)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, layout: Layout) -> torch.Tensor:
        ctx.layout = layout
        ctx.save_for_backward(x, kernel)
        y = x.new_empty(*x.shape[:2], kernel.shape[-1])
        with torch.autocast(x.device.type, enabled=False):
            for group in _groups(layout, len(x)):
                rows, out = x[group].flatten(0, 1), y[group].flatten(0, 1)
                for piece in layout.pieces(len(kernel), len(x[group])):
                    piece.apply(rows, kernel, bias, out)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, kernel = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        grad_kernel = torch.zeros_like(kernel)
        with torch.autocast(x.device.type, enabled=False):
            for group in _groups(ctx.layout, len(x)):
                sums = Gradients(None if grad_x is None else grad_x[group].flatten(0, 1), grad_kernel)
                for piece in ctx.layout.pieces(len(kernel), len(x[group])):
                    piece.pull_back(x[group].flatten(0, 1), grad[group].flatten(0, 1), kernel, sums)
        return grad_x, grad_kernel, grad.sum(dim=(0, 1)), None


def _groups(layout: Layout, batch: int) -> Iterator[slice]:
    """Batches cut so that small domains fill a piece together; a large domain is worked through alone."""
    step = max(1, layout.piece_rows // layout.npix)
    return (slice(start, min(start + step, batch)) for start in range(0, batch, step))
