"""Timings of the spherical harmonic transforms beside ducc0's own calls, in turn, in one process, medians and ratios.

What is timed is analysis without iterations and its gradient, that is an adjoint synthesis and a synthesis.  ducc0 gets
float64 RING maps and returns new arrays, as ours does; ``ducc0_reused`` writes into arrays that are there already,
which saves the first touch of their memory.  Ours gets NEST tensors, and orders and converts them.  At spin 2 half as
many pairs (Q, U) are transformed, so the pixels are as many.  The ratio is the median over the rounds of the ratio
within a round.

``loss_share`` times a training step on the sphere, and within the same rounds the loss alone with its gradient.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import ducc0
import healpy
import numpy as np
import torch

from sphereml.config.compose import compose
from sphereml.config.schema import ExperimentConfig
from sphereml.domains import HealpixSky
from sphereml.domains.channels import Channels
from sphereml.harmonics.autograd import SphericalTransform, analysis
from sphereml.harmonics.rings import alm_size, ring_geometry, threads
from sphereml.models.networks import options
from sphereml.models.unet import UNet
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.regions import Region
from sphereml.sources.batch import Batch
from sphereml.tasks.losses import CorrelationLoss, resolved_bands
from sphereml.tasks.protocol import add_gains

_TORCH_ON_CPU = 2_000_000  # pixels in all above which the torch transform is left out where there is no GPU


@dataclass(frozen=True)
class TransformBenchmark:
    """Differentiable analysis of ``maps`` maps against ducc0; ``runs`` timed rounds after one to warm up."""

    nside: int
    lmax: int
    maps: int
    runs: int

    def measure(self) -> dict[str, Any]:
        """Milliseconds: ``{"spin0": {"ducc0": {"ms"}, NAME: {"ms", "ratio"}, ...}, "spin2": {...}, "nside", ...}``."""
        grid = HealpixGrid(self.nside)  # refuses an impossible Nside
        result: dict[str, Any] = {
            "nside": grid.nside,
            "lmax": self.lmax,
            "maps": self.maps,
            "threads": threads(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        }
        for spin in (0, 2):
            result[f"spin{spin}"] = _alternate(self._steps(spin), "ducc0", self.runs)
        return result

    def _steps(self, spin: int) -> dict[str, Callable[[], object]]:
        shape = (self.maps, 12 * self.nside**2) if spin == 0 else (max(self.maps // 2, 1), 2, 12 * self.nside**2)
        maps = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        transform = SphericalTransform(self.nside, self.lmax, spin=spin)
        rings = maps.numpy().reshape(len(maps), -1, shape[-1])
        steps: dict[str, Callable[[], object]] = {
            "ducc0": _ducc_calls(rings, self.nside, self.lmax, spin),
            "ducc0_reused": _ducc_calls(rings, self.nside, self.lmax, spin, reuse=True),
            "differentiable_float64": lambda: _analysis_with_gradient(maps, transform),
            "differentiable_float32": _single(maps, transform),
            "healpy_map2alm_only": lambda: _healpy_analysis(maps.numpy(), self.lmax, spin),
        }
        if torch.cuda.is_available() or maps.numel() <= _TORCH_ON_CPU:
            for dtype in (torch.float64, torch.float32):
                steps[f"torch_{str(dtype)[6:]}"] = self._torch(maps, spin, dtype)
        return steps

    def _torch(self, maps: torch.Tensor, spin: int, dtype: torch.dtype) -> Callable[[], object]:
        """The torch transform on the GPU if there is one, else on the CPU."""
        transform = SphericalTransform(self.nside, self.lmax, spin=spin, engine="torch", dtype=dtype)
        on_device = maps.to("cuda" if torch.cuda.is_available() else "cpu", dtype)

        def step() -> None:
            _analysis_with_gradient(on_device, transform)
            if on_device.is_cuda:
                torch.cuda.synchronize()

        return step


def _single(maps: torch.Tensor, transform: SphericalTransform) -> Callable[[], object]:
    single = maps.float()
    return lambda: _analysis_with_gradient(single, transform)


def _analysis_with_gradient(maps: torch.Tensor, transform: SphericalTransform) -> None:
    leaf = maps.detach().requires_grad_()
    alm = analysis(leaf, transform, iterations=0)
    alm.backward(alm.detach())


def _ducc_calls(maps: np.ndarray, nside: int, lmax: int, spin: int, reuse: bool = False) -> Callable[[], object]:
    options = {"lmax": lmax, "spin": spin, "nthreads": threads(), **ring_geometry(nside)}
    shape = (*maps.shape[:-1], alm_size(lmax))
    own = (np.zeros(shape, np.complex128), np.zeros_like(maps)) if reuse else (None, None)

    def step() -> None:
        alm = ducc0.sht.adjoint_synthesis(map=maps, alm=own[0], **options)
        ducc0.sht.synthesis(alm=alm, map=own[1], **options)

    return step


def _healpy_analysis(maps: np.ndarray, lmax: int, spin: int) -> None:
    for one in maps:
        if spin:
            healpy.map2alm_spin(one, spin, lmax)
        else:
            healpy.map2alm(one, lmax, iter=0, use_pixel_weights=False)


def _alternate(steps: dict[str, Callable[[], object]], reference: str, runs: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of every step, and its median ratio to the reference of the same round."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(runs + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if turn:
                times[name].append(1e3 * (time.perf_counter() - started))
    ratios = {name: median(a / b for a, b in zip(row, times[reference], strict=True)) for name, row in times.items()}
    return {name: {"ms": median(row), "ratio": ratios[name]} for name, row in times.items()}


def loss_share(nside: int = 64, runs: int = 9) -> dict[str, dict[str, float]]:
    """Share of a training step (forward, loss, backward, Adam; no data loading) taken by the loss and its gradient.

    A U-Net on a batch of tiles as in ``configs/training/default.yaml``, thin and as wide as the paper's, and both
    networks on half the sky as one region: ``{NAME: {"step_ms", "loss_ms", "share"}}``.
    """
    north = tuple(range(4 * 4**3 + 4 * 2**5))  # of Nside 8: the northern base pixels and a part of the equator's
    cases = {
        "unet_sphere_tiles": (["model=unet_sphere"], Region(nside, (17,), 2)),
        "unet_sphere_width64_tiles": (["model=unet_sphere", "model.width=64"], Region(nside, (17,), 2)),
        "unet_sphere_region": (["model=unet_sphere"], Region(nside, north, 8)),
        "gain_sphere_region": (["model=gain_sphere"], Region(nside, north, 8)),
    }
    result = {}
    for name, (overrides, region) in cases.items():
        config = compose(overrides)
        timed = _alternate(_step_and_loss(config, HealpixSky.of(region)), "step", runs)
        result[name] = {"step_ms": timed["step"]["ms"], "loss_ms": timed["loss"]["ms"], "share": timed["loss"]["ratio"]}
    return result


def _step_and_loss(config: ExperimentConfig, domain: HealpixSky) -> dict[str, Callable[[], object]]:
    """A training step on random fields, and its loss alone."""
    model = config.model
    batch = _random_batch(config, domain)
    assert batch.gains is not None
    outputs = batch.gains.shape[-1]
    network = UNet(domain, batch.features.shape[-1], outputs, zero_output=True, **options(model))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, foreach=True)
    loss = CorrelationLoss.of(config.loss, resolved_bands(config.bands, domain.nside))

    def step() -> None:
        optimizer.zero_grad()
        features = batch.features + model.input_noise * torch.randn_like(batch.features)
        loss(add_gains(batch.base, batch.gains, network(features, domain)), batch)[0].backward()
        optimizer.step()

    def loss_alone() -> None:
        prediction = batch.base.clone().requires_grad_()
        loss(prediction, batch)[0].backward()

    return {"step": step, "loss": loss_alone}


def _random_batch(config: ExperimentConfig, domain: HealpixSky) -> Batch:
    """A batch shaped as the dust task's: a profile is a column and 64 channels, a region is shown once."""
    generator = torch.Generator().manual_seed(0)
    size = config.training.batch_size if len(domain.coarse_pixels or ()) == 1 else 1
    features = 1 if config.model.features == "column" else 1 + config.data.galaxy.channels
    gains = config.data.galaxy.channels if config.model.gains == "channels" else 1
    shape = (size, *domain.shape)

    def normal(*more: int) -> torch.Tensor:
        return torch.randn(*shape, *more, generator=generator)

    columns = (normal(features), normal(1), normal(1, gains), normal(1))
    return Batch(domain, Channels(features), *columns, torch.ones(shape))
