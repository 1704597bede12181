"""Harmonic coefficients of masked fields of spin 0 and 2, and their purification.

Conventions: maps are NEST ``(..., ncomp, npix)`` with one component for spin 0 and (Q, U), COSMO, for spin 2;
coefficients ``(..., ncomp, nalm)`` are T, or (E, B); masks weigh ``(npix,)``, any non-negative number.  Values under a
zero of the mask are never read, but by purification.  Coefficients are those of three Jacobi iterations
(:mod:`~.transforms`), by default to ``lmax = 3 nside - 1``, as NaMaster's.

Purification (Smith 2006, astro-ph/0511629; its form in harmonic space: Grain et al. 2009, arXiv:0903.2350): the pure B
coefficients are the scalar product of the map with ``D W Y_lm``, D the second-order operator that no E mode survives.
With ``W_s`` the mask's derivative of spin s, three transforms add up,

    a_lm = a_lm[2; W P] + r_1(l) a_lm[1; W_1* P] + r_0(l) a_lm[0; W_2* P],

with the factors r of :mod:`sphereml.harmonics.coupling`.  It needs a mask that goes to zero smoothly: derivatives of a
step are noise.  They are band-limited, so that they reach a little beyond the mask, and so do the products: zeros there
move the lowest pure BB bandpower of the tests' reference (Nside 32, a taper of 10 degrees) by seven times itself.
Missing pixels (NaN) are therefore filled from their surroundings, which moves it by 0.7 (its error is five times
itself) and the others by 1 per cent or less.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.coupling import Component, Components
from sphereml.harmonics.filters import multiply
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import fill_gaps

_FINE = 128


@dataclass(frozen=True, eq=False)
class MaskedField:
    """What turns maps of one kind under one mask into coefficients.

    Args:
        mask: ``(npix,)`` weights.
        components: spin, and what is purified.
        lmax: of the coefficients.
        iterations: of the analysis.

    Raises:
        UserError: the mask is empty, negative or not finite, or ``lmax`` is beyond ``3 nside - 1``.
    """

    mask: np.ndarray
    components: Components
    lmax: int
    iterations: int = 3

    def __post_init__(self) -> None:
        checked_weights(self.mask)
        if not 2 <= self.lmax <= self.lmax_mask:
            what = f"lmax={self.lmax} at Nside {self.grid.nside}"
            raise UserError(what, f"choose 2 to {self.lmax_mask} (3 nside - 1); the pixels hold no more")

    @cached_property
    def grid(self) -> HealpixGrid:
        return HealpixGrid.of_size(self.mask.size)

    @property
    def pixel_area(self) -> float:
        """Solid angle of a pixel, sr."""
        return self.grid.pixel_area

    @property
    def bias_iterations(self) -> int:
        """What the bias of deprojection needs: one on fine grids, where more change it by some 1e-8 (a spectrum like
        1 / l^2) to 5e-7 (a flat one) of the largest pseudo-spectrum (Nside 128), and as many as the maps' on coarse
        ones.
        """
        return min(self.iterations, 1) if self.grid.nside >= _FINE else self.iterations

    @property
    def lmax_mask(self) -> int:
        """The mask's own coefficients always reach to ``3 nside - 1``."""
        return 3 * self.grid.nside - 1

    @property
    def spin(self) -> int:
        return self.components.spin

    @cached_property
    def mask_alm(self) -> np.ndarray:
        """Coefficients of the mask, complex ``(nalm,)``."""
        return analysis(self.mask, self.lmax_mask)

    def weighted(self, maps: np.ndarray) -> np.ndarray:
        """Maps times the mask, zero where it is, whatever the maps hold there."""
        return self.mask * np.where(self.mask > 0, maps, 0.0)

    def alms(self, maps: np.ndarray, iterations: int | None = None) -> np.ndarray:
        """Coefficients ``(..., ncomp, nalm)`` of masked, and where asked purified, maps ``(..., ncomp, npix)``."""
        if maps.shape[-2:] != (len(self.components.members), self.mask.size):
            raise ValueError(f"maps of shape {maps.shape} for {self.components} on {self.mask.size} pixels")
        alms = self._analysis(self.weighted(maps), self.spin, iterations)
        if any(component.pure for component in self.components.members):
            self._purify(alms, _filled(maps), iterations)
        return alms

    def synthesis(self, alms: np.ndarray) -> np.ndarray:
        """Maps ``(..., ncomp, npix)`` of coefficients."""
        maps = synthesis(alms if self.spin else alms[..., 0, :], self.grid.nside, self.lmax, self.spin)
        return maps if self.spin else maps[..., None, :]

    def cross_spectra(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Pseudo-spectra ``(n1, n2, lmax + 1)`` of coefficients ``(n1, nalm)`` and ``(n2, nalm)``."""
        return cross_spectrum(first[:, None], second[None], self.lmax)

    def plain_alms(self, maps: np.ndarray, iterations: int | None = None) -> np.ndarray:
        """Coefficients of maps as they are, neither masked nor purified."""
        return self._analysis(maps, self.spin, iterations)

    def filtered(self, alms: np.ndarray, spectra: np.ndarray) -> np.ndarray:
        """``sum_n C^mn_l a^n_lm`` of coefficients ``(n, nalm)`` and spectra ``(m, n, lmax + 1)``."""
        return np.stack([sum(multiply(a.copy(), cl) for cl, a in zip(row, alms, strict=True)) for row in spectra])

    def _analysis(self, maps: np.ndarray, spin: int, iterations: int | None = None) -> np.ndarray:
        count = self.iterations if iterations is None else iterations
        if spin:
            return analysis(maps, self.lmax, spin, count)
        return np.stack([analysis(maps[..., i, :], self.lmax, 0, count) for i in range(maps.shape[-2])], axis=-2)

    @cached_property
    def _mask_gradients(self) -> dict[int, np.ndarray]:
        """First and second derivative of the mask, by their spin: complex ``(npix,)``."""
        factors = Component(2, pure=True).mask_factors(self.lmax_mask)
        alm, gradients = np.zeros((2, self.mask_alm.size), dtype=np.complex128), {}
        for spin in (1, 2):
            # E of spin s > 0 is minus the scalar (Zaldarriaga and Seljak 1997); the second derivative has the sign that
            # its product with the map, a scalar without that minus, asks for.
            alm[0] = multiply(self.mask_alm.copy(), (-1) ** spin * factors[2 - spin])
            real, imaginary = synthesis(alm, self.grid.nside, self.lmax_mask, spin)
            gradients[spin] = real + 1j * imaginary
        return gradients

    def _purify(self, alms: np.ndarray, maps: np.ndarray, iterations: int | None) -> None:
        """Add to ``alms`` what the mask's derivatives contribute."""
        factors = Component(2, pure=True).row_factors(self.lmax)
        for spin, gradient in self._mask_gradients.items():
            product = np.conj(gradient) * (maps[..., 0, :] + 1j * maps[..., 1, :])
            extra = self._analysis(np.stack([product.real, product.imag], axis=-2), 2 - spin, iterations)
            for i, component in enumerate(self.components.members):
                if component.pure:
                    alms[..., i, :] += multiply(extra[..., i, :], factors[2 - spin])


def _filled(maps: np.ndarray) -> np.ndarray:
    if not np.isnan(maps).any():
        return maps
    return np.stack([fill_gaps(row) for row in maps.reshape(-1, maps.shape[-1])]).reshape(maps.shape)


def checked_weights(mask: np.ndarray) -> np.ndarray:
    """The mask; raises UserError when it is empty, negative or not finite."""
    if not np.isfinite(mask).all() or mask.min() < 0:
        raise UserError("the mask has negative or missing weights", "give weights of 0 (cut) and above")
    if not mask.any():
        raise UserError("the mask is empty: it keeps no pixel", "give a mask with 1 where the sky is to be used")
    return mask
