"""Rotations of fields on the sphere by their harmonic coefficients.

Conventions: angles are the Euler angles psi, theta, phi of ``ducc0.sht.rotate_alm``, radians, ``R = Rz(phi) Ry(theta)
Rz(psi)``; a rotation moves the field, ``(R f)(n) = f(R^-1 n)``.  E and B of a field with a spin are rotated like
scalars: the frames of its maps take care of themselves.
"""

from __future__ import annotations

import ducc0
import numpy as np

from sphereml.harmonics.rings import threads

Angles = tuple[float, float, float]


def rotate_alm(alm: np.ndarray, lmax: int, angles: Angles) -> np.ndarray:
    """Coefficients ``(n, nalm)`` of the rotated fields; ducc0 rotates one at a time."""
    return np.stack([ducc0.sht.rotate_alm(one, lmax, *angles, nthreads=threads()) for one in alm])


def rotation_matrix(angles: Angles) -> np.ndarray:
    """The matrix that moves directions as :func:`rotate_alm` moves fields, ``n' = M n``, by what dipoles do."""
    # Y_1m with m = 0, 1 of x, y, z in healpy's order (0, 0), (1, 0), (1, 1): z = a_10, x - iy = -sqrt(2) a_11.
    dipoles = np.zeros((3, 3), dtype=complex)
    dipoles[0, 2], dipoles[1, 2], dipoles[2, 1] = -(0.5**0.5), 0.5**0.5 * 1j, 1
    moved = rotate_alm(dipoles, 1, angles)
    return np.stack([-(2**0.5) * moved[:, 2].real, 2**0.5 * moved[:, 2].imag, moved[:, 1].real])
