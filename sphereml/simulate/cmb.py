"""Temperature of the cosmic microwave background: CAMB's lensed spectra, and Gaussian skies drawn from them.

Conventions: spectra are C_ell in uK^2 (CMB temperature units), from ell = 0; maps float64 NEST, uK.  CAMB returns
D_ell = ell (ell + 1) C_ell / 2 pi unless told ``raw_cl=True``, which this module always does.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from sphereml.config.lensing import Cosmology
from sphereml.simulate.cmb_spectra import PLANCK_2013, run_camb
from sphereml.simulate.fields import gaussian_field

# CAMB's lensed spectra lose accuracy close to the highest multipole that was asked of it.
_LENSING_MARGIN = 500


def cmb_spectrum(
    lmax: int, cosmology: Cosmology = PLANCK_2013, component: Literal["TT", "EE", "BB"] = "TT"
) -> np.ndarray:
    """Lensed spectrum C_ell of temperature, E or B, ``(lmax + 1,)`` float64 uK^2; monopole and dipole are zero.

    Raises:
        UserError: CAMB refuses the cosmology.
    """
    highest = max(lmax, 2)
    results = run_camb(highest + _LENSING_MARGIN, cosmology)
    spectra = results.get_lensed_scalar_cls(lmax=highest, CMB_unit="muK", raw_cl=True)
    return np.ascontiguousarray(spectra[: lmax + 1, ("TT", "EE", "BB").index(component)], dtype=np.float64)


def simulate_cmb(nside: int, lmax: int, rng: np.random.Generator, spectrum: np.ndarray) -> np.ndarray:
    """A Gaussian CMB sky, ``(npix,)`` float64 NEST, uK.

    Args:
        lmax: highest multipole of the sky; ``spectrum`` must reach it.
        spectrum: C_ell in uK^2 from ell = 0, e.g. from :func:`cmb_spectrum`.

    Raises:
        ValueError: the spectrum is shorter than ``lmax + 1``.
    """
    if len(spectrum) <= lmax:
        raise ValueError(f"the spectrum ends at ell={len(spectrum) - 1}, below lmax={lmax}")
    return gaussian_field(nside, spectrum[: lmax + 1], rng)
