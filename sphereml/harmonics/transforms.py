"""Spherical harmonic transforms on HEALPix over ducc0, for numpy arrays.

Conventions
-----------
* Maps are ``(..., npix)`` in NEST order (this module converts to RING inside); alms are ``(..., nalm)`` in healpy's
  triangular m-major order, m >= 0 only.  Spin 2 carries an axis of two before the last: maps (Q, U), alms (E, B).
* Stokes U has the COSMO sign, as in healpy: ``synthesis(spin=2)`` equals ``healpy.alm2map_spin``.
* ``synthesis`` is exact; ``adjoint_synthesis`` is its transpose; ``analysis`` is an approximate inverse by Jacobi
  iterations (good to 1e-6 up to ``lmax = 2 nside`` with 3 of them, 13 % off at ``3 nside - 1``), never called exact.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sphereml.harmonics.ducc_transform import DuccTransform
from sphereml.harmonics.rings import RingLayout, alm_index, alm_size, ring_geometry, threads
from sphereml.sky.grid import HealpixGrid

__all__ = [
    "adjoint_synthesis",
    "alm_index",
    "alm_size",
    "analysis",
    "ring_geometry",
    "synthesis",
    "threads",
]


@lru_cache(maxsize=16)
def _whole_sphere(nside: int, lmax: int, spin: int) -> DuccTransform:
    return DuccTransform(RingLayout(nside), lmax, spin)


def synthesis(alm: np.ndarray, nside: int, lmax: int, spin: int = 0) -> np.ndarray:
    """Map of given harmonic coefficients, ``T(n) = sum_lm a_lm Y_lm(n)``.

    Args:
        alm: complex ``(..., nalm)``, or ``(..., 2, nalm)`` (E, B) for spin > 0.
    Returns:
        float64 ``(..., npix)`` NEST, or ``(..., 2, npix)`` (Q, U).
    """
    lead, batch = _as_batch(alm, spin)
    return _whole_sphere(nside, lmax, spin).synthesize(batch).reshape(*lead, -1)


def adjoint_synthesis(maps: np.ndarray, lmax: int, spin: int = 0) -> np.ndarray:
    """The transpose of :func:`synthesis` (sums over pixels, no quadrature weight).  Maps NEST, alms as there."""
    return _scaled_adjoint(np.asarray(maps), lmax, spin, 1.0)


def analysis(maps: np.ndarray, lmax: int, spin: int = 0, iterations: int = 3) -> np.ndarray:
    """Harmonic coefficients of maps, the same Jacobi iteration as ``healpy.map2alm(iter=iterations)``.

    ``a_0 = w S^T d``, then ``a_{k+1} = a_k + w S^T (d - S a_k)`` with S the synthesis and w the pixel area.
    """
    maps = np.asarray(maps)
    grid = HealpixGrid.of_size(maps.shape[-1])
    alm = _scaled_adjoint(maps, lmax, spin, grid.pixel_area)
    for _ in range(iterations):
        residual = synthesis(alm, grid.nside, lmax, spin)
        np.subtract(maps, residual, out=residual)
        alm += _scaled_adjoint(residual, lmax, spin, grid.pixel_area)
    return alm


def _scaled_adjoint(maps: np.ndarray, lmax: int, spin: int, scale: float) -> np.ndarray:
    lead, batch = _as_batch(maps, spin)
    transform = _whole_sphere(HealpixGrid.of_size(maps.shape[-1]).nside, lmax, spin)
    return transform.adjoint_synthesize(batch, scale).reshape(*lead, -1)


def _as_batch(array: np.ndarray, spin: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Leading shape, and the array as ``(batch, ncomp, n)``."""
    components = 1 if spin == 0 else 2
    if spin and array.shape[-2] != 2:
        raise ValueError(f"spin {spin} needs an axis of two before the last, got shape {array.shape}")
    return array.shape[:-1], array.reshape(-1, components, array.shape[-1])
