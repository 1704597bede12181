"""The kernel of the spherical Hough transform as harmonic coefficients: a straight stick, or a row of pixels.

Conventions: the kernel is centred on the north pole and lies along the meridians 0 and 180 degrees, so that carried to
a pixel it points south; its integral over the sphere is one; angles are radians.  Turned by 180 degrees it is itself,
so that odd orders vanish; mirrored it is too, so that coefficients are real.
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

    ``k_ls = B_l / length * int Y_ls(t, 0) dt`` along the stick, B_l the Gaussian window of its FWHM ``width``.  The
    orders end where the power does.

    Args:
        length: from end to end.
        width: FWHM of the Gaussian that the line is smoothed with.
    """
    # Gauss-Legendre nodes on half of the stick; a Y_ls with l * length / 2 of phase takes that many nodes and some.
    place, weight = np.polynomial.legendre.leggauss(32 + int(lmax * length / 2))
    points = np.stack([np.tile((place + 1) * length / 4, 2), np.repeat([0, np.pi], place.size)])
    return _coefficients(points, np.tile(weight / 4, 2), width, lmax)  # the weights of both halves add up to one


def row_coefficients(nside: int, length: float, width: float, lmax: int) -> np.ndarray:
    """Coefficients of a row of pixels, as :func:`stick_coefficients`: the mean of ``B_l Y_ls`` over their centres.

    The row is two pixels wide and runs over the pole from both sides, up to the pixel that the window's edge cuts: of
    ring i = 1 ... n, at ``2 arcsin(i / (sqrt 6 nside))`` from the pole, the four pixels at ``pi / 4i`` from its axis.

    Args:
        nside: of the pixels.
        length: of the window, from end to end.
        width: FWHM of the Gaussian that the row is smoothed with.
    """
    ring = np.arange(1, np.ceil(length / 2 / (np.sqrt(2 / 3) / nside)) + 1)
    theta = 2 * np.arcsin(np.minimum(ring / (np.sqrt(6) * nside), 1))
    beside = np.pi / (4 * ring)
    points = np.stack([np.tile(theta, 4), np.concatenate([beside, -beside, np.pi - beside, np.pi + beside])])
    return _coefficients(points, np.full(points.shape[1], 1 / points.shape[1]), width, lmax)


def _coefficients(points: np.ndarray, masses: np.ndarray, width: float, lmax: int) -> np.ndarray:
    """Coefficients of masses at points ``(2, n)``, colatitude and longitude, smoothed by a Gaussian of FWHM width."""
    # An order s varies as (l t)^s near the pole, so orders far above lmax times the half length hold nothing.
    highest = min(lmax, 32 + int(2 * lmax * points[0].max()))
    rings = {
        "theta": points[0],
        "nphi": np.ones(len(masses), dtype=np.uint64),
        "phi0": points[1] % (2 * np.pi),
        "ringstart": np.arange(len(masses), dtype=np.uint64),
    }
    options = {"lmax": lmax, "mmax": highest, "spin": 0, "nthreads": threads()}
    alm = ducc0.sht.adjoint_synthesis(map=masses[None], **options, **rings)[0].real
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
