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
from sphereml.config.tasks import is_used
from sphereml.errors import UserError
from sphereml.sources.batch import Source
from sphereml.tasks.lensing import LensingTask, Sampler
from sphereml.training.regression import Regression, allow_tf32

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
        if not is_used(self.config.task, "lensing"):
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

    module: Regression
    source: Source
    optimizer: torch.optim.Optimizer
    batch: int
    device: torch.device
    seed: int = 0

    @classmethod
    def of(cls, config: ExperimentConfig, batch: int, device: torch.device) -> _Step:
        flat = replace(config, lensing=replace(config.lensing, simulator="flat"))
        task = LensingTask(flat, spectra=synthetic_spectra(flat.lensing.spectra_lmax))
        scaling = task.scaling_of(Sampler(task, task.patches("train")).draw(0, batch, device))
        sources = task.sources(scaling)
        module = Regression(task.network(scaling, nside=0).to(device), task, scaling, sources)
        optimizer: Any = module.configure_optimizers()["optimizer"]
        return cls(module, sources["train"], optimizer, batch, device)

    def __call__(self, precision: str = "float32") -> tuple[float, float]:
        start, module = self._now(), self.module
        self.seed += 1
        with torch.no_grad():
            batch = self.source.batch(self.seed, self.batch, self.device)
        drawn = self._now()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
            output = module.network(batch.features, batch.domain)
        prediction = module.task.combine(batch, output, module.scaling)
        module.loss(prediction.float(), batch)[0].backward()
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
