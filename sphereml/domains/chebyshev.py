"""Chebyshev graph convolution ``y = sum_k T_k(L) x W_k`` over a fixed-width neighbour table.

``T_k`` are the Chebyshev polynomials of the rescaled Laplacian L (Defferrard et al. 2016, arXiv:1606.09375, eq. 4).
L acts on pixels and W on channels, so they commute: the forward pass mixes channels once, ``z_k = x W_k``, and sums
``T_k(L) z_k`` by Clenshaw's recurrence ``b_k = z_k + 2 L b_{k+1} - b_{k+2}``, ``y = z_0 + L b_1 - b_2``.  L is
symmetric, hence its own adjoint, and the backward pass needs only ``g_k = T_k(L) dy``: ``dx = sum_k g_k W_k^T`` and
``dW_k = x^T g_k``.  Nothing but x is kept between the passes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import embedding_bag


def apply_operator(index: torch.Tensor, weight: torch.Tensor, rows: torch.Tensor, batch: int = 1) -> torch.Tensor:
    """Sparse product ``(L x)_i = sum_j weight_ij x_{index_ij}`` for rows ``(batch * pixel, channel)``."""
    if batch > 1:
        offset = torch.arange(0, rows.shape[0], index.shape[0], dtype=index.dtype, device=index.device)
        index = (index + offset[:, None, None]).flatten(0, 1)
        weight = weight.repeat(batch, 1)
    return embedding_bag(index, rows.contiguous(), per_sample_weights=weight, mode="sum")


class _Chebyshev(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, kernel: torch.Tensor, index: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(x, kernel, index, weight)
        rows = x.flatten(0, 1)
        current, before = rows @ kernel[-1], None
        for order in range(kernel.shape[0] - 2, -1, -1):
            product = apply_operator(index, weight, current, x.shape[0])
            product = torch.addmm(product, rows, kernel[order], beta=2 if order else 1)
            if before is not None:
                product.sub_(before)
            current, before = product, current
        return current.view(*x.shape[:2], -1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, kernel, index, weight = ctx.saved_tensors
        rows = x.flatten(0, 1)
        before, current = None, grad.flatten(0, 1)
        grad_x, grad_kernel = current @ kernel[0].T, [rows.T @ current]
        for order in range(1, kernel.shape[0]):
            product = apply_operator(index, weight, current, x.shape[0])
            if before is not None:
                product.mul_(2).sub_(before)
            before, current = current, product
            grad_x.addmm_(current, kernel[order].T)
            grad_kernel.append(rows.T @ current)
        return grad_x.view_as(x), torch.stack(grad_kernel), None, None


def chebyshev_convolution(
    x: torch.Tensor, kernel: torch.Tensor, index: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Chebyshev convolution of ``x`` ``(B, V, Cin)`` with ``kernel`` ``(K, Cin, Cout)`` on the graph of a table.

    Args:
        index: int32 ``(V, neighbours)``, places in the pixel list; weight: ``(V, neighbours)`` in x's precision, of a
            symmetric operator (the backward pass relies on it).
    """
    y: torch.Tensor = _Chebyshev.apply(x.contiguous(), kernel, index, weight)
    return y
