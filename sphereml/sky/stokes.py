"""Directions, tangent vectors, and how Stokes Q and U turn when their axes do.

Conventions: Q and U are COSMO, with respect to the basis (south, east): Q > 0 along north-south.  Vectors are
``(..., 3)``; angles radians.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def directions(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colatitude in [0, pi] and longitude in [0, 2 pi] of vectors ``(..., 3)``, exact near the poles."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.arctan2(np.hypot(x, y), z), np.mod(np.arctan2(y, x), 2 * np.pi)


def tangent_basis(theta: np.ndarray, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors outwards, south and east, each ``(..., 3)``: the basis of COSMO's Q and U."""
    sine, cosine, zero = np.sin(theta), np.cos(theta), np.zeros_like(theta)
    along_x, along_y = np.cos(phi), np.sin(phi)
    out = np.stack([sine * along_x, sine * along_y, cosine], axis=-1)
    south = np.stack([cosine * along_x, cosine * along_y, -sine], axis=-1)
    return out, south, np.stack([-along_y, along_x, zero], axis=-1)


def transport(tangents: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Tangent vectors at ``start`` carried in parallel along the great circle to ``end``, all ``(..., 3)`` units.

    ``w - (w.end) (start + end) / (1 + start.end)``: the least rotation that brings start to end.
    """
    share = np.einsum("...i,...i->...", tangents, end) / (1 + np.einsum("...i,...i->...", start, end))
    return np.asarray(tangents - share[..., None] * (start + end))


def frame_phase(axes: np.ndarray, theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """``exp(-i psi)`` for the basis whose east is ``axes = cos psi east - sin psi south``, ``(...)``.

    A field of spin s with respect to the meridian, times its s-th power, is the field in that basis.
    """
    _, south, east = tangent_basis(theta, phi)
    cosine = np.einsum("...i,...i->...", axes, east)
    minus_sine = np.einsum("...i,...i->...", axes, south)
    return np.asarray(cosine + 1j * minus_sine)


def stokes_rotation(axes: np.ndarray, theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Factor from ``Q + iU`` with respect to the meridian to that in the basis whose east is ``axes``, ``(...)``."""
    return frame_phase(axes, theta, phi) ** 2


def turned(values: np.ndarray, phase: np.ndarray, spins: Sequence[int]) -> np.ndarray:
    """Columns ``(..., columns)`` with every field of spin s multiplied by ``phase^s``, ``(...)``.

    Args:
        spins: of the fields in the order of their columns; a field with a spin takes two (see ``sky.fields``).
    """
    result, column = values.copy(), 0
    for spin in spins:
        if spin:
            field = (values[..., column] + 1j * values[..., column + 1]) * phase**spin
            result[..., column], result[..., column + 1] = field.real, field.imag
        column += 2 if spin else 1
    return result
