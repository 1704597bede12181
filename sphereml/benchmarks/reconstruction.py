"""Time and memory of one quadratic estimate of kappa on the full sky, from a_lm of E and B to a_lm of kappa.

The spectra are drawn by a formula: E with acoustic peaks, a steep potential and the B it makes to first order, so no
Boltzmann code runs.  The time of an estimate does not depend on them.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from sphereml.benchmarks.processes import Cost, in_fresh_process
from sphereml.harmonics.rings import threads
from sphereml.lensing.iterated import first_order_bb
from sphereml.lensing.noise import NoiseModel
from sphereml.lensing.observation import Observation
from sphereml.lensing.sphere_estimator import SphereEstimator
from sphereml.simulate.cmb_spectra import CmbSpectra
from sphereml.simulate.fields import draw_alm


def synthetic_spectra(lmax: int) -> CmbSpectra:
    """Spectra of the right size and shape, with C^EE for the lensed E and no temperature."""
    ell = np.maximum(np.arange(lmax + 1.0), 2)
    ee = 3e-4 * (1.2 + np.sin(ell / 45)) * np.exp(-((ell / 900) ** 1.2))
    potential = 2e-8 / (ell * (ell + 1)) ** 1.2 / (1 + ell / 60) ** 1.5
    ee[:2] = potential[:2] = 0
    zero = np.zeros(lmax + 1)
    bare = CmbSpectra(ee, ee, zero, potential)
    return replace(bare, bb_lensed=first_order_bb(bare, lmax))


@dataclass(frozen=True)
class ReconstructionBenchmark:
    """EB of multipoles up to ``lmax`` at 1 uK-arcmin and 1 arcmin, kappa up to the same."""

    lmax: int
    runs: int = 3
    memory: bool = False

    def measure(self) -> dict[str, Any]:
        """``{"lmax", "threads", "runs", "eb": {"seconds", "cpu_seconds"}}``: medians, wall and processor time.

        Every run makes its estimator anew, so that filters and normalization count.  With ``memory`` also ``peak_mb``:
        how far memory rises over what holds E and B, in a process of its own.
        """
        model = self._model()  # refuses an impossible lmax
        legs = self._legs(model)
        timed = [_timed(model, *legs) for _ in range(self.runs)]
        seconds, cpu = (median(column) for column in zip(*timed, strict=True))
        peak = {"peak_mb": in_fresh_process(_peak_mb, self)} if self.memory else {}
        figures = {"seconds": seconds, "cpu_seconds": cpu} | peak
        return {"lmax": self.lmax, "threads": threads(), "runs": self.runs, "eb": figures}

    def _model(self) -> NoiseModel:
        observation = Observation(lmin=min(30, self.lmax - 1), lmax=self.lmax)
        return NoiseModel(synthetic_spectra(self.lmax), observation, self.lmax)

    def _legs(self, model: NoiseModel) -> tuple[np.ndarray, np.ndarray]:
        """Random E and B with noise."""
        noise, rng = model.observation.noise_spectrum(), np.random.default_rng(0)
        e, b = (draw_alm(power + noise, rng) for power in (model.spectra.ee_lensed, model.spectra.bb_lensed))
        return e, b


def _timed(model: NoiseModel, alm_e: np.ndarray, alm_b: np.ndarray) -> tuple[float, float]:
    """Wall and processor seconds of one estimate."""
    fresh = replace(model)
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    SphereEstimator(fresh).eb(alm_e, alm_b)
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_SELF)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _peak_mb(benchmark: ReconstructionBenchmark) -> float:
    model = benchmark._model()
    legs = benchmark._legs(model)
    return Cost.of(lambda: SphereEstimator(model).eb(*legs)).peak_mb
