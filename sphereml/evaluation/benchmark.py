"""Timings that can be trusted: every layer and its flat counterpart in turn, in one process, medians and ratios.

Each convolution maps ``channels`` to ``channels`` on the whole sphere; the flat one is a 3x3 ``Conv2d`` in
channels_last on twelve faces of ``nside x nside`` pixels, that is on equally many pixels.  The ratio is the median over
the rounds of the ratio within a round, so that a machine that slows down slows both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from sphereml.domains import HealpixSky
from sphereml.models.layers import Convolution
from sphereml.sky.grid import HealpixGrid

_WARM_UP = 2
_ORDERS = (3, 5)


@dataclass(frozen=True)
class ConvolutionBenchmark:
    """Sphere convolutions against ``Conv2d`` at one size; ``runs`` timed rounds after two to warm up."""

    nside: int
    channels: int
    batch: int
    runs: int

    def measure(self) -> dict[str, Any]:
        """Milliseconds: ``{"layers": {NAME: {"fwd_ms", "fwdbwd_ms", "ratio_fwdbwd"}}, "conv2d": {...}, ...}``."""
        HealpixGrid(self.nside)  # refuses an impossible Nside
        layers = {"conv2d": self._flat(), **{f"chebyshev_k8_K{order}": self._sphere(order) for order in _ORDERS}}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in layers}
        for turn in range(_WARM_UP + self.runs):
            for name, step in layers.items():
                pair = step()
                if turn >= _WARM_UP:
                    times[name].append(pair)
        flat = times.pop("conv2d")
        return {
            "nside": self.nside,
            "channels": self.channels,
            "batch": self.batch,
            "threads": torch.get_num_threads(),
            "layers": {name: _summary(rows, flat) for name, rows in times.items()},
            "conv2d": {key: value for key, value in _summary(flat, flat).items() if key != "ratio_fwdbwd"},
        }

    def _flat(self) -> Callable[[], tuple[float, float]]:
        layer = torch.nn.Conv2d(self.channels, self.channels, 3, padding=1)
        layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.randn(12 * self.batch, self.channels, self.nside, self.nside)
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        return lambda: _timed(lambda: layer(x))

    def _sphere(self, order: int) -> Callable[[], tuple[float, float]]:
        domain = HealpixSky(self.nside)
        layer = Convolution(domain, self.channels, self.channels, order)
        x = torch.randn(self.batch, *domain.shape, self.channels, requires_grad=True)
        return lambda: _timed(lambda: layer(x, domain))


def _timed(forward: Callable[[], torch.Tensor]) -> tuple[float, float]:
    """Seconds of the forward pass, and of forward and backward together."""
    started = time.perf_counter()
    y = forward()
    middle = time.perf_counter()
    y.backward(torch.ones_like(y))
    return middle - started, time.perf_counter() - started


def _summary(rows: list[tuple[float, float]], flat: list[tuple[float, float]]) -> dict[str, float]:
    ratios = [own[1] / other[1] for own, other in zip(rows, flat, strict=True)]
    return {
        "fwd_ms": 1e3 * median(row[0] for row in rows),
        "fwdbwd_ms": 1e3 * median(row[1] for row in rows),
        "ratio_fwdbwd": median(ratios),
    }
