"""Symmetry checks for anything that acts on sphere maps: usable for any function ``(npix, nchan) -> (npix, nchan')``.

Conventions: maps are NEST and pixel-major; a symmetry moves the sky, ``(S x)(n) = x(S^-1 n)``.  A function f on scalar
fields is equivariant when ``f(S x) = S f(x)``.  The HEALPix grid maps onto itself under exactly sixteen rotations and
mirrors (the group D4h of the base pixels): there the check is exact but for rounding (:func:`assert_equivariant`).
Under any other rotation the grid itself is not symmetric and the error is measured in harmonic space, multipole by
multipole (:func:`rotation_error`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ducc0
import numpy as np
import torch
from torch import nn

from sphereml.domains import HealpixSky
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.harmonics.transforms import analysis, synthesis, threads
from sphereml.sky.grid import HealpixGrid

MapFunction = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Symmetry:
    """A symmetry of the HEALPix grid: mirrors first, then ``quarter_turns`` rotations by 90 degrees about z (east).

    ``mirror_lon`` takes longitude to minus longitude, ``mirror_lat`` latitude to minus latitude.
    """

    quarter_turns: int = 0
    mirror_lon: bool = False
    mirror_lat: bool = False

    def matrix(self) -> np.ndarray:
        """The orthogonal matrix ``(3, 3)`` that moves directions: ``n' = M n``."""
        turn = np.linalg.matrix_power(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), self.quarter_turns % 4)
        return turn @ np.diag([1, -1 if self.mirror_lon else 1, -1 if self.mirror_lat else 1])

    def source(self, nside: int) -> np.ndarray:
        """For every NEST pixel the one whose value it takes, ``(npix,)``: ``moved = maps[source]``.

        Raises:
            AssertionError: the moved pixel centres are not pixel centres (never, for these sixteen).
        """
        grid = HealpixGrid(nside)
        vectors = grid.vectors()
        # Row vectors: n M is M^-1 n, the direction from which a value comes.
        origin = vectors @ self.matrix()
        pixels = grid.pixels_at(origin)
        assert np.abs(vectors[pixels] - origin).max() < 1e-12
        return pixels


SYMMETRIES = tuple(Symmetry(turns, lon, lat) for turns in range(4) for lon in (False, True) for lat in (False, True))


def assert_equivariant(
    function: MapFunction, nside: int, symmetry: Symmetry, tolerance: float, channels: int = 3, seed: int = 0
) -> None:
    """Check ``f(S x) = S f(x)`` on white noise, which holds every scale the grid has.

    Args:
        function: ``(npix, channels)`` float64 to ``(npix, any)``; deterministic.
        tolerance: largest deviation allowed, in units of the output's standard deviation.
    Raises:
        AssertionError: the deviation is larger; the message names it and the symmetry.
    """
    maps = np.random.default_rng(seed).standard_normal((HealpixGrid(nside).npix, channels))
    source = symmetry.source(nside)
    moved_before, moved_after = function(maps[source]), function(maps)[source]
    deviation = np.abs(moved_before - moved_after).max() / moved_after.std()
    assert deviation <= tolerance, f"{symmetry}: deviation {deviation:.2e} of the standard deviation > {tolerance:.1e}"


def rotation_error(
    function: MapFunction, alm: np.ndarray, nside: int, angles: tuple[float, float, float]
) -> np.ndarray:
    """Relative error of ``f(R x)`` against ``R f(x)`` by multipole, for a general rotation.

    ``sqrt(C_ell[f(R x) - R f(x)] / C_ell[f(x)])``, all output channels together; where the output has no power but
    aliasing's, it says nothing.

    Args:
        function: ``(npix, nchan)`` float64 to ``(npix, any)``; deterministic.
        alm: input maps, complex ``(nchan, nalm)`` up to ``lmax = 2 nside``, band-limited as the question asks.
        angles: Euler angles psi, theta, phi of ducc0.sht.rotate_alm, radians.
    Returns:
        ``(2 nside + 1,)``.
    """
    lmax = HealpixGrid(nside).safe_lmax

    def apply(coefficients: np.ndarray) -> np.ndarray:
        return analysis(np.ascontiguousarray(function(synthesis(coefficients, nside, lmax).T).T), lmax)

    output = apply(alm)
    difference = apply(_rotated(alm, lmax, angles)) - _rotated(output, lmax, angles)
    error, power = (cross_spectrum(a, a, lmax).sum(axis=0) for a in (difference, output))
    ratio: np.ndarray = np.sqrt(np.divide(error, power, out=np.zeros_like(error), where=power > 0))
    return ratio


def network_function(network: nn.Module, nside: int, dtype: torch.dtype = torch.float32) -> MapFunction:
    """A network called as ``network(x, domain)`` as a function of numpy maps ``(npix, nchan)`` on the whole sphere.

    Put the network in ``eval()`` mode first: dropout is not deterministic.
    """
    domain = HealpixSky(nside)

    def function(maps: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            output: np.ndarray = network(torch.from_numpy(maps).to(dtype)[None], domain)[0].double().numpy()
        return output

    return function


def _rotated(alm: np.ndarray, lmax: int, angles: tuple[float, float, float]) -> np.ndarray:
    """ducc0 rotates one field at a time."""
    return np.stack([ducc0.sht.rotate_alm(one, lmax, *angles, nthreads=threads()) for one in alm])
