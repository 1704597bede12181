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

import os
from functools import lru_cache

import ducc0
import numpy as np

from sphereml.sky.grid import HealpixGrid
from sphereml.sky.ordering import nest_to_ring, ring_to_nest


def alm_size(lmax: int) -> int:
    """Number of (ell, m >= 0) coefficients up to ``lmax``."""
    return (lmax + 1) * (lmax + 2) // 2


def alm_index(lmax: int) -> tuple[np.ndarray, np.ndarray]:
    """Multipole and order of every stored coefficient: two int arrays of length ``alm_size(lmax)``."""
    ell = np.concatenate([np.arange(m, lmax + 1) for m in range(lmax + 1)])
    order = np.concatenate([np.full(lmax + 1 - m, m) for m in range(lmax + 1)])
    return ell, order


def threads() -> int:
    """Threads given to ducc0: ``OMP_NUM_THREADS`` when set, else all cores."""
    return int(os.environ.get("OMP_NUM_THREADS", 0)) or (os.cpu_count() or 1)


@lru_cache(maxsize=16)
def ring_geometry(nside: int) -> dict[str, np.ndarray]:
    """ducc0's description of the HEALPix rings (theta, nphi, phi0, ringstart)."""
    geometry: dict[str, np.ndarray] = ducc0.healpix.Healpix_Base(nside, "RING").sht_info()
    return geometry


def synthesis(alm: np.ndarray, nside: int, lmax: int, spin: int = 0) -> np.ndarray:
    """Map of given harmonic coefficients, ``T(n) = sum_lm a_lm Y_lm(n)``.

    Args:
        alm: complex ``(..., nalm)``, or ``(..., 2, nalm)`` (E, B) for spin > 0.
    Returns:
        float64 ``(..., npix)`` NEST, or ``(..., 2, npix)`` (Q, U).
    """
    lead, batch = _as_batch(alm, spin)
    rings = ducc0.sht.synthesis(
        alm=batch.astype(np.complex128, copy=False),
        spin=spin,
        lmax=lmax,
        nthreads=threads(),
        **ring_geometry(nside),
    )
    return ring_to_nest(rings.reshape(*lead, -1), axis=-1)


def adjoint_synthesis(maps: np.ndarray, lmax: int, spin: int = 0) -> np.ndarray:
    """The transpose of :func:`synthesis` (sums over pixels, no quadrature weight).  Maps NEST, alms as there."""
    lead, batch = _as_batch(nest_to_ring(np.asarray(maps), axis=-1), spin)
    alm = ducc0.sht.adjoint_synthesis(
        map=batch.astype(np.float64, copy=False),
        spin=spin,
        lmax=lmax,
        nthreads=threads(),
        **ring_geometry(HealpixGrid.of_size(maps.shape[-1]).nside),
    )
    return alm.reshape(*lead, -1)


def analysis(maps: np.ndarray, lmax: int, spin: int = 0, iterations: int = 3) -> np.ndarray:
    """Harmonic coefficients of maps, the same Jacobi iteration as ``healpy.map2alm(iter=iterations)``.

    ``a_0 = w S^T d``, then ``a_{k+1} = a_k + w S^T (d - S a_k)`` with S the synthesis and w the pixel area.
    """
    maps = np.asarray(maps, dtype=np.float64)
    grid = HealpixGrid.of_size(maps.shape[-1])
    alm = grid.pixel_area * adjoint_synthesis(maps, lmax, spin)
    for _ in range(iterations):
        residual = maps - synthesis(alm, grid.nside, lmax, spin)
        alm += grid.pixel_area * adjoint_synthesis(residual, lmax, spin)
    return alm


def _as_batch(array: np.ndarray, spin: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Leading shape, and the array as ``(batch, ncomp, n)`` for ducc0."""
    components = 1 if spin == 0 else 2
    if spin and array.shape[-2] != 2:
        raise ValueError(f"spin {spin} needs an axis of two before the last, got shape {array.shape}")
    return array.shape[:-1], np.ascontiguousarray(array.reshape(-1, components, array.shape[-1]))
