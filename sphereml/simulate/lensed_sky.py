"""Lensed CMB polarization on the curved sky, at any positions: no Taylor expansion, no flat map, no HEALPix sampling.

Conventions: E, Q, U in uK (CMB); phi and the deflection in radians; ``lensed X(n) = X(n + grad phi)``,
``kappa = L (L + 1) / 2 phi``; Q and U are COSMO.  The primordial B is zero.  E and phi are drawn independently: their
correlation (reionization with the ISW effect, ell < 20) is far below what any patch or delensing sees.

A deflected position lies at the distance |grad phi| along the geodesic that starts at n in the direction of grad phi.
The polarization there is brought back to n by parallel transport along that geodesic (Challinor & Lewis 2005,
astro-ph/0502425; Lewis 2005, astro-ph/0502469): the axes to which Q and U refer are carried to the deflected position,
and compared with its meridian there.

The precision of the coefficients is that of the maps: complex64 coefficients give maps with errors of 2e-7 of their
rms (measured at lmax 1500: 1e-6 uK in Q and U); positions are always float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ducc0
import numpy as np

from sphereml.harmonics.rings import alm_index, alm_size, threads
from sphereml.patches.lambert import LambertPatch
from sphereml.simulate.cmb_spectra import CmbSpectra
from sphereml.simulate.fields import draw_alm
from sphereml.sky.stokes import directions, stokes_rotation, tangent_basis, transport

# What ducc0 is asked for; it takes nothing below 1e-6 in single precision.
_EPSILON = {np.dtype(np.complex64): 2e-6, np.dtype(np.complex128): 1e-11}
_BLOCK = 1 << 20  # positions whose vectors are held at a time
# Rings beyond the multipoles that are wanted: the lensed field has no band limit, and what lies above aliases.
_RING_MARGIN = 500


@dataclass(frozen=True, eq=False)
class LensedSky:
    """Coefficients of one realization up to ``lmax``: unlensed ``e`` (uK) and ``potential``, complex ``(nalm,)``."""

    lmax: int
    e: np.ndarray
    potential: np.ndarray

    @property
    def kappa(self) -> np.ndarray:
        """Coefficients of the convergence, ``L (L + 1) / 2 phi``."""
        ell = alm_index(self.lmax)[0].astype(self.potential.real.dtype)
        return np.asarray(ell * (ell + 1) / 2 * self.potential)


@dataclass(frozen=True, eq=False)
class LensedFields:
    """Values at given positions, equal shapes: ``q, u`` lensed and unlensed (uK), unlensed ``e`` (uK), ``kappa``."""

    q: np.ndarray
    u: np.ndarray
    q_unlensed: np.ndarray
    u_unlensed: np.ndarray
    e: np.ndarray
    kappa: np.ndarray


def draw_sky(
    spectra: CmbSpectra, lmax: int, seed: tuple[int, ...], dtype: np.typing.DTypeLike = np.complex64
) -> LensedSky:
    """The realization of ``seed``, e.g. (campaign, sky); E and phi have streams of their own.

    Its large scales do not depend on lmax.  Raises ValueError when the spectra end below lmax.
    """
    if spectra.lmax < lmax:
        raise ValueError(f"the spectra end at ell={spectra.lmax}, below lmax={lmax}")
    e, potential = (
        draw_alm(power[: lmax + 1], np.random.default_rng([*seed, stream])).astype(dtype)
        for stream, power in enumerate((spectra.ee, spectra.potential))
    )
    return LensedSky(lmax, e, potential)


def lensed_fields(sky: LensedSky, vectors: np.ndarray, axes: np.ndarray) -> LensedFields:
    """Everything at positions ``(..., 3)``, Q and U with respect to the east ``axes`` ``(..., 3)`` there."""
    shape = vectors.shape[:-1]
    theta, phi = directions(vectors.reshape(-1, 3))
    place = np.stack([theta, phi], axis=-1)
    gradient = _evaluate(sky, sky.potential, 1, place, "DERIV1")
    axes = axes.reshape(-1, 3)
    target, rotation = _deflect_blocks(theta, phi, gradient, lambda block: axes[block])
    # One transform serves both: its cost is that of the grid behind it more than that of the positions.
    polarization = _complex(_evaluate(sky, sky.e, 2, np.concatenate([target, place])))
    lensed = polarization[: len(place)] * rotation
    unlensed = polarization[len(place) :] * stokes_rotation(axes, theta, phi).astype(rotation.dtype)
    e, kappa = (_evaluate(sky, alm, 0, place)[0] for alm in (sky.e, sky.kappa))
    values = (lensed.real, lensed.imag, unlensed.real, unlensed.imag, e, kappa)
    return LensedFields(*(np.ascontiguousarray(value).reshape(shape) for value in values))


def lensed_patches(sky: LensedSky, patch: LambertPatch, frames: np.ndarray) -> LensedFields:
    """Patches ``(..., size, size)`` at frames ``(..., 3, 3)``, evaluated at their pixel centres, Q/U in their axes."""
    return lensed_fields(sky, patch.vectors(frames), patch.axes(frames))


def lensed_rings(sky: LensedSky, lmax: int) -> np.ndarray:
    """Lensed Q and U ``(2, lmax + 1, nphi)`` on the Gauss-Legendre rings that hold multipoles up to ``lmax``."""
    shape = (lmax + 1, ducc0.fft.good_size(2 * lmax + 2))
    gradient = ducc0.sht.synthesis_2d(
        alm=sky.potential[None], spin=1, lmax=sky.lmax, ntheta=shape[0], nphi=shape[1], geometry="GL",
        mode="DERIV1", nthreads=threads(),
    ).reshape(2, -1)  # fmt: skip
    ring, azimuth = ducc0.misc.GL_thetas(shape[0]), 2 * np.pi * np.arange(shape[1]) / shape[1]
    theta, phi = np.repeat(ring, shape[1]), np.tile(azimuth, shape[0])
    target, rotation = _deflect_blocks(theta, phi, gradient, lambda block: tangent_basis(theta[block], phi[block])[2])
    lensed = _complex(_evaluate(sky, sky.e, 2, target)) * rotation
    return np.stack([lensed.real, lensed.imag]).reshape(2, *shape)


def lensed_alm(sky: LensedSky, lmax: int | None = None, margin: int = _RING_MARGIN) -> np.ndarray:
    """Coefficients of the lensed E and B up to ``lmax`` (the sky's), ``(2, nalm)`` of the sky's precision.

    ``margin``: rings enough for multipoles this far beyond those of the sky.
    """
    lmax = sky.lmax if lmax is None else lmax
    rings = lensed_rings(sky, max(lmax, sky.lmax) + margin)
    alm: np.ndarray = ducc0.sht.analysis_2d(map=rings, spin=2, lmax=lmax, geometry="GL", nthreads=threads())
    return alm


def lensed_eb(sky: LensedSky, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lensed E and B (uK) at positions ``(..., 3)``: costs an analysis of the whole sky."""
    place = np.stack(directions(vectors.reshape(-1, 3)), axis=-1)
    e, b = (_evaluate(sky, alm, 0, place)[0].reshape(vectors.shape[:-1]) for alm in lensed_alm(sky))
    return e, b


def deflect(
    theta: np.ndarray, phi: np.ndarray, gradient: np.ndarray, axes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where the light that is seen at ``(theta, phi)`` comes from, and how its Stokes parameters turn.

    Args:
        theta, phi: ``(n,)`` radians.
        gradient: of phi towards south and east, ``(2, n)`` radians.
        axes: the tangent vectors at the positions seen, to whose right-angled basis Q and U refer as east, ``(n, 3)``.
    Returns:
        Colatitude and longitude ``(n, 2)``, and the factor ``(n,)`` that makes ``Q + iU`` there that in these axes.
    """
    out, south, east = tangent_basis(theta, phi)
    along_south, along_east = gradient.astype(np.float64)
    length = np.hypot(along_south, along_east)
    shift = along_south[:, None] * south + along_east[:, None] * east
    target = np.cos(length)[:, None] * out + np.sinc(length / np.pi)[:, None] * shift
    place = np.stack(directions(target), axis=-1)
    return place, stokes_rotation(transport(axes, out, target), place[:, 0], place[:, 1])


def _deflect_blocks(
    theta: np.ndarray, phi: np.ndarray, gradient: np.ndarray, axes: Callable[[slice], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`deflect` of many positions, the factor in the precision of the gradient."""
    place = np.empty((theta.size, 2))
    rotation = np.empty(theta.size, np.result_type(gradient.dtype, np.complex64))
    for first in range(0, theta.size, _BLOCK):
        block = slice(first, first + _BLOCK)
        place[block], rotation[block] = deflect(theta[block], phi[block], gradient[:, block], axes(block))
    return place, rotation


def _evaluate(sky: LensedSky, alm: np.ndarray, spin: int, place: np.ndarray, mode: str = "") -> np.ndarray:
    """Values ``(1 or 2, n)`` at colatitudes and longitudes ``(n, 2)`` of coefficients that are all gradient."""
    if alm.shape != (alm_size(sky.lmax),):
        raise ValueError(f"{alm.shape} coefficients are not those of lmax={sky.lmax}")
    values: np.ndarray = ducc0.sht.synthesis_general(
        alm=alm[None], spin=spin, lmax=sky.lmax, loc=place, epsilon=_EPSILON[alm.dtype], nthreads=threads(),
        mode=mode or ("STANDARD" if spin == 0 else "GRAD_ONLY"),
    )  # fmt: skip
    return values


def _complex(pair: np.ndarray) -> np.ndarray:
    return np.asarray(pair[0] + 1j * pair[1])
