"""Kappa of the sky in several passes, each from B that was delensed with the pass before; whole skies and masked ones.

Conventions: those of :mod:`sphereml.lensing.reconstruction`; what a pass is and why:
:mod:`sphereml.lensing.patch_passes`, whose twin this is.  Weights and the B that is left are theory's, for any mask and
instrument; :mod:`sphereml.lensing.sky_passes` measures them on a sky for the training of networks, and shares its
:func:`~sphereml.lensing.sky_passes.residual_b` with whole skies here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.filters import multiply
from sphereml.harmonics.transforms import synthesis
from sphereml.lensing.iterated import delensed_bb
from sphereml.lensing.lensed_b import lensed_b
from sphereml.lensing.noise import EXCESS, NoiseModel, combined
from sphereml.lensing.reconstruction import Legs, SphereReconstruction
from sphereml.lensing.sky_passes import residual_b
from sphereml.lensing.sphere_filter import Say


@dataclass(frozen=True, eq=False)
class SpherePasses:
    """Passes after the estimate of ``first``, ``count`` of them.

    Args:
        first: of EB and EE (``"MV"``).

    Raises:
        UserError: it is of another estimator.
    """

    first: SphereReconstruction
    count: int

    def __post_init__(self) -> None:
        if self.first.estimator != "MV":
            raise UserError(f"passes after the estimator {self.first.estimator}", "begin with MV, EB and EE together")

    def __call__(self, maps: np.ndarray, say: Say | None = None) -> Iterator[tuple[Legs, np.ndarray]]:
        """Legs and Wiener-filtered kappa ``(alm_size(lmax_kappa),)`` of every pass, the first estimate before them.

        Args:
            maps: Q and U, ``(2, npix)``.
        """
        first = self.first
        legs = first.legs(maps, say=say)
        kappa = multiply(first.estimate(legs), self._power / (self._power + first.n0))
        yield legs, kappa
        seen, start = legs, None
        for chosen, weights in self._passes:
            if first.noise is None:  # E and B of a whole sky are at hand, and so is B without the template
                legs = replace(seen, b=residual_b(seen, kappa))
            else:
                legs = chosen.legs(maps - self._template(seen, kappa), start, say)
                legs = replace(legs, e=seen.e, wiener_e=seen.wiener_e)
                start = None if legs.filtered is None else legs.filtered.wiener
            kappa = kappa + multiply(chosen.estimate(legs), weights)
            yield legs, kappa

    def _template(self, legs: Legs, kappa: np.ndarray) -> np.ndarray:
        """Q and U ``(2, npix)`` of the lensing B as the instrument sees it."""
        first = self.first
        b = multiply(lensed_b(legs.wiener_e, kappa, first.filter_lmax), first.transfer)
        return synthesis(np.stack([np.zeros_like(b), b]), first.nside, first.filter_lmax, spin=2)

    @property
    def response(self) -> np.ndarray:
        """What theory expects of the last kappa: ``<k' k> / <k k>``, ``(lmax_kappa + 1,)``, N0 being all its noise."""
        left = 1 - self._power / (self._power + self.first.n0)
        for _, weights in self._passes:
            left = left * (1 - weights)
        return np.asarray(1 - left)

    @property
    def _power(self) -> np.ndarray:
        return self.first.spectra.kappa[: self.first.lmax_kappa + 1]

    @cached_property
    def _passes(self) -> list[tuple[SphereReconstruction, np.ndarray]]:
        """The reconstruction of every pass, by EB, and the weight of its estimate by L."""
        first, observation = self.first, self.first.observation
        theory = NoiseModel(first.spectra, observation, observation.lmax)
        noise = EXCESS * theory.minimum_variance()
        unknown = self._power / (1 + self._power / first.n0)
        made = []
        for _ in range(self.count):
            spectra = replace(first.spectra, bb_lensed=delensed_bb(theory, noise))
            chosen = replace(first, spectra=spectra, estimator="EB")
            weights = unknown / (unknown + chosen.n0)
            made.append((chosen, weights))
            unknown = unknown * (1 - weights)
            noise = combined(noise, EXCESS * replace(theory, spectra=spectra).eb())
        return made
