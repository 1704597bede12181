"""Equation 2.3 of arXiv:1904.13265, asked of any domain.

``lambda_r [(1 - r50) + (1 - r150)] + l1 mean |T - T'|`` over the pixels of weight one, in standardized units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch

from sphereml.config.schema import BandsConfig, LossConfig
from sphereml.domains import Domain, FlatPatch
from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands


def resolved_bands(bands: BandsConfig, nside: int) -> Bands:
    """The bands of the configuration clipped to ``ell < 2 nside``; those wholly above it are left out."""
    return Bands(r_low=bands.r_low, r50=bands.r50, r150=bands.r150).clipped(2 * nside - 1)


@dataclass(frozen=True)
class CorrelationLoss:
    """The loss as a function of fields ``(B, *shape)``; ``bands`` (by name) are those that the map resolves."""

    bands: Bands
    lambda_r: float
    l1: float
    correlation: str

    @classmethod
    def of(cls, config: LossConfig, bands: Bands) -> CorrelationLoss:
        chosen = bands.chosen(config.bands)
        if config.lambda_r > 0 and not chosen:
            raise UserError(
                f"the map resolves none of the loss's bands {list(config.bands)}",
                "use a higher Nside, lower bands, or loss.lambda_r=0",
            )
        return cls(chosen, config.lambda_r, config.l1, config.correlation)

    def __call__(
        self, prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, domain: Domain
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss (scalar) and the mean r of each band ``(nband,)``."""
        error = ((prediction - target).abs() * weight).sum() / weight.sum().clamp_min(1)
        if self.lambda_r == 0:
            return self.l1 * error, error.new_zeros(len(self.bands))
        r = domain.band_correlation(prediction, target, weight, self.bands, self._form(domain))
        r = r.mean(dim=0)
        return self.lambda_r * (1 - r).sum().to(error.dtype) + self.l1 * error, r.detach()

    def _form(self, domain: Domain) -> Literal["mode", "ell"]:
        if self.correlation == "auto":
            return "mode" if isinstance(domain, FlatPatch) else "ell"
        return cast(Literal["mode", "ell"], self.correlation)
