"""What a lensing network of the full sky sees of Q and U, as typed fields.

Conventions: fields are ``(npix, columns)`` float32 NEST, in the order of :attr:`SkyFeatures.fields` (scalars, spin 1,
spin 2); vectors point south and east, Q and U are COSMO.

* ``physical``: the most likely (Wiener-filtered) lensed E, the best kappa of the estimator's passes
  (:mod:`sphereml.lensing.sky_passes`) and, where there are several, that of the first one; the vector whose divergence
  is the last estimate (spin 1); Q and U of that E, and the inverse-variance filtered Q and U of the last pass (spin 2).
* ``plain``: Q and U as the instrument sees them, within the band, without B below ``lmin_b``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sphereml.harmonics.filters import gaussian_beam, multiply
from sphereml.harmonics.rings import resize_alm
from sphereml.harmonics.transforms import synthesis
from sphereml.lensing.noise import NoiseModel
from sphereml.lensing.reconstruction import Legs
from sphereml.lensing.sky_passes import PassEstimator
from sphereml.sky.fields import Field

_UNIT = "uK_CMB"
_PHYSICAL = (
    Field("E", _UNIT),
    Field("kappa"),
    Field("product", spin=1),
    Field("P_wiener", _UNIT, spin=2),
    Field("P_inverse", f"{_UNIT}^-1", spin=2),
)
_FIRST = Field("kappa_first")
_PLAIN = (Field("P", _UNIT, spin=2),)


@dataclass(frozen=True, eq=False)
class SkyFeatures:
    """Makes the features of skies that are seen alike.

    Args:
        estimator: of kappa; its model has spectra, observation and the highest L.
        nside: of the features.
        form: ``physical`` or ``plain``.
    """

    estimator: PassEstimator
    nside: int
    form: str = "physical"

    @property
    def model(self) -> NoiseModel:
        return self.estimator.model

    @property
    def fields(self) -> tuple[Field, ...]:
        return feature_fields(self.form, len(self.estimator.curves.weights))

    def __call__(self, legs: Legs) -> np.ndarray:
        """``(npix, columns)`` float32 of a sky's E and B."""
        columns = self._physical(legs) if self.form == "physical" else self._observed(legs)
        return np.ascontiguousarray(np.concatenate(columns).T, dtype=np.float32)

    def _physical(self, legs: Legs) -> list[np.ndarray]:
        lmax, top = self.model.observation.lmax, self.model.lmax_kappa
        found, several = self.estimator(legs), len(self.estimator.curves.weights) > 1
        inverse, product = self.estimator.estimators[-1].fields(legs.e, found.b, self.nside)
        signal = synthesis(np.stack([legs.wiener_e, np.zeros_like(legs.wiener_e)]), self.nside, lmax, spin=2)
        kappas = [synthesis(alm, self.nside, top)[None] for alm in (found.best, found.first)[: 1 + several]]
        return [synthesis(legs.wiener_e, self.nside, lmax)[None], *kappas, product, signal, inverse]

    def _observed(self, legs: Legs) -> list[np.ndarray]:
        lmax = self.model.observation.lmax
        seen = resize_alm(np.stack([legs.e, legs.b]), lmax).copy()
        for alm, transfer in zip(seen, self._transfers, strict=True):
            multiply(alm, transfer)
        return [synthesis(seen, self.nside, lmax, spin=2)]

    @cached_property
    def _transfers(self) -> tuple[np.ndarray, np.ndarray]:
        """The beam within the band, of E and of B."""
        observation = self.model.observation
        ell, beam = np.arange(observation.lmax + 1), gaussian_beam(observation.lmax, observation.beam)
        lowest = (observation.lmin, observation.lowest_b)
        return np.where(ell < lowest[0], 0.0, beam), np.where(ell < lowest[1], 0.0, beam)


def feature_fields(form: str, passes: int) -> tuple[Field, ...]:
    """What the features are, of a form and a number of passes."""
    if form == "plain":
        return _PLAIN
    return (*_PHYSICAL[:2], *([_FIRST] if passes > 1 else []), *_PHYSICAL[2:])
