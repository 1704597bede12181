"""Spectra of masked flat patches with templates deprojected: the flat twin of :mod:`~sphereml.harmonics.masked_field`.

Conventions: maps are ``(ncomp, size * size)``, rows after each other, one component for spin 0 and (Q, U) in the COSMO
sign with respect to the patch's own north for spin 2; modes ``(ncomp, size * (size // 2 + 1))`` are those of
:class:`~sphereml.harmonics.flat_polarization.FlatSky`, T or (E, B).  Spectra are means over the modes of bands, C_ell
in (unit)^2 sr; the window's loss of power is undone by ``<w^2>``, its mixing of multipoles and of E and B is not.
Guesses are curves over ell = 0, 1, ...  The patch is taken as periodic, which makes the transforms exact: what
:mod:`~sphereml.harmonics.deprojection` says of the bias holds to rounding for a periodic sky.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.deprojection import Deprojection, deprojection_bias
from sphereml.harmonics.flat import FlatModes
from sphereml.harmonics.flat_polarization import FlatSky


@dataclass(frozen=True, eq=False)
class MaskedPatch:
    """What turns images of one kind under one window into modes and spectra.

    Args:
        sky: the grid.
        mask: ``(size, size)`` weights.
        bins: edges of half-open bands of ell, or Bands.
        spin: 0 or 2.

    Raises:
        UserError: a mask of another shape, negative or empty; a band without modes.
    """

    sky: FlatSky
    mask: np.ndarray
    bins: Bands | Sequence[float]
    spin: int = 0

    def __post_init__(self) -> None:
        mask = np.asarray(self.mask)
        if mask.shape != (self.sky.size, self.sky.size) or not np.isfinite(mask).all() or mask.min() < 0:
            raise UserError(f"a patch's mask of shape {mask.shape}", f"give weights ({self.sky.size}, {self.sky.size})")
        if not mask.any():
            raise UserError("the mask is empty: it keeps no pixel", "give a mask with 1 where the sky is to be used")
        _ = self._members

    def spectra(
        self, maps: np.ndarray, templates: np.ndarray | None = None, guess: np.ndarray | None = None
    ) -> np.ndarray:
        """Spectra ``(ncomp, ncomp, nband)`` of images ``([2,] size, size)``, less what deprojection took of them.

        Args:
            templates: ``(nt, [2,] size, size)``; a pair (Q, U) is one template.
            guess: ``(ncomp, ncomp, nl)`` spectra of the sky over integer ell; without it the bias stays.
        """
        values = self._flat(maps)
        deprojection = None
        if templates is not None and len(templates):
            deprojection = Deprojection(self, np.stack([self._flat(one) for one in templates]))
            values = deprojection.subtract(values, deprojection.amplitudes(values))
        modes = self.alms(values)
        spectra = self.cross_spectra(modes, modes)
        if deprojection is not None and guess is not None:
            spectra = spectra - deprojection_bias(deprojection, deprojection, guess, (self, self))
        return spectra / float(np.mean(np.square(self.mask)))

    @property
    def pixel_area(self) -> float:
        """Solid angle of a pixel, sr."""
        return self.sky.step**2

    @property
    def bias_iterations(self) -> int:
        """None: Fourier transforms are exact."""
        return 0

    def weighted(self, maps: np.ndarray) -> np.ndarray:
        """Maps times the mask, zero where it is."""
        weights = np.asarray(self.mask, dtype=np.float64).ravel()
        return np.asarray(weights * np.where(weights > 0, maps, 0.0))

    def alms(self, maps: np.ndarray, iterations: int | None = None) -> np.ndarray:
        """Modes of the masked maps."""
        return self.plain_alms(self.weighted(maps), iterations)

    def plain_alms(self, maps: np.ndarray, iterations: int | None = None) -> np.ndarray:
        """Modes of maps as they are."""
        images = torch.from_numpy(np.ascontiguousarray(maps)).unflatten(-1, (self.sky.size, self.sky.size))
        modes = self.sky.to_modes(images)
        if self.spin:
            modes = torch.stack(self.sky.to_eb(modes[..., 0, :, :], modes[..., 1, :, :]), dim=-3)
        return modes.flatten(-2).numpy()

    def synthesis(self, alms: np.ndarray) -> np.ndarray:
        """Maps of modes."""
        modes = torch.from_numpy(alms).unflatten(-1, (self.sky.size, self.sky.size // 2 + 1))
        if self.spin:
            modes = torch.stack(self.sky.to_qu(modes[..., 0, :, :], modes[..., 1, :, :]), dim=-3)
        return self.sky.to_images(modes).flatten(-2).numpy()

    def filtered(self, alms: np.ndarray, spectra: np.ndarray) -> np.ndarray:
        """``sum_n C^mn a^n`` of modes ``(n, nmode)`` and curves ``(m, n, nl)``, zero beyond their ends."""
        like = torch.zeros((), dtype=torch.float64)
        weights = np.stack([[self.sky.weights(curve, like).numpy().ravel() for curve in row] for row in spectra])
        return np.asarray(np.einsum("mnk,nk->mk", weights, alms))

    def cross_spectra(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Pseudo-spectra ``(n1, n2, nband)`` of modes, means over the modes of each band."""
        power = (first[:, None] * second[None].conj()).real / self.sky.area
        return np.stack([power[..., band].mean(axis=-1) for band in self._members], axis=-1)

    @cached_property
    def _members(self) -> list[np.ndarray]:
        """Places of each band's independent modes."""
        modes = FlatModes(self.sky)
        bands = self.bins if isinstance(self.bins, Bands) else Bands.edges(*self.bins)
        return [modes.independent[modes.in_band(*limits)] for limits in bands.values()]

    def _flat(self, maps: np.ndarray) -> np.ndarray:
        values = np.asarray(maps, dtype=np.float64)
        shape = (*((2,) if self.spin else ()), self.sky.size, self.sky.size)
        if values.shape != shape:
            raise UserError(f"a patch of shape {values.shape} for spin {self.spin}", f"give {shape}")
        return values.reshape(2 if self.spin else 1, -1)
