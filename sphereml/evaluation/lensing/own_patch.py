"""Kappa and E of a user's own flat patch: by a trained network, or in passes of the quadratic estimator.

Conventions: images ``(n, n)``, uK (kappa has none), signs as in :mod:`sphereml.harmonics.flat_polarization`.  The patch
is given as it was observed, without a taper; the mask of the experiment is put on it.  Kappa is the most likely one:
a network's prediction, or the Wiener-filtered estimate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from sphereml.evaluation.lensing.estimates import Estimates, Maps, NetworkEstimate, QuadraticEstimate
from sphereml.evaluation.lensing.noise import patch_bands
from sphereml.evaluation.lensing.samples import PatchSets, reconstruct
from sphereml.evaluation.lensing.uncertainty import CalibratedError
from sphereml.lensing.patch_spectra import PatchPowers, noise_of, response_of
from sphereml.tasks.lensing import LensingSample, LensingTask
from sphereml.tasks.protocol import Say
from sphereml.training.predictor import Predictor
from sphereml.training.runs import Run

_NAME = "patch"


@dataclass(frozen=True, eq=False)
class BaseEstimate:
    """What a network of this task corrects: the estimator's last pass."""

    task: LensingTask

    @property
    def names(self) -> list[str]:
        return [_NAME]

    @torch.no_grad()
    def __call__(self, sample: LensingSample) -> dict[str, Maps]:
        base = self.task.features(sample.q, sample.u)[1].float().cpu()
        return {_NAME: dict(zip(self.task.names, base.unbind(-1), strict=True))}


@dataclass(frozen=True, eq=False)
class PatchCalibration:
    """What simulated patches say: error of every pixel ``(n, n)``; by band L, response, N_L and C_L of kappa."""

    sigma: np.ndarray
    curves: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class OwnPatch:
    """Observed Q and U ``(2, n, n)`` of a patch.

    Args:
        task: the experiment that says how it was observed, of the patch's size and pixels.
        run: a trained network; the estimator when None.
    """

    task: LensingTask
    qu: np.ndarray
    run: Run | None = None

    @cached_property
    def _sample(self) -> LensingSample:
        """Under the mask; its truth is not known."""
        q, u = (self.task.mask * torch.from_numpy(self.qu).float())[:, None]
        return LensingSample(q, u, {name: torch.zeros_like(q) for name in self.task.names})

    @cached_property
    def _estimate(self) -> Estimates:
        if self.run is None:
            return BaseEstimate(self.task)
        return NetworkEstimate(_NAME, Predictor(self.run, self.task))

    @cached_property
    def images(self) -> dict[str, np.ndarray]:
        """Of every output, ``(n, n)`` float32."""
        return {name: image[0].numpy() for name, image in self._estimate(self._sample)[_NAME].items()}

    def wiener_e(self) -> np.ndarray:
        """The most likely lensed E, ``(n, n)``: what a template of order ``gradient`` takes."""
        legs = QuadraticEstimate("fair", self.task).filter(self._sample.q, self._sample.u)
        return np.asarray(legs.images(legs.e)[0][0].numpy())

    def calibrate(self, count: int, say: Say) -> PatchCalibration:
        """From ``count`` patches that are simulated as the experiment's are, under the same mask, beam and noise."""
        config = self.task.config
        own = replace(config, evaluation=replace(config.evaluation, patches=count))
        task = LensingTask(own, say, self.task.spectra)
        task.__dict__["features"] = self.task.features
        made = reconstruct(PatchSets(task).of("validation", task.drawn()), [self._estimate], say)
        kappa, truth, bands = made.images[_NAME]["kappa"], made.truth["kappa"], patch_bands(task)
        means = PatchPowers.measure(bands, kappa, truth).stacked.mean(axis=0)
        curves = {
            "L": bands.centers,
            "RESPONSE": response_of(means),
            "N_L": noise_of(means, means),
            "C_KAPPA": means[2],
        }
        sigma = CalibratedError.fit(kappa, truth, bands).sigma(torch.from_numpy(self.images["kappa"])[None])
        return PatchCalibration(sigma[0].numpy(), curves)
