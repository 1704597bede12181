"""How each step of the work grows with Nside: seconds, peak memory, and the exponent of both.

Every step runs in a process of its own at every Nside; ``cpu_seconds`` are the processor's, which other processes on
the machine disturb least; the peak is how far resident memory rises over what holds the step's own inputs (10^6 bytes).
An exponent is that of Nside over the last doubling: 2 is as the pixels, 3 as a
spherical harmonic transform.  Skies are random; networks are ``unet_sphere`` after one step of training.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sphereml.benchmarks.preparation import PreparationBenchmark
from sphereml.benchmarks.processes import Cost, in_fresh_process
from sphereml.config.compose import compose
from sphereml.data.sky_on_disk import SkyOnDisk
from sphereml.data.store import Sky, blank_inputs, superpixel_size, write_blocks
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid

CHANNELS = 16
_JACKKNIFE_NSIDE = 2
# Hough: a stick of this many pixels of the map.
_STICK = 10
# What is less cannot be told from nothing.
_LEAST = 1e-3


@dataclass(frozen=True)
class GrowthBenchmark:
    """Steps by name at some Nsides, below ``folder`` (where the system keeps such when None)."""

    nsides: Sequence[int]
    steps: Sequence[str]
    folder: Path | str | None = None

    def measure(self) -> dict[str, Any]:
        """``{"channels", "threads", "steps": {NAME: {NSIDE: FIGURES, "exponent": FIGURES}}}``.

        ``FIGURES`` are ``seconds``, ``cpu_seconds`` and ``peak_mb``; there is an exponent of the last two.
        """
        measured = {name: self._grown(name) for name in self.steps}
        return {"channels": CHANNELS, "threads": torch.get_num_threads(), "steps": measured}

    def _grown(self, name: str) -> dict[str, Any]:
        found = {nside: in_fresh_process(_cost, name, nside, self.folder) for nside in self.nsides}
        rows: dict[str, Any] = {str(nside): figures for nside, figures in found.items()}
        if len(found) > 1:
            (small, before), (large, after) = list(found.items())[-2:]
            rows["exponent"] = {
                key: math.log(max(after[key], _LEAST) / max(before[key], _LEAST)) / math.log(large / small)
                for key in ("cpu_seconds", "peak_mb")
            }
        return rows


def _cost(name: str, nside: int, folder: Path | str | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        step = STEPS[name](nside, Path(scratch))
        started = time.process_time()
        cost = Cost.of(step)
        return cost.json() | {"cpu_seconds": time.process_time() - started}


def _maps(nside: int, count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, HealpixGrid(nside).npix))


def _mask(nside: int) -> np.ndarray:
    """Apodized, without the Galactic plane."""
    _, latitude = HealpixGrid(nside).lonlat()
    return np.clip((np.abs(latitude) - 20) / 10, 0, 1)


def _prepare(nside: int, folder: Path) -> Callable[[], object]:
    """A survey's channels: read, filled, filtered, stored."""
    return lambda: PreparationBenchmark(nside, CHANNELS, folder, resume=False).measure()


def _train_step(nside: int, folder: Path) -> Callable[[], object]:
    """Forward and backward of ``unet_sphere`` on a batch of two tiles of Nside 2."""
    from sphereml.domains import HealpixSky
    from sphereml.models.networks import build

    config, domain = compose(["model=unet_sphere"]), HealpixSky(nside, (0,), 2)
    network = build(config.model, domain, CHANNELS, 1).train()
    features = torch.randn(2, *domain.shape, CHANNELS)
    return lambda: network(features, domain).square().mean().backward()


def _predict(nside: int, folder: Path) -> Callable[[], object]:
    """A template of ``unet_sphere`` from a store, into a FITS file."""
    from sphereml.templates.full_sky import predict_templates
    from sphereml.training.predictor import Predictor

    run = _trained(folder)
    sky = SkyOnDisk.open(_store(nside, folder / "sky.zarr"))
    return lambda: predict_templates(folder / "templates", {"unet_sphere": Predictor(run)}, sky)


def _trained(folder: Path) -> Any:
    from sphereml.training.fit import fit
    from sphereml.training.lifecycle import FitOptions

    words = ["experiment=dust_demo", "model=unet_sphere", "data.galaxy.nside=32", f"data.galaxy.channels={CHANNELS}"]
    words += ["training.epochs=1", "training.steps_per_epoch=1", "training.validation_batches=1", "training.logger=csv"]
    words += [f"output={folder / 'runs'}", f"data.stores={folder / 'stores'}"]
    return fit(compose(words), FitOptions(say=lambda line: None))


def _store(nside: int, path: Path) -> Path:
    grid = HealpixGrid(nside)
    fields = tuple(Field(f"{channel} km/s", "K") for channel in range(CHANNELS))
    target, velocity = np.zeros((grid.npix, 1), np.float32), np.arange(CHANNELS, dtype=float)
    sky = Sky(grid, blank_inputs(grid, CHANNELS), target, fields, (Field("I", "uK_RJ"),), velocity=velocity)
    size, rng = superpixel_size(grid), np.random.default_rng(0)
    blocks = (rng.uniform(0.5, 1.5, (size, CHANNELS)).astype(np.float32) for _ in range(grid.npix // size))
    write_blocks(path, sky, blocks)
    return path


def _compare(nside: int, folder: Path) -> Callable[[], object]:
    """r(ell) of one map with its block jackknife, over the bands that the map resolves."""
    from sphereml.evaluation.maps.sphere import score_sphere
    from sphereml.tasks.losses import resolved_bands

    bands, (one, two), mask = resolved_bands(compose([]).bands, nside), _maps(nside, 2), _mask(nside)
    return lambda: score_sphere(one, two, mask, bands, _JACKKNIFE_NSIDE)


def _marginalize(nside: int, folder: Path) -> Callable[[], object]:
    """One template fitted and subtracted, ell up to 2 Nside."""
    from sphereml.templates.marginalization import marginalize

    (one, two), mask = _maps(nside, 2), _mask(nside)
    return lambda: marginalize(one, two, mask)


def _spectra(nside: int, folder: Path) -> Callable[[], object]:
    """Decoupled bandpowers of one map, coupling matrix included, ell up to 2 Nside."""
    from sphereml.harmonics.workspace import Workspace

    (one,), mask = _maps(nside, 1), _mask(nside)
    edges = np.linspace(2, 2 * nside, 21).round().tolist()
    return lambda: Workspace(mask, edges, lmax=2 * nside).bandpowers(one)


def _hough(nside: int, folder: Path) -> Callable[[], object]:
    """Q/I and U/I of one map, a stick of ten pixels, 25 orientations."""
    from sphereml.filaments.hough import HoughSettings, HoughTransform

    grid = HealpixGrid(nside)
    pixel = 60 * grid.resolution
    settings = HoughSettings(length=_STICK * pixel, smoothing=_STICK * pixel / 2.5)
    intensity = torch.from_numpy(_maps(nside, 1)[0] + 5)
    return lambda: HoughTransform(grid, settings).orientation(intensity)


def _estimate(nside: int, folder: Path) -> Callable[[], object]:
    """Kappa by EB from Q and U, ell up to 2 Nside, the normalization included."""
    from sphereml.benchmarks.reconstruction import synthetic_spectra
    from sphereml.lensing.full_sky import EstimateSettings, ObservedMaps, estimate_kappa

    settings, spectra = EstimateSettings(lmax=2 * nside, estimator="EB"), synthetic_spectra(2 * nside)
    observed = ObservedMaps(_maps(nside, 2), None, None)
    return lambda: estimate_kappa(observed, settings, spectra, None)


STEPS: dict[str, Callable[[int, Path], Callable[[], object]]] = {
    "prepare": _prepare,
    "train step": _train_step,
    "predict": _predict,
    "compare": _compare,
    "marginalize": _marginalize,
    "spectra": _spectra,
    "hough": _hough,
    "lensing": _estimate,
}
