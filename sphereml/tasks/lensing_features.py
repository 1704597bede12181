"""What a lensing network sees of a patch, and the first guess that it corrects.

Conventions: observed Q and U are ``(batch, n, n)`` under the mask; features ``(batch, n, n, F)`` and base
``(batch, n, n, O)`` in physical units.

* ``plain`` (arXiv:1810.01483): the observed Q and U; base = 0.
* ``physical``: what the quadratic estimator is made of.  It multiplies the inverse-variance filtered polarization with
  the gradient of the Wiener-filtered E, pixel by pixel, and takes the divergence; a convolutional network can take
  divergences but is slow to learn products and filters of the whole patch.  So its features are the Wiener-filtered E
  with its Q and U, the inverse-variance filtered Q and U, the two components of the product, and the minimum-variance
  (EB and EE) estimate of kappa, Wiener-filtered.  The last and the filtered E are also the base: a network that has
  learnt nothing gives back the estimator.  The filter is the inverse of the patch's own covariance, so that taper and
  edge leak hardly any E into B: a matrix for patches of up to 64 pixels a side, iterations for larger ones.  With
  ``passes`` above 1 come the same of the last pass, from B delensed with the kappa before it
  (:mod:`~sphereml.lensing.patch_passes`), whose kappa then is the base.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.lensing.flat_estimator import FlatEstimator
from sphereml.lensing.flat_filters import ExactFilter, fair_filter
from sphereml.lensing.low_b import without_low_b
from sphereml.lensing.patch_model import Legs, PatchModel
from sphereml.lensing.patch_passes import PatchPasses

# Estimates of kappa reach up to here, or to the pixels' Nyquist multipole.
LMAX_KAPPA = 3000


class Features(Protocol):
    """From observed Q and U to ``(features, base)``."""

    @property
    def count(self) -> int:
        """Number of features."""

    def __call__(self, q: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]: ...


@dataclass(frozen=True)
class PlainFeatures:
    """Q and U as they were observed, less the B that is to stay unseen."""

    outputs: list[str]
    patch: FlatSky
    mask: torch.Tensor
    lmin_b: int = 0

    @property
    def count(self) -> int:
        return 2

    def __call__(self, q: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.lmin_b:
            q, u = without_low_b(self.patch, self.mask, q, u, self.lmin_b)
        return torch.stack([q, u], dim=-1), q.new_zeros(*q.shape, len(self.outputs))


@dataclass(frozen=True, eq=False)
class EstimatorFeatures:
    """The parts of the quadratic estimator and its estimates.

    Raises:
        UserError: there is no noise, hence no inverse.
    """

    outputs: list[str]
    model: PatchModel
    passes: int = 1

    @property
    def count(self) -> int:
        return 8 if self.passes == 1 else 13

    @cached_property
    def filter(self) -> ExactFilter:
        return fair_filter(self.model)

    @cached_property
    def estimator(self) -> FlatEstimator:
        model = self.model
        reach = min(LMAX_KAPPA, int(np.pi / model.patch.step))
        return FlatEstimator(model.padded, model.spectra, model.observation, "MV", reach)

    def __call__(self, q: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        legs = self.filter(q, u)
        flow = self.estimator.flow(legs)
        kappa = self.first_kappa(flow)
        parts = [legs.e, *legs.sky.to_qu(legs.e, torch.zeros_like(legs.e)), *_inverse(legs), *flow, kappa]
        for refined in self.refine(q, u, legs, kappa):
            parts[8:] = [*_inverse(refined.legs), *refined.flow, refined.kappa]
        images = legs.images(*parts)
        guesses = dict(zip(("e", "q", "u", "kappa"), (*images[:3], images[-1]), strict=True))
        return torch.stack(images, dim=-1), torch.stack([guesses[name] for name in self.outputs], dim=-1)

    def first_kappa(self, flow: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Modes of the minimum-variance estimate, Wiener-filtered."""
        kappa = self.estimator.normalized(self.estimator.divergence(flow))
        return kappa * self._wiener.to(kappa.real)

    @cached_property
    def refine(self) -> PatchPasses:
        """The passes after the first."""
        return PatchPasses(self.model, self.estimator, self.passes - 1)

    @cached_property
    def _wiener(self) -> torch.Tensor:
        """``C^kk / (C^kk + N0)`` of the modes of kappa, without which small scales drown the estimate."""
        n0 = self.estimator.n0
        power = self.model.padded.weights(self.model.spectra.kappa, n0)
        return power / (power + n0)


def _inverse(legs: Legs) -> tuple[torch.Tensor, torch.Tensor]:
    """Inverse-variance filtered Q and U."""
    return legs.sky.to_qu(legs.e_inverse, legs.b_inverse)
