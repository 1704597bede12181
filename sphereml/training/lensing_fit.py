"""Train a network on lensed patches: fresh ones every step, with fresh noise, drawn on the device that trains.

A batch is a seed, a function of (training seed, stream, epoch, index); noise and features are made from it on the
network's device, and so are the patches of the flat simulator; those of stored skies are gathered on the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.data import IterableDataset

from sphereml.config.schema import ExperimentConfig
from sphereml.models.networks import Network, build
from sphereml.tasks.lensing import LensingBatch, LensingSample, LensingScaling, LensingTask
from sphereml.training.lifecycle import FitOptions, Fitted, Provenance, train_once
from sphereml.training.optimization import Regression
from sphereml.training.patch_sources import Part, PatchSource, open_source, provenance, refuse_missing_skies
from sphereml.training.runs import Run

# Streams of the training seed.
_TRAIN, _VALIDATION, _SCALING = 0, 1, 2
# Patches that means and deviations are taken over.
_SCALING_PATCHES = 256


@dataclass(eq=False)
class SeedBatches(IterableDataset):
    """``count`` seeds an epoch; of a fixed epoch 0 when ``stream`` validates."""

    seed: int
    stream: int
    count: int
    epoch: int = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        for index in range(self.count):
            yield batch_seed(self.seed, self.stream, self.epoch, index)


def batch_seed(*place: int) -> int:
    """A seed of 63 bits for a batch."""
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True, eq=False)
class Sampler:
    """Observed patches of a source, each a function of a seed."""

    task: LensingTask
    source: PatchSource

    @classmethod
    def of(cls, task: LensingTask, part: Part) -> Sampler:
        return cls(task, open_source(task.config, task.spectra, part))

    def draw(self, seed: int, count: int, device: torch.device | str = "cpu") -> LensingSample:
        generator = torch.Generator(device).manual_seed(seed)
        return self.task.observe(self.source.draw(count, generator), generator)


class LensingRegression(Regression):
    """A network that predicts the fields before lensing under a mean squared error."""

    def __init__(self, network: nn.Module, scaling: LensingScaling, train: Sampler, validation: Sampler) -> None:
        super().__init__(network, train.task.config.training)
        self.scaling, self.samplers = scaling, {"train": train, "val": validation}
        self.loss = PatchLoss.of(train.task, scaling)

    def training_step(self, seed: int, batch_idx: int) -> torch.Tensor:
        return self._step(self.network, "train", int(seed))

    def validation_step(self, seed: int, batch_idx: int) -> None:
        self._step(self.judged, "val", int(seed))

    def _step(self, network: nn.Module, part: str, seed: int) -> torch.Tensor:
        sampler, size = self.samplers[part], self.training_config.batch_size
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            batch = sampler.task.batch(sampler.draw(seed, size, self.device), self.scaling)
        prediction = predict_standardized(network, batch, sampler.task)
        loss = self.loss(prediction.float(), batch)
        self.log(f"{part}_loss", loss, on_epoch=True, on_step=False, batch_size=size, prog_bar=True)
        return loss


def predict_standardized(network: nn.Module, batch: LensingBatch, task: LensingTask) -> torch.Tensor:
    """``(B, n, n, O)``: the base corrected by the network."""
    prediction: torch.Tensor = batch.base + network(batch.features, task.domain)
    return prediction


@dataclass(frozen=True, eq=False)
class PatchLoss:
    """``mean w^2 (p - t)^2 / mean w^2``, in pixels, or over Fourier modes with each divided by the target's power, or
    by a thousandth of the largest power where that is more.

    ``power`` ``(n, n // 2 + 1, O)``: of the standardized target in units of white pixels, for the second form.
    """

    power: torch.Tensor | None

    @classmethod
    def of(cls, task: LensingTask, scaling: LensingScaling) -> PatchLoss:
        if task.config.lensing.loss == "pixel":
            return cls(None)
        curves = {"e": task.spectra.ee, "kappa": task.spectra.kappa, "q": task.spectra.ee / 2, "u": task.spectra.ee / 2}
        like = torch.empty(0)
        powers = [
            task.patch.weights(curves[name], like, beyond=float(curves[name][-1])) / (unit * task.patch.step) ** 2
            for name, unit in zip(scaling.outputs, scaling.target_std, strict=True)
        ]
        power = torch.stack(powers, dim=-1)
        power[0, 0] = power[0, 1]  # a patch has a mean, of its longest waves' size
        return cls(power)

    def __call__(self, prediction: torch.Tensor, batch: LensingBatch) -> torch.Tensor:
        weight = batch.weight[..., None]
        error = weight * (prediction - batch.target)
        if self.power is None:
            return error.square().mean() / weight.square().mean()
        power = self.power.to(error)
        modes = torch.fft.rfft2(error, dim=(1, 2), norm="ortho")
        relative = (modes.real.square() + modes.imag.square()) / torch.maximum(power, 1e-3 * power.amax((0, 1)))
        return relative.mean() / weight.square().mean()


def build_lensing_network(config: ExperimentConfig, task: LensingTask) -> Network:
    """The network of a configuration, its weights drawn from the training seed."""
    torch.manual_seed(config.training.seed)
    return build(config.model, task.domain, task.features.count, len(task.outputs))


def _scaling(run: Run, train: Sampler) -> LensingScaling:
    """Of the run's first start: another machine would round it differently."""
    if not run.scaling_path.is_file():
        sample = train.draw(batch_seed(run.config.training.seed, _SCALING), _SCALING_PATCHES)
        run.write_scaling(train.task.fit_scaling(sample).to_json())
    return LensingScaling.from_json(run.scaling())


def fit_lensing(config: ExperimentConfig, options: FitOptions) -> Run:
    """Train the model of a lensing experiment, or return its run when it is already complete.

    Raises:
        UserError: as :func:`train_once`; skies are missing; a taper, patch or spectrum that cannot be.
    """
    refuse_missing_skies(config)
    task = LensingTask.of(config)
    train, validation = (Sampler.of(task, part) for part in ("train", "validation"))

    def fit(run: Run) -> Fitted:
        from sphereml.training.lightning_fit import train_network

        training = config.training
        torch.set_num_threads(training.threads or torch.get_num_threads())
        scaling = _scaling(run, train)
        network = build_lensing_network(config, task)
        facts = train_network(
            run,
            LensingRegression(network, scaling, train, validation),
            SeedBatches(training.seed, _TRAIN, training.steps_per_epoch),
            SeedBatches(training.seed, _VALIDATION, training.validation_batches),
            options.say,
        )
        return Fitted(network.state_dict(), scaling.to_json(), facts)

    return train_once(Run.of(config), Provenance(provenance(config)), options, fit)
