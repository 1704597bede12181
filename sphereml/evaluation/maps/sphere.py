"""Correlation on the sphere under a mask, with a block jackknife over the sky.

``r_ell = C^ab_ell / sqrt(C^aa_ell C^bb_ell)`` of mean-subtracted, masked maps (pseudo-spectra, 3 iterations), averaged
over the integers ``max(lo, 2) <= ell < hi``.  Jackknife samples leave out one block of sky each and
use no iterations: their differences matter, not their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sphereml.errors import UserError
from sphereml.evaluation.statistics import PairedDifference, jackknife_error
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.spectra import band_mean, correlation, masked_spectra
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import superpixels


@dataclass(frozen=True, eq=False)
class SphereScores:
    """r of one map against the target.

    ``r`` ``(lmax + 1,)`` at ``ell``; ``bands`` and ``sem`` by name; ``samples`` ``{name: (1 + nblock,)}``, the bands
    of the whole mask and without each block, ``r_samples`` ``(1 + nblock, lmax + 1)`` the same of every multipole, and
    ``size`` ``(nblock,)`` the weight of each block.  ``cl`` ``(3, lmax + 1)`` and ``cl_samples`` ``(1 + nblock, 3,
    lmax + 1)`` are the C_ell behind them: target, target x prediction, prediction.
    """

    ell: np.ndarray
    r: np.ndarray
    bands: dict[str, float]
    samples: dict[str, np.ndarray]
    r_samples: np.ndarray
    size: np.ndarray
    cl: np.ndarray
    cl_samples: np.ndarray

    @classmethod
    def mean(cls, scores: Sequence[SphereScores]) -> SphereScores:
        """The mean score of several maps under one mask."""
        first = scores[0]
        return cls(
            first.ell,
            np.mean([one.r for one in scores], axis=0),
            {name: float(np.mean([one.bands[name] for one in scores])) for name in first.bands},
            {name: np.mean([one.samples[name] for one in scores], axis=0) for name in first.samples},
            np.mean([one.r_samples for one in scores], axis=0),
            first.size,
            np.mean([one.cl for one in scores], axis=0),
            np.mean([one.cl_samples for one in scores], axis=0),
        )

    @property
    def sem(self) -> dict[str, float]:
        """Jackknife error of every band."""
        return {name: float(jackknife_error(samples, self.size)) for name, samples in self.samples.items()}

    def binned(self, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Middles, mean r and its jackknife error of bins of ``width`` multipoles from ell = 2 up, each ``(nbin,)``."""
        count = (len(self.r) - 2) // width
        rows = np.concatenate([self.r[None], self.r_samples])[:, 2 : 2 + count * width].reshape(-1, count, width)
        means = rows.mean(axis=-1)
        middles = 2 + width * np.arange(count) + (width - 1) / 2
        return middles, means[0], jackknife_error(means[1:], self.size)

    def difference(self, other: SphereScores) -> dict[str, dict[str, float]]:
        """Paired difference ``self - other`` of every band with its jackknife error; JSON values."""
        result = {}
        for name, value in self.bands.items():
            sem = jackknife_error(self.samples[name] - other.samples[name], self.size)
            result[name] = PairedDifference(value - other.bands[name], float(sem)).to_json()
        return result


def score_sphere(
    prediction: np.ndarray, target: np.ndarray, mask: np.ndarray, bands: Bands, block_nside: int
) -> SphereScores:
    """Scores of a full-sky prediction ``(npix,)`` under a mask of weights in 0..1.

    Raises:
        UserError: the blocks of the jackknife are finer than the map, or the mask lies in one of them.
    """
    grid = HealpixGrid.of_size(mask.size)
    lmax = min(bands.lmax + 1, grid.safe_lmax)
    bands = bands.clipped(lmax, lmin=2)
    maps = np.stack([target, prediction]).astype(np.float64)
    cl = _spectra(maps, mask, lmax, iterations=3)
    r = _correlation(cl)
    named = dict(zip(bands, band_mean(r, bands).tolist(), strict=True))
    blocks = superpixels(np.ones(mask.size), grid.nside, block_nside)
    size = np.bincount(blocks, mask)
    used = np.flatnonzero(size > 0)
    if len(used) < 2:
        raise UserError("the test region lies in one block of sky: no standard error", "raise evaluation.block_nside")
    masks = [mask, *(np.where(blocks == block, 0.0, mask) for block in used)]
    cl_rows = np.stack([_spectra(maps, kept, lmax, iterations=0) for kept in masks])
    rows = _correlation(cl_rows)
    samples = dict(zip(bands, band_mean(rows, bands).T, strict=True))
    return SphereScores(np.arange(lmax + 1), r, named, samples, rows, size[used], cl, cl_rows)


def _spectra(maps: np.ndarray, mask: np.ndarray, lmax: int, iterations: int) -> np.ndarray:
    """Pseudo-spectra ``(3, lmax + 1)`` of target, target x prediction and prediction over the mean squared weight."""
    spectra = masked_spectra(maps, mask, lmax=lmax, iterations=iterations)
    return np.stack([spectra[0, 0], spectra[0, 1], spectra[1, 1]]) / np.mean(mask**2)


def _correlation(cl: np.ndarray) -> np.ndarray:
    target, cross, prediction = np.moveaxis(cl, -2, 0)
    return correlation(cross, target, prediction)
