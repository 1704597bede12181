"""Filtered E and B, the legs of quadratic estimators, from masked Q and U on square flat patches.

Conventions: those of :mod:`sphereml.lensing.patch_model`; results follow the data's dtype and device.

:class:`NaiveFilter` takes the masked patch for a periodic sky and divides by S + N, as arXiv:1810.01483 does: with a
taper of 28 arcmin on 5 degrees up to 18 times the lensed B leak into B from E.  :class:`WienerFilter` undoes the taper
and inverts the patch's own covariance by conjugate gradients; :class:`DenseFilter` does so by a Cholesky factor, once
for all, and then costs one matrix product.  Both know the covariance of an isotropic sky on an open patch: nothing is
periodic, and E leaks only through the band's edges.  Their legs live on a grid of twice the patch's side, as the E and
B of a patch reach beyond it.

Noise of EB (auto / R^2 - C^kk over N0) on such patches at 1 uK-arcmin, L = 200-500-1000-1500-2000: naive 3.3, 2.4, 1.7,
1.4; exact 1.6, 1.4, 1.2, 1.1; a whole periodic sky, where N1 is all there is beside N0, 1.4, 1.3, 1.2, 1.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from sphereml.errors import UserError
from sphereml.lensing.patch_model import Legs, PatchModel

# Pixels a side up to which the exact filter is a matrix.
_DENSE_SIZE = 64
# Bytes of the dense filter's covariance, of which three are held at once.
_DENSE_LIMIT = 2**31


@dataclass(frozen=True, eq=False)
class NaiveFilter:
    """The masked patch as if it were a periodic sky; its legs live on the patch's own grid."""

    model: PatchModel

    def __call__(self, q: torch.Tensor, u: torch.Tensor) -> Legs:
        sky, spectra, observation = self.model.patch, self.model.spectra, self.model.observation
        e, b = sky.to_eb(sky.to_modes(q), sky.to_modes(u))
        e, b = (
            e * sky.weights(self._inverse(observation.filtered(spectra.ee_lensed, spectra.ee_lensed, 0)), e),
            b * sky.weights(self._inverse(observation.filtered_b(spectra.bb_lensed)), b),
        )
        return Legs(sky, sky.size, sky.weights(spectra.ee_lensed, e) * e, e, b)

    def _inverse(self, deconvolved: np.ndarray) -> np.ndarray:
        """``b / (b^2 S + N)`` within the band, from ``1 / (S + N / b^2)``."""
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
        """``C^-1 d`` of data ``(batch, 2, size, size)`` without taper; both are zero outside the mask's support.

        Blind to ``model.unseen`` where that is something.
        """
        result = self._solve(data)
        if self._blinding is None:
            return result
        waves, solved = (part.to(data) for part in self._blinding)
        return result - torch.einsum("br,rcij->bcij", torch.einsum("bcij,rcij->br", data, solved), waves)

    @cached_property
    def _blinding(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """``C^-1 F (F^T C^-1 F)^-1`` and ``C^-1 F``, ``(rank, 2, size, size)`` float64."""
        waves = self.model.unseen
        if waves is None:
            return None
        solved = self._solve(waves)
        overlap = torch.einsum("rcij,scij->rs", waves, solved)
        return torch.linalg.solve(overlap, solved.flatten(1)).view_as(solved), solved

    def _solve(self, data: torch.Tensor) -> torch.Tensor:
        model, support = self.model, self.model.support.to(data.device)
        signal = model.signal_on_padded.to(data)
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
        inverse = _inverse_of_factor(torch.linalg.cholesky(total), total)
        if self.model.unseen is not None:
            waves = self.model.unseen.flatten(1)[:, self.model.support.flatten().repeat(2)]
            solved = waves @ inverse
            inverse -= solved.T @ torch.linalg.solve(solved @ waves.T, solved)
        return inverse.to(self.dtype)


ExactFilter = DenseFilter | WienerFilter


def fair_filter(model: PatchModel) -> ExactFilter:
    """The filter that knows the patch's edges: as a matrix where that fits in memory, else by iterations."""
    return DenseFilter(model) if model.patch.size <= _DENSE_SIZE else WienerFilter(model)


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
