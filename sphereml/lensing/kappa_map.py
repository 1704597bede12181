"""Kappa as a map that carries what its users need beside it: noise, response, mean field, filters, and E.

Conventions: as :class:`~sphereml.sky.maps.SkyMap`; curves are C_L of kappa from L = 0.
"""

from __future__ import annotations

import numpy as np

from sphereml.harmonics.transforms import synthesis
from sphereml.lensing.reconstruction import KappaEstimate
from sphereml.sky.fields import Field
from sphereml.sky.maps import SkyMap

# A pure number, spelled so that files may say so.
_NUMBER = "1"


class KappaMap(SkyMap):
    """An estimate of kappa, its mean field subtracted, as one column ``KAPPA``.

    Attributes:
        estimate: a_lm, N0, response and filters.
    """

    estimate: KappaEstimate

    def __init__(self, estimate: KappaEstimate, nside: int, frame: str = "G") -> None:
        values = synthesis(estimate.kappa, nside, len(estimate.n0) - 1)
        header = {"LMAXK": len(estimate.n0) - 1, "NSIMS": estimate.simulations}
        super().__init__(values, Field("KAPPA", _NUMBER), "nest", frame, header)
        object.__setattr__(self, "estimate", estimate)

    @property
    def n0(self) -> np.ndarray:
        """Reconstruction noise ``(lmax_kappa + 1,)``, infinite where nothing is measured."""
        return self.estimate.n0

    @property
    def response(self) -> np.ndarray:
        """``<estimate kappa> / <kappa kappa>`` by L, 1 by normalization where no simulation measured it."""
        return self.estimate.response

    def mean_field(self) -> SkyMap | None:
        """What was subtracted, None where nothing was."""
        if self.estimate.mean_field is None:
            return None
        values = synthesis(self.estimate.mean_field, self.nside, len(self.n0) - 1)
        return SkyMap(values, Field("MEANFIELD", _NUMBER), "nest", self.frame)

    def wiener_e(self) -> SkyMap:
        """The most likely lensed E, uK_CMB: what a template of order ``gradient`` takes."""
        lmax = len(self.estimate.weights["WIENER_E"]) - 1
        values = synthesis(self.estimate.wiener_e, self.nside, lmax)
        return SkyMap(values, Field("E", "uK_CMB"), "nest", self.frame)
