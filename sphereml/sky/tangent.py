"""Tangent planes of HEALPix pixels: where other pixels lie in them, and how frames turn on the way there.

Conventions: the frame of a pixel is (south, east), the basis of COSMO's Q and U, or that frame turned by ``angles``
from south towards east.  Positions in a tangent plane are geodesic (azimuthal equidistant) coordinates in radians:
``w = south + i east = distance exp(i bearing)``.  A value of spin s, ``z = z_south + i z_east`` for s = 1 and
``Q + iU`` for s = 2, is carried in parallel along the geodesic from the far pixel into the near pixel's frame by

    z -> exp(i s turn) z,    turn = bearing of the geodesic at the near pixel - its bearing at the far one.

Pixels are NEST.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sphereml.sky.faces import unit_vectors

# Below this distance (radians) two directions are the same and no bearing is defined.
_SAME = 1e-12


@dataclass(frozen=True)
class Geodesics:
    """Geodesics from near pixels to far ones: ``south`` and ``east`` (radians) and ``turn`` (radians), one shape."""

    south: np.ndarray
    east: np.ndarray
    turn: np.ndarray

    @cached_property
    def phase(self) -> np.ndarray:
        """``exp(i turn)``, complex128."""
        phase: np.ndarray = np.exp(1j * self.turn)
        return phase


class Basis(NamedTuple):
    """Frames: unit vectors outwards, along the first axis ("south") and along the second ("east"), ``(..., 3)``."""

    out: np.ndarray
    south: np.ndarray
    east: np.ndarray

    @classmethod
    def along(cls, out: np.ndarray, south: np.ndarray) -> Basis:
        """With the second axis where outwards and the first axis put it."""
        return cls(out, south, np.cross(out, south))


@dataclass(frozen=True, eq=False)
class LocalFrames:
    """The frames of the pixels of a grid.

    Args:
        nside: of the grid.
        angles: by which each pixel's frame is turned from south towards east, radians ``(12 nside^2,)``; None: not.
    """

    nside: int
    angles: np.ndarray | None = None

    def basis(self, pixels: np.ndarray) -> Basis:
        """The frames of some pixels."""
        x, y, z = unit_vectors(self.nside, pixels)
        rho = np.hypot(x, y)  # never 0: no pixel's centre is a pole
        out = np.stack([x, y, z], axis=-1)
        south = np.stack([x * z / rho, y * z / rho, -rho], axis=-1)
        east = np.stack([-y / rho, x / rho, np.zeros_like(z)], axis=-1)
        if self.angles is None:
            return Basis(out, south, east)
        cosine, sine = (part[..., None] for part in (np.cos(self.angles[pixels]), np.sin(self.angles[pixels])))
        return Basis(out, cosine * south + sine * east, cosine * east - sine * south)


def geodesics(near: Basis, far: Basis) -> Geodesics:
    """Geodesics from near places to far ones, which broadcast; none may be antipodes."""
    cosine = np.clip(_dot(near.out, far.out), -1, 1)
    across = far.out - cosine[..., None] * near.out
    sine = np.linalg.norm(across, axis=-1)
    distance = np.arctan2(sine, cosine)
    same = distance < _SAME
    direction = np.where(same[..., None], near.south, across / np.where(same, 1.0, sine)[..., None])
    arriving = cosine[..., None] * direction - sine[..., None] * near.out
    along_south, along_east = _dot(direction, near.south), _dot(direction, near.east)
    bearing = np.arctan2(along_east, along_south)
    far_bearing = np.arctan2(_dot(arriving, far.east), _dot(arriving, far.south))
    return Geodesics(distance * along_south, distance * along_east, bearing - far_bearing)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    product: np.ndarray = np.einsum("...i,...i->...", a, b)
    return product
