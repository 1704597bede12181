"""The twelve faces of HEALPix as square grids that continue across their edges.

Conventions: inside a face x runs north-east and y north-west from the southern corner, both 0 .. nside-1; faces 0-3
are the northern, 4-7 the equatorial, 8-11 the southern ones, each row eastward (Gorski et al. 2005, fig. 4).  The NEST
index is ``face nside^2`` plus the bits of x in the even and of y in the odd places.  At eight points only three faces
meet (the northern and southern corners of the equatorial faces): beyond such a corner there is nothing, index -1.

A quarter turn about the polar axis carries every face to the next of its row with x and y kept, so it adds a multiple
of ``nside^2`` within the row.  Everything computed for faces 0, 4 and 8 holds for the others after such a turn, and
unit vectors here are turned exactly, so that it holds to the last bit.
"""

from __future__ import annotations

import healpy
import numpy as np

# Beyond the edges of a face of each row: (side of x, side of y) -> (row, faces eastward, quarter turns of the axes).
_BEYOND: tuple[dict[tuple[int, int], tuple[int, int, int]], ...] = (
    {
        **{(0, 0): (0, 0, 0), (1, 0): (0, 1, 1), (0, 1): (0, 3, 3), (1, 1): (0, 2, 2)},
        **{(-1, 0): (1, 0, 0), (0, -1): (1, 1, 0), (-1, -1): (2, 0, 0)},
    },
    {
        **{(0, 0): (1, 0, 0), (1, 0): (0, 0, 0), (0, 1): (0, 3, 0), (-1, 0): (2, 3, 0), (0, -1): (2, 0, 0)},
        **{(1, -1): (1, 1, 0), (-1, 1): (1, 3, 0)},
    },
    {
        **{(0, 0): (2, 0, 0), (-1, 0): (2, 3, 1), (0, -1): (2, 1, 3), (-1, -1): (2, 2, 2)},
        **{(1, 0): (1, 1, 0), (0, 1): (1, 0, 0), (1, 1): (0, 0, 0)},
    },
)


def _crossings() -> tuple[np.ndarray, np.ndarray]:
    """Face (-1: none) and quarter turns beyond each side of each face, both ``(12, 3, 3)``."""
    face, turn = np.full((12, 3, 3), -1), np.zeros((12, 3, 3), dtype=np.int64)
    for own in range(12):
        for (side_x, side_y), (row, east, turns) in _BEYOND[own // 4].items():
            face[own, side_x + 1, side_y + 1] = 4 * row + (own + east) % 4
            turn[own, side_x + 1, side_y + 1] = turns
    return face, turn


_FACE, _TURN = _crossings()


def spread_bits(x: np.ndarray) -> np.ndarray:
    """Bits of ``x`` (below 2^16) moved to the even places: int64."""
    x = np.asarray(x, dtype=np.int64)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        x = (x | x << shift) & mask
    return x


def gather_bits(x: np.ndarray) -> np.ndarray:
    """The even bits of ``x`` (below 2^32) side by side: the inverse of :func:`spread_bits`."""
    x = np.asarray(x, dtype=np.int64) & 0x55555555
    for shift, mask in ((1, 0x33333333), (2, 0x0F0F0F0F), (4, 0x00FF00FF), (8, 0x0000FFFF)):
        x = (x | x >> shift) & mask
    return x


def face_coordinates(nside: int, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Face, x and y of NEST pixels."""
    face, inside = np.divmod(pixels, nside * nside)
    return face, gather_bits(inside), gather_bits(inside >> 1)


def pixels_beyond(nside: int, face: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """NEST pixel at ``(x, y)`` of a face, where either may leave the face by up to ``nside``: -1 where there is none.

    The three arguments broadcast; returns int64.
    """
    side_x, side_y = x // nside + 1, y // nside + 1
    other, turn = _FACE[face, side_x, side_y], _TURN[face, side_x, side_y]
    x, y = np.broadcast_arrays(x % nside, y % nside)
    far_x, far_y = nside - 1 - x, nside - 1 - y
    # One turn takes (x, y) to (y, -x).
    new_x = np.choose(turn, (x, y, far_x, far_y))
    new_y = np.choose(turn, (y, far_x, far_y, x))
    pixels = other * nside * nside + spread_bits(new_x) + 2 * spread_bits(new_y)
    result: np.ndarray = np.where(other >= 0, pixels, -1)
    return result


def turned(nside: int, pixels: np.ndarray, turns: np.ndarray | int) -> np.ndarray:
    """NEST pixels after quarter turns eastward about the polar axis (the two broadcast); the pixels' dtype is kept."""
    turn_bits = pixels.dtype.type(3 * nside * nside)
    step = np.asarray(turns, dtype=pixels.dtype) * pixels.dtype.type(nside * nside)
    result: np.ndarray = (pixels & ~turn_bits) | ((pixels + step) & turn_bits)
    return result


def quarter_turns(nside: int, pixels: np.ndarray) -> np.ndarray:
    """Turns that bring a pixel of faces 0, 4 or 8 to the given one."""
    turns: np.ndarray = (pixels // (nside * nside)) & 3
    return turns


def orbits(nside: int, pixels: np.ndarray) -> np.ndarray:
    """Number, below ``3 nside^2``, of the set of four pixels that quarter turns carry into each other."""
    face_area = nside * nside
    number: np.ndarray = pixels // (4 * face_area) * face_area + (pixels & (face_area - 1))
    return number


def representatives(nside: int, orbit: np.ndarray) -> np.ndarray:
    """The pixel of each orbit that lies in face 0, 4 or 8."""
    face_area = nside * nside
    pixels: np.ndarray = orbit // face_area * (4 * face_area) + (orbit & (face_area - 1))
    return pixels


def unit_vectors(nside: int, pixels: np.ndarray) -> np.ndarray:
    """Unit vectors ``(3, ...)`` of the centres of NEST pixels, those of an orbit exact turns of each other."""
    x, y, z = healpy.pix2vec(nside, representatives(nside, orbits(nside, pixels)), nest=True)
    turns = quarter_turns(nside, pixels)
    return np.stack([np.choose(turns, (x, -y, -x, y)), np.choose(turns, (y, x, -y, -x)), z])
