"""Symmetry checks for anything that acts on sphere maps: usable for any function ``(npix, nchan) -> (npix, nchan')``.

Conventions: maps are NEST and pixel-major; a symmetry moves the sky, ``(S x)(n) = x(S^-1 n)`` for a scalar x, and
spins turn along (:meth:`Symmetry.move`).  A function f is equivariant when ``f(S x) = S f(x)``.  The HEALPix grid maps
onto itself under exactly sixteen rotations and mirrors (the group D4h of the base pixels): there the check is exact but
for rounding (:func:`assert_equivariant`).  Under any other rotation the grid itself is not symmetric and the error is
measured in harmonic space, multipole by multipole (:func:`rotation_error`), beside that of interpolating a map at the
turned directions (:func:`interpolation_floor`).

Spins refer to frames that nature does not know: with every pixel's frame turned by an angle of its own, scalars stay
and spins turn by exactly these angles (:func:`assert_frame_free`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from sphereml.domains import HealpixSky
from sphereml.domains.channels import Channels
from sphereml.harmonics.rotation import rotate_alm, rotation_matrix
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.interpolation import sample
from sphereml.sky.tangent import LocalFrames

__all__ = [
    "Symmetry",
    "TurnedSky",
    "assert_equivariant",
    "assert_frame_free",
    "interpolation_floor",
    "network_function",
    "rotation_error",
]
MapFunction = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Symmetry:
    """A symmetry of the HEALPix grid: mirrors first, then ``quarter_turns`` rotations by 90 degrees about z (east).

    ``mirror_lon`` takes longitude to minus longitude, ``mirror_lat`` latitude to minus latitude.

    Example:
        >>> import numpy as np, sphereml as sm
        >>> sm.testing.Symmetry(mirror_lat=True).move(np.arange(12.0)[:, None], 1)[:, 0].tolist()
        [8.0, 9.0, 10.0, 11.0, 4.0, 5.0, 6.0, 7.0, 0.0, 1.0, 2.0, 3.0]
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

    def move(self, maps: np.ndarray, channels: int | Channels) -> np.ndarray:
        """Moved maps ``(npix, columns)``; both axes of a frame keep their names, so a mirror flips one of them.

        A mirror changes the sign of odd scalars and of U, and of a spin-1 field that of its component across the
        mirror: towards east with ``mirror_lon``, towards south with ``mirror_lat``.
        """
        channels = Channels.of(channels)
        moved = maps[self.source(HealpixGrid.of_size(len(maps)).nside)]
        east, south = (-1 if flip else 1 for flip in (self.mirror_lon, self.mirror_lat))
        signs = [1] * channels.even + [east * south] * channels.odd
        signs += [south, east] * channels.spin1 + [1, east * south] * channels.spin2
        return moved * np.array(signs, dtype=maps.dtype)


SYMMETRIES = tuple(Symmetry(turns, lon, lat) for turns in range(4) for lon in (False, True) for lat in (False, True))


def assert_equivariant(
    function: MapFunction | nn.Module,
    maps: int | np.ndarray | torch.Tensor,
    symmetry: Symmetry | None = None,
    tolerance: float = 1e-4,
    channels: int | Channels | None = None,
    channels_out: int | Channels | None = None,
    seed: int = 0,
) -> None:
    """Check ``f(S x) = S f(x)``.

    Args:
        function: ``(npix, columns)`` float64 to ``(npix, any)``, deterministic; or a network, which is called in
            ``eval()`` mode and single precision as ``network(x, domain)``.
        maps: ``(npix, columns)`` or ``(B, npix, columns)``; or an Nside: white noise, which holds every scale the grid
            has.
        symmetry: None: all of the sixteen.
        tolerance: largest deviation allowed, in units of the output's standard deviation.
        channels, channels_out: of the maps and of the output; None: even scalars alone.
    Raises:
        AssertionError: the deviation is larger; the message names it and the symmetry.

    Example:
        >>> import sphereml as sm
        >>> sky = sm.HealpixSky(8)
        >>> sm.testing.assert_equivariant(sm.UNet(sky, 2, depth=1, width=4), torch.randn(1, 768, 2))
    """
    if isinstance(maps, int):
        own = Channels.of(3 if channels is None else channels)
        samples = np.random.default_rng(seed).standard_normal((1, HealpixGrid(maps).npix, own.columns))
    else:
        samples = np.asarray(maps, dtype=np.float64)
        samples = samples.reshape(-1, *samples.shape[-2:])
        own = Channels.of(samples.shape[2] if channels is None else channels)
    if isinstance(function, nn.Module):
        was_training = function.training
        called = network_function(function.eval(), HealpixGrid.of_size(samples.shape[1]).nside)
    else:
        was_training, called = False, function
    try:
        for sample_maps in samples:
            output = called(sample_maps)
            other = Channels(output.shape[1]) if channels_out is None else Channels.of(channels_out)
            for one in SYMMETRIES if symmetry is None else (symmetry,):
                deviation = np.abs(called(one.move(sample_maps, own)) - one.move(output, other)).max() / output.std()
                said = f"deviation {deviation:.2e} of the standard deviation > {tolerance:.1e}"
                assert deviation <= tolerance, f"{one}: {said}"
    finally:
        if isinstance(function, nn.Module):
            function.train(was_training)


@lru_cache(maxsize=16)
def _turned_frames(nside: int, seed: int) -> LocalFrames:
    rng = np.random.default_rng([seed, nside])
    return LocalFrames(nside, rng.uniform(-np.pi, np.pi, HealpixGrid(nside).npix))


@dataclass(frozen=True)
class TurnedSky(HealpixSky):
    """A sphere, or a part of it, each of whose pixels' frames is turned by a random angle, at every resolution.

    Example:
        >>> import sphereml as sm, torch
        >>> scalar_and_qu = sm.Channels(even=1, spin2=1)
        >>> sm.testing.TurnedSky(4).seen(torch.ones(1, 192, 3), scalar_and_qu)[..., 0].unique().tolist()
        [1.0]
    """

    seed: int = 0

    @property
    def frames(self) -> LocalFrames:
        return _turned_frames(self.nside, self.seed)

    def coarser(self) -> TurnedSky:
        region = self.region.coarser()
        return TurnedSky(region.nside, region.coarse_pixels, region.coarse_nside, self.seed)

    def seen(self, x: torch.Tensor, channels: int | Channels) -> torch.Tensor:
        """Maps ``(B, npix, columns)`` in the turned frames."""
        angles = self.frames.angles
        assert angles is not None
        return Channels.of(channels).turn(x, -torch.from_numpy(angles[self.region.pixels]))


def assert_frame_free(
    network: nn.Module,
    domain: HealpixSky,
    channels: int | Channels,
    channels_out: int | Channels,
    tolerance: float = 1e-10,
) -> None:
    """Check that frames are but names: turned by any angles, scalar outputs stay and spins turn by just these angles.

    In float64, on white noise.  Put the network in ``eval()`` mode first; it is called as ``network(x, domain)`` with
    ``(1, npix, columns)``.

    Raises:
        AssertionError: the deviation is larger than the tolerance, in units of the output's standard deviation.

    Example:
        >>> import sphereml as sm
        >>> sky, qu = sm.HealpixSky(4), sm.Channels(spin2=1)
        >>> network = sm.UNet(sky, qu, 1, depth=1, width=4, stencil="spin").eval()
        >>> sm.testing.assert_frame_free(network, sky, qu, 1)
    """
    network, own, other = network.double(), Channels.of(channels), Channels.of(channels_out)
    turned = TurnedSky(domain.nside, domain.coarse_pixels, domain.coarse_nside)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, *domain.shape, own.columns, dtype=torch.float64, generator=generator)
    with torch.inference_mode():
        expected = turned.seen(network(x, domain), other)
        deviation = float((network(turned.seen(x, own), turned) - expected).abs().max() / expected.std())
    assert deviation <= tolerance, f"turned frames change the output by {deviation:.2e} of its standard deviation"


def rotation_error(
    function: MapFunction,
    alm: np.ndarray,
    nside: int,
    angles: tuple[float, float, float],
    channels: int | Channels | None = None,
    channels_out: int | Channels | None = None,
) -> np.ndarray:
    """Relative error of ``f(R x)`` against ``R f(x)`` by multipole, for a general rotation.

    ``sqrt(C_ell[f(R x) - R f(x)] / C_ell[f(x)])``, all output channels together; where the output has no power but
    aliasing's, it says nothing.

    Args:
        function: ``(npix, columns)`` float64 to ``(npix, any)``; deterministic.
        alm: input maps, complex ``(columns, nalm)`` up to ``lmax = 2 nside``, band-limited as the question asks; of a
            spin E and B take the place of its two columns.
        angles: Euler angles psi, theta, phi of ducc0.sht.rotate_alm, radians.
        channels, channels_out: of the maps; None: even scalars.
    Returns:
        ``(2 nside + 1,)``.

    Example:
        >>> import numpy as np, sphereml as sm
        >>> alm = sm.SHT(nside=8, lmax=16).analysis(np.random.default_rng(0).normal(size=768))[None]
        >>> bool(sm.testing.rotation_error(lambda maps: 2 * maps, alm, 8, (0.1, 0.2, 0.3))[2:].max() < 1e-4)
        True
    """
    lmax, own = HealpixGrid(nside).safe_lmax, Channels.of(len(alm) if channels is None else channels)

    def apply(coefficients: np.ndarray) -> np.ndarray:
        output = function(_synthesized(coefficients, nside, own))
        return _analysed(output, Channels.of(output.shape[1] if channels_out is None else channels_out))

    output = apply(alm)
    return _relative(apply(rotate_alm(alm, lmax, angles)) - rotate_alm(output, lmax, angles), output, lmax)


def interpolation_floor(
    alm: np.ndarray, nside: int, angles: tuple[float, float, float], channels: int | Channels | None = None
) -> np.ndarray:
    """What bilinear interpolation at turned directions errs by, as in :func:`rotation_error`; spins turn along.

    Example:
        >>> import numpy as np, sphereml as sm
        >>> alm = sm.SHT(nside=8, lmax=16).analysis(np.random.default_rng(0).normal(size=768))[None]
        >>> sm.testing.interpolation_floor(alm, 8, (0.1, 0.2, 0.3)).shape
        (17,)
    """
    lmax, own = HealpixGrid(nside).safe_lmax, Channels.of(len(alm) if channels is None else channels)
    matrix = rotation_matrix(angles)
    _, south, _ = LocalFrames(nside).basis(np.arange(HealpixGrid(nside).npix))
    vectors = HealpixGrid(nside).vectors()
    maps = _synthesized(alm, nside, own)
    turned = sample(maps, vectors @ matrix, south @ matrix, own.spins)
    return _relative(_analysed(turned, own) - rotate_alm(alm, lmax, angles), alm, lmax)


def network_function(network: nn.Module, nside: int, dtype: torch.dtype = torch.float32) -> MapFunction:
    """A network called as ``network(x, domain)`` as a function of numpy maps ``(npix, nchan)`` on the whole sphere.

    Put the network in ``eval()`` mode first: dropout is not deterministic.

    Example:
        >>> import numpy as np, sphereml as sm
        >>> network = sm.UNet(sm.HealpixSky(4), 2, 1, depth=1, width=4).eval()
        >>> sm.testing.network_function(network, 4)(np.zeros((192, 2))).shape
        (192, 1)
    """
    domain = HealpixSky(nside)

    def function(maps: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            output: np.ndarray = network(torch.from_numpy(maps).to(dtype)[None], domain)[0].double().numpy()
        return output

    return function


def _relative(difference: np.ndarray, output: np.ndarray, lmax: int) -> np.ndarray:
    error, power = (cross_spectrum(a, a, lmax).sum(axis=0) for a in (difference, output))
    ratio: np.ndarray = np.sqrt(np.divide(error, power, out=np.zeros_like(error), where=power > 0))
    return ratio


def _synthesized(alm: np.ndarray, nside: int, channels: Channels) -> np.ndarray:
    """Maps ``(npix, columns)`` of a_lm ``(columns, nalm)``."""
    lmax = HealpixGrid(nside).safe_lmax
    parts = []
    for spin in sorted(set(channels.spins)):
        own = alm[channels.span(spin)]
        maps = synthesis(own.reshape(-1, 2, own.shape[1]) if spin else own, nside, lmax, spin)
        parts.append(maps.reshape(len(own), HealpixGrid(nside).npix))
    return np.ascontiguousarray(np.concatenate(parts).T)


def _analysed(maps: np.ndarray, channels: Channels) -> np.ndarray:
    """a_lm ``(columns, nalm)`` of maps ``(npix, columns)``."""
    lmax = HealpixGrid.of_size(len(maps)).safe_lmax
    parts = []
    for spin in sorted(set(channels.spins)):
        own = np.ascontiguousarray(maps[:, channels.span(spin)].T)
        alm = analysis(own.reshape(-1, 2, len(maps)) if spin else own, lmax, spin)
        parts.append(alm.reshape(len(own), alm.shape[-1]))
    return np.concatenate(parts)
