"""Filtered E and B, the legs of quadratic estimators, from masked Q and U on square flat patches.

Conventions
-----------
* Patches ``q, u`` are ``(batch, size, size)`` in uK with the signs of :mod:`sphereml.harmonics.flat_polarization`, as
  observed: ``mask (beam * sky + noise)``, the noise white.  Results follow their dtype and device.
* Legs are modes (``rfft2``'s layout) of a periodic sky whose corner ``[:size, :size]`` is the patch.  With C the
  covariance of the data, ``A`` beam and pixels, S the lensed spectra: inverse-variance filtered ``A^T C^-1 d``, and
  Wiener filtered ``S A^T C^-1 d``.  Without a mask these are ``b d / (b^2 S + N)`` and S times that.
* All multipoles below the Nyquist one are signal to C; only then are the legs cut to ``lmin <= ell <= lmax``.

Three filters, from rough to exact
----------------------------------
:class:`NaiveFilter` takes the masked patch for a periodic sky and divides by S + N, as arXiv:1810.01483 does: with a
taper of 28 arcmin on 5 degrees up to 18 times the lensed B leak into B from E.  :class:`WienerFilter` undoes the taper
and inverts the patch's own covariance by conjugate gradients; :class:`DenseFilter` does so by a Cholesky factor, once
for all, and then costs one matrix product.  Both know the covariance of an isotropic sky on an open patch, hence no E
leaks and nothing is periodic.  Their legs live on a grid of twice the patch's side, as the E and B of a patch reach
beyond it.

Noise of EB (auto / R^2 - C^kk over N0) on such patches at 1 uK-arcmin, L = 200-500-1000-1500-2000: naive 3.3, 2.4, 1.7,
1.4; exact 1.6, 1.4, 1.2, 1.1; a whole periodic sky, where N1 is all there is beside N0, 1.4, 1.3, 1.2, 1.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from sphereml.errors import UserError
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.lensing.observation import Observation
from sphereml.simulate.cmb_spectra import CmbSpectra

_ARCMIN = np.pi / (180 * 60)
# A pixel where the taper leaves less than this counts as masked, so that none is magnified more than this allows.
_LEAST_MASK = 1e-3
# Bytes of the dense filter's covariance, of which three are held at once.
_DENSE_LIMIT = 2**31


@dataclass(frozen=True, eq=False)
class Legs:
    """Modes ``(batch, n, n // 2 + 1)`` on ``sky`` of n pixels a side; the patch is its corner ``[:size, :size]``.

    Attributes:
        e: Wiener-filtered E (uK).
        e_inverse, b_inverse: inverse-variance filtered E and B (1 / (uK sr)).
    """

    sky: FlatSky
    size: int
    e: torch.Tensor
    e_inverse: torch.Tensor
    b_inverse: torch.Tensor

    def images(self) -> torch.Tensor:
        """Wiener-filtered E and the B leg on the patch's own pixels, ``(batch, size, size, 2)``."""
        both = self.sky.to_images(torch.stack([self.e, self.b_inverse], dim=1))
        return both[..., : self.size, : self.size].movedim(1, -1)


@dataclass(frozen=True, eq=False)
class PatchModel:
    """What the data of a patch are made of.

    Args:
        mask: apodized, ``(size, size)``, by which the data are multiplied.
        period: side in pixels of the periodic sky that the patch is a part of; large for a patch of the sphere.

    Raises:
        UserError: the mask has another shape or leaves nothing; the observation's lmax is above the pixels' Nyquist
            multipole or the end of the spectra; the period is below the patch's side or odd.
    """

    patch: FlatSky
    spectra: CmbSpectra
    observation: Observation
    mask: torch.Tensor
    period: int = 1024

    def __post_init__(self) -> None:
        size, nyquist = self.patch.size, np.pi / self.patch.step
        if self.mask.shape != (size, size):
            raise UserError(
                f"a mask of {tuple(self.mask.shape)} on patches of {size} x {size}", "give one of that size"
            )
        if not self.support.any():
            raise UserError("the mask leaves no pixel", "give one that reaches 1")
        if self.observation.lmax > nyquist:
            what = f"lmax {self.observation.lmax} is above the Nyquist multipole {nyquist:.0f} of the pixels"
            raise UserError(what, "lower lmax or take smaller pixels")
        if self.period < size or self.period % 2:
            raise UserError(f"a periodic sky of {self.period} pixels", f"give an even number from {size} up")
        for power in (self.spectra.ee_lensed, self.spectra.bb_lensed):
            self.observation.filtered(power, power, 0)

    @property
    def padded(self) -> FlatSky:
        """The grid of the exact filters' legs: no lag within the patch wraps around it."""
        return FlatSky(2 * self.patch.size, self.patch.pixel_arcmin)

    @cached_property
    def support(self) -> torch.Tensor:
        return self.mask > _LEAST_MASK

    @property
    def variance(self) -> float:
        """Noise variance of one pixel of Q, uK^2."""
        return (self.observation.noise / self.patch.pixel_arcmin) ** 2

    @cached_property
    def beam(self) -> np.ndarray:
        """``exp(-ell (ell + 1) sigma^2 / 2)`` up to the end of the spectra."""
        ell = np.arange(self.spectra.lmax + 1.0)
        sigma = self.observation.beam * _ARCMIN / np.sqrt(8 * np.log(2))
        transfer: np.ndarray = np.exp(-ell * (ell + 1) * sigma**2 / 2)
        return transfer

    @cached_property
    def band(self) -> np.ndarray:
        """The beam where the observation uses E and B, zero elsewhere."""
        ell = np.arange(self.spectra.lmax + 1)
        return np.where((ell >= self.observation.lmin) & (ell <= self.observation.lmax), self.beam, 0.0)

    @cached_property
    def covariance(self) -> torch.Tensor:
        """Covariances QQ, QU, UU of the beamed sky at the lags of the padded grid, uK^2, float64 ``(3, 2n, 2n)``."""
        sky, size = FlatSky(self.period, self.patch.pixel_arcmin), self.patch.size
        like = torch.empty(0, dtype=torch.float64)
        powers = (self.spectra.ee_lensed, self.spectra.bb_lensed)
        everywhere = sky.to_images(_rotated(sky, *(sky.weights(power * self.beam**2, like) for power in powers)) + 0j)
        lags = torch.cat([torch.arange(size), torch.zeros(1, dtype=torch.long), torch.arange(1 - size, 0)])
        chosen = everywhere[:, lags % self.period][..., lags % self.period]
        chosen[:, size, :] = chosen[:, :, size] = 0  # no two pixels are so far apart
        return chosen

    @cached_property
    def inverse_on_padded(self) -> torch.Tensor:
        """QQ, QU, UU of ``(S + N)^-1`` at every mode of the padded periodic sky, float64: the preconditioner."""
        sky, like = self.padded, torch.empty(0, dtype=torch.float64)
        powers = (self.spectra.ee_lensed, self.spectra.bb_lensed)
        totals = (sky.weights(power * self.beam**2, like) / sky.step**2 + self.variance for power in powers)
        return _rotated(sky, *(1 / total for total in totals))

    def untapered(self, q: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Data ``(batch, 2, size, size)`` without the taper; zero where the mask leaves nothing."""
        inverse = torch.where(self.support, 1 / self.mask.clamp_min(_LEAST_MASK), 0.0).to(q)
        return torch.stack([q, u], dim=1) * inverse

    def legs(self, weighted: torch.Tensor) -> Legs:
        """Legs on the padded grid from ``C^-1 d``, ``(batch, 2, size, size)``."""
        sky = self.padded
        q, u = torch.fft.rfft2(weighted, s=(sky.size, sky.size)).unbind(1)
        band = sky.weights(self.band, q)
        e, b = (band * part for part in sky.to_eb(q, u))
        return Legs(sky, self.patch.size, sky.weights(self.spectra.ee_lensed, q) * e, e, b)


@dataclass(frozen=True, eq=False)
class NaiveFilter:
    """The masked patch as if it were a periodic sky; its legs live on the patch's own grid."""

    model: PatchModel

    def __call__(self, q: torch.Tensor, u: torch.Tensor) -> Legs:
        sky, spectra = self.model.patch, self.model.spectra
        e, b = sky.to_eb(sky.to_modes(q), sky.to_modes(u))
        e, b = (
            e * sky.weights(self._inverse(spectra.ee_lensed), e),
            b * sky.weights(self._inverse(spectra.bb_lensed), b),
        )
        return Legs(sky, sky.size, sky.weights(spectra.ee_lensed, e) * e, e, b)

    def _inverse(self, power: np.ndarray) -> np.ndarray:
        """``b / (b^2 S + N)`` within the band."""
        deconvolved = self.model.observation.filtered(power, power, 0)
        beam = self.model.beam[: len(deconvolved)]
        return np.divide(deconvolved, beam, out=np.zeros_like(beam), where=beam > 0)


@dataclass(frozen=True, eq=False)
class WienerFilter:
    """``C^-1`` of the patch by preconditioned conjugate gradients, all patches of a batch at once.

    The signal's covariance is a product of FFTs on the padded grid.  The preconditioner, the inverse covariance of the
    padded periodic sky cut to the patch, is exact but for the rim: at 1 uK-arcmin the residual falls tenfold every 17
    steps, at 64 pixels a side as at 128 (without it, every 90).

    Args:
        tolerance: residual ``|d - C x| / |d|`` at which a batch is done.

    Raises:
        UserError: no noise, hence modes of no variance (on use: no convergence within ``most_steps``).
    """

    model: PatchModel
    tolerance: float = 1e-4
    most_steps: int = 500

    def __post_init__(self) -> None:
        _refuse_no_noise(self.model)

    def __call__(self, q: torch.Tensor, u: torch.Tensor) -> Legs:
        return self.model.legs(self.inverse(self.model.untapered(q, u)))

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """``C^-1 d`` of data ``(batch, 2, size, size)`` without taper; both are zero outside the mask's support."""
        model, support = self.model, self.model.support.to(data.device)
        signal = torch.fft.rfft2(model.covariance).real.to(data)
        inverse = model.inverse_on_padded.to(data)
        x, residual = torch.zeros_like(data), data.clone()
        aim = self.tolerance**2 * _dot(data, data)
        direction = z = support * _multiplied(inverse, residual)
        for _ in range(self.most_steps):
            before = _dot(residual, z)
            product = support * (_multiplied(signal, direction) + model.variance * direction)
            step = _ratio(before, _dot(direction, product))
            x, residual = x + step * direction, residual - step * product
            if (_dot(residual, residual) <= aim).all():
                return x
            z = support * _multiplied(inverse, residual)
            direction = z + _ratio(_dot(residual, z), before) * direction
        what = f"the Wiener filter did not reach a residual of {self.tolerance:g} in {self.most_steps} steps"
        raise UserError(what, "raise the tolerance or the noise, or give float64 data")


@dataclass(frozen=True, eq=False)
class DenseFilter:
    """``C^-1`` of the patch as a matrix, made in float64 from a Cholesky factor; applied in the data's dtype.

    A patch of 64 x 64 pixels has 8192 unknowns: 20 s on two cores and 2 GiB to make, then 256 MiB in float32 and 67 M
    multiplications a patch.

    Raises:
        UserError: no noise, or a covariance above 2 GiB.
    """

    model: PatchModel
    dtype: torch.dtype = torch.float32
    _placed: dict[tuple[torch.device, torch.dtype], torch.Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        _refuse_no_noise(self.model)
        unknowns = 2 * int(self.model.support.sum())
        if 8 * unknowns**2 > _DENSE_LIMIT:
            what = f"a dense filter of {unknowns // 2} pixels takes {24 * unknowns**2 / 2**30:.0f} GiB"
            raise UserError(what, "choose smaller patches or the iterative filter")

    def __call__(self, q: torch.Tensor, u: torch.Tensor) -> Legs:
        return self.model.legs(self.inverse(self.model.untapered(q, u)))

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """``C^-1 d``, as that of :class:`WienerFilter`."""
        seen = self.model.support.flatten().repeat(2).to(data.device)
        rows = data.flatten(1)
        result = torch.zeros_like(rows)
        result[:, seen] = rows[:, seen] @ self._matrix_for(data)
        return result.view_as(data)

    def _matrix_for(self, data: torch.Tensor) -> torch.Tensor:
        """The matrix on the data's device, copied there once."""
        key = (data.device, data.dtype)
        if key not in self._placed:
            self._placed[key] = self.matrix.to(data)
        return self._placed[key]

    @cached_property
    def matrix(self) -> torch.Tensor:
        """``C^-1`` of the pixels in the mask, Q first, then U: symmetric, ``(unknowns, unknowns)`` on the CPU."""
        total = _pixel_covariance(self.model)
        total.diagonal().add_(self.model.variance)
        return _inverse_of_factor(torch.linalg.cholesky(total), total).to(self.dtype)


def _pixel_covariance(model: PatchModel) -> torch.Tensor:
    """Signal covariance of Q and U in the pixels of the mask, float64."""
    size, seen = model.patch.size, torch.nonzero(model.support)
    lag = (seen[:, None] - seen[None]) % (2 * size)
    blocks = model.covariance.flatten(1)
    qq, qu, uu = (block[lag[..., 0] * 2 * size + lag[..., 1]] for block in blocks)
    return torch.cat([torch.cat([qq, qu], dim=1), torch.cat([qu, uu], dim=1)])


def _inverse_of_factor(factor: torch.Tensor, result: torch.Tensor, block: int = 512) -> torch.Tensor:
    """``(L L^T)^-1`` into ``result``; L is overwritten by its inverse.  ``torch.cholesky_inverse`` takes 4 x that."""
    size = len(factor)
    for start in range(0, size, block):
        stop = min(start + block, size)
        unit = torch.eye(size - start, stop - start, dtype=factor.dtype)
        factor[start:, start:stop] = torch.linalg.solve_triangular(factor[start:, start:], unit, upper=False)
    result.zero_()
    for start in range(0, size, block):
        stop = min(start + block, size)
        rows = factor[start:stop, :stop]
        result[:stop, :stop].addmm_(rows.T, rows)
    return result


def _rotated(sky: FlatSky, e: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """QQ, QU, UU of a matrix that is diagonal in E and B, at every mode, ``(3, n, n // 2 + 1)``."""
    zero = torch.zeros_like(e)
    (eq, eu), (bq, bu) = sky.to_qu(torch.ones_like(e), zero), sky.to_qu(zero, torch.ones_like(b))
    return torch.stack([eq * eq * e + bq * bq * b, eq * eu * e + bq * bu * b, eu * eu * e + bu * bu * b])


def _multiplied(kernel: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """QQ, QU, UU modes of the padded grid times Q and U images of the patch, cut to the patch."""
    size, side = images.shape[-1], kernel.shape[-2]
    q, u = torch.fft.rfft2(images, s=(side, side)).unbind(1)
    product = torch.stack([kernel[0] * q + kernel[1] * u, kernel[1] * q + kernel[2] * u], dim=1)
    return torch.fft.irfft2(product, s=(side, side))[..., :size, :size]


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum(dim=(-3, -2, -1), keepdim=True)


def _ratio(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """0 where a patch holds nothing, or is solved to the last digit."""
    return torch.where(below > 0, above / torch.where(below > 0, below, 1.0), 0.0)


def _refuse_no_noise(model: PatchModel) -> None:
    if model.observation.noise == 0:
        what = "a Wiener filter on a masked patch needs noise: without it the covariance has no inverse"
        raise UserError(what, "filter for a small noise, e.g. 0.1 uK-arcmin, or choose the naive filter")
