"""Convolutions ``y = b + sum_k F_k x W_k`` on the sphere, piece by piece so that everything but x and y stays in cache.

The ``F_k`` are fixed sparse operators on pixels (Chebyshev polynomials of a Laplacian, shifts to a neighbour) and the
``W_k`` small matrices on channels.  A *layout* cuts the pixels into pieces; a piece makes its rows of y, and its part
of the gradients ``dx = sum_k F_k^T dy W_k^T`` and ``dW_k = (F_k x)^T dy``, from the rows that it needs.  Nothing but x
is kept between the passes, and no ``F_k x`` is ever stored for more than one piece.

On a CPU every thread works through a share of the pieces, with operations of one thread each: threads that met after
every small operation would wait for each other, on a busy machine most of the time.  The shares are fixed, whoever is
quicker, so that results repeat to the last bit.

Half precision is for storage: sums over neighbours are made in float32 and rounded once, at the end.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import torch

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Gradients:
    """Sums that the pieces of one thread add to, zero at the start.

    ``rows`` ``(n, Cin)`` is shared by all threads, so a piece adds to its own rows alone and lists what belongs to
    others in ``beyond``, as (rows, values).  It is None where nobody asks for it.
    """

    rows: torch.Tensor | None
    kernel: torch.Tensor
    beyond: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)


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
        for group in _groups(layout, len(x)):
            _apply(layout, x[group].flatten(0, 1), kernel, bias, y[group].flatten(0, 1))
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, kernel = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        grad_kernel = torch.zeros_like(kernel)
        for group in _groups(ctx.layout, len(x)):
            own = None if grad_x is None else grad_x[group].flatten(0, 1)
            for sums in _pull_back(ctx.layout, x[group].flatten(0, 1), grad[group].flatten(0, 1), kernel, own):
                grad_kernel += sums.kernel
                if own is not None:
                    for rows, values in sums.beyond:
                        own.index_add_(0, rows, values)
        return grad_x, grad_kernel, grad.sum(dim=(0, 1)), None


def _apply(layout: Layout, rows: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, out: torch.Tensor) -> None:
    def work(pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            piece.apply(rows, kernel, bias, out)

    _share(work, layout.pieces(len(kernel), len(rows) // layout.npix), rows.device)


def _pull_back(
    layout: Layout, rows: torch.Tensor, grad: torch.Tensor, kernel: torch.Tensor, own: torch.Tensor | None
) -> list[Gradients]:
    def work(pieces: Sequence[Piece]) -> Gradients:
        sums = Gradients(own, torch.zeros_like(kernel))
        for piece in pieces:
            piece.pull_back(rows, grad, kernel, sums)
        return sums

    return _share(work, layout.pieces(len(kernel), len(rows) // layout.npix), rows.device)


def _share(work: Callable[[Sequence[Piece]], Result], pieces: Sequence[Piece], device: torch.device) -> list[Result]:
    """``work`` on every thread's share of the pieces, or here on all of them where there is nothing to share."""
    inference, threads = torch.is_inference_mode_enabled(), torch.get_num_threads()

    def alone(share: Sequence[Piece]) -> Result:
        # Modes belong to threads: no autograd, no autocast, and inference tensors only among themselves.
        with torch.inference_mode(inference), torch.no_grad(), torch.autocast(device.type, enabled=False):
            return work(share)

    if threads == 1 or len(pieces) == 1 or device.type != "cpu":
        return [alone(pieces)]
    return list(_workers(threads, os.getpid()).map(alone, [pieces[first::threads] for first in range(threads)]))


@lru_cache(maxsize=2)
def _workers(count: int, process: int) -> ThreadPoolExecutor:
    """Threads whose operations run on one thread; a forked process needs its own."""

    def begin() -> None:
        torch.get_num_threads()  # a thread's first look at its number would undo the next line
        torch.set_num_threads(1)

    return ThreadPoolExecutor(count, "sphereml-convolution", initializer=begin)


def _groups(layout: Layout, batch: int) -> Iterator[slice]:
    """Batches cut so that small domains fill a piece together; a large domain is worked through alone."""
    step = max(1, layout.piece_rows // layout.npix)
    return (slice(start, min(start + step, batch)) for start in range(0, batch, step))
