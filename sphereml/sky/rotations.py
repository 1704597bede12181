"""Rotations of the sphere and local frames on it.

Conventions: a frame is a rotation matrix ``R`` of shape ``(..., 3, 3)`` whose *columns* are the local axes x, y, z
written in sky coordinates, so that ``sky = R @ local`` and ``local = sky @ R`` for row vectors ``(..., 3)``.  The axis
z points out of the sphere at the frame's centre; at position angle 0, x points east (growing longitude) and y north.
The position angle is counted from north through east (IAU), degrees: it is the direction in which y points.
"""

from __future__ import annotations

import healpy
import numpy as np

from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid

# Sub-pixels of this Nside are 0.01 arcsec wide: positions inside a pixel are uniform to that grain.
_FINEST_NSIDE = 2**24


def frame_at(lon: np.ndarray | float, lat: np.ndarray | float, angle: np.ndarray | float = 0.0) -> np.ndarray:
    """Frames at given positions, turned by a position angle.

    Args:
        lon, lat, angle: degrees, broadcast against each other.
    Returns:
        ``(..., 3, 3)``; columns x, y, z (see the module's conventions).
    """
    lon, lat, angle = np.broadcast_arrays(np.radians(lon), np.radians(lat), np.radians(angle))
    zero = np.zeros_like(lon)
    out = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    east = np.stack([-np.sin(lon), np.cos(lon), zero], axis=-1)
    north = np.cross(out, east)
    cosine, sine = np.cos(angle)[..., None], np.sin(angle)[..., None]
    return np.stack([cosine * east - sine * north, sine * east + cosine * north, out], axis=-1)


def frame_towards(vectors: np.ndarray, angle: np.ndarray | float = 0.0) -> np.ndarray:
    """Like :func:`frame_at`, for centres given as vectors ``(..., 3)``."""
    x, y, z = np.moveaxis(np.asarray(vectors, dtype=np.float64), -1, 0)
    return frame_at(np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y))), angle)


def uniform_centres(rng: np.random.Generator, n: int, allowed: np.ndarray) -> np.ndarray:
    """Directions uniform on the part of the sphere covered by the allowed pixels.

    A pixel is drawn, then a sub-pixel of it; all have equal areas, so no direction is ever rejected.

    Args:
        allowed: bool ``(npix,)`` NEST.
    Returns:
        Unit vectors ``(n, 3)``.
    Raises:
        UserError: no pixel is allowed, or ``allowed`` has no HEALPix size.
    """
    grid = HealpixGrid.of_size(allowed.size)
    pixels = np.flatnonzero(allowed)
    if pixels.size == 0:
        raise UserError("no pixel is left for the centres of patches", "widen the region or lessen the margin")
    children = (_FINEST_NSIDE // grid.nside) ** 2
    fine = rng.choice(pixels, size=n) * children + rng.integers(children, size=n)
    return np.stack(healpy.pix2vec(_FINEST_NSIDE, fine, nest=True), axis=-1)
