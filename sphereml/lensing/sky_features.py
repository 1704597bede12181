"""What a lensing network of the full sky sees of Q and U, as typed fields.

Conventions: fields are ``(npix, columns)`` float32 NEST, in the order of :attr:`SkyFeatures.fields` (scalars, spin 1,
spin 2); vectors point south and east, Q and U are COSMO.

* ``physical``: the most likely (Wiener-filtered) lensed E, the estimator's kappa, Wiener-filtered; the vector whose
  divergence is the minimum-variance estimate (spin 1); Q and U of that E, and the inverse-variance filtered Q and U
  (spin 2).  A network that takes divergences has the estimator before it, and what the iterations of a better one use.
* ``plain``: Q and U as the instrument sees them, within the band.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sphereml.harmonics.filters import gaussian_beam, multiply
from sphereml.harmonics.rings import resize_alm
from sphereml.harmonics.transforms import synthesis
from sphereml.lensing.full_sky import wiener_kappa
from sphereml.lensing.noise import NoiseModel
from sphereml.lensing.reconstruction import Legs
from sphereml.lensing.sphere_estimator import SphereEstimator
from sphereml.sky.fields import Field

_UNIT = "uK_CMB"
_PHYSICAL = (
    Field("E", _UNIT),
    Field("kappa"),
    Field("product", spin=1),
    Field("P_wiener", _UNIT, spin=2),
    Field("P_inverse", f"{_UNIT}^-1", spin=2),
)
_PLAIN = (Field("P", _UNIT, spin=2),)


@dataclass(frozen=True, eq=False)
class SkyFeatures:
    """Makes the features of skies that are seen alike.

    Args:
        model: spectra, observation and highest L of kappa.
        nside: of the features.
        form: ``physical`` or ``plain``.
    """

    model: NoiseModel
    nside: int
    form: str = "physical"

    @property
    def fields(self) -> tuple[Field, ...]:
        return _PHYSICAL if self.form == "physical" else _PLAIN

    @cached_property
    def estimator(self) -> SphereEstimator:
        return SphereEstimator(self.model)

    def __call__(self, legs: Legs) -> np.ndarray:
        """``(npix, columns)`` float32 of a sky's E and B."""
        columns = self._physical(legs) if self.form == "physical" else self._observed(legs)
        return np.ascontiguousarray(np.concatenate(columns).T, dtype=np.float32)

    def _physical(self, legs: Legs) -> list[np.ndarray]:
        lmax, power = self.model.observation.lmax, self.model.spectra.kappa[: self.model.lmax_kappa + 1]
        n0 = self.estimator.n0
        kappa = wiener_kappa(self.estimator.minimum_variance(legs.e, legs.b), power, n0, np.ones_like(n0))
        inverse, product = self.estimator.fields(legs.e, legs.b, self.nside)
        signal = synthesis(np.stack([legs.wiener_e, np.zeros_like(legs.wiener_e)]), self.nside, lmax, spin=2)
        scalars = synthesis(legs.wiener_e, self.nside, lmax), synthesis(kappa, self.nside, self.model.lmax_kappa)
        return [*(scalar[None] for scalar in scalars), product, signal, inverse]

    def _observed(self, legs: Legs) -> list[np.ndarray]:
        lmax = self.model.observation.lmax
        seen = multiply(resize_alm(np.stack([legs.e, legs.b]), lmax).copy(), self._transfer)
        return [synthesis(seen, self.nside, lmax, spin=2)]

    @cached_property
    def _transfer(self) -> np.ndarray:
        """The beam within the band."""
        observation = self.model.observation
        beam = gaussian_beam(observation.lmax, observation.beam)
        return np.where(np.arange(len(beam)) < observation.lmin, 0.0, beam)
