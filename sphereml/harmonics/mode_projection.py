"""Exact mode projection at low multipoles: a quadratic estimator in pixels, with templates of infinite variance.

Conventions
-----------
* Maps are NEST at Nside 16 or less, ``(npix,)`` of spin 0 or ``(2, npix)`` (Q, U), COSMO, of spin 2.  A pixel is kept
  where the mask is above zero; the estimator finds its own weights.
* The sky is band-limited, ``d = Y a + n + sum_i alpha_i t_i``, with real coefficients a (``2 |a_lm|^2`` split over m
  and -m), of variance ``C_l b_l^2``; noise of independent pixels; amplitudes alpha of infinite variance.  The monopole
  and dipole of a scalar map are templates too.
* Spectra are C_ell: TT, or EE, EB, BB, constant within bands.

With C the covariance and ``P_p = dC/dC_p`` (Tegmark 1997, astro-ph/9611174; mode projection: Rybicki and Press 1992,
Leistedt et al. 2013, arXiv:1306.0005)

    y_p = d^T C^-1 P_p C^-1 d / 2,   F_pq = tr(C^-1 P_p C^-1 P_q) / 2,   C^_p = F^-1_pq (y_q - n_q),

unbiased for any spectrum that is constant within bands, with the covariance F^-1 when the fiducial is right.  Infinite
variances leave ``N~^-1 = N^-1 - N^-1 T (T^T N^-1 T)^-1 T^T N^-1``.  With ``G = Y^T N~^-1 Y`` all is done among modes,

    Y^T C^-1 d = L^-1 (L^-1 + G)^-1 Y^T N~^-1 d,   H = Y^T C^-1 Y = L^-1 - L^-1 (L^-1 + G)^-1 L^-1,

L the fiducial's variances; ``Y^T C^-1 N C^-1 Y = H - H L H``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg

from sphereml.errors import UserError
from sphereml.harmonics.bandpowers import Bandpowers
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.filters import multiply
from sphereml.harmonics.transforms import alm_index, analysis, synthesis
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import fill_gaps

MAX_NSIDE = 16
# Variance of a pixel's noise over that of the signal where none is given: what a map of float64 numbers can resolve.
_NOISELESS = 1e-10
_CHUNK = 256


@dataclass(frozen=True, eq=False)
class ModeProjection:
    """The estimator for one mask, one set of templates and one fiducial.

    Args:
        mask: ``(npix,)``, kept where above zero.
        bins: edges of half-open bands, or Bands.
        fiducial: C_ell ``(1, lmax + 1)`` (TT) or ``(2, lmax + 1)`` (EE, BB) without beam; positive from ell = 2.
        noise_variance: of every component in a pixel, a number or ``(npix,)``; None: a noiseless map.
        templates: ``(nt, npix)`` or ``(nt, 2, npix)``.
        beam: ``(lmax + 1,)`` of the map.

    Raises:
        UserError: a grid above Nside 16, a spectrum beyond 3 nside, bands beyond it, an empty mask, spectra or noise
            that are not positive.
    """

    mask: np.ndarray
    bins: Bands | Sequence[float]
    fiducial: np.ndarray
    noise_variance: np.ndarray | float | None = None
    templates: np.ndarray | None = None
    beam: np.ndarray | None = None

    def __post_init__(self) -> None:
        nside = HealpixGrid.of_size(self.mask.size).nside
        if nside > MAX_NSIDE:
            raise UserError(f"mode projection in {self.mask.size} pixels", f"degrade to Nside {MAX_NSIDE} or less")
        if not (2 <= self.lmax <= 3 * nside and self.bands.lmax <= self.lmax):
            what = f"spectra to ell = {self.lmax}, bands to {self.bands.lmax}, at Nside {nside}"
            raise UserError(what, f"let bands end within the fiducial, and that within {3 * nside}")
        if not (self.fiducial[:, 2:] > 0).all():
            raise UserError("a fiducial spectrum that is not positive", "give one above zero from ell = 2")
        if not (np.asarray(self.mask) > 0).any():
            raise UserError("the mask is empty: it keeps no pixel", "give a mask with 1 where the sky is to be used")
        if not (np.isfinite(self._noise) & (self._noise > 0)).all():
            raise UserError("noise variances that are not positive", "give them above zero wherever the mask is")

    @property
    def lmax(self) -> int:
        return self.fiducial.shape[-1] - 1

    @property
    def spin(self) -> int:
        return 2 * (len(self.fiducial) - 1)

    @property
    def names(self) -> tuple[str, ...]:
        return ("EE", "EB", "BB") if self.spin else ("TT",)

    @cached_property
    def bands(self) -> Bands:
        return self.bins if isinstance(self.bins, Bands) else Bands.edges(*self.bins)

    def estimate(self, maps: np.ndarray) -> Bandpowers:
        """Bandpowers of a map, with their windows and the covariance of the fiducial."""
        seen = self._kept(np.asarray(maps, dtype=np.float64)[None])[0]
        if not np.isfinite(seen).all():
            raise UserError("the map has missing values where the mask is not 0", "set the mask to 0 there")
        filtered = self._wiener(self._project(seen[:, None])[:, 0]) / self._variances
        power = self._half_traces(np.outer(filtered, filtered)) - self._noise_power
        count = len(self.bands)
        inverse = np.linalg.inv(self._response)
        windows = (inverse @ self._fisher_rows).reshape(len(self.names), count, len(self.names), -1)
        empty = np.zeros((len(self.names), self.lmax + 1))
        lower, upper = (np.array(edge) for edge in zip(*((s.start, s.stop) for s in self.bands.slices), strict=True))
        return Bandpowers(
            self.names, lower, upper, (inverse @ (self._binning @ power)).reshape(-1, count), windows, empty, empty,
            covariance=inverse.reshape(len(self.names), count, len(self.names), count), covariance_kind="fisher",
        )  # fmt: skip

    def _kept(self, maps: np.ndarray) -> np.ndarray:
        """Kept pixels of maps ``(n, [2,] npix)``: ``(n, npixel)``."""
        kept = np.asarray(self.mask) > 0
        expected = (len(self.fiducial), self.mask.size) if self.spin else (self.mask.size,)
        if maps.shape[1:] != expected:
            raise UserError(f"maps of shape {maps.shape[1:]} for spin {self.spin}", f"give {expected}")
        return np.asarray(maps[..., kept].reshape(len(maps), -1))

    @cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Component, multipole and place among (l, m >= 0) of every real mode, ell >= 2; sines follow cosines."""
        ell, order = alm_index(self.lmax)
        places = np.flatnonzero(ell >= 2)
        places = np.concatenate([places, places[order[places] > 0]])
        count = len(self.fiducial)
        return np.repeat(np.arange(count), len(places)), np.tile(ell[places], count), np.tile(places, count)

    @cached_property
    def _modes(self) -> np.ndarray:
        """Y with the beam, ``(npixel, nmode)``."""
        component, ell, place = self._index
        columns = self._harmonics(component, place, self._sines(component, ell))
        return columns if self.beam is None else columns * np.asarray(self.beam)[ell]

    def _sines(self, component: np.ndarray, ell: np.ndarray) -> np.ndarray:
        cosines = np.count_nonzero(alm_index(self.lmax)[0] >= 2)
        return np.tile(np.arange(len(ell) // len(self.fiducial)) >= cosines, len(self.fiducial))

    def _harmonics(self, component: np.ndarray, place: np.ndarray, sine: np.ndarray) -> np.ndarray:
        """Maps of single real modes at the kept pixels, ``(npixel, n)``."""
        order = alm_index(self.lmax)[1]
        unit = np.where(order[place] > 0, np.sqrt(0.5), 1.0) * np.where(sine, 1j, 1.0)
        blocks = []
        for start in range(0, len(place), _CHUNK):
            some = slice(start, start + _CHUNK)
            alm = np.zeros((len(place[some]), len(self.fiducial), len(order)), dtype=np.complex128)
            alm[np.arange(len(alm)), component[some], place[some]] = unit[some]
            maps = synthesis(alm if self.spin else alm[:, 0], self._nside, self.lmax, self.spin)
            blocks.append(self._kept(maps).T)
        return np.concatenate(blocks, axis=1)

    @property
    def _nside(self) -> int:
        return HealpixGrid.of_size(self.mask.size).nside

    @cached_property
    def _noise(self) -> np.ndarray:
        """Variance of every kept value."""
        given = self.noise_variance
        if given is None:
            ell = np.arange(self.lmax + 1)
            given = _NOISELESS * float(np.sum((2 * ell + 1)[2:] / (4 * np.pi) * self.fiducial.mean(axis=0)[2:]))
        kept = np.broadcast_to(given, np.shape(self.mask))[np.asarray(self.mask) > 0]
        return np.tile(kept.astype(np.float64), len(self.fiducial))

    @cached_property
    def _projected(self) -> np.ndarray:
        """Orthonormal basis of ``N^-1/2 T``, ``(npixel, rank)``."""
        columns = []
        if not self.spin:
            places = np.flatnonzero(alm_index(self.lmax)[0] < 2)
            zero = np.zeros(len(places), dtype=int)
            columns += [self._harmonics(zero, places, zero > 0), self._harmonics(zero[2:], places[2:], zero[2:] == 0)]
        if self.templates is not None and len(self.templates):
            kept = self._kept(np.asarray(self.templates, dtype=np.float64)).T
            if not np.isfinite(kept).all():
                raise UserError("a template has missing values on the mask", "set the mask to 0 there")
            columns.append(kept)
        if not columns:
            return np.zeros((len(self._noise), 0))
        whitened = np.concatenate(columns, axis=1) / np.sqrt(self._noise)[:, None]
        left, values, _ = np.linalg.svd(whitened / np.linalg.norm(whitened, axis=0), full_matrices=False)
        return np.asarray(left[:, values > 1e-10 * values[0]])

    def _project(self, columns: np.ndarray) -> np.ndarray:
        """``N^-1/2`` of columns ``(npixel, n)`` less what templates there are in them."""
        whitened = columns / np.sqrt(self._noise)[:, None]
        return np.asarray(whitened - self._projected @ (self._projected.T @ whitened))

    @cached_property
    def _variances(self) -> np.ndarray:
        """L, ``(nmode,)``."""
        component, ell, _ = self._index
        return np.asarray(self.fiducial[component, ell])

    @cached_property
    def _system(self) -> np.ndarray:
        """The whitened, projected Y above ``L^-1/2``: its normal matrix is ``L^-1 + G``."""
        return np.concatenate([self._project(self._modes), np.diag(self._variances**-0.5)])

    @cached_property
    def _triangle(self) -> np.ndarray:
        """R of the system's QR factors; Cholesky's, of the normal matrix, would have half the digits."""
        return np.asarray(scipy.linalg.qr(self._system, mode="r", check_finite=False)[0][: len(self._variances)])

    def _wiener(self, values: np.ndarray) -> np.ndarray:
        """``(L^-1 + G)^-1 Y^T N~^-1 d`` of whitened, projected values: seminormal equations, corrected once."""
        right = np.concatenate([values, np.zeros(len(self._variances))])
        solution = np.zeros(len(self._variances))
        for _ in range(2):
            normal = self._system.T @ (right - self._system @ solution)
            half = scipy.linalg.solve_triangular(self._triangle, normal, trans="T")
            solution += scipy.linalg.solve_triangular(self._triangle, half)
        return solution

    @cached_property
    def _weight(self) -> np.ndarray:
        """H, ``(nmode, nmode)``."""
        half = scipy.linalg.solve_triangular(self._triangle, np.diag(1 / self._variances), trans="T")
        weight = -half.T @ half
        weight[np.diag_indices_from(weight)] += 1 / self._variances
        return np.asarray(weight)

    def _half_traces(self, matrix: np.ndarray) -> np.ndarray:
        """``tr(S_p X) / 2`` for every spectrum and multipole p, ``(nspec (lmax + 1),)``."""
        ell = self._index[1]
        half = len(ell) // len(self.fiducial)
        pairs = ((0, 0), (0, 1), (1, 1)) if self.spin else ((0, 0),)
        traces = []
        for a, b in pairs:
            diagonal = np.diagonal(matrix[a * half : (a + 1) * half, b * half : (b + 1) * half])
            traces.append(np.bincount(ell[:half], diagonal, self.lmax + 1) * (0.5 if a == b else 1.0))
        return np.concatenate(traces)

    @cached_property
    def _noise_power(self) -> np.ndarray:
        """``n_p`` of every spectrum and multipole."""
        weight = self._weight
        return self._half_traces(weight - (weight * self._variances) @ weight)

    @cached_property
    def _fisher(self) -> np.ndarray:
        """F between single multipoles, ``(nspec (lmax + 1),) * 2``."""
        ell = self._index[1]
        half = len(ell) // len(self.fiducial)
        block = [[self._weight[a * half : (a + 1) * half, b * half : (b + 1) * half] for b in range(len(self.fiducial))]
                 for a in range(len(self.fiducial))]  # fmt: skip
        pairs = ((0, 0), (0, 1), (1, 1)) if self.spin else ((0, 0),)
        rows = []
        for a, b in pairs:
            row = []
            for c, d in pairs:
                # tr(H S_ab H S_cd) / 2 with S_ab the sum over both orders.
                terms = [block[b][c] * block[a][d]] + ([block[b][d] * block[a][c]] if c != d else [])
                terms += [block[a][c] * block[b][d]] + ([block[a][d] * block[b][c]] if c != d else []) if a != b else []
                row.append(0.5 * _grouped(np.sum(terms, axis=0), ell[:half], self.lmax))
            rows.append(row)
        return np.block(rows)

    @cached_property
    def _binning(self) -> np.ndarray:
        held = self.bands.membership(self.lmax).astype(np.float64)
        return np.kron(np.eye(len(self.names)), held)

    @cached_property
    def _fisher_rows(self) -> np.ndarray:
        return np.asarray(self._binning @ self._fisher)

    @cached_property
    def _response(self) -> np.ndarray:
        return np.asarray(self._fisher_rows @ self._binning.T)


def _grouped(matrix: np.ndarray, ell: np.ndarray, lmax: int) -> np.ndarray:
    """Sums over the modes of each pair of multipoles."""
    member = np.zeros((lmax + 1, len(ell)))
    member[ell, np.arange(len(ell))] = 1
    return np.asarray(member @ matrix @ member.T)


def degrade(maps: np.ndarray, nside: int, lmax: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps at a low Nside, smoothed in harmonic space, and the beam that did it, ``(lmax + 1,)``.

    The beam falls from 1 at ``nside`` to 0 beyond ``3 nside`` as a cosine (Benabed et al. 2009, arXiv:0901.4537), so
    that pixels sample a band-limited map and have no window of their own.

    Args:
        maps: ``(npix,)`` of spin 0 or ``(2, npix)``; missing pixels (NaN) are filled from their surroundings.
    """
    spin = 2 if maps.ndim > 1 else 0
    ell = np.arange(lmax + 1)
    beam = np.where(ell <= nside, 1.0, (1 + np.cos(np.pi * (ell - nside) / (2 * nside + 1))) / 2)
    filled = np.stack([fill_gaps(row) for row in np.atleast_2d(maps)]).reshape(maps.shape)
    return synthesis(multiply(analysis(filled, lmax, spin), beam), nside, lmax, spin), beam
