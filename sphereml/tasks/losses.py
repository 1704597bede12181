"""The losses of the tasks, asked of any domain: correlation in bands, and mean squares by pixel or by Fourier mode.

Conventions: predictions and targets are standardized, ``(B, *s, O)``; weights ``(B, *s)`` or ``(*s)``.  Q and U are one
field: its correlations are those of E and of B, its error in a pixel is that of the complex number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch

from sphereml.config.schema import BandsConfig, LossConfig
from sphereml.domains.protocol import Correlation
from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.sources.batch import Batch


def resolved_bands(bands: BandsConfig, nside: int) -> Bands:
    """The bands of the configuration clipped to ``ell < 2 nside``; those wholly above it are left out."""
    return Bands(r_low=bands.r_low, r50=bands.r50, r150=bands.r150).clipped(2 * nside - 1)


@dataclass(frozen=True)
class CorrelationLoss:
    """``lambda_r [(1 - r50) + (1 - r150)] + l1 mean |T - T'|`` (eq. 2.3 of arXiv:1904.13265), averaged over outputs.

    ``bands`` are those that the map resolves; ``spins`` those of the outputs' fields; spin 1 counts as two scalars.
    """

    bands: Bands
    lambda_r: float
    l1: float
    correlation: str
    spins: tuple[int, ...] = (0,)
    l2: float = 0.0

    @classmethod
    def of(cls, config: LossConfig, bands: Bands, spins: tuple[int, ...] = (0,)) -> CorrelationLoss:
        chosen = bands.chosen(config.bands)
        if config.lambda_r > 0 and not chosen:
            raise UserError(
                f"the map resolves none of the loss's bands {list(config.bands)}",
                "use a higher Nside, lower bands, or loss.lambda_r=0",
            )
        return cls(chosen, config.lambda_r, config.l1, config.correlation, spins, config.l2)

    def __call__(self, prediction: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss (scalar) and the mean r of each band."""
        weight, sizes = batch.weight, [2 if spin else 1 for spin in self.spins]
        pairs = list(zip(prediction.split(sizes, -1), batch.target.split(sizes, -1), strict=True))
        error = torch.stack([_distance(a, b) for a, b in pairs], dim=-1)
        error = self.l1 * error + self.l2 * error.square() if self.l2 else self.l1 * error
        error = (error * weight[..., None]).sum() / (len(pairs) * weight.sum()).clamp_min(1)
        if self.lambda_r == 0:
            return error, {}
        r = torch.cat([self._correlations(*one, batch) for one in zip(self.spins, pairs, strict=True)], dim=1)
        r = r.mean(dim=(0, 1))
        loss = self.lambda_r * (1 - r).sum().to(error.dtype) + error
        return loss, dict(zip(self.bands, r.detach(), strict=True))

    def _correlations(self, spin: int, pair: tuple[torch.Tensor, torch.Tensor], batch: Batch) -> torch.Tensor:
        """r by band of one field ``(B, *s, columns)``, ``(B, columns, nband)``: of E and B for spin 2."""
        domain, weight = batch.domain, batch.weight
        kind = domain.correlation if self.correlation == "auto" else cast(Correlation, self.correlation)
        if spin == 2:
            return domain.polarization_correlation(*pair, weight, self.bands, kind)
        columns = zip(*(one.unbind(-1) for one in pair), strict=True)
        return torch.stack([domain.band_correlation(a, b, weight, self.bands, kind) for a, b in columns], dim=1)


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``|a - b|`` of one field ``(..., columns)``: ``(...)``."""
    difference = a - b
    if difference.shape[-1] == 1:
        return difference[..., 0].abs()
    # The root has no gradient where a prediction is exact.
    return difference.square().sum(dim=-1).clamp_min(1e-20).sqrt()


@dataclass(frozen=True, eq=False)
class PatchLoss:
    """``mean w^2 (p - t)^2 / mean w^2``, in pixels, or over Fourier modes with each divided by the target's power, or
    by a thousandth of the largest power where that is more.

    ``power`` ``(n, n // 2 + 1, O)``: of the standardized target in units of white pixels, for the second form.
    """

    power: torch.Tensor | None = None

    def __call__(self, prediction: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        weight = batch.weight[..., None]
        error = weight * (prediction - batch.target)
        if self.power is None:
            return error.square().mean() / weight.square().mean(), {}
        power = self.power.to(error)
        modes = torch.fft.rfft2(error, dim=(1, 2), norm="ortho")
        relative = (modes.real.square() + modes.imag.square()) / torch.maximum(power, 1e-3 * power.amax((0, 1)))
        return relative.mean() / weight.square().mean(), {}
