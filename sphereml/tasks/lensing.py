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

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any, ClassVar, Self

import torch

from sphereml import __version__
from sphereml.config.lensing import LensingConfig
from sphereml.config.schema import ExperimentConfig
from sphereml.config.tasks import SCHEMAS
from sphereml.domains import FlatPatch
from sphereml.domains.channels import Channels
from sphereml.harmonics.filters import gaussian_beam
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.lensing.observation import Observation
from sphereml.lensing.patch_model import PatchModel
from sphereml.patches.taper import cosine_taper
from sphereml.simulate.cmb_spectra import CmbSpectra, load_spectra
from sphereml.simulate.flat_lensing import FlatLensing, LensedPatches
from sphereml.simulate.lensing_store import campaign_folder
from sphereml.sky.fields import Field
from sphereml.sources.batch import Batch, Part, Source, batch_seed
from sphereml.sources.lensed_patches import DrawnPatches, PatchSource, open_skies, sky_split
from sphereml.tasks.lensing_features import EstimatorFeatures, Features, PlainFeatures
from sphereml.tasks.losses import PatchLoss
from sphereml.tasks.protocol import STREAMS, Loss, Provenance, Say, Task

# Patches that means and deviations are taken over.
_SCALING_PATCHES = 256
_OUTPUTS = {"e": Field("E", "uK_CMB"), "kappa": Field("kappa"), "q": Field("q", "uK_CMB"), "u": Field("u", "uK_CMB")}


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
    def from_json(cls, values: dict[str, Any]) -> Self:
        return cls(**values)

    def restore(self, prediction: torch.Tensor) -> torch.Tensor:
        return prediction * torch.tensor(self.target_std).to(prediction)


class LensingTask(Task):
    """Observes patches as an experiment's instrument does and makes a network's batches of them.

    Args:
        spectra: of the fiducial cosmology, which the estimator's filters know; else CAMB's of the configuration, from
            disk when they are there.
    """

    name = "lensing"
    schema = SCHEMAS["lensing"]
    study = "lensing"
    scaling: ClassVar[type[LensingScaling]] = LensingScaling

    def __init__(self, config: ExperimentConfig, say: Say = print, spectra: CmbSpectra | None = None) -> None:
        super().__init__(config, say)
        if spectra is not None:
            self.__dict__["spectra"] = spectra  # in the cached property's own place

    @classmethod
    def of(cls, config: ExperimentConfig, say: Say = print, **given: Any) -> Task:
        """Patches, or with ``model.domain=sphere`` whole skies."""
        from sphereml.tasks.lensing_sphere import SphereLensingTask

        return SphereLensingTask(config, say, **given) if config.model.domain == "sphere" else cls(config, say, **given)

    @property
    def settings(self) -> LensingConfig:
        return self.config.lensing

    @cached_property
    def spectra(self) -> CmbSpectra:
        return load_spectra(self.settings.spectra_lmax, self.settings.cosmology)

    @cached_property
    def patch(self) -> FlatSky:
        return FlatSky(self.config.patches.size, self.config.patches.pixel_arcmin)

    def domain(self, nside: int = 0) -> FlatPatch:
        return FlatPatch.of(self.patch, "lambert")

    @cached_property
    def mask(self) -> torch.Tensor:
        """``(size, size)`` float32."""
        taper = cosine_taper(self.patch, self.settings.taper)
        return torch.from_numpy(taper).float()

    @cached_property
    def observation(self) -> Observation:
        settings = self.settings
        return Observation(settings.noise, settings.beam, settings.lmin, settings.lmax_eb, settings.lmin_b)

    @cached_property
    def features(self) -> Features:
        if self.config.model.form == "plain":
            return PlainFeatures(self.names, self.patch, self.mask, self.settings.lmin_b)
        model = PatchModel(self.patch, self.spectra, self.observation, self.mask.double())
        return EstimatorFeatures(self.names, model, self.settings.passes)

    @property
    def names(self) -> list[str]:
        """Names of the outputs in the configuration."""
        return list(self.settings.outputs)

    @property
    def outputs(self) -> tuple[Field, ...]:
        return tuple(_OUTPUTS[name] for name in self.names)

    def channels(self, scaling: LensingScaling) -> tuple[Channels, Channels]:
        return Channels(self.features.count), Channels(len(scaling.outputs))

    def check(self) -> None:
        if self._stored:
            for part in sky_split(self.settings):
                self.patches(part)

    @property
    def _stored(self) -> bool:
        return self.settings.simulator == "curved"

    def provenance(self) -> Provenance:
        files = f"camb {version('camb')}"
        if self._stored:
            files = campaign_folder(self.settings, self.config.patches, "").name
        kind = f"lensing, {self.settings.simulator}"
        data = {"kind": kind, "code": __version__, "files": files, "seed": self.settings.seed}
        return Provenance(data, {"nside": 0})

    def patches(self, part: Part) -> PatchSource:
        """Noiseless patches of a part of the data."""
        if self._stored:
            return open_skies(self.settings, self.config.patches, self.config.data.stores, part)
        return self.drawn()

    def drawn(self, spectra: CmbSpectra | None = None, gaussian: bool = False) -> DrawnPatches:
        """Patches drawn by FFT, from the fiducial spectra or others; see :class:`FlatLensing`."""
        return DrawnPatches(FlatLensing(self.patch, spectra or self.spectra, gaussian))

    def fit_scaling(self) -> LensingScaling:
        seed = batch_seed(self.config.training.seed, STREAMS["scaling"])
        return self.scaling_of(Sampler(self, self.patches("train")).draw(seed, _SCALING_PATCHES))

    def scaling_of(self, sample: LensingSample) -> LensingScaling:
        """Means, deviations and slopes over the patches of a training sample."""
        images, base = (part.double() for part in self.features(sample.q, sample.u))
        truth = _stacked(sample.truth).double()
        weight = self.mask.double()[..., None] ** 2
        slope = (weight * base * truth).sum((0, 1, 2)) / (weight * base**2).sum((0, 1, 2)).clamp_min(1e-300)
        return LensingScaling(
            self.names,
            images.mean((0, 1, 2)).tolist(),
            images.std((0, 1, 2)).tolist(),
            truth.std((0, 1, 2)).tolist(),
            slope.tolist(),
        )

    def sources(self, scaling: LensingScaling) -> Mapping[Part, Source]:
        parts: tuple[Part, ...] = ("train", "validation")
        return {part: LensingSource(Sampler(self, self.patches(part)), scaling) for part in parts}

    def loss(self, scaling: LensingScaling) -> Loss:
        return PatchLoss(None if self.settings.loss == "pixel" else self._power(scaling))

    def _power(self, scaling: LensingScaling) -> torch.Tensor:
        """Of the standardized target, for the loss of Fourier modes."""
        curves = {"e": self.spectra.ee, "kappa": self.spectra.kappa}
        curves |= dict.fromkeys(("q", "u"), self.spectra.ee / 2)
        like = torch.empty(0)
        powers = [
            self.patch.weights(curves[name], like, beyond=float(curves[name][-1])) / (unit * self.patch.step) ** 2
            for name, unit in zip(scaling.outputs, scaling.target_std, strict=True)
        ]
        power = torch.stack(powers, dim=-1)
        power[0, 0] = power[0, 1]  # a patch has a mean, of its longest waves' size
        return power

    def observe(self, patches: LensedPatches, generator: torch.Generator) -> LensingSample:
        """Beam, fresh noise and mask on noiseless patches."""
        beam = self.patch.weights(gaussian_beam(self.spectra.lmax, self.settings.beam), patches.q)
        noise = self.settings.noise / self.patch.pixel_arcmin
        mask = self.mask.to(patches.q)

        def seen(image: torch.Tensor) -> torch.Tensor:
            white = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
            return mask * (self.patch.to_images(self.patch.to_modes(image) * beam) + noise * white)

        truth = {"e": patches.e, "kappa": patches.kappa, "q": patches.q_unlensed, "u": patches.u_unlensed}
        return LensingSample(seen(patches.q), seen(patches.u), {name: truth[name] for name in self.names})

    def batch(self, sample: LensingSample, scaling: LensingScaling) -> Batch:
        """Standardized features, base and targets of observed patches."""
        images, base = self.features(sample.q, sample.u)
        mean, deviation, unit, slope = (
            torch.tensor(values, dtype=torch.float32, device=images.device)
            for values in (scaling.feature_mean, scaling.feature_std, scaling.target_std, scaling.base_slope)
        )
        target = _stacked(sample.truth) / unit
        features, weight = (images - mean) / deviation, self.mask.to(target)
        channels = Channels(self.features.count)
        return Batch(self.domain(), channels, features, base * (slope / unit), None, target, weight)


@dataclass(frozen=True, eq=False)
class Sampler:
    """Observed patches of a source, each sample a function of a seed."""

    task: LensingTask
    patches: PatchSource

    def draw(self, seed: int, count: int, device: torch.device | str = "cpu") -> LensingSample:
        generator = torch.Generator(device).manual_seed(seed)
        return self.task.observe(self.patches.draw(count, generator), generator)


@dataclass(frozen=True, eq=False)
class LensingSource:
    """Batches of a sampler, drawn on the device that trains."""

    sampler: Sampler
    scaling: LensingScaling

    def batch(self, seed: int, size: int, device: torch.device | str = "cpu") -> Batch:
        return self.sampler.task.batch(self.sampler.draw(seed, size, device), self.scaling)


def _stacked(truth: dict[str, torch.Tensor]) -> torch.Tensor:
    """``(B, n, n, O)``."""
    return torch.stack(list(truth.values()), dim=-1)
