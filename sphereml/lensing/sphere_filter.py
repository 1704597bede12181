"""E and B of a masked, inhomogeneously observed sky by an inverse-variance filter on HEALPix, by conjugate gradients.

Conventions
-----------
* The data are ``d = Y (t a) + n``: a = (E, B) in the triangular order of :mod:`sphereml.harmonics.rings`, COSMO, uK, t
  the transfer function ``(lmax + 1,)`` (beam, and the pixels' window where the maps have it), Y the spin-2 synthesis
  onto the pixels that are seen, n white noise whose rms in Q and in U belongs to the pixel.
* Noise is in uK-arcmin, infinite where nothing is seen; maps are ``(2, npix)`` NEST, read only where it is finite.

With S the signal's spectra and N the noise of the pixels, the Wiener filter solves (Eriksen et al. 2004,
astro-ph/0407028; for lensing Planck 2015 XV, arXiv:1502.01591)

    (S^-1 + t Y^T N^-1 Y t) x = t Y^T N^-1 d,        x = S abar,

and abar is the inverse-variance filtered field that quadratic estimators take.  Nothing is apodized: E that a mask
turns into B is explained as E.  The preconditioner is the inverse of the matrix's diagonal for a sky of which the
mask's share is seen, ``1 / (1 / S_l + f t_l^2 / N)``.  A system of two transforms a step is solved without quadrature:
on a whole sky the filter is exact where HEALPix's analysis is not, up to lmax = 3 nside - 1.

The data may hold no power beyond lmax that is not small beside the noise: it would be taken for noise, and leaks across
the mask's edge from there; ask for a margin above the multipoles that are used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.ducc_transform import DuccTransform
from sphereml.harmonics.rings import RingLayout, alm_index, alm_lmax
from sphereml.sky.grid import HealpixGrid

_ARCMIN = math.pi / (180 * 60)
# Steps between lines of progress.
_EVERY = 10
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class FilteredSky:
    """What the filter made of one map.

    Attributes:
        wiener: E and B, ``(2, nalm)`` complex128: the most likely sky, small where nothing was seen.
        residual: ``|b - A x| / |b|`` in the preconditioner's norm; below the filter's tolerance.
        steps: of conjugate gradients.
        seconds: of the whole solution.
        transform_seconds: of that, in the transforms.
    """

    wiener: np.ndarray
    residual: float
    steps: int
    seconds: float
    transform_seconds: float

    def facts(self) -> dict[str, float]:
        """Figures for a report: steps, residual, seconds a step, and the share of it that transforms take."""
        steps = max(self.steps, 1)
        return {
            "steps": self.steps,
            "residual": self.residual,
            "seconds": round(self.seconds, 3),
            "seconds_per_step": round(self.seconds / steps, 4),
            "transform_seconds_per_step": round(self.transform_seconds / steps, 4),
        }


@dataclass(frozen=True, eq=False)
class SphereFilter:
    """The filter of one mask, depth and instrument.

    Args:
        signal: C_ell of E and B on the sky, ``(2, lmax + 1)``, uK^2; a multipole without power is left out.
        transfer: ``(lmax + 1,)``.
        noise: rms in Q and in U of each pixel, uK-arcmin, ``(npix,)`` NEST, infinite where nothing is seen.
        tolerance: residual at which a solution is done.
        most_steps: after which the filter gives up.

    Raises:
        UserError: noise that is not above 0, or infinite everywhere; lmax above ``3 nside - 1`` (on use: no convergence
            within ``most_steps``, or data that are not finite where the noise is).
    """

    signal: np.ndarray
    transfer: np.ndarray
    noise: np.ndarray
    tolerance: float = 1e-4
    most_steps: int = 500

    def __post_init__(self) -> None:
        nside = HealpixGrid.of_size(len(self.noise)).nside
        if self.lmax > 3 * nside - 1:
            what = f"lmax {self.lmax} is above what Nside {nside} holds ({3 * nside - 1})"
            raise UserError(what, "lower lmax, or give maps of a higher Nside")
        if not (self.noise > 0).all():
            what = "a filter of a masked sky needs noise above 0 uK-arcmin in every pixel that is seen"
            raise UserError(what, "give a small noise, e.g. 0.1, and mask 0 where nothing is seen")
        if not self.pixels.size:
            raise UserError("no pixel is left to filter", "check mask, depth and maps")

    @property
    def lmax(self) -> int:
        return len(self.transfer) - 1

    @cached_property
    def pixels(self) -> np.ndarray:
        """NEST pixels that are seen."""
        return np.flatnonzero(np.isfinite(self.noise))

    @cached_property
    def sky_fraction(self) -> float:
        return self.pixels.size / len(self.noise)

    @cached_property
    def level(self) -> float:
        """Noise of a homogeneous survey of the same pixels and the same weight, uK-arcmin: ``<noise^-2>^-1/2``."""
        return float(np.mean(self.noise[self.pixels] ** -2.0) ** -0.5)

    def __call__(self, maps: np.ndarray, start: np.ndarray | None = None, say: Say | None = None) -> FilteredSky:
        """Filter Q and U ``(2, npix)``.

        Args:
            start: a solution nearby, ``(2, nalm)``, e.g. that of a coarser tolerance or a shallower map: warm start.
            say: takes lines of progress.
        """
        seen = np.asarray(maps)[:, self.pixels].astype(np.float64)
        if not np.isfinite(seen).all():
            raise UserError("the maps have missing values where the mask keeps the sky", "set the mask to 0 there")
        return _Solution(self, time.perf_counter()).solve(seen, start, say)

    def apply(self, alm: np.ndarray) -> tuple[np.ndarray, float]:
        """The system's matrix times a_lm ``(2, nalm)``, and the seconds in its transforms."""
        begin = time.perf_counter()
        maps = self._transform.synthesize((self._gain * alm)[None])[0]
        maps *= self._weights
        product = self._transform.adjoint_synthesize(maps[None])[0]
        spent = time.perf_counter() - begin
        product *= self._gain
        product += self._inverse_signal * alm
        return product, spent

    def right_side(self, seen: np.ndarray) -> np.ndarray:
        """``t Y^T N^-1 d`` of the pixels that are seen, ``(2, nseen)``."""
        return np.asarray(self._gain * self._transform.adjoint_synthesize((self._weights * seen)[None])[0])

    def precondition(self, alm: np.ndarray) -> np.ndarray:
        return self._preconditioner * alm

    @cached_property
    def _transform(self) -> DuccTransform:
        nside = HealpixGrid.of_size(len(self.noise)).nside
        return DuccTransform(RingLayout(nside, None if self.sky_fraction == 1 else self.pixels), self.lmax, 2)

    @cached_property
    def _weights(self) -> np.ndarray:
        """N^-1 of the pixels that are seen, uK^-2."""
        area = HealpixGrid.of_size(len(self.noise)).pixel_area
        return np.asarray(area / (self.noise[self.pixels] * _ARCMIN) ** 2)

    @cached_property
    def _gain(self) -> np.ndarray:
        """t where there is signal, ``(2, nalm)``."""
        ell = alm_index(self.lmax)[0]
        return np.asarray(np.where(self.signal > 0, self.transfer, 0.0)[:, ell])

    @cached_property
    def _inverse_signal(self) -> np.ndarray:
        ell = alm_index(self.lmax)[0]
        with np.errstate(divide="ignore"):
            return np.asarray(np.where(self.signal > 0, 1 / self.signal, 0.0)[:, ell])

    @cached_property
    def _preconditioner(self) -> np.ndarray:
        total = self._inverse_signal + self.sky_fraction * self._gain**2 / (self.level * _ARCMIN) ** 2
        with np.errstate(divide="ignore"):
            return np.asarray(np.where(self._inverse_signal > 0, 1 / total, 0.0))


@dataclass
class _Solution:
    """Preconditioned conjugate gradients under way."""

    filter: SphereFilter
    begin: float
    transforms: float = 0.0

    def solve(self, seen: np.ndarray, start: np.ndarray | None, say: Say | None) -> FilteredSky:
        chosen = self.filter
        x, residual, aim = self._first(seen, start)
        direction = z = chosen.precondition(residual)
        size = first = _dot(residual, z)
        for step in range(chosen.most_steps + 1):
            if size <= chosen.tolerance**2 * aim:
                left = math.sqrt(size / aim) if aim > 0 else 0.0
                return FilteredSky(x, left, step, time.perf_counter() - self.begin, self.transforms)
            if say and step % _EVERY == 0 and step:
                say(self._progress(step, math.sqrt(size / aim), math.sqrt(first / aim)))
            product = self._apply(direction)
            length = size / _dot(direction, product)
            x += length * direction
            residual -= length * product
            z = chosen.precondition(residual)
            before, size = size, _dot(residual, z)
            direction = z + (size / before) * direction
        what = f"the filter's residual is {math.sqrt(size / aim):.1e} after {chosen.most_steps} steps"
        raise UserError(what, f"raise the tolerance {chosen.tolerance:g}, the noise, or the number of steps")

    def _first(self, seen: np.ndarray, start: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, float]:
        """The solution to begin with, its residual, and the norm of the right side."""
        right = self.filter.right_side(seen)
        aim = _dot(right, self.filter.precondition(right))
        if start is None:
            return np.zeros_like(right), right, aim
        x = np.array(start, dtype=np.complex128)
        if x.shape != right.shape:
            raise UserError(f"a start of shape {x.shape} for a filter of {right.shape}", "give E and B to its lmax")
        return x, right - self._apply(x), aim

    def _apply(self, alm: np.ndarray) -> np.ndarray:
        product, spent = self.filter.apply(alm)
        self.transforms += spent
        return product

    def _progress(self, step: int, residual: float, first: float) -> str:
        spent = time.perf_counter() - self.begin
        fallen = max(math.log(first / residual), 1e-3)
        left = spent * math.log(residual / self.filter.tolerance) / fallen
        return f"filter: step {step}, residual {residual:.1e} of {self.filter.tolerance:.0e}, about {left:.0f} s left"


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    """``sum_lm a b*`` over both signs of m: twice the real part of the stored half, those of m = 0 once."""
    lmax, total = alm_lmax(a), np.vdot(a, b).real
    return float(2 * total - sum(np.vdot(x[: lmax + 1], y[: lmax + 1]).real for x, y in zip(a, b, strict=True)))
