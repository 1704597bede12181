"""Temperature of the cosmic microwave background: CAMB's lensed spectrum, and Gaussian skies drawn from it.

Conventions: spectra are C_ell in uK^2 (CMB temperature units), from ell = 0; maps float64 NEST, uK.  CAMB returns
D_ell = ell (ell + 1) C_ell / 2 pi unless told ``raw_cl=True``, which this module always does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from sphereml.config.lensing import CosmologyConfig
from sphereml.errors import UserError
from sphereml.simulate.fields import gaussian_field


@dataclass(frozen=True)
class Cosmology:
    """Flat LCDM; the defaults are the Planck 2013 values of DeepCMB (arXiv:1810.01483).

    Raises:
        UserError: a value that no universe, or no recombination that CAMB knows, has.
    """

    H0: float = 67.94
    ombh2: float = 0.0222
    omch2: float = 0.1185
    tau: float = 0.0943
    As: float = 2.21e-9
    ns: float = 0.9624
    mnu: float = 0.06  # sum of neutrino masses, eV

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            # CAMB takes a negative mass for none, and fails in its own words far outside.
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name}={getattr(self, name):g} is impossible", f"give {low:g} to {high:g}")

    @classmethod
    def of(cls, config: CosmologyConfig) -> Cosmology:
        return cls(**asdict(config))


# Helium from the nucleosynthesis table of CAMB ends at ombh2 0.005 and 0.04.
_LIMITS = {
    "H0": (20.0, 150.0),
    "ombh2": (0.005, 0.04),
    "omch2": (0.001, 0.99),
    "tau": (0.0, 0.8),
    "As": (1e-12, 1e-6),
    "ns": (0.2, 2.0),
    "mnu": (0.0, 5.0),
}

PLANCK_2013 = Cosmology()

# CAMB's lensed spectra lose accuracy close to the highest multipole that was asked of it.
_LENSING_MARGIN = 500


def cmb_spectrum(lmax: int, cosmology: Cosmology = PLANCK_2013) -> np.ndarray:
    """Lensed temperature spectrum C_ell, ``(lmax + 1,)`` float64 uK^2; monopole and dipole are zero.

    The lensing potential is CAMB's at accuracy 1: made for foreground tests at the multipoles of dust templates, not
    for lensing work: that is :mod:`sphereml.simulate.cmb_spectra`.
    """
    import camb

    parameters = camb.CAMBparams()
    parameters.set_cosmology(
        H0=cosmology.H0, ombh2=cosmology.ombh2, omch2=cosmology.omch2, tau=cosmology.tau, mnu=cosmology.mnu
    )
    parameters.InitPower.set_params(As=cosmology.As, ns=cosmology.ns)
    parameters.set_for_lmax(max(lmax, 2) + _LENSING_MARGIN, lens_potential_accuracy=1)
    results = camb.get_results(parameters)
    spectra = results.get_lensed_scalar_cls(lmax=max(lmax, 2), CMB_unit="muK", raw_cl=True)
    return np.ascontiguousarray(spectra[: lmax + 1, 0], dtype=np.float64)


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
