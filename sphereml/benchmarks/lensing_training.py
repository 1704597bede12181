"""How fast a lensing network trains: patches a second, and the share of a card's peak that the network's sums reach.

A step draws fresh patches by FFTs, observes them, makes features, and goes forward and backward, as the training does;
the spectra are a formula's.  Operations are those of convolutions and matrix products, counted by torch; peaks are the
maker's figures for dense products of the SXM cards.  A CPU's peak is not stated.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from sphereml.benchmarks.reconstruction import synthetic_spectra
from sphereml.config.schema import ExperimentConfig
from sphereml.errors import UserError
from sphereml.models.networks import Network
from sphereml.tasks.lensing import LensingScaling, LensingTask
from sphereml.training.lensing_fit import (
    PatchLoss,
    Sampler,
    build_lensing_network,
    predict_standardized,
)
from sphereml.training.optimization import Regression, allow_tf32

# 1e12 dense operations a second (NVIDIA's data sheets).
_PEAKS = {
    "H100": {"bf16": 989.0, "tf32": 495.0, "float32": 67.0},
    "H200": {"bf16": 989.0, "tf32": 495.0, "float32": 67.0},
    "A100": {"bf16": 312.0, "tf32": 156.0, "float32": 19.5},
}


@dataclass(frozen=True)
class TrainingBenchmark:
    """Steps of ``batch`` patches of an experiment on the GPU, or without one on the CPU."""

    config: ExperimentConfig
    batch: int
    runs: int

    def measure(self) -> dict[str, Any]:
        """``{"device", "experiment", "batch", "precisions": {name: {"patches_s", "draw_share", "peak_share"}}}``.

        Medians; ``draw_share`` is the share of a step in which patches and features are made; ``peak_share`` is None
        for a device whose peak is not known.

        Raises:
            UserError: the experiment is not of lensing.
        """
        if self.config.task != "lensing":
            raise UserError(f"the experiment {self.config.name} is of {self.config.task}", "name one of lensing")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        called = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
        precisions = ("float32", "tf32", "bf16") if device.type == "cuda" else ("float32",)
        step = _Step.of(self.config, self.batch, device)
        return {
            "device": called,
            "experiment": self.config.name,
            "batch": self.batch,
            "gflop_patch": step.operations() / self.batch / 1e9,
            "precisions": {name: self._timed(step, name, called) for name in precisions},
        }

    def _timed(self, step: _Step, precision: str, device: str) -> dict[str, Any]:
        allow_tf32(precision == "tf32")
        step(precision)
        drawn, whole = zip(*(step(precision) for _ in range(self.runs)), strict=True)
        seconds = median(whole)
        peak = next((peaks[precision] for card, peaks in _PEAKS.items() if card in device), None)
        reached = step.operations() / seconds / 1e12
        return {
            "patches_s": self.batch / seconds,
            "draw_share": median(drawn) / seconds,
            "peak_share": None if peak is None else reached / peak,
        }


@dataclass(eq=False)
class _Step:
    """One training step; calling it gives the seconds of drawing and of everything."""

    sampler: Sampler
    scaling: LensingScaling
    network: Network
    loss: PatchLoss
    optimizer: torch.optim.Optimizer
    batch: int
    device: torch.device
    seed: int = 0

    @classmethod
    def of(cls, config: ExperimentConfig, batch: int, device: torch.device) -> _Step:
        flat = replace(config, lensing=replace(config.lensing, simulator="flat"))
        task = LensingTask(flat, synthetic_spectra(flat.lensing.spectra_lmax))
        sampler = Sampler.of(task, "train")
        scaling = task.fit_scaling(sampler.draw(0, batch, device))
        network = build_lensing_network(flat, task).to(device)
        optimizer: Any = Regression(network, flat.training).configure_optimizers()["optimizer"]
        return cls(sampler, scaling, network, PatchLoss.of(task, scaling), optimizer, batch, device)

    def __call__(self, precision: str = "float32") -> tuple[float, float]:
        start = self._now()
        self.seed += 1
        with torch.no_grad():
            batch = self.sampler.task.batch(self.sampler.draw(self.seed, self.batch, self.device), self.scaling)
        drawn = self._now()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
            prediction = predict_standardized(self.network, batch, self.sampler.task)
        self.loss(prediction.float(), batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return drawn - start, self._now() - start

    def operations(self) -> float:
        """Of a step's network, forward and backward."""
        with FlopCounterMode(display=False) as counter:
            self()
        return float(counter.get_total_flops())

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
