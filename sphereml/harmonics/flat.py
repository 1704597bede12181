"""Flat harmonic analysis: correlation r and spectra C_ell of square patches by the FFT.

Conventions
-----------
* Images are ``(..., size, size)`` tensors of any float type, real, periodic; everything inside is float64.
* A mode with integer wave vector ``(kx, ky)`` has ``ell = ell_F |k|``, ``ell_F`` the grid's fundamental multipole.
* A real field has ``a(-k) = a(k)*``, so each pair of modes is counted once: the *independent* modes.
* A band holds the modes ``lo <= ell < hi``.  Bin m = 1 ... size/2 - 1 holds ``m ell_F <= ell < (m + 1) ell_F``, so the
  mean (k = 0) and everything from the Nyquist multipole up are left out.
* r is that of arXiv:1904.13265, eq. 2.3: ``Re(a_k b_k*) / (|a_k| |b_k|)`` of every single mode, then averaged over the
  modes of a band; never the correlation of band powers.
* A window multiplies both images after their window-weighted means are subtracted.  Without one nothing is subtracted:
  the mean lives in k = 0 alone.
* C_ell is in (unit of the map)^2 sr, never D_ell: ``C = Re(a_k b_k*) area / (N^4 <w^2>)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.correlation import windowed_mean
from sphereml.sky.plane import SquareGrid

# Edges are compared with this relative tolerance, so that ell_F computed in another way still is the first band's edge.
_EDGE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class FlatModes:
    """The Fourier modes of images on a square grid."""

    grid: SquareGrid

    @property
    def size(self) -> int:
        return self.grid.size

    @property
    def bin_count(self) -> int:
        return self.size // 2 - 1

    @cached_property
    def independent(self) -> np.ndarray:
        """Flat indices into ``rfft2`` (shape ``(size, size // 2 + 1)``) that take each pair k, -k once, without k = 0.

        In the columns kx = 0 and kx = Nyquist, ``rfft2`` holds both k and -k (row ky and row -ky): half are dropped.
        """
        row, column = np.indices((self.size, self.size // 2 + 1))
        own_mirror = (column == 0) | (2 * column == self.size)
        keep = ~(own_mirror & (row > self.size // 2))
        keep[0, 0] = False
        return np.flatnonzero(keep)

    @cached_property
    def ell(self) -> np.ndarray:
        """Multipole of every independent mode, float64 ``(nmodes,)``."""
        ky = np.fft.fftfreq(self.size, 1 / self.size)[:, None]
        kx = np.fft.rfftfreq(self.size, 1 / self.size)[None, :]
        return self.grid.fundamental_ell * np.hypot(ky, kx).ravel()[self.independent]

    def in_band(self, lo: float, hi: float) -> np.ndarray:
        """Indices into :attr:`ell` of the modes ``lo <= ell < hi``.

        Raises:
            UserError: there are none.
        """
        return self._between(self.ell * (1 + _EDGE_TOLERANCE), lo, hi, "Fourier mode")

    def bins_in_band(self, lo: float, hi: float) -> np.ndarray:
        """Indices of the bins whose mean multipole lies in ``lo <= ell < hi``.

        Raises:
            UserError: there are none.
        """
        return self._between(self.bin_ell, lo, hi, "ring of modes")

    def _between(self, ell: np.ndarray, lo: float, hi: float, what: str) -> np.ndarray:
        members = np.flatnonzero((ell >= lo) & (ell < hi))
        if members.size == 0:
            raise UserError(
                f"no {what} of a {self.grid.extent:.4g}-degree patch has {lo:g} <= ell < {hi:g}",
                f"choose a band between {self.grid.fundamental_ell:.4g} and {self.grid.nyquist_ell:.4g}",
            )
        return members

    @cached_property
    def bin_of_mode(self) -> np.ndarray:
        """Bin of every independent mode, 0 for ``ell_F <= ell < 2 ell_F``; ``bin_count`` for those left out."""
        index = np.floor(self.ell / self.grid.fundamental_ell * (1 + _EDGE_TOLERANCE)).astype(np.int64) - 1
        return np.minimum(index, self.bin_count)

    @cached_property
    def modes_per_bin(self) -> np.ndarray:
        """Independent modes in each bin, int ``(bin_count,)``."""
        return np.bincount(self.bin_of_mode, minlength=self.bin_count + 1)[:-1]

    @cached_property
    def bin_ell(self) -> np.ndarray:
        """Mean multipole of the modes in each bin, ``(bin_count,)``."""
        return np.bincount(self.bin_of_mode, self.ell, self.bin_count + 1)[:-1] / self.modes_per_bin

    def per_mode_r(self, a: torch.Tensor, b: torch.Tensor, window: torch.Tensor | None = None) -> torch.Tensor:
        """Correlation of every independent mode, ``(..., nmodes)`` in the order of :attr:`ell`.

        ``r_k = Re(a_k b_k*) / (|a_k| |b_k|)``, with no small number in the denominator.  A mode below the rounding
        noise of its image (see :func:`_phase`) has no phase: its r, and its gradient, is 0.
        """
        phase_a, phase_b = (_phase(self.transform(image, window), self._rounding(image)) for image in (a, b))
        return (phase_a * phase_b.conj()).real

    def cross_power(self, a: torch.Tensor, b: torch.Tensor, window: torch.Tensor | None = None) -> torch.Tensor:
        """Cross-spectrum C_ell of every independent mode, ``(..., nmodes)``, (map unit)^2 sr.

        The window's loss of power is undone by ``<w^2>``; its mixing of multipoles is not.
        """
        product = (self.transform(a, window) * self.transform(b, window).conj()).real
        if window is None:
            return product * (self.grid.area / self.size**4)
        kept = window.to(product).square().mean(dim=(-2, -1)).clamp_min(1e-30)[..., None]
        return product * (self.grid.area / (self.size**4 * kept))

    def transform(self, image: torch.Tensor, window: torch.Tensor | None = None) -> torch.Tensor:
        """FFT coefficients of the independent modes of images ``(..., size, size)``, complex128 ``(..., nmodes)``."""
        if image.shape[-2:] != (self.size, self.size):
            raise ValueError(f"image of shape {tuple(image.shape)} for modes of size {self.size}")
        field = image.double()
        if window is not None:
            window = window.to(field)
            field = window * (field - windowed_mean(field, window, (-2, -1)))
        members = torch.from_numpy(self.independent).to(field.device)
        return torch.fft.rfft2(field).flatten(-2).index_select(-1, members)

    def _rounding(self, image: torch.Tensor) -> torch.Tensor:
        """A bound of the power of an image's rounding noise in one mode, ``(..., 1)``; see :func:`_phase`."""
        energy = image.detach().double().square().sum(dim=(-2, -1))[..., None]
        return torch.finfo(image.dtype).eps ** 2 * self.size**2 * energy

    def band_mean(self, values: torch.Tensor, bands: Bands) -> torch.Tensor:
        """Mean over the modes of every band, ``(..., nmodes)`` -> ``(..., nband)``; UserError for an empty band."""
        members = (torch.from_numpy(self.in_band(lo, hi)).to(values.device) for lo, hi in bands.limits)
        return torch.stack([values.index_select(-1, one).mean(dim=-1) for one in members], dim=-1)

    def bin_mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over the modes of each bin, ``(..., nmodes)`` -> ``(..., bin_count)``."""
        index = torch.from_numpy(self.bin_of_mode).to(values.device)
        sums = values.new_zeros(*values.shape[:-1], self.bin_count + 1).index_add(-1, index, values)
        return sums[..., :-1] / torch.from_numpy(self.modes_per_bin).to(values.device)


def _phase(modes: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """``a_k / |a_k|``, and 0 where ``|a_k|^2`` does not rise above the rounding noise of the image.

    Rounding pixels to precision eps can put a power of up to ``eps^2 npix sum(image^2)`` in one mode (coherent errors);
    in float32 that is 6e-11 of the mean power of a mode.  Without the cut, the phase of e.g. a constant image would be
    noise, and its gradient that noise's inverse.
    """
    power = modes.real.square() + modes.imag.square()
    alive = power > noise
    return modes * torch.where(alive, torch.where(alive, power, 1.0).rsqrt(), 0.0)
