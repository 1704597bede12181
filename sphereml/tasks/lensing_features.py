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
  edge leak hardly any E into B: a matrix for patches of up to 64 pixels a side, iterations for larger ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.lensing.flat_estimator import FlatEstimator
from sphereml.lensing.flat_filters import DenseFilter, WienerFilter
from sphereml.lensing.low_b import without_low_b
from sphereml.lensing.patch_model import Legs, PatchModel

_DENSE_SIZE = 64
# Estimates of kappa reach up to here, or to the pixels' Nyquist multipole.
LMAX_KAPPA = 3000


def fair_filter(model: PatchModel) -> DenseFilter | WienerFilter:
    """The filter that knows the patch's edges: as a matrix where that fits in memory, else by iterations."""
    return DenseFilter(model) if model.patch.size <= _DENSE_SIZE else WienerFilter(model)


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

    @property
    def count(self) -> int:
        return 8

    @cached_property
    def filter(self) -> DenseFilter | WienerFilter:
        return fair_filter(self.model)

    @cached_property
    def estimator(self) -> FlatEstimator:
        model = self.model
        reach = min(LMAX_KAPPA, int(np.pi / model.patch.step))
        return FlatEstimator(model.padded, model.spectra, model.observation, "MV", reach)

    def __call__(self, q: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        legs = self.filter(q, u)
        flow = self.estimator.flow(legs)
        kappa = self.estimator.normalized(self.estimator.divergence(flow)) * self._wiener.to(legs.e.real)
        zero = torch.zeros_like(legs.e)
        signal, inverse = legs.sky.to_qu(legs.e, zero), legs.sky.to_qu(legs.e_inverse, legs.b_inverse)
        images = self._images(legs, legs.e, *signal, *inverse, *flow, kappa)
        guesses = dict(zip(("e", "q", "u", "kappa"), (*images[:3], images[-1]), strict=True))
        return torch.stack(images, dim=-1), torch.stack([guesses[name] for name in self.outputs], dim=-1)

    @cached_property
    def _wiener(self) -> torch.Tensor:
        """``C^kk / (C^kk + N0)`` of the modes of kappa, without which small scales drown the estimate."""
        n0 = self.estimator.n0
        power = self.model.padded.weights(self.model.spectra.kappa, n0)
        return power / (power + n0)

    @staticmethod
    def _images(legs: Legs, *modes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        everything = legs.sky.to_images(torch.stack(modes, dim=1))
        return everything[..., : legs.size, : legs.size].unbind(1)
