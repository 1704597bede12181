"""Kappa of a patch in several passes, each from B that was delensed with the pass before.

Conventions: those of :mod:`sphereml.lensing.patch_model`.  The noise of EB is the lensed B itself, so that an estimate
of what is left of it has less.  A pass

    d' = d - A T(kappa, E^W),   kappa <- kappa + P / (P + N') kappa^EB(d'),   P <- P N' / (P + N'),

takes the template T of order ``gradient`` off the data, filters with the B that theory leaves after a template of this
noise (:func:`~sphereml.lensing.iterated.delensed_bb`), and adds the quadratic estimate of the rest, weighted by what
is not yet known of kappa: P, at first ``C N0 / (C + N0)``.  These are the first steps towards the most likely kappa
(Carron & Lewis 2017, arXiv:1704.08230).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from sphereml.lensing.flat_estimator import FlatEstimator
from sphereml.lensing.flat_filters import ExactFilter, fair_filter
from sphereml.lensing.iterated import delensed_bb
from sphereml.lensing.noise import EXCESS, NoiseModel, combined
from sphereml.lensing.patch_model import Legs, PatchModel
from sphereml.lensing.patch_template import gradient_b


@dataclass(frozen=True, eq=False)
class Refined:
    """What a pass gives: its legs of the delensed data, their flow, and kappa, Wiener-filtered, all modes."""

    legs: Legs
    flow: tuple[torch.Tensor, torch.Tensor]
    kappa: torch.Tensor


@dataclass(frozen=True, eq=False)
class PatchPass:
    """One pass: the filter of the B that is left, its estimator, and the weight of its estimate, by mode."""

    filter: ExactFilter
    estimator: FlatEstimator
    weights: torch.Tensor

    def __call__(self, data: torch.Tensor, e: torch.Tensor, kappa: torch.Tensor) -> Refined:
        """From data ``(batch, 2, size, size)`` without taper, the Wiener-filtered E and the kappa before."""
        model = self.filter.model
        sky, size = model.padded, model.patch.size
        b = gradient_b(sky, self.estimator.fine, e, kappa)
        template = sky.to_qu(torch.zeros_like(b), b * sky.weights(model.beam, b))
        images = torch.stack([sky.to_images(part)[..., :size, :size] for part in template], dim=1)
        legs = replace(model.legs(self.filter.inverse(data - images * model.support.to(data))), e=e)
        flow = self.estimator.flow(legs)
        step = self.estimator.normalized(self.estimator.divergence(flow))
        return Refined(legs, flow, kappa + step * self.weights.to(step.real))


@dataclass(frozen=True, eq=False)
class PatchPasses:
    """All passes after the first estimate, that of ``first`` (EB and EE), which was Wiener-filtered with its N0."""

    model: PatchModel
    first: FlatEstimator
    count: int

    def __call__(self, q: torch.Tensor, u: torch.Tensor, legs: Legs, kappa: torch.Tensor) -> Iterator[Refined]:
        """The passes one after the other, from observed patches, their legs and the first kappa."""
        data = self.model.untapered(q, u)
        for one in self._passes:
            refined = one(data, legs.e, kappa)
            kappa = refined.kappa
            yield refined

    @cached_property
    def _passes(self) -> list[PatchPass]:
        observation = self.model.observation
        theory = NoiseModel(self.model.spectra, observation, observation.lmax)
        noise, unknown = EXCESS * theory.minimum_variance(), self._unknown
        made = []
        for _ in range(self.count):
            spectra = replace(self.model.spectra, bb_lensed=delensed_bb(theory, noise))
            model = replace(self.model, spectra=spectra)
            estimator = FlatEstimator(model.padded, spectra, observation, "EB", self.first.lmax_kappa)
            weights = unknown / (unknown + estimator.n0)
            made.append(PatchPass(fair_filter(model), estimator, weights))
            unknown = unknown * (1 - weights)
            noise = combined(noise, EXCESS * replace(theory, spectra=spectra).eb())
        return made

    @property
    def _unknown(self) -> torch.Tensor:
        """Power of kappa beside its first estimate, ``C N0 / (C + N0)``, by mode."""
        n0 = self.first.n0
        power = self.model.padded.weights(self.model.spectra.kappa, n0)
        return power / (1 + power / n0)
