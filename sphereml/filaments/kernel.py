"""The kernel of the spherical Hough transform: a straight stick, as harmonic coefficients.

Conventions: the stick is centred on the north pole and lies along the meridians 0 and 180 degrees, so that carried to
a pixel it points south; its integral over the sphere is one; angles are radians.
"""

from __future__ import annotations

import ducc0
import numpy as np

from sphereml.harmonics.filters import gaussian_beam
from sphereml.harmonics.rings import threads

# Orders above which less than this share of the kernel's power remains are left out: 1e-4 of its amplitude.
_NEGLIGIBLE_POWER = 1e-8


def stick_coefficients(length: float, width: float, lmax: int) -> np.ndarray:
    """Coefficients ``k_ls`` of a stick, ``(lmax + 1, norder)`` float64 for the orders s = 0, 2, 4, ...

    ``k_ls = B_l / length * int Y_ls(t, 0) dt`` along the stick, B_l the Gaussian window of its FWHM ``width``.  Odd
    orders vanish, since a stick turned by 180 degrees is itself; the orders end where the power does.

    Args:
        length: from end to end.
        width: FWHM of the Gaussian that the line is smoothed with.
    """
    # Gauss-Legendre nodes on half of the stick; a Y_ls with l * length / 2 of phase takes that many nodes and some.
    nodes = 32 + int(lmax * length / 2)
    place, weight = np.polynomial.legendre.leggauss(nodes)
    # An order s varies as (l t)^s near the pole, so orders far above lmax * length / 2 hold nothing.
    highest = min(lmax, 32 + int(lmax * length))
    rings = {
        "theta": (place + 1) * length / 4,
        "nphi": np.full(nodes, 2, dtype=np.uint64),
        "phi0": np.zeros(nodes),
        "ringstart": 2 * np.arange(nodes, dtype=np.uint64),
    }
    masses = np.repeat(weight / 4, 2)[None]  # the weights of both halves add up to one
    alm = ducc0.sht.adjoint_synthesis(map=masses, lmax=lmax, mmax=highest, spin=0, nthreads=threads(), **rings)[0].real
    window = gaussian_beam(lmax, np.degrees(width) * 60)
    kernel = np.zeros((lmax + 1, highest // 2 + 1))
    for column, order in enumerate(range(0, highest + 1, 2)):
        start = order * (lmax + 1) - order * (order - 1) // 2
        kernel[order:, column] = window[order:] * alm[start : start + lmax + 1 - order]
    return kernel[:, : _significant(kernel)]


def _significant(kernel: np.ndarray) -> int:
    """Number of orders before the power that remains is negligible; at least s = 0 and 2."""
    power = np.sum(kernel**2, axis=0)
    remaining = np.cumsum(power[::-1])[::-1]
    return max(2, int(np.count_nonzero(remaining > _NEGLIGIBLE_POWER * remaining[0])))
