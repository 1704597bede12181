"""Gaps of a map filled so that a band limit does not carry them into the sky around.

A map is filled in pixels and then limited to ``ell <= lmax``; where the filling has power beyond, what is cut off rings
around the gap.  So the filling u (0 outside the gap, G projects onto it) is the one with the least power beyond:

    minimize  |(1 - P) (d + u)|^2 + eps |u - u_0|^2,   P = S w S^T,

with S the synthesis, w the pixel area and u_0 a first filling.  ``P^2 = P`` to the accuracy of the pixels' quadrature,
so that the normal equations are ``(G (1 - P) G + eps) (u - u_0) = -G (1 - P) (d + u_0)``, solved by conjugate
gradients.  What cannot be known, modes that live inside of the gap, stays as in u_0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sphereml.harmonics.transforms import adjoint_synthesis, synthesis
from sphereml.sky.grid import HealpixGrid

_RIDGE, _MOST_STEPS, _ENOUGH = 1e-5, 40, 1e-5


def fill_band_limited(filled: np.ndarray, missing: np.ndarray, lmax: int, spin: int = 0) -> np.ndarray:
    """A map whose gaps were filled somehow, with a filling that ``ell <= lmax`` holds as well as it can.

    Args:
        filled: float64 ``(npix,)``, or ``(2, npix)`` (Q, U) for spin 2, NEST, without NaN.
        missing: bool ``(npix,)``, the gaps.
    """
    if not missing.any():
        return filled
    grid = HealpixGrid.of_size(missing.size)
    scale = float(np.abs(filled).max()) or 1.0

    def beyond(pixels: np.ndarray) -> np.ndarray:
        """``(1 - P)`` of a map, in the gap."""
        alm = adjoint_synthesis(pixels, lmax, spin) * (4 * np.pi / grid.npix)
        rest: np.ndarray = (pixels - synthesis(alm, grid.nside, lmax, spin))[..., missing]
        return rest

    def operator(gap: np.ndarray) -> np.ndarray:
        whole = np.zeros_like(filled)
        whole[..., missing] = gap
        return beyond(whole) + _RIDGE * gap

    # The correction to the first filling, whose own part of the ridge is nothing.
    correction = _conjugate_gradients(operator, -beyond(filled / scale))
    result = filled.copy()
    result[..., missing] += scale * correction
    return result


def _conjugate_gradients(operator: Callable[[np.ndarray], np.ndarray], right: np.ndarray) -> np.ndarray:
    solution, residual = np.zeros_like(right), right.copy()
    direction, size = residual.copy(), float(np.vdot(residual, residual))
    enough = _ENOUGH**2 * size
    for _ in range(_MOST_STEPS):
        if size <= enough:
            break
        image = operator(direction)
        curvature = float(np.vdot(direction, image))
        if curvature <= 0:  # P is a projection only as well as the pixels integrate
            break
        step = size / curvature
        solution += step * direction
        residual -= step * image
        size, before = float(np.vdot(residual, residual)), size
        direction = residual + size / before * direction
    return solution
