"""Spin convolution: jets of fields of any spin around every pixel, mixed by weights, piece by piece.

``y = b + sum_k F_k x M_k`` as in :mod:`sphereml.domains.convolution`, where ``F_k`` is a derivative by a local fit in
the tangent plane (:mod:`sphereml.sky.jets`) divided by its response to white noise, and ``M_k`` the real matrix of its
weights (:mod:`sphereml.domains.mixing`).  A derivative of a spin is a sum over neighbours with complex weights c, fit
times transport: on the two real columns of a channel it is ``Re(c) z + Im(c) iz``, one sum over rows of z and of iz.
``F_k`` of a real scalar with complex weights is two real sums.  The tables are fixed, so all of it is one
``embedding_bag`` a term.

Backward, ``M_k`` and ``F_k`` act on different axes and commute, up to the conjugations that the tables hold:
``dx = sum_k (F_k^T dy) M_k^T`` and ``dM_k = x^T (F_k^T dy)``, which takes one pass over neighbours as well.  Of two
matrices of one weight, for a term and for i times it, only one gets the gradient, of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from sphereml.domains.channels import Channels
from sphereml.domains.convolution import Gradients
from sphereml.domains.spin_steps import Step, Steps
from sphereml.domains.stencils import Cut, StencilTables


@dataclass(frozen=True, eq=False)
class SpinPiece:
    """The steps of a convolution on the rows of a cut."""

    cut: Cut
    steps: Steps

    def apply(self, rows: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, out: torch.Tensor) -> None:
        channels, results = self.steps.mixing.channels_out, dict[int, torch.Tensor]()
        for step, sums in self._sums(self.steps.forward, self.steps.mixing.channels_in, rows):
            matrix = step.block.of(kernel)
            if step.target in results:
                results[step.target].addmm_(sums, matrix)
            else:
                results[step.target] = torch.addmm(bias[channels.span(step.target)], sums, matrix)
        for spin, result in results.items():
            self.cut.write(result, out[:, channels.span(spin)])

    def pull_back(self, rows: torch.Tensor, grad: torch.Tensor, kernel: torch.Tensor, sums: Gradients) -> None:
        channels, results = self.steps.mixing.channels_in, dict[int, torch.Tensor]()
        own = {
            spin: self.cut.own(rows[:, channels.span(spin)]) for spin in {step.source for step in self.steps.backward}
        }
        for step, pulled in self._sums(self.steps.backward, self.steps.mixing.channels_out, grad):
            step.block.of(sums.kernel).addmm_(own[step.source].T, pulled)
            if sums.rows is None:
                continue
            matrix = step.block.of(kernel).T
            if step.source in results:
                results[step.source].addmm_(pulled, matrix)
            else:
                results[step.source] = pulled @ matrix
        for spin, result in results.items():
            assert sums.rows is not None
            self.cut.write(result, sums.rows[:, channels.span(spin)])

    def _sums(
        self, steps: Sequence[Step], channels: Channels, rows: torch.Tensor
    ) -> Iterator[tuple[Step, torch.Tensor]]:
        """Every step with what its operator makes of the columns of its spin, on this piece's rows."""
        for spin in sorted({step.spin for step in steps}):
            columns = rows[:, channels.span(spin)]
            values = self.cut.gathered(columns, with_turned=spin > 0)
            for step in steps:
                if step.spin == spin:
                    yield step, self.cut.stencil.sums(step.operator, values).view(-1, columns.shape[1])


@dataclass(frozen=True, eq=False)
class SpinLayout:
    """The steps of a convolution on the pieces of a region."""

    tables: StencilTables
    steps: Steps

    @property
    def npix(self) -> int:
        return self.tables.region.npix

    def copies(self, rows: int) -> int:
        return self.tables.copies(rows)

    def pieces(self, taps: int, copies: int, rows: int) -> tuple[SpinPiece, ...]:
        return tuple(SpinPiece(cut, self.steps) for cut in self.tables.cuts(copies, self.steps.operators))
