"""A calibrated error for every pixel and every band of a predicted map, from the residuals of validation patches.

Conventions: maps ``(patch, size, size)``; residual = prediction - truth.  The standard deviation of the residual is a
table over the distance of the pixel to the patch's edge (nothing is seen outside) and the prediction's magnitude, in
quantiles; a pixel's sigma is read off it.  Calibrated means: the pull (prediction - truth) / sigma has deviation 1, and
68.3 % (95.4 %) of the pixels lie within one (two) sigma.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sphereml.evaluation.calibration import BinnedError, coverage
from sphereml.evaluation.lensing.noise import Measured
from sphereml.lensing.patch_spectra import PatchBands

_RINGS = (0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32)
_MAGNITUDES = 8
# A ring in which fewer pixels were seen joins the one outside it.
_LEAST = 2000


def edge_distance(size: int) -> np.ndarray:
    """Pixels between each pixel and the nearest edge, int ``(size, size)``; 0 on the rim."""
    row, column = np.indices((size, size))
    distance: np.ndarray = np.minimum.reduce([row, column, size - 1 - row, size - 1 - column])
    return distance


@dataclass(frozen=True, eq=False)
class CalibratedError:
    """Standard deviations by ring of distance and by quantile of the prediction's magnitude, and of every mode.

    ``rings`` ``(ring,)`` inner limits in pixels, ``magnitudes`` ``(ring, quantile - 1)`` limits of |prediction|,
    ``deviation`` ``(ring, quantile)``, ``band_deviation`` ``(band,)`` of the residual's power; ``modes`` by the bins of
    the patch's Fourier modes.
    """

    rings: np.ndarray
    magnitudes: np.ndarray
    deviation: np.ndarray
    band_deviation: np.ndarray
    modes: BinnedError

    @classmethod
    def fit(cls, prediction: torch.Tensor, truth: torch.Tensor, bands: PatchBands) -> CalibratedError:
        """From validation patches ``(patch, size, size)``."""
        residual = prediction - truth
        rings = _rings(edge_distance(prediction.shape[-1]), len(prediction))
        index = np.searchsorted(rings, edge_distance(prediction.shape[-1]), side="right") - 1
        tables = [
            _of_ring(prediction.numpy()[:, index == i], residual.numpy()[:, index == i]) for i in range(len(rings))
        ]
        limits, deviations = (np.stack(part) for part in zip(*tables, strict=True))
        powers = bands.power(residual, residual)
        modes = BinnedError.fit(_modes(residual, bands), bands.modes.bin_of_mode)
        return cls(rings, limits, deviations, np.sqrt(powers.mean(axis=0)), modes)

    def sigma(self, prediction: torch.Tensor) -> torch.Tensor:
        """Standard deviation of every pixel of predictions ``(patch, size, size)``, float32."""
        index = np.searchsorted(self.rings, edge_distance(prediction.shape[-1]), side="right") - 1
        magnitude, sigma = np.abs(prediction.numpy()), np.empty(prediction.shape, np.float32)
        for ring, (limits, deviation) in enumerate(zip(self.magnitudes, self.deviation, strict=True)):
            inside = index == ring
            sigma[:, inside] = deviation[np.searchsorted(limits, magnitude[:, inside])]
        return torch.from_numpy(sigma)


@dataclass(frozen=True, eq=False)
class Calibration:
    """How well an error describes test patches.

    ``pull`` the deviation of (prediction - truth) / sigma, ``within`` the shares of pixels within one and two sigma,
    ``pull_by_ring`` by distance to the edge, ``band_pull`` the residual's power over the predicted one, with errors;
    ``modes_within`` as ``within`` for the real and imaginary parts of all modes.
    """

    pull: float
    within: tuple[float, float]
    rings: np.ndarray
    pull_by_ring: np.ndarray
    band_pull: Measured
    modes_within: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        return {"pull": self.pull, "within_1_sigma": self.within[0], "within_2_sigma": self.within[1],
                "modes_within_1_sigma": self.modes_within[0], "modes_within_2_sigma": self.modes_within[1],
                "rings": self.rings.tolist(), "pull_by_ring": self.pull_by_ring.tolist(),
                "band_pull": self.band_pull.to_json()}  # fmt: skip


def check_calibration(
    error: CalibratedError, prediction: torch.Tensor, truth: torch.Tensor, bands: PatchBands
) -> Calibration:
    """Of an error fitted elsewhere, on test patches."""
    residual, sigma = prediction - truth, error.sigma(prediction)
    pull, shares = (residual / sigma).numpy(), coverage(residual.numpy(), sigma.numpy())
    index = np.searchsorted(error.rings, edge_distance(pull.shape[-1]), side="right") - 1
    by_ring = np.array([np.sqrt((pull[:, index == ring] ** 2).mean()) for ring in range(len(error.rings))])
    ratio = bands.power(residual, residual) / error.band_deviation**2
    band_pull = Measured(np.sqrt(ratio.mean(axis=0)), ratio.std(axis=0, ddof=1) / np.sqrt(4 * len(ratio)))
    of_modes = coverage(_modes(residual, bands), error.modes.sigma(bands.modes.bin_of_mode))
    return Calibration(float(np.sqrt((pull**2).mean())), shares, error.rings, by_ring, band_pull, of_modes)


def _modes(residual: torch.Tensor, bands: PatchBands) -> np.ndarray:
    """Independent Fourier modes under the bands' window, complex ``(patch, mode)``."""
    return bands.modes.transform(residual, bands.window).numpy()


def _rings(distance: np.ndarray, patches: int) -> np.ndarray:
    """Inner limits of rings that hold enough pixels of so many patches, and never less than one pixel's width."""
    kept = [0]
    for ring in _RINGS[1:]:
        beyond = patches * int((distance >= ring).sum())
        between = patches * int(((distance >= kept[-1]) & (distance < ring)).sum())
        if beyond >= _LEAST and between >= _LEAST:
            kept.append(ring)
    return np.array(kept)


def _of_ring(prediction: np.ndarray, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Limits of the magnitude's quantiles and the residual's deviation within each."""
    magnitude = np.abs(prediction).ravel()
    limits = np.quantile(magnitude, np.linspace(0, 1, _MAGNITUDES + 1)[1:-1])
    index, squares = np.searchsorted(limits, magnitude), residual.astype(np.float64).ravel() ** 2
    counts = np.bincount(index, minlength=_MAGNITUDES)
    sums = np.bincount(index, squares, minlength=_MAGNITUDES)
    # Quantiles that coincide leave a bin empty; it takes the ring's mean.
    variance = np.where(counts > 0, sums / np.maximum(counts, 1), squares.mean())
    return limits, np.sqrt(variance)
