"""Convolutions ``y = b + sum_k F_k x W_k`` on the sphere, piece by piece so that everything but x and y stays in cache.

The ``F_k`` are fixed sparse operators on pixels (Chebyshev polynomials of a Laplacian, shifts to a neighbour) and the
``W_k`` small matrices on channels.  A *layout* cuts the pixels into pieces; a piece makes its rows of y, and its part
of the gradients ``dx = sum_k F_k^T dy W_k^T`` and ``dW_k = (F_k x)^T dy``, from the rows that it needs.  Nothing but x
is kept between the passes, and no ``F_k x`` is ever stored for more than one piece.

On a CPU, where it is worth waking them, every thread works through a share of the pieces with operations of one thread
each: threads that met after every small operation would wait for each other, on a busy machine most of the time.  The
shares are fixed, whoever is quicker, so that results repeat to the last bit.

Half precision is for storage: sums over neighbours are made in float32 and rounded once, at the end.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.autograd.function import once_differentiable

Result = TypeVar("Result")

# At least 64 x 64 pixels, to which four hops around add a quarter; 64 float32 channels of them take 1 MiB.
_PIECE_ROWS = 4096
_PIECE_BYTES, _FLOAT_BYTES = 1 << 20, 4
# On an accelerator one launch over many rows is what counts.
_PIECE_ROWS_ACCELERATOR = 1 << 20
# Multiplications (rows x taps x channels in and out) from which threads are woken: some ten milliseconds of work.
_WORTH_THREADS = 2 * 10**8


@dataclass(frozen=True, eq=False)
class Gradients:
    """Sums that the pieces of one thread add to, zero at the start.

    ``rows`` ``(n, Cin)`` is shared by all threads, so a piece adds to its own rows alone and lists what belongs to
    others in ``beyond``, as (rows, values).  It is None where nobody asks for it.
    """

    rows: torch.Tensor | None
    kernel: torch.Tensor
    beyond: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def settle(self) -> None:
        """Add what belongs to other pieces' rows."""
        if self.rows is not None:
            for rows, values in self.beyond:
                self.rows.index_add_(0, rows, values)


class Piece(Protocol):
    """Some of the pixels; ``rows`` ``(n, Cin)`` are all those of one copy of the domain, or of several."""

    def apply(self, rows: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, out: torch.Tensor) -> None:
        """Write this piece's rows of ``out`` ``(n, Cout)``."""

    def pull_back(self, rows: torch.Tensor, grad: torch.Tensor, kernel: torch.Tensor, sums: Gradients) -> None:
        """Add this piece's part of the gradients; ``grad`` ``(n, Cout)`` is that of ``out``."""


class Layout(Protocol):
    """A domain of ``npix`` pixels, to be worked through in pieces."""

    @property
    def npix(self) -> int: ...

    def copies(self, rows: int) -> int:
        """How many skies are worth working through together in pieces of about so many rows."""

    def pieces(self, taps: int, copies: int, rows: int) -> Sequence[Piece]:
        """The pieces, of about so many rows, of ``copies`` copies of the domain, one after the other."""


class Tables(Protocol):
    """Tables of so many pixels."""

    @property
    def npix(self) -> int: ...


Kept = TypeVar("Kept", bound=Tables)


class LayoutCache(Generic[Kept]):
    """Layouts by key, the least recently used dropped beyond ``budget`` pixels in all."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._layouts: OrderedDict[Hashable, Kept] = OrderedDict()

    def get(self, key: Hashable, build: Callable[[], Kept]) -> Kept:
        if key not in self._layouts:
            self._layouts[key] = build()
        self._layouts.move_to_end(key)
        while len(self._layouts) > 1 and sum(layout.npix for layout in self._layouts.values()) > self._budget:
            self._layouts.popitem(last=False)
        return self._layouts[key]


def convolve(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None, layout: Layout) -> torch.Tensor:
    """The convolution of ``x`` ``(B, V, Cin)`` with a kernel: ``(B, V, Cout)`` in x's dtype.

    Args:
        kernel: ``(taps, Cin, Cout)``, or flat where the layout knows what stands where.
        bias: ``(Cout,)``.
    """
    work = torch.promote_types(x.dtype, torch.float32)
    offset = kernel.new_zeros(kernel.shape[-1]) if bias is None else bias  # a flat kernel comes with its bias
    y: torch.Tensor = _Convolution.apply(x.to(work).contiguous(), kernel.to(work), offset.to(work), layout)
    return y.to(x.dtype)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, layout: Layout) -> torch.Tensor:
        ctx.layout = layout
        ctx.save_for_backward(x, kernel)
        y = x.new_empty(*x.shape[:2], len(bias))

        def work(share: Sequence[_Task]) -> None:
            for part in share:
                part.piece.apply(part.rows(x), kernel, bias, part.rows(y))

        _share(work, layout, x, kernel, max(x.shape[-1], len(bias)))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, kernel = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        grad_kernel = torch.zeros_like(kernel)

        def work(share: Sequence[_Task]) -> list[Gradients]:
            own, done = torch.zeros_like(kernel), []
            for part in share:
                sums = Gradients(None if grad_x is None else part.rows(grad_x), own)
                part.piece.pull_back(part.rows(x), part.rows(grad), kernel, sums)
                done.append(sums)
            return done

        for done in _share(work, ctx.layout, x, kernel, max(x.shape[-1], grad.shape[-1])):
            grad_kernel += done[0].kernel
            for sums in done:
                sums.settle()
        return grad_x, grad_kernel, grad.sum(dim=(0, 1)) if ctx.needs_input_grad[2] else None, None


@dataclass(frozen=True, eq=False)
class _Task:
    """A piece of the skies ``group`` of a batch."""

    group: slice
    piece: Piece

    def rows(self, batch: torch.Tensor) -> torch.Tensor:
        return batch[self.group].flatten(0, 1)


def _tasks(layout: Layout, x: torch.Tensor, taps: int, rows: int, threads: int) -> list[_Task]:
    """All pieces of a batch; several small skies make one piece, as long as every thread has its share."""
    batch = len(x)
    step = max(1, min(layout.copies(rows), -(-batch // threads)))
    groups = [slice(start, min(start + step, batch)) for start in range(0, batch, step)]
    with torch.inference_mode(False):  # tables first built in an inference pass serve a training step later
        pieces = [layout.pieces(taps, group.stop - group.start, rows) for group in groups]
    return [_Task(group, piece) for group, own in zip(groups, pieces, strict=True) for piece in own]


def _piece_rows(channels: int, device: torch.device) -> int:
    """Rows of a piece: whole superpixels of which one tensor takes about a megabyte."""
    if device.type != "cpu":
        return _PIECE_ROWS_ACCELERATOR
    rows = _PIECE_ROWS
    while 4 * rows * channels * _FLOAT_BYTES <= _PIECE_BYTES:
        rows *= 4
    return rows


def _share(
    work: Callable[[Sequence[_Task]], Result], layout: Layout, x: torch.Tensor, kernel: torch.Tensor, channels: int
) -> list[Result]:
    """``work`` on every thread's share of the tasks, or here on all of them where they are not worth a share."""
    worth = x.device.type == "cpu" and x[..., 0].numel() * kernel.numel() >= _WORTH_THREADS
    threads = torch.get_num_threads() if worth else 1
    tasks = _tasks(layout, x, len(kernel), _piece_rows(channels, x.device), threads)
    inference = torch.is_inference_mode_enabled()

    def alone(share: Sequence[_Task]) -> Result:
        # Modes belong to threads: no autograd, no autocast, and inference tensors only among themselves.
        with torch.inference_mode(inference), torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            return work(share)

    if not 1 < threads <= len(tasks):
        return [alone(tasks)]
    return list(_workers(threads, os.getpid()).map(alone, [tasks[first::threads] for first in range(threads)]))


@lru_cache(maxsize=2)
def _workers(count: int, process: int) -> ThreadPoolExecutor:
    """Threads whose operations run on one thread; a forked process needs its own."""

    def begin() -> None:
        torch.get_num_threads()  # a thread's first look at its number would undo the next line
        torch.set_num_threads(1)

    return ThreadPoolExecutor(count, "sphereml-convolution", initializer=begin)
