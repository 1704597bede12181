"""Fourier modes of a square flat sky and its polarization: E and B, gradients, spectra as weights, random fields.

Conventions
-----------
* Images are ``(..., row, column)``: columns grow east (x), rows north (y), seen from outside the sphere, as the local
  axes of ``sky.rotations``.  They are periodic; modes have the layout of ``rfft2``, ``(..., size, size // 2 + 1)``.
* ``a(l) = step^2 sum_n f(n) exp(-i l n)`` with step in radians, so ``<|a|^2> = area C_l``, C_l in (unit)^2 sr.
* Q and U have HEALPix's (COSMO) sign with respect to the patch's own north: Q > 0 along y.  Then
  ``E + iB = -(Q + iU)(l) exp(-2i phi_l)``, ``phi_l = atan2(l_y, l_x)``, which is healpy's sign of E and B on a small
  patch.
* A curved sky's C_ell belongs to the wave vectors ``|l| = ell + 1/2`` (plain |l| = ell is 0.4 % off in the lensed B).
* On the Nyquist row and column, whose modes stand for both signs of a wave vector, phi_l and gradients count as 0.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np
import torch

from sphereml.sky.plane import SquareGrid

Array = TypeVar("Array", np.ndarray, torch.Tensor)


@dataclass(frozen=True, eq=False)
class _Tables(Generic[Array]):
    """``lx, ly, ell, cos 2phi, sin 2phi``, each ``(size, size // 2 + 1)``."""

    lx: Array
    ly: Array
    ell: Array
    cosine: Array
    sine: Array


class FlatSky(SquareGrid):
    """A periodic sky on a grid of even size; tensors follow the dtype and device they are given."""

    def ell(self, like: torch.Tensor) -> torch.Tensor:
        """``|l|`` of every mode, ``(size, size // 2 + 1)``, real dtype and device of ``like``."""
        return self._tables(like).ell

    def to_modes(self, images: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft2(images) * self.step**2

    def to_images(self, modes: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft2(modes, s=(self.size, self.size)) / self.step**2

    def to_eb(self, q: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Modes of E and B from modes of Q and U."""
        cosine, sine = self._tables(q).cosine, self._tables(q).sine
        return -(cosine * q + sine * u), sine * q - cosine * u

    def to_qu(self, e: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Modes of Q and U from modes of E and B: the inverse of :meth:`to_eb`, and its transpose."""
        cosine, sine = self._tables(e).cosine, self._tables(e).sine
        return sine * b - cosine * e, -(sine * e + cosine * b)

    def gradient(self, modes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Modes of the derivatives along x (east) and y (north), per radian."""
        tables = self._tables(modes)
        return 1j * tables.lx * modes, 1j * tables.ly * modes

    def weights(self, curve: np.ndarray, like: torch.Tensor, beyond: float = 0.0) -> torch.Tensor:
        """A curve over ell = 0, 1, ... read at every mode's ``|l| - 1/2``; ``beyond`` the curve's end."""
        place = (_real(like.dtype), like.device)
        return _weights(self.size, self.step, np.asarray(curve, np.float64).tobytes(), beyond, *place)

    def draw(self, spectrum: np.ndarray, batch: int, generator: torch.Generator) -> torch.Tensor:
        """Modes of ``batch`` Gaussian fields with this C_ell, complex64 on the generator's device; the mean is 0."""
        noise = torch.randn(batch, self.size, self.size, generator=generator, device=generator.device)
        modes = torch.fft.rfft2(noise) / self.size
        modes = modes * self.weights(np.sqrt(spectrum * self.area), modes)
        modes[..., 0, 0] = 0
        return modes

    def _tables(self, like: torch.Tensor) -> _Tables[torch.Tensor]:
        return _tables(self.size, self.step, _real(like.dtype), like.device)


def resample(modes: torch.Tensor, size: int) -> torch.Tensor:
    """Modes of the same fields on ``size`` pixels a side; what either grid has at its Nyquist multipole is dropped."""
    half = min(size, modes.shape[-2]) // 2
    result = modes.new_zeros(*modes.shape[:-2], size, size // 2 + 1)
    result[..., :half, :half] = modes[..., :half, :half]
    result[..., 1 - half :, :half] = modes[..., 1 - half :, :half]
    return result


def _real(dtype: torch.dtype) -> torch.dtype:
    return dtype.to_real() if dtype.is_complex else dtype


@lru_cache(maxsize=16)
def _wave_vectors(size: int, step: float) -> _Tables[np.ndarray]:
    ly, lx = np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij")
    nyquist = (np.abs(ly) == 0.5) | (np.abs(lx) == 0.5)
    phi = np.where(nyquist, 0.0, np.arctan2(ly, lx))
    unit = 2 * np.pi / step
    along_x, along_y = (np.where(nyquist, 0.0, unit * axis) for axis in (lx, ly))
    return _Tables(along_x, along_y, unit * np.hypot(lx, ly), np.cos(2 * phi), np.sin(2 * phi))


@lru_cache(maxsize=64)
def _weights(
    size: int, step: float, curve: bytes, beyond: float, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Read once: a training asks for the same few curves at every step."""
    values = np.frombuffer(curve)
    ell = _wave_vectors(size, step).ell - 0.5
    return torch.from_numpy(np.interp(ell, np.arange(len(values)), values, right=beyond)).to(device, dtype)


@lru_cache(maxsize=16)
def _tables(size: int, step: float, dtype: torch.dtype, device: torch.device) -> _Tables[torch.Tensor]:
    exact = _wave_vectors(size, step)
    return _Tables(*(torch.from_numpy(getattr(exact, part.name)).to(device, dtype) for part in fields(_Tables)))
