"""Jets: values and derivatives of fields of any spin at a pixel, by a local weighted least squares fit.

The values of the pixels around, transported into the pixel's frame (:mod:`sphereml.sky.tangent`), are fitted by a
polynomial in the geodesic coordinates of its tangent plane: of degree 2 to 3x3 pixels, or of degree 4 to 5x5.  Its
coefficients are the symmetrized covariant derivatives, whose combinations

    D = d_south + i d_east,    D* = d_south - i d_east

have definite spins: ``D^up D*^down`` of a field of spin s has spin ``s + up - down``.  They are minus the spin-raising
and minus the spin-lowering operator of Goldberg et al. (1967), so that in healpy's signs

    D*^2 (Q + iU) = -sqrt((l + 2)! / (l - 2)!) (E + iB),    D D* = d_south^2 + d_east^2 = the Laplacian.

Lengths are in units of the pixel's side ``sqrt(4 pi / npix)``.  A fit whose points do not fix it (at the edges of a
region, on the coarsest grids) is damped by a ridge: it gives small derivatives rather than wild ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import factorial

import numpy as np

from sphereml.errors import UserError
from sphereml.sky.faces import face_coordinates, pixels_beyond
from sphereml.sky.regions import Region
from sphereml.sky.tangent import Geodesics, LocalFrames, geodesics

# Width of the weights exp(-(r / width)^2) by degree, pixel sides.  Narrower ones recover D*^2 (Q + iU) better (at Nside
# 32 and ell <= nside to .9987 at 0.7, .9986 at 0.85, .9983 at 1, .9979 at 2) and rest on fewer points.
_WIDTHS = {2: 0.85, 4: 1.2}
# Against the smallest eigenvalue of the normal equations on a square lattice: below the first share a fit has lost
# rank, and the second is the ridge that it gets.
_RANK_LOSS, _RIDGE = 1e-2, 1 / 30
# Coarser grids are so far from a lattice that every fit is checked for its rank.
_SMALLEST_REGULAR = 8


def monomials(degree: int) -> list[tuple[int, int]]:
    """Powers of (south, east) up to a total degree."""
    return [(total - east, east) for total in range(degree + 1) for east in range(total + 1)]


def derivative(up: int, down: int, degree: int) -> np.ndarray:
    """``D^up D*^down`` as a combination of the derivatives along south and east, complex ``(nmonomial,)``."""
    expanded = np.zeros(degree + 1, dtype=complex)
    powers = np.ones(1, dtype=complex)
    for sign in [1] * up + [-1] * down:
        powers = np.polynomial.polynomial.polymul(powers, [1, sign * 1j])
    expanded[: len(powers)] = powers
    return np.array([expanded[east] if south + east == up + down else 0 for south, east in monomials(degree)])


def fit(south: np.ndarray, east: np.ndarray, present: np.ndarray, degree: int) -> np.ndarray:
    """What values at points are multiplied by to give the derivatives along south and east at the origin.

    Args:
        south, east: coordinates of the points, pixel sides, ``(n, npoint)``.
        present: which of them count, bool ``(n, npoint)``.
    Returns:
        ``(n, nmonomial, npoint)`` for the derivatives ``d_south^p d_east^q`` in the order of :func:`monomials`.
    """
    design, weighted, normal = _normal_equations(south, east, present, degree)
    lattice = _lattice_eigenvalue(degree)
    unsure = np.flatnonzero(~present.all(axis=1) | (np.abs(design[:, 1:3]).max(axis=(1, 2)) > 2 * degree))
    if unsure.size:
        poor = unsure[np.linalg.eigvalsh(normal[unsure])[:, 0] < _RANK_LOSS * lattice]
        normal[poor] += _RIDGE * lattice * np.eye(normal.shape[-1])
    solution: np.ndarray = np.linalg.solve(normal, weighted)
    return solution


def _normal_equations(
    south: np.ndarray, east: np.ndarray, present: np.ndarray, degree: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scales = [factorial(p) * factorial(q) for p, q in monomials(degree)]
    design = np.stack([south**p * east**q for p, q in monomials(degree)], axis=1) / np.array(scales)[:, None]
    weight = np.exp(-(south**2 + east**2) / _WIDTHS[degree] ** 2) * present
    weighted = design * weight[:, None]
    return design, weighted, weighted @ design.transpose(0, 2, 1)


def _lattice(degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The points of a square lattice around the origin, ``south, east, present``, as for the pixels of a face."""
    steps = np.arange(-(degree // 2), degree // 2 + 1.0)
    x, y = (grid.reshape(1, -1) for grid in np.meshgrid(steps, steps, indexing="ij"))
    return -y, x, np.ones_like(x, dtype=bool)


@lru_cache(maxsize=4)
def _lattice_eigenvalue(degree: int) -> float:
    return float(np.linalg.eigvalsh(_normal_equations(*_lattice(degree), degree)[2])[0, 0])


@lru_cache(maxsize=64)
def lattice_coefficients(up: int, down: int, degree: int) -> np.ndarray:
    """``D^up D*^down`` on a square lattice with parallel frames, rows towards north and columns towards east.

    Returns:
        complex128 ``((degree + 1)^2,)``: column by column along x, each from the south to the north.
    """
    coefficients: np.ndarray = derivative(up, down, degree) @ fit(*_lattice(degree), degree)[0]
    return coefficients


def white_gain(up: int, down: int, degree: int) -> float:
    """Standard deviation of ``D^up D*^down`` on a lattice of white noise of unit variance."""
    return float(np.linalg.norm(lattice_coefficients(up, down, degree)))


@dataclass(frozen=True, eq=False)
class Jets:
    """Fits at some pixels of a region, to those around them that lie in the region.

    Args:
        region: what is there.
        frames: of the pixels of its grid.
        pixels: NEST, ``(n,)``.
        degree: 2 or 4.
    Raises:
        UserError: degree 4 at Nside 1, where a window would leave the neighbouring faces.
    """

    region: Region
    frames: LocalFrames
    pixels: np.ndarray
    degree: int = 2

    def __post_init__(self) -> None:
        if self.region.nside < self.degree // 2:
            raise UserError(
                f"a spin convolution on 5x5 pixels at Nside {self.region.nside}",
                "use model.kernel=3 or a smaller model.depth",
            )

    @cached_property
    def _around(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of the window, ``(n, npoint)``, the pixel itself in the place of absent ones; and who is present."""
        nside, steps = self.region.nside, np.arange(-(self.degree // 2), self.degree // 2 + 1)
        face, x, y = (part[:, None, None] for part in face_coordinates(nside, self.pixels))
        around = pixels_beyond(nside, face, x + steps[:, None], y + steps).reshape(len(self.pixels), -1)
        present = (around >= 0) & (self.region.locate(around) >= 0)
        if nside < _SMALLEST_REGULAR:  # a window may meet a pixel from two sides
            earlier = np.tril(around[:, :, None] == around[:, None, :], -1).any(axis=2)
            present &= ~earlier
        return np.where(present, around, self.pixels[:, None]), present

    @property
    def neighbours(self) -> np.ndarray:
        """NEST pixels ``(n, npoint)``; absent ones are the pixel itself."""
        return self._around[0]

    @property
    def present(self) -> np.ndarray:
        return self._around[1]

    @cached_property
    def geodesics(self) -> Geodesics:
        return geodesics(self.frames.basis(self.pixels[:, None]), self.frames.basis(self.neighbours))

    @cached_property
    def _fit(self) -> np.ndarray:
        side = np.radians(self.region.grid.resolution)
        return fit(self.geodesics.south / side, self.geodesics.east / side, self.present, self.degree)

    @cached_property
    def _derivatives(self) -> dict[tuple[int, int], np.ndarray]:
        orders = monomials(self.degree)  # the same pairs of numbers, as (up, down)
        combinations = np.stack([derivative(up, down, self.degree) for up, down in orders])
        combined = (combinations.real @ self._fit) + 1j * (combinations.imag @ self._fit)
        return {order: combined[:, place] for place, order in enumerate(orders)}

    @cached_property
    def _phases(self) -> tuple[np.ndarray | float, ...]:
        phase = self.geodesics.phase
        return 1.0, phase, phase * phase

    def coefficients(self, spin: int, up: int, down: int) -> np.ndarray:
        """What neighbours' values of a field of this spin are multiplied by: complex128 ``(n, npoint)``.

        ``D^up D*^down f = sum_j c_j f_j`` in units of the pixel's side; 0 for absent neighbours.
        """
        result: np.ndarray = self._derivatives[up, down] * self._phases[spin]
        return result
