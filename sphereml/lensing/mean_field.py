"""Mean field and response of masked estimates of kappa, from simulated lensed skies that go through the same filter.

Conventions: a simulation is a function of (seed, number): a lensed sky to the filter's lmax, beam, pixels of the map's
Nside and white noise of its depth.  Its estimate is kept on disk, whole or not at all, so that a killed run goes on and
more simulations add to those that are there.  Coefficients are kept as complex64.

* The mean field is the mean of the estimates.  It leaves ``(C_L + N_L) / n`` of scatter in the difference.
* The response is ``<kappa_hat kappa> / <kappa kappa>`` under the mask, tapered within 3 degrees of its edge: pseudo
  spectra summed over the simulations and over bands of a fifth of L, between which it is interpolated.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from sphereml import __version__
from sphereml.data.array_files import read_arrays, write_arrays
from sphereml.data.holdings import open_holdings
from sphereml.errors import UserError
from sphereml.harmonics.filters import multiply
from sphereml.harmonics.rings import alm_size, resize_alm
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.lensing.reconstruction import SphereReconstruction
from sphereml.lensing.sphere_filter import Say
from sphereml.simulate.lensed_sky import draw_sky, lensed_alm
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import apodize, regrade

# Multipoles of the unlensed sky beyond those of the lensed one, and of the rings beyond those of the sky.
_SKY_MARGIN = 300
# Degrees within which the mask of the response falls to 0.
_EDGE = 3.0
_ARCMIN = np.pi / (180 * 60)


@dataclass(frozen=True, eq=False)
class Simulated:
    """One simulation's estimate and truth: a_lm ``(alm_size(lmax_kappa),)`` complex64."""

    estimate: np.ndarray
    kappa: np.ndarray


@dataclass(frozen=True, eq=False)
class MeanField:
    """What ``count`` simulations say of a mask.

    Attributes:
        alm: mean of the estimates, complex128 ``(alm_size(lmax_kappa),)``.
        response: ``(lmax_kappa + 1,)``; 0 below L = 2.
    """

    alm: np.ndarray
    response: np.ndarray
    count: int


@dataclass(frozen=True, eq=False)
class Simulations:
    """Simulated estimates of one reconstruction.

    Args:
        folder: where they are kept; ``mean_fields`` of the data folder ($SPHEREML_DATA) when None.
    """

    reconstruction: SphereReconstruction
    seed: int = 1
    folder: Path | None = None

    @cached_property
    def place(self) -> Path:
        """The folder of this mask, depth, instrument, estimator and seed."""
        return (self.folder or open_holdings().folder / "mean_fields") / self._key

    @cached_property
    def _key(self) -> str:
        chosen, digest = self.reconstruction, hashlib.sha256()
        observed = asdict(chosen.observation)
        if not observed["lmin_b"]:
            del observed["lmin_b"]  # as simulations were named before there was one
        facts = (*observed.values(), chosen.nside, chosen.lmax_kappa, chosen.estimator, chosen.filter_lmax)
        digest.update(repr((facts, chosen.tolerance, self.seed, __version__)).encode())
        parts = [chosen.spectra.ee, chosen.spectra.bb_lensed, chosen.spectra.potential]
        for part in parts if chosen.noise is None else [*parts, chosen.noise]:
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()[:16]

    def measure(self, count: int, say: Say | None = None) -> MeanField:
        """Mean field and response of the first ``count`` simulations.

        Raises:
            UserError: fewer than two, or the folder cannot be written.
        """
        if count < 2:
            raise UserError(f"a mean field of {count} simulations", "ask for at least 2; some ten are useful")
        top = self.reconstruction.lmax_kappa
        total, spectra = np.zeros(alm_size(top), complex), np.zeros((2, top + 1))
        for one in self._simulated(count, say):
            total += one.estimate
            spectra += self._pseudo_spectra(one)
        return MeanField(total / count, smooth_ratio(*spectra), count)

    def _simulated(self, count: int, say: Say | None) -> Iterator[Simulated]:
        begin, made = time.perf_counter(), 0
        for number in range(count):
            path = self.place / f"sky-{number:04d}.npz"
            kept = read_arrays(path)
            found = self.simulate(number) if kept is None else Simulated(**kept)
            if kept is None:
                write_arrays(path, vars(found))
                made += 1
                left = (time.perf_counter() - begin) / made * (count - 1 - number)
                if say:
                    say(f"mean field: simulation {number + 1} of {count}, about {left:.0f} s left")
            yield found

    def simulate(self, number: int) -> Simulated:
        """The estimate of one simulated sky."""
        chosen = self.reconstruction
        lmax = chosen.filter_lmax
        sky = draw_sky(chosen.spectra, min(lmax + _SKY_MARGIN, chosen.spectra.lmax), (self.seed, number))
        lensed = multiply(lensed_alm(sky, lmax, _SKY_MARGIN).astype(np.complex128), chosen.transfer)
        maps = synthesis(lensed, chosen.nside, lmax, spin=2)
        maps += self._noise(np.random.default_rng([self.seed, number, 2]))
        kappa = resize_alm(sky.kappa, chosen.lmax_kappa)
        return Simulated(chosen.estimate(chosen.legs(maps)).astype(np.complex64), kappa.astype(np.complex64))

    def _noise(self, rng: np.random.Generator) -> np.ndarray:
        """Noise of Q and U where the sky is seen, ``(2, npix)``."""
        grid, noise = HealpixGrid(self.reconstruction.nside), self.reconstruction.noise
        level = self.reconstruction.observation.noise if noise is None else np.where(np.isfinite(noise), noise, 0.0)
        return np.asarray(rng.standard_normal((2, grid.npix)) * level * (_ARCMIN / np.sqrt(grid.pixel_area)))

    @cached_property
    def _window(self) -> np.ndarray:
        """The tapered mask at an Nside that holds kappa, ``(npix,)``."""
        nside = 2 ** int(np.ceil(np.log2((self.reconstruction.lmax_kappa + 1) / 2)))
        grid = HealpixGrid(max(min(nside, self.reconstruction.nside), 1))
        if self.reconstruction.noise is None:
            return np.ones(grid.npix)
        seen = regrade(np.isfinite(self.reconstruction.noise).astype(np.float64), grid) > 0.5
        return apodize(seen, grid, _EDGE)

    def _pseudo_spectra(self, one: Simulated) -> np.ndarray:
        """Cross-spectrum of estimate and truth, and the truth's own, ``(2, lmax_kappa + 1)``."""
        top = self.reconstruction.lmax_kappa
        nside = HealpixGrid.of_size(self._window.size).nside
        pair = np.stack([one.estimate, one.kappa]).astype(np.complex128)
        masked = analysis(self._window * synthesis(pair, nside, top), top, iterations=0)
        return np.stack([cross_spectrum(masked[0], masked[1], top), cross_spectrum(masked[1], masked[1], top)])


def smooth_ratio(cross: np.ndarray, power: np.ndarray) -> np.ndarray:
    """``cross / power`` from sums over bands of a fifth of L, interpolated linearly, ``(lmax + 1,)``; 0 below L = 2."""
    ell = np.arange(len(cross))
    bands = smooth_bands(len(cross) - 1)
    ratio = [((2 * band + 1) * cross[band]).sum() / ((2 * band + 1) * power[band]).sum() for band in bands]
    return np.where(ell < 2, 0.0, np.interp(ell, [band.mean() for band in bands], ratio))


def smooth_bands(lmax: int) -> list[np.ndarray]:
    """The multipoles from 2 to ``lmax`` in bands as wide as a fifth of L, or 10."""
    edges = [2]
    while edges[-1] <= lmax:
        edges.append(min(edges[-1] + max(10, edges[-1] // 5), lmax + 1))
    return [np.arange(low, high) for low, high in pairwise(edges)]
