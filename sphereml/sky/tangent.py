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


@dataclass(frozen=True, eq=False)
class LocalFrames:
    """The frames of the pixels of a grid.

    Args:
        nside: of the grid.
        angles: by which each pixel's frame is turned from south towards east, radians ``(12 nside^2,)``; None: not.
    """

    nside: int
    angles: np.ndarray | None = None

    def basis(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit vectors outwards and along both axes of the frames, each ``(..., 3)``."""
        x, y, z = unit_vectors(self.nside, pixels)
        rho = np.hypot(x, y)  # never 0: no pixel's centre is a pole
        out = np.stack([x, y, z], axis=-1)
        south = np.stack([x * z / rho, y * z / rho, -rho], axis=-1)
        east = np.stack([-y / rho, x / rho, np.zeros_like(z)], axis=-1)
        if self.angles is None:
            return out, south, east
        cosine, sine = (part[..., None] for part in (np.cos(self.angles[pixels]), np.sin(self.angles[pixels])))
        return out, cosine * south + sine * east, cosine * east - sine * south


def geodesics(
    near: np.ndarray, far: np.ndarray, frames: LocalFrames, far_frames: LocalFrames | None = None
) -> Geodesics:
    """Geodesics from the centres of ``near`` pixels to those of ``far`` ones, which broadcast.

    Args:
        far_frames: of the far pixels where they belong to another grid.
    """
    out, south, east = frames.basis(near)
    there, far_south, far_east = (far_frames or frames).basis(far)
    cosine = np.clip(_dot(out, there), -1, 1)
    across = there - cosine[..., None] * out
    sine = np.linalg.norm(across, axis=-1)
    distance = np.arctan2(sine, cosine)
    same = distance < _SAME
    direction = across / np.where(same, 1.0, sine)[..., None]
    arriving = cosine[..., None] * direction - sine[..., None] * out
    along_south, along_east = _dot(direction, south), _dot(direction, east)
    bearing = np.arctan2(along_east, along_south)
    far_bearing = np.arctan2(_dot(arriving, far_east), _dot(arriving, far_south))
    if same.any():
        bearing = np.where(same, _bearing_of(south, far_south, far_east), bearing)
        far_bearing = np.where(same, 0.0, far_bearing)
    return Geodesics(distance * along_south, distance * along_east, bearing - far_bearing)


def _bearing_of(south: np.ndarray, far_south: np.ndarray, far_east: np.ndarray) -> np.ndarray:
    """Minus the direction of one frame's first axis in another frame at the same place: the turn between the two."""
    return -np.arctan2(_dot(south, far_east), _dot(south, far_south))


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    product: np.ndarray = np.einsum("...i,...i->...", a, b)
    return product
