"""Timings that can be trusted: every layer and its flat counterpart in turn, in one process, medians and ratios.

Each convolution maps ``channels`` to ``channels`` on the whole sphere; the flat one is a 3x3 ``Conv2d`` in
channels_last on twelve faces of ``nside x nside`` pixels, that is on equally many pixels.  The ratio is the median over
the rounds of the ratio within a round, so that a machine that slows down slows both.

Spin convolutions have as many real columns: of 48 16 even scalars, and 8 channels of spin 1 and of spin 2.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from sphereml.benchmarks.processes import Cost, in_fresh_process
from sphereml.domains import HealpixSky
from sphereml.domains.channels import Channels
from sphereml.domains.protocol import Stencil
from sphereml.models.layers import Convolution
from sphereml.sky.grid import HealpixGrid

_WARM_UP = 2
# Name: stencil and kernel size.  "k8" is the graph of the 8 adjacent pixels.
LAYERS: dict[str, tuple[Stencil, int]] = {
    "chebyshev_k8_K3": ("adjacent", 3),
    "chebyshev_k8_K5": ("adjacent", 5),
    "oriented": ("oriented", 3),
    "spin_3x3": ("spin", 3),
    "spin_5x5": ("spin", 5),
}
# The fewest columns of which all types have a share, so that every table of a layer is built.
_FEWEST = 6


def layer_of(name: str, domain: HealpixSky, columns: int) -> Convolution:
    """A layer by its name in :data:`LAYERS`, with so many real columns in and out."""
    stencil, kernel = LAYERS[name]
    spins = columns // _FEWEST
    channels = Channels(columns - 4 * spins, 0, spins, spins) if stencil == "spin" else columns
    return Convolution(domain, channels, channels, kernel, stencil)


@dataclass(frozen=True)
class ConvolutionBenchmark:
    """Sphere convolutions against ``Conv2d`` at one size; ``runs`` timed rounds after two to warm up."""

    nside: int
    channels: int
    batch: int
    runs: int
    memory: bool = False

    def measure(self) -> dict[str, Any]:
        """``{"layers": {NAME: {"fwd_ms", "fwdbwd_ms", "ratio_fwdbwd", ...}}, "conv2d": {...}, ...}``.

        Milliseconds; ``ratio_fwdbwd`` is to ``Conv2d``, ``ratio_chebyshev`` to three polynomials; ``peak_over_input``,
        with ``memory``, is what forward and backward need beyond the input, the output and both gradients included, in
        units of the input's size.
        """
        HealpixGrid(self.nside)  # refuses an impossible Nside
        layers = {name: self.step(name) for name in ("conv2d", *LAYERS)}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in layers}
        for turn in range(_WARM_UP + self.runs):
            for name, step in layers.items():
                pair = step()
                if turn >= _WARM_UP:
                    times[name].append(pair)
        flat, graph = times.pop("conv2d"), times["chebyshev_k8_K3"]
        own = _summary(flat, flat)
        return {
            "nside": self.nside,
            "channels": self.channels,
            "batch": self.batch,
            "threads": torch.get_num_threads(),
            "layers": {
                name: _summary(rows, flat) | {"ratio_chebyshev": _ratio(rows, graph)} | self._memory(name)
                for name, rows in times.items()
            },
            "conv2d": {"fwd_ms": own["fwd_ms"], "fwdbwd_ms": own["fwdbwd_ms"]} | self._memory("conv2d"),
        }

    def _memory(self, name: str) -> dict[str, float]:
        return {"peak_over_input": in_fresh_process(_peak_over_input, self, name)} if self.memory else {}

    def step(self, name: str) -> Callable[[], tuple[float, float]]:
        """A run of a layer, forward and backward, that returns its seconds."""
        return self._flat() if name == "conv2d" else self._sphere(name)

    def _flat(self) -> Callable[[], tuple[float, float]]:
        layer = torch.nn.Conv2d(self.channels, self.channels, 3, padding=1)
        layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.randn(12 * self.batch, self.channels, self.nside, self.nside)
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        return lambda: _timed(layer, x)

    def _sphere(self, name: str) -> Callable[[], tuple[float, float]]:
        domain = HealpixSky(self.nside)
        layer = layer_of(name, domain, self.channels)
        x = torch.randn(self.batch, *domain.shape, self.channels, requires_grad=True)
        return lambda: _timed(layer, x, domain)


def _peak_over_input(benchmark: ConvolutionBenchmark, name: str) -> float:
    replace(benchmark, channels=_FEWEST).step(name)()  # builds the tables, which are kept
    step = benchmark.step(name)
    entries = HealpixGrid(benchmark.nside).npix * benchmark.channels * benchmark.batch
    return Cost.of(step).peak_mb * 1e6 / (4 * entries)


def _timed(layer: torch.nn.Module, x: torch.Tensor, *where: HealpixSky) -> tuple[float, float]:
    """Seconds of the forward pass, and of forward and backward together."""
    x.grad = None  # a gradient inside a network is not added to the last step's
    started = time.perf_counter()
    y = layer(x, *where)
    middle = time.perf_counter()
    y.backward(torch.ones_like(y))
    return middle - started, time.perf_counter() - started


def _summary(rows: list[tuple[float, float]], flat: list[tuple[float, float]]) -> dict[str, float]:
    return {
        "fwd_ms": 1e3 * median(row[0] for row in rows),
        "fwdbwd_ms": 1e3 * median(row[1] for row in rows),
        "ratio_fwdbwd": _ratio(rows, flat),
    }


def _ratio(rows: list[tuple[float, float]], others: list[tuple[float, float]]) -> float:
    return median(own[1] / other[1] for own, other in zip(rows, others, strict=True))
