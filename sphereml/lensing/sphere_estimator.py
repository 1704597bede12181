"""Quadratic estimates of kappa from E and B of the full sky: EB, EE, and both together at minimum variance.

Conventions
-----------
* a_lm of E, B and kappa in the triangular order of :func:`sphereml.harmonics.rings.alm_index` (healpy's), COSMO,
  deconvolved of the beam, uK and dimensionless; kappa = L(L+1)/2 phi, and phi's curl mode is not estimated.
* ``P = Q + iU`` of the lensed sky is ``P + grad phi . grad P``, see :mod:`sphereml.lensing.gradients`.
* What the estimators assume is the :class:`NoiseModel`: both legs are filtered by its lensed spectra and noise within
  its band, the response is that of E, and its N0 is the normalization: exact to first order in phi, and the spectrum
  of the estimates of Gaussian skies.  What all orders of lensing leave of it is measured, not modelled: EB at 1
  uK-arcmin up to 3000 answers with 0.99 kappa at L = 100-2000.

The estimate (Okamoto & Hu 2003, astro-ph/0301031, in position space as in Planck 2015 XV, arXiv:1502.01591) is the
gradient with respect to ``phi*_LM`` of how much of the filtered field Pbar a small phi explains,

    g_LM = d/dphi*_LM  int dn  Re[Pbar* (eth phi ethbar G + ethbar phi eth G) / 2],
    Pbar: E_lm / C^tot_l and B_lm / C^tot_l,     G: C^EE_l E_lm / C^tot_l, without B,

``phi_LM = N0^phiphi_L g_LM``.  Pbar of B alone makes EB, of E alone EE, and both in one pass the minimum variance.
Fields are synthesized on Gauss-Legendre rings, as many as make the integral exact, some pairs of rings at a time; in
double precision, as single precision saves no time (the Legendre recurrences of ducc0 are double anyway).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ducc0
import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.rings import alm_size, ring_geometry, threads
from sphereml.lensing.noise import NoiseModel, combined
from sphereml.sky.ordering import ring_to_nest

# Pixels synthesized at once: at lmax 3000 ducc0's own arrays then stay below 32 MiB, where glibc keeps their memory.
_BLOCK = 3_000_000
# Pixels multiplied at once: six fields of them stay in cache.
_CACHED = 16_384


@dataclass(frozen=True, eq=False)
class SphereEstimator:
    """Estimators of kappa on the full sky for the spectra, observation and highest L of a noise model."""

    model: NoiseModel

    def eb(self, alm_e: np.ndarray, alm_b: np.ndarray) -> np.ndarray:
        """EB estimate of kappa, complex128 ``(alm_size(lmax_kappa),)``; zero where N0 is infinite.

        Args:
            alm_e: E, complex ``(alm_size(lmax),)`` with lmax at least the observation's; more is not used.
            alm_b: B, likewise.
        Raises:
            UserError: an a_lm that has no triangular size, ends below the observation's lmax or is not finite.
        """
        bar = np.zeros((2, alm_size(self._lmax)), complex)
        bar[1] = self._filtered(alm_b, self._weights["b"], "B")
        return self._kappa(alm_e, bar, self._eb_noise)

    def ee(self, alm_e: np.ndarray) -> np.ndarray:
        """EE estimate of kappa; shapes and errors as :meth:`eb`."""
        bar = self._filtered(alm_e, self._weights["e"], "E")[None]
        return self._kappa(alm_e, bar, self._ee_noise)

    def minimum_variance(self, alm_e: np.ndarray, alm_b: np.ndarray) -> np.ndarray:
        """EB and EE weighted by the inverse of their N0, at the price of one; shapes and errors as :meth:`eb`."""
        return self._kappa(alm_e, self._bar(alm_e, alm_b), self.n0)

    @cached_property
    def n0(self) -> np.ndarray:
        """N0 of the minimum variance, ``(lmax_kappa + 1,)``."""
        return combined(self._eb_noise, self._ee_noise)

    def fields(self, alm_e: np.ndarray, alm_b: np.ndarray, nside: int) -> np.ndarray:
        """Q and U of Pbar of E and B, and the vector whose divergence is estimated: ``(2, 2, npix)`` NEST.

        Shapes and errors as :meth:`eb`.
        """
        rings, fields = _RingBlock(ring_geometry(nside), np.empty(0)), np.empty((3, 2, 12 * nside**2))
        one, three = (self._filtered(alm_e, self._weights[name], "E")[None] for name in ("one", "three"))
        for spin, alm in ((1, one), (2, self._bar(alm_e, alm_b)), (3, three)):
            _synthesize(alm, spin, self._lmax, rings, fields[spin - 1])
        _multiply(*fields)
        return ring_to_nest(fields[1::-1], axis=-1)

    @property
    def _lmax(self) -> int:
        return self.model.observation.lmax

    def _bar(self, alm_e: np.ndarray, alm_b: np.ndarray) -> np.ndarray:
        """E and B of Pbar, ``(2, alm_size(lmax))``."""
        legs = (alm_e, self._weights["e"], "E"), (alm_b, self._weights["b"], "B")
        return np.stack([self._filtered(*leg) for leg in legs])

    @cached_property
    def _eb_noise(self) -> np.ndarray:
        return self.model.eb()

    @cached_property
    def _ee_noise(self) -> np.ndarray:
        return self.model.ee()

    @cached_property
    def _weights(self) -> dict[str, np.ndarray]:
        """By l, each ``(lmax + 1,)``: what makes E and B of Pbar, and the spin-1 and spin-3 halves of G's gradient.

        ``ethbar`` and ``eth`` multiply spin-2 harmonics by ``sqrt((l+2)(l-1))`` and ``sqrt((l-2)(l+3))``.
        """
        ee, bb, filtered = self.model.spectra.ee_lensed, self.model.spectra.bb_lensed, self.model.observation.filtered
        ell, wiener = np.arange(self._lmax + 1.0), filtered(ee, ee, 1) / 2
        one, three = (ell + 2) * (ell - 1), (ell - 2) * (ell + 3)
        gradient = {"one": wiener * np.sqrt(np.maximum(one, 0)), "three": wiener * np.sqrt(np.maximum(three, 0))}
        return {"e": filtered(ee, ee, 0), "b": self.model.observation.filtered_b(bb)} | gradient

    def _filtered(self, alm: np.ndarray, weights: np.ndarray, name: str) -> np.ndarray:
        """``weights_l a_lm`` up to the lmax of the observation."""
        own = _lmax_of(alm, name)
        if own < self._lmax:
            what = f"the a_lm of {name} end at ell={own}, below lmax {self._lmax} of the observation"
            raise UserError(what, "give longer ones or lower lmax")
        result = _scaled(alm, own, weights)
        if not np.isfinite(result).all():
            raise UserError(f"the a_lm of {name} are not finite", "mend them: an estimate mixes all of them")
        return result

    def _kappa(self, alm_e: np.ndarray, bar: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """``N0^kappakappa g / (L(L+1)/2)``: N0 of phi and the step from phi to kappa."""
        ell = np.arange(2.0, len(noise))
        normalization = np.zeros(len(noise))
        normalization[2:] = np.where(np.isfinite(noise[2:]), noise[2:], 0.0) * 2 / (ell * (ell + 1))
        return _scaled(self._gradient(alm_e, bar), self.model.lmax_kappa, normalization)

    def _gradient(self, alm_e: np.ndarray, bar: np.ndarray) -> np.ndarray:
        """``g_LM`` of the module's docstring, from E and the a_lm of Pbar (E, B or E alone)."""
        one, three = (self._filtered(alm_e, self._weights[name], "E")[None] for name in ("one", "three"))
        total = np.zeros((1, alm_size(self.model.lmax_kappa)), complex)
        part = np.empty_like(total)
        blocks = _ring_blocks(2 * self._lmax + self.model.lmax_kappa)
        room = np.empty((3, 2, max(block.size for block in blocks)))  # reused: new pages cost more than the products
        for rings in blocks:
            fields = room[:, :, : rings.size]
            for spin, alm in ((1, one), (2, bar), (3, three)):
                _synthesize(alm, spin, self._lmax, rings, fields[spin - 1])
            _multiply(*fields)
            _adjoint_gradient(fields[0], part, self.model.lmax_kappa, rings)
            total += part
        gradient: np.ndarray = total[0]
        return gradient


@dataclass(frozen=True, eq=False)
class _RingBlock:
    """Some rings of a Gauss-Legendre grid: ducc0's description of them, and the area of a pixel on each, sr."""

    geometry: dict[str, np.ndarray]
    area: np.ndarray

    @property
    def size(self) -> int:
        return int(self.geometry["nphi"].sum())


def _ring_blocks(degree: int) -> list[_RingBlock]:
    """Rings that integrate products of this total degree exactly, in blocks of pairs north and south of the equator.

    A ring shares its Legendre functions with its mirror image.
    """
    nrings, nphi = degree // 2 + 1, ducc0.fft.good_size(degree + 1, True)
    theta, area = ducc0.misc.GL_thetas(nrings), ducc0.misc.GL_weights(nrings, nphi)
    blocks = []
    for part in np.array_split(np.arange((nrings + 1) // 2), math.ceil(nrings * nphi / _BLOCK)):
        rings = np.union1d(part, nrings - 1 - part)
        start = np.arange(len(rings), dtype=np.uint64) * np.uint64(nphi)
        count = np.full(len(rings), nphi, np.uint64)
        geometry = {"theta": theta[rings], "nphi": count, "phi0": np.zeros(len(rings)), "ringstart": start}
        blocks.append(_RingBlock(geometry, area[rings]))
    return blocks


def _synthesize(alm: np.ndarray, spin: int, lmax: int, rings: _RingBlock, field: np.ndarray) -> None:
    """Both components of a spin field ``(2, pixel)``, of E and B ``(2, nalm)`` or of E alone ``(1, nalm)``."""
    mode = "STANDARD" if len(alm) == 2 else "GRAD_ONLY"
    options: dict[str, Any] = {"spin": spin, "lmax": lmax, "mode": mode, "nthreads": threads()}
    ducc0.sht.synthesis(alm=alm, map=field, **options, **rings.geometry)


def _multiply(one: np.ndarray, bar: np.ndarray, three: np.ndarray) -> None:
    """``bar one* - bar* three`` of the fields of spin 1, 2 and 3, each ``(2, pixel)``, written over ``one``.

    The scalar product of this vector with the gradient of phi is the integrand: in ducc0's signs ``eth phi`` is
    ``-(d_theta + i d_phi / sin(theta)) phi``, ethbar G minus the spin-1 field and eth G the spin-3 field.
    """
    for start in range(0, one.shape[1], _CACHED):
        piece = slice(start, start + _CACHED)
        (p, q), (a, b), (c, d) = bar[:, piece], one[:, piece], three[:, piece]
        real = p * (a - c) + q * (b - d)
        one[1, piece] = q * (a + c) - p * (b + d)
        one[0, piece] = real


def _adjoint_gradient(vector: np.ndarray, alm: np.ndarray, lmax: int, rings: _RingBlock) -> None:
    """``int dn (d_theta, d_phi / sin(theta)) Y*_LM . vector`` over these rings into ``alm`` ``(1, nalm)``."""
    options: dict[str, Any] = {"spin": 1, "lmax": lmax, "mode": "DERIV1", "nthreads": threads()}
    ducc0.sht.adjoint_synthesis(map=vector, alm=alm, ringfactor=rings.area, **options, **rings.geometry)


def _lmax_of(alm: np.ndarray, name: str) -> int:
    size = alm.shape[0] if np.ndim(alm) == 1 else -1
    lmax = (math.isqrt(8 * max(size, 0) + 1) - 3) // 2
    if alm_size(lmax) != size or not np.iscomplexobj(alm):
        what = f"a_lm of {name} of shape {np.shape(alm)} and type {np.asarray(alm).dtype} belong to no lmax"
        raise UserError(what, "give one complex array of (lmax + 1)(lmax + 2)/2 coefficients, m by m")
    return lmax


def _scaled(alm: np.ndarray, lmax: int, weights: np.ndarray) -> np.ndarray:
    """``weights_l a_lm`` up to the last l of the weights; the a_lm reach ``lmax``, as far or farther."""
    top = len(weights) - 1
    result = np.empty(alm_size(top), complex)
    source = target = 0
    for m in range(top + 1):
        count = top + 1 - m
        np.multiply(alm[source : source + count], weights[m:], out=result[target : target + count])
        source, target = source + lmax + 1 - m, target + count
    return result
