"""Spin convolution on a square lattice with parallel frames: an ordinary convolution whose kernel is made of jets.

Frames are (south, east) everywhere, that is (-row, column) of a patch whose rows grow northward; no transport is needed
and every pixel has the same fit, so the derivatives and their weights make one kernel.
"""

from __future__ import annotations

import torch

from sphereml.domains.mixing import TermBlocks, TypedKernel
from sphereml.sky.jets import lattice_coefficients, white_gain


def lattice_kernel(kernel: TypedKernel) -> torch.Tensor:
    """The kernel ``(taps, columns in, columns out)``, taps row by row from the south-western corner; differentiable."""
    mixing, values = kernel.mixing, kernel.values
    side = mixing.degree + 1
    own, other = mixing.channels_in, mixing.channels_out
    made = values.new_zeros(side * side, own.columns, other.columns)
    for blocks in mixing.blocks:
        weights = _weights(blocks, mixing.degree).to(values.device)
        real, imaginary = weights.real.to(values.dtype), weights.imag.to(values.dtype)
        matrix = blocks.plain.of(values)
        part = real[:, None, None] * matrix
        if blocks.term.source or blocks.turned is not None:
            turned = _times_i(matrix) if blocks.term.source else blocks.turned.of(values)  # type: ignore[union-attr]
            part = part + imaginary[:, None, None] * turned
        made[:, own.span(blocks.term.source), other.span(blocks.term.target)] += part
    return made


def _weights(blocks: TermBlocks, degree: int) -> torch.Tensor:
    """Complex weights of the taps of a term, ``(taps,)``."""
    term, side = blocks.term, degree + 1
    if term.is_own:
        weights = torch.zeros(side * side, dtype=torch.complex128)
        weights[side * side // 2] = 1
        return weights
    by_column = lattice_coefficients(term.up, term.down, degree) / white_gain(term.up, term.down, degree)
    return torch.from_numpy(by_column).view(side, side).T.flatten()


def _times_i(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix that acts on rows of complex numbers as ``matrix`` does on i times them."""
    real, imaginary = matrix.view(-1, 2, matrix.shape[1]).unbind(dim=1)
    return torch.stack([imaginary, -real], dim=1).view_as(matrix)
