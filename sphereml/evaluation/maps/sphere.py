"""Correlation on the sphere under a mask, with a block jackknife over the sky.

``r_ell = C^ab_ell / sqrt(C^aa_ell C^bb_ell)`` of mean-subtracted, masked maps (pseudo-spectra, 3 iterations), averaged
over the integers ``max(lo, 2) <= ell < hi``.  Jackknife samples leave out one block of sky each and
use no iterations: their differences matter, not their values.  Of Q and U those are the r of E and of B, whose masked
maps keep their means, and r of a band is that of its powers, as is usual for polarization.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from sphereml.errors import UserError
from sphereml.evaluation.statistics import PairedDifference, jackknife_error
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.spectra import band_mean, band_power, correlation, masked_spectra
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import superpixels


@dataclass(frozen=True, eq=False)
class SphereScores:
    """r of one map against the target.

    ``r`` ``(lmax + 1,)`` at ``ell``; ``bands`` and ``sem`` by name; ``samples`` ``{name: (1 + nblock,)}``, the bands
    of the whole mask and without each block, ``r_samples`` ``(1 + nblock, lmax + 1)`` the same of every multipole, and
    ``size`` ``(nblock,)`` the weight of each block.  ``cl`` ``(2 + nblock, 3, lmax + 1)`` are the pseudo-C_ell behind
    them over the mean squared weight, in the order of :meth:`JackknifeMasks.measure`: target, target x prediction,
    prediction.
    """

    ell: np.ndarray
    r: np.ndarray
    bands: dict[str, float]
    samples: dict[str, np.ndarray]
    r_samples: np.ndarray
    size: np.ndarray
    cl: np.ndarray

    @classmethod
    def of(
        cls, spectra: Sequence[np.ndarray], bands: Bands, masks: JackknifeMasks, of_powers: bool = False
    ) -> SphereScores:
        """From the cross and both auto spectra ``(2 + nblock, lmax + 1)`` that :meth:`JackknifeMasks.measure` made.

        Args:
            of_powers: r of a band is that of its powers; else the mean of its multipoles' r.
        """
        rows, (cross, one, other) = correlation(*spectra), spectra
        banded = correlation(*(band_power(cl, bands) for cl in spectra)) if of_powers else band_mean(rows, bands)
        means = dict(zip(bands, banded.T, strict=True))
        named = {name: float(values[0]) for name, values in means.items()}
        samples = {name: values[1:] for name, values in means.items()}
        cl = np.stack([one, cross, other], axis=1) / masks.mean_squares[:, None, None]
        return cls(np.arange(rows.shape[1]), rows[0], named, samples, rows[1:], masks.size, cl)

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
    masks = JackknifeMasks.of(mask, block_nside)
    lmax = min(bands.lmax + 1, masks.grid.safe_lmax)
    maps = np.stack([target, prediction], dtype=np.float64)
    spectra = masks.measure(lambda kept, iterations: masked_spectra(maps, kept, lmax=lmax, iterations=iterations))
    rows = spectra[:, 0, 1], spectra[:, 0, 0], spectra[:, 1, 1]
    return SphereScores.of(rows, bands.clipped(lmax, lmin=2), masks)


@dataclass(frozen=True, eq=False)
class JackknifeMasks:
    """A mask ``(npix,)`` and the same without each block of sky, made one at a time.

    ``blocks`` ``(npix,)`` says in which block a pixel lies, ``used`` which of them the mask holds, ``size`` their
    weights.
    """

    whole: np.ndarray
    blocks: np.ndarray
    used: np.ndarray
    size: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, block_nside: int) -> JackknifeMasks:
        """Blocks are pixels of ``block_nside``; raises UserError where the mask lies in one of them."""
        blocks = superpixels(np.ones(mask.size), HealpixGrid.of_size(mask.size).nside, block_nside)
        size = np.bincount(blocks, mask)
        used = np.flatnonzero(size > 0)
        if len(used) < 2:
            what = "the test region lies in one block of sky: no standard error"
            raise UserError(what, "raise evaluation.block_nside")
        return cls(mask, blocks, used, size[used])

    @property
    def left(self) -> Iterator[np.ndarray]:
        """The mask without each block in turn."""
        return (np.where(self.blocks == block, 0.0, self.whole) for block in self.used)

    @property
    def grid(self) -> HealpixGrid:
        return HealpixGrid.of_size(self.whole.size)

    @property
    def mean_squares(self) -> np.ndarray:
        """Mean squared weight of the masks in the order of :meth:`measure`, ``(2 + nblock,)``."""
        return np.array([np.mean(one**2) for one in chain((self.whole, self.whole), self.left)])

    def measure(self, statistic: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
        """A statistic of (mask, iterations): ``(2 + nblock, ...)`` of the whole with 3, of all with 0."""
        return np.stack([statistic(self.whole, 3), *(statistic(one, 0) for one in chain((self.whole,), self.left))])
