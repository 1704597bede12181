"""Lensed Q and U to the unlensed E and kappa: what the network sees, what it predicts, and in which units.

Conventions: images are ``(batch, size, size)``, uK (kappa has none), signs as in
:mod:`sphereml.harmonics.flat_polarization`.  A patch is observed as ``d = mask (beam * (Q, U) + noise)``, the noise
white; targets are the fields before lensing, beam and noise, and count in the loss as much as the mask lets through.
The beam is applied to the patch as if it were periodic, which is wrong in the outermost pixels alone, where the mask is
small: by 0.2 uK rms at 1 arcmin and pixels of 2.34.

Features and targets are divided by their standard deviations over training patches; a prediction is
``base + network``, output by output, with features and base from :mod:`sphereml.tasks.lensing_features`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch

from sphereml.config.schema import ExperimentConfig
from sphereml.domains import FlatPatch
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.lensing.observation import Observation
from sphereml.lensing.patch_model import PatchModel
from sphereml.patches.taper import cosine_taper
from sphereml.simulate.cmb import Cosmology
from sphereml.simulate.cmb_spectra import CmbSpectra, load_spectra
from sphereml.simulate.fields import gaussian_beam
from sphereml.simulate.flat_lensing import LensedPatches
from sphereml.tasks.lensing_features import EstimatorFeatures, Features, PlainFeatures


@dataclass(frozen=True, eq=False)
class LensingSample:
    """Observed patches and their truth, in physical units.

    ``q, u`` observed, under the mask, ``(B, n, n)``; ``truth`` by output, without the mask.
    """

    q: torch.Tensor
    u: torch.Tensor
    truth: dict[str, torch.Tensor]


@dataclass(frozen=True)
class LensingScaling:
    """Everything fitted on training patches; JSON-ready, stored beside the weights.

    ``base_slope`` is the least-squares factor of each output's base.
    """

    outputs: list[str]
    feature_mean: list[float]
    feature_std: list[float]
    target_std: list[float]
    base_slope: list[float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LensingScaling:
        return cls(**values)


@dataclass(frozen=True, eq=False)
class LensingBatch:
    """What a network takes and is asked for, standardized, on the patch's domain.

    ``features`` ``(B, n, n, F)``; ``base`` and ``target`` ``(B, n, n, O)``; ``weight`` the mask, ``(n, n)``.
    """

    features: torch.Tensor
    base: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor


@dataclass(frozen=True, eq=False)
class LensingTask:
    """Observes patches as an experiment's instrument does and makes a network's batches of them.

    Args:
        spectra: of the fiducial cosmology; the estimator's filters know them.
    """

    config: ExperimentConfig
    spectra: CmbSpectra

    @classmethod
    def of(cls, config: ExperimentConfig) -> LensingTask:
        """With CAMB's spectra of the configuration, from disk when they are there."""
        return cls(config, load_spectra(config.lensing.spectra_lmax, Cosmology.of(config.lensing.cosmology)))

    @cached_property
    def patch(self) -> FlatSky:
        return FlatSky(self.config.patches.size, self.config.patches.pixel_arcmin)

    @cached_property
    def domain(self) -> FlatPatch:
        return FlatPatch.of(self.patch, "lambert")

    @cached_property
    def mask(self) -> torch.Tensor:
        """``(size, size)`` float32."""
        taper = cosine_taper(self.patch, self.config.lensing.taper)
        return torch.from_numpy(taper).float()

    @cached_property
    def observation(self) -> Observation:
        lensing = self.config.lensing
        return Observation(lensing.noise, lensing.beam, lensing.lmin, lensing.lmax_eb)

    @cached_property
    def features(self) -> Features:
        if self.config.model.form == "plain":
            return PlainFeatures(self.outputs)
        model = PatchModel(self.patch, self.spectra, self.observation, self.mask.double())
        return EstimatorFeatures(self.outputs, model)

    @property
    def outputs(self) -> list[str]:
        return list(self.config.lensing.outputs)

    def observe(self, patches: LensedPatches, generator: torch.Generator) -> LensingSample:
        """Beam, fresh noise and mask on noiseless patches."""
        beam = self.patch.weights(gaussian_beam(self.spectra.lmax, self.config.lensing.beam), patches.q)
        noise = self.config.lensing.noise / self.patch.pixel_arcmin
        mask = self.mask.to(patches.q)

        def seen(image: torch.Tensor) -> torch.Tensor:
            white = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
            return mask * (self.patch.to_images(self.patch.to_modes(image) * beam) + noise * white)

        truth = {"e": patches.e, "kappa": patches.kappa, "q": patches.q_unlensed, "u": patches.u_unlensed}
        return LensingSample(seen(patches.q), seen(patches.u), {name: truth[name] for name in self.outputs})

    def fit_scaling(self, sample: LensingSample) -> LensingScaling:
        """Means, deviations and slopes over the patches of a training sample."""
        images, base = (part.double() for part in self.features(sample.q, sample.u))
        truth = _stacked(sample.truth).double()
        weight = self.mask.double()[..., None] ** 2
        slope = (weight * base * truth).sum((0, 1, 2)) / (weight * base**2).sum((0, 1, 2)).clamp_min(1e-300)
        return LensingScaling(
            self.outputs,
            images.mean((0, 1, 2)).tolist(),
            images.std((0, 1, 2)).tolist(),
            truth.std((0, 1, 2)).tolist(),
            slope.tolist(),
        )

    def batch(self, sample: LensingSample, scaling: LensingScaling) -> LensingBatch:
        images, base = self.features(sample.q, sample.u)
        mean, deviation, unit, slope = (
            torch.tensor(values, dtype=torch.float32, device=images.device)
            for values in (scaling.feature_mean, scaling.feature_std, scaling.target_std, scaling.base_slope)
        )
        target = _stacked(sample.truth) / unit
        return LensingBatch((images - mean) / deviation, base * (slope / unit), target, self.mask.to(target))


def _stacked(truth: dict[str, torch.Tensor]) -> torch.Tensor:
    """``(B, n, n, O)``."""
    return torch.stack(list(truth.values()), dim=-1)
