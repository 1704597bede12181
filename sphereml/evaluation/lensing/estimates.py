"""Maps of kappa (and of E) from observed patches: by trained networks and by quadratic estimators.

Conventions: images ``(batch, size, size)``, physical units, float32 on the CPU.  The window of all spectra is the
patch's mask.  Networks and the fair estimator (exact covariance of the masked patch) give kappa itself, which the
window multiplies later as it does the truth.  The naive estimator of the paper is quadratic in masked data, so its
image already falls off as the mask squared: it is divided by the mask where there is one, so that the window leaves it
as it was; what the mask took beyond that goes into its response.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import torch

from sphereml.lensing.flat_estimator import FlatEstimator, Pair
from sphereml.lensing.flat_filters import ExactFilter, NaiveFilter, fair_filter
from sphereml.lensing.patch_model import Legs, PatchModel
from sphereml.tasks.lensing import LensingSample, LensingScaling, LensingTask
from sphereml.tasks.lensing_features import LMAX_KAPPA, EstimatorFeatures
from sphereml.training.predictor import Predictor

Maps = Mapping[str, torch.Tensor]
_FAIR = ("qe_eb", "qe_mv")
_PAIRS: dict[str, Pair] = {"qe_naive": "EB", "qe_eb": "EB", "qe_mv": "MV"}


class Estimates(Protocol):
    """One or several estimates of the same patches, by name and then by output."""

    @property
    def names(self) -> list[str]: ...

    def __call__(self, sample: LensingSample) -> dict[str, Maps]: ...


@dataclass(frozen=True, eq=False)
class NetworkEstimate:
    """A finished run, called ``name`` in tables; its predictor's task is shared by runs that see the same."""

    name: str
    predictor: Predictor

    @property
    def names(self) -> list[str]:
        return [self.name]

    def __call__(self, sample: LensingSample) -> dict[str, Maps]:
        """Raises UserError when the training had diverged."""
        task, scaling = self.predictor.task, self.predictor.scaling
        assert isinstance(task, LensingTask) and isinstance(scaling, LensingScaling)
        asked = replace(sample, truth={name: sample.truth[name] for name in task.names})
        images = self.predictor.batch(task.batch(asked, scaling)).float()
        return {self.name: dict(zip(task.names, images.unbind(-1), strict=True))}


@dataclass(frozen=True, eq=False)
class QuadraticEstimate:
    """Quadratic estimators of one filter: ``naive``, EB alone as in the paper, or ``fair``, EB and EB + EE.

    Results are named ``qe_naive``, ``qe_eb`` and ``qe_mv``; the fair ones bring their Wiener-filtered E along, and with
    ``lensing.passes`` the last pass of the networks' base, ``iterated``.

    Raises:
        UserError: the fair filter has no noise to work with.
    """

    kind: Literal["naive", "fair"]
    task: LensingTask

    @property
    def names(self) -> list[str]:
        if self.kind == "naive":
            return ["qe_naive"]
        return [*(["iterated"] if self.task.settings.passes > 1 else []), *_FAIR]

    @cached_property
    def model(self) -> PatchModel:
        features = self.task.features
        if isinstance(features, EstimatorFeatures):
            return features.model
        return PatchModel(self.task.patch, self.task.spectra, self.task.observation, self.task.mask.double())

    @cached_property
    def filter(self) -> NaiveFilter | ExactFilter:
        """That of the network's features where it is the same one."""
        if self.kind == "naive":
            return NaiveFilter(self.model)
        features = self.task.features
        return features.filter if isinstance(features, EstimatorFeatures) else fair_filter(self.model)

    @cached_property
    def estimators(self) -> dict[str, FlatEstimator]:
        model = self.model
        sky = model.patch if self.kind == "naive" else model.padded
        reach = min(LMAX_KAPPA, int(np.pi / model.patch.step))
        names = [name for name in self.names if name in _PAIRS]
        return {n: FlatEstimator(sky, model.spectra, model.observation, _PAIRS[n], reach) for n in names}

    @torch.no_grad()
    def __call__(self, sample: LensingSample) -> dict[str, Maps]:
        legs = self.filter(sample.q, sample.u)
        images = {name: estimator.image(legs) for name, estimator in self.estimators.items()}
        if self.kind == "naive":
            undone = self.model.inverse_mask.to(sample.q)
            return {name: {"kappa": (image * undone).float().cpu()} for name, image in images.items()}
        if "iterated" in self.names:
            images = {"iterated": self._iterated(sample, legs)} | images
        e = legs.images(legs.e)[0].float().cpu()
        return {name: {"kappa": image.float().cpu(), "e": e} for name, image in images.items()}

    def _iterated(self, sample: LensingSample, legs: Legs) -> torch.Tensor:
        features = self.task.features
        assert isinstance(features, EstimatorFeatures)
        *_, last = features.refine(sample.q, sample.u, legs, features.first_kappa(features.estimator.flow(legs)))
        return legs.images(last.kappa)[0]
