"""Kappa of the full sky in several passes: each takes away the lensing B that the last kappa makes, and looks again.

At low noise most of a quadratic estimator's noise is the lensed B itself, which delensing removes (Hirata & Seljak
2003, astro-ph/0306354; its limit: :mod:`sphereml.lensing.iterated`).  Conventions: a_lm as in
:mod:`sphereml.lensing.sphere_estimator`.  Pass 0 is the minimum variance of E and B.  Pass n estimates EB from E and

    B_n = B - B[kappa_{n-1}, E],

the template of gradient order of the best kappa so far and the Wiener-filtered E, filtered by what is left of the
lensed B.  Template and B share noise, so the estimates k_0 .. k_n do not simply add up; the best is their regression,

    kappa_n = sum_i W_i(L) k_i,     W = <k_i k_j>^-1 <k_j kappa>,

whose weights, like the spectra of what is left, are measured on a simulated sky and averaged over bands of L.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sphereml.harmonics.filters import multiply
from sphereml.harmonics.rings import alm_lmax
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.lensing.lensed_b import lensed_b
from sphereml.lensing.mean_field import smooth_bands
from sphereml.lensing.noise import NoiseModel
from sphereml.lensing.reconstruction import Legs
from sphereml.lensing.sphere_estimator import SphereEstimator


@dataclass(frozen=True, eq=False)
class PassCurves:
    """What is known of the passes beforehand.

    Attributes:
        residual_bb: ``(npass, lmax + 1)``, B power without noise that each pass meets; of pass 0 the lensed one.
        weights: ``(npass, npass, lmax_kappa + 1)``, W of the estimates i <= n in the best kappa after pass n.
    """

    residual_bb: np.ndarray
    weights: np.ndarray

    @classmethod
    def of_first(cls, model: NoiseModel, n0: np.ndarray) -> PassCurves:
        """Those of one pass: the Wiener filter ``C / (C + N0)``."""
        power = model.spectra.kappa[: len(n0)]
        wiener = np.where(np.isfinite(n0) & (power + n0 > 0), power / np.where(power + n0 > 0, power + n0, 1.0), 0.0)
        return cls(model.spectra.bb_lensed[None, : model.observation.lmax + 1], wiener[None, None])

    def best(self, estimates: Sequence[np.ndarray]) -> np.ndarray:
        """The best kappa of the estimates so far, ``(alm_size(lmax_kappa),)``."""
        weights = self.weights[len(estimates) - 1]
        return np.sum([multiply(one.copy(), own) for one, own in zip(estimates, weights, strict=False)], axis=0)


@dataclass(frozen=True, eq=False)
class PassResult:
    """What the passes make of a sky: a_lm of the first and the best kappa, Wiener-filtered, and the last pass's B."""

    first: np.ndarray
    best: np.ndarray
    b: np.ndarray


@dataclass(frozen=True, eq=False)
class PassEstimator:
    """Estimates of kappa in as many passes as there are curves of."""

    model: NoiseModel
    curves: PassCurves

    @cached_property
    def estimators(self) -> list[SphereEstimator]:
        """The estimator of each pass."""
        return [SphereEstimator(_with_b(self.model, power)) for power in self.curves.residual_bb]

    def __call__(self, legs: Legs) -> PassResult:
        estimates: list[np.ndarray] = []
        best, b = np.zeros(0), legs.b
        for number, estimator in enumerate(self.estimators):
            b = residual_b(legs, best) if number else legs.b
            estimates.append(_estimate(estimator, legs.e, b, number))
            best = self.curves.best(estimates)
        return PassResult(multiply(estimates[0].copy(), self.curves.weights[0, 0]), best, b)


def measure_curves(model: NoiseModel, legs: Legs, kappa: np.ndarray, b: np.ndarray, count: int) -> PassCurves:
    """The curves of ``count`` passes from one simulated sky.

    Args:
        legs: its observed E and B.
        kappa: its true kappa, ``(alm_size(lmax_kappa),)``.
        b: its true lensed B, ``(alm_size(lmax),)``.
    """
    top, lmax = model.lmax_kappa, model.observation.lmax
    curves = PassCurves(np.zeros((count, lmax + 1)), np.zeros((count, count, top + 1)))
    estimates: list[np.ndarray] = []
    for number in range(count):
        seen = legs.b
        curves.residual_bb[number] = model.spectra.bb_lensed[: lmax + 1]
        if number:
            template = legs.b - (seen := residual_b(legs, curves.best(estimates)))
            curves.residual_bb[number] = _smooth(cross_spectrum(b - template, b - template, lmax))
        estimator = SphereEstimator(_with_b(model, curves.residual_bb[number]))
        estimates.append(_estimate(estimator, legs.e, seen, number))
        curves.weights[number, : number + 1] = _regression(estimates, kappa, top)
    return curves


def residual_b(legs: Legs, kappa: np.ndarray) -> np.ndarray:
    """The observed B without the template of this kappa, ``(alm_size(lmax),)``."""
    return np.asarray(legs.b - lensed_b(legs.wiener_e, kappa, alm_lmax(legs.b), "gradient"))


def _estimate(estimator: SphereEstimator, e: np.ndarray, b: np.ndarray, number: int) -> np.ndarray:
    return estimator.eb(e, b) if number else estimator.minimum_variance(e, b)


def _with_b(model: NoiseModel, power: np.ndarray) -> NoiseModel:
    """The model with another B power; beyond the observation's lmax it is not looked at."""
    lensed = model.spectra.bb_lensed
    spectra = replace(model.spectra, bb_lensed=np.concatenate([power, lensed[len(power) :]]))
    return replace(model, spectra=spectra)


def _regression(estimates: Sequence[np.ndarray], kappa: np.ndarray, lmax: int) -> np.ndarray:
    """W of the module's docstring, ``(nestimate, lmax + 1)``; 0 below L = 2."""
    ell, bands, modes = np.arange(lmax + 1), smooth_bands(lmax), 2.0 * np.arange(lmax + 1) + 1
    power = np.array([[cross_spectrum(a, b, lmax) for b in estimates] for a in estimates]) * modes
    cross = np.array([cross_spectrum(a, kappa, lmax) for a in estimates]) * modes
    weights = np.array([np.linalg.pinv(power[..., band].sum(-1)) @ cross[..., band].sum(-1) for band in bands])
    centres = [band.mean() for band in bands]
    return np.where(ell < 2, 0.0, np.array([np.interp(ell, centres, column) for column in weights.T]))


def _smooth(spectrum: np.ndarray) -> np.ndarray:
    """Means over bands, interpolated."""
    ell, bands = np.arange(len(spectrum)), smooth_bands(len(spectrum) - 1)
    return np.interp(ell, [band.mean() for band in bands], [spectrum[band].mean() for band in bands])
