"""Response, noise and scatter of estimates of kappa: calibrated on validation patches, measured on test patches.

Equations of arXiv:1810.01483, ``<>`` the mean over patches, k the true kappa, hat k the estimate, V validation, T test:

    R_L = <C^{hat k, k}>_V / <C^kk>_V                                  (eq. 12)
    N_L = <C^{hat k, hat k}>_T / R_L^2 - <C^kk>_T                      (eq. 10; the proxy, which holds N1 beside N0)
    debiased, of one patch: C^{hat k, hat k} / R_L^2 - N_L(V)          (fig. 10: its scatter)
    residual ratio: <C^{hat k - k, hat k - k}> / <C^kk>                (fig. 8)

Standard errors leave out one group of test patches at a time, and one of validation patches at a time; the two
variances add.  A ratio of two estimators' N_L is taken within each such sample, so what they share drops out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sphereml.config.schema import ExperimentConfig
from sphereml.evaluation.statistics import jackknife_error, leave_one_out
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.flat import FlatModes
from sphereml.lensing.patch_spectra import (
    PatchBands,
    PatchPowers,
    correlation_of,
    noise_of,
    residual_of,
    response_of,
)
from sphereml.sky.plane import SquareGrid
from sphereml.tasks.lensing import LensingTask
from sphereml.tasks.lensing_features import LMAX_KAPPA

EDGES = (100, 200, 300, 400, 500, 650, 800, 1000, 1250, 1500, 1750, 2000, 2500, 3000, 3500, 4000)
# Where the goal is set: N_L(network) at most half of N_L(QE).
GOAL = (300.0, 2000.0)
GOAL_SPAN = f"{GOAL[0]:g} < L < {GOAL[1]:g}"


def wide_bands(fundamental: float, top: float) -> Bands:
    """Consecutive bands no narrower than the fundamental multipole, up to ``top``.

    Raises:
        UserError: there is none.
    """
    edges = [float(EDGES[0])]
    for edge in (edge for edge in EDGES[1:] if edge <= top):
        if edge - edges[-1] >= fundamental * (1 - 1e-6):
            edges.append(float(edge))
    return Bands.edges(*edges)


def patch_bands(task: LensingTask, output: str = "kappa") -> PatchBands:
    """Bands of an output's spectra on an experiment's patches, under its mask."""
    return PatchBands(FlatModes(task.patch), output_bands(task.config, output), task.mask.double())


def output_bands(config: ExperimentConfig, output: str = "kappa") -> Bands:
    """Bands of an output's spectra on the patches of an experiment."""
    grid = SquareGrid(config.patches.size, config.patches.pixel_arcmin)
    reach = LMAX_KAPPA if output == "kappa" else config.lensing.lmax_eb
    return wide_bands(grid.fundamental_ell, min(reach, grid.nyquist_ell, config.lensing.spectra_lmax))


def inside_goal(bands: Bands) -> np.ndarray:
    """Which bands lie within the multipoles of the goal, bool ``(nband,)``."""
    return (bands.lower >= GOAL[0]) & (bands.upper <= GOAL[1])


@dataclass(frozen=True, eq=False)
class Measured:
    """Values of one statistic with standard errors, one a band (or one in all)."""

    value: np.ndarray
    error: np.ndarray

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value.tolist(), "error": self.error.tolist()}


@dataclass(frozen=True, eq=False)
class Judged:
    """An estimate's powers on validation and on test patches, with the jackknife group of each patch."""

    validation: PatchPowers
    test: PatchPowers
    validation_groups: np.ndarray
    test_groups: np.ndarray

    @cached_property
    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean auto, cross and truth, of all and of all but one group, ``(1 + group, 3, band)``: validation, test."""
        return (
            leave_one_out(self.validation.stacked, self.validation_groups),
            leave_one_out(self.test.stacked, self.test_groups),
        )

    @cached_property
    def response(self) -> np.ndarray:
        return response_of(self.means[0][0])

    @cached_property
    def bias(self) -> np.ndarray:
        """N_L of the validation patches, which debiases the test patches."""
        whole = self.means[0][0]
        return noise_of(whole, whole)

    def debiased(self, auto: np.ndarray) -> np.ndarray:
        """Debiased power of patches ``(patch, band)`` from their auto power."""
        result: np.ndarray = auto / self.response**2 - self.bias
        return result

    def scatter(self) -> Measured:
        """Standard deviation over test patches of the debiased power (fig. 10)."""
        return _deviation(self.debiased(self.test.auto))

    def sample_variance(self) -> Measured:
        """The same of the true power: what an estimator without noise would show."""
        return _deviation(self.test.truth)


Statistic = Callable[..., np.ndarray]


def measure(statistic: Statistic, *judged: Judged) -> Measured:
    """``statistic(calibration, means, calibration, means, ...)`` of one or several estimates, with its error."""
    validation, test = ([part.means[index] for part in judged] for index in (0, 1))
    wholes = [[part[:1] for part in side] for side in (validation, test)]
    of_test, of_validation = statistic(*_paired(wholes[0], test)), statistic(*_paired(validation, wholes[1]))
    return Measured(of_test[0], np.hypot(jackknife_error(of_test), jackknife_error(of_validation)))


def response(judged: Judged) -> Measured:
    """R_L, of the validation patches alone."""
    samples = response_of(judged.means[0])
    return Measured(samples[0], jackknife_error(samples))


def noise(judged: Judged) -> Measured:
    return measure(noise_of, judged)


def correlation(judged: Judged) -> Measured:
    """rho_L, of the test patches alone."""
    samples = correlation_of(judged.means[1])
    return Measured(samples[0], jackknife_error(samples))


def residual(judged: Judged) -> Measured:
    """Residual ratio, of the test patches alone."""
    samples = residual_of(judged.means[1])
    return Measured(samples[0], jackknife_error(samples))


def noise_ratio(judged: Judged, reference: Judged) -> Measured:
    """N_L of one estimate over that of another on the same patches."""
    return measure(_ratio, judged, reference)


def goal_ratio(judged: Judged, reference: Judged) -> Measured | None:
    """The mean of that ratio over the bands within the multipoles of ``GOAL``; None when there are none."""
    inside = inside_goal(judged.test.bands.bands)
    if not inside.any():
        return None
    return measure(lambda *means: _ratio(*means)[..., inside].mean(axis=-1, keepdims=True), judged, reference)


def _ratio(*means: np.ndarray) -> np.ndarray:
    one, two = noise_of(*means[:2]), noise_of(*means[2:])
    result: np.ndarray = one / two
    return result


def _paired(validation: list[np.ndarray], test: list[np.ndarray]) -> list[np.ndarray]:
    return [means for pair in zip(validation, test, strict=True) for means in pair]


def _deviation(powers: np.ndarray) -> Measured:
    """Standard deviation over patches; its error is that of Gaussian powers."""
    deviation = powers.std(axis=0, ddof=1)
    return Measured(deviation, deviation / np.sqrt(2 * (len(powers) - 1)))
