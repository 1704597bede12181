"""Random fields on the sphere, and their smoothing.

Conventions: maps are float64 ``(npix,)`` NEST; spectra are C_ell, arrays ``(lmax + 1,)`` from ell = 0; alms in the
triangular order of ``harmonics.transforms``.  Normal deviates are consumed multipole by multipole, so a generator of
the same seed gives the same large scales at every ``lmax``, hence at every Nside.
"""

from __future__ import annotations

import numpy as np

from sphereml.harmonics.transforms import alm_index, analysis, synthesis
from sphereml.sky.grid import HealpixGrid

# The variance of a unit power law is summed up to here, whatever the map holds; slopes below -2 have converged.
_LMAX_OF_UNIT_VARIANCE = 16384


def power_law(lmax: int, slope: float, knee: float) -> np.ndarray:
    """Spectrum ``C_ell ~ (ell^2 + knee^2)^(slope/2)`` of a field of unit variance, ``(lmax + 1,)``, C_0 = 0.

    ``knee`` is the outer scale of the turbulence: white below, a power law above.  ``slope`` must be below -2, or the
    variance, ``sum_ell (2 ell + 1) C_ell / 4 pi`` over all multipoles, does not converge; raises ValueError.
    """
    if slope >= -2:
        raise ValueError(f"a field of slope {slope} has no finite variance; the slope must be below -2")
    ell = np.arange(max(lmax, _LMAX_OF_UNIT_VARIANCE) + 1, dtype=np.float64)
    spectrum = (ell**2 + knee**2) ** (slope / 2)
    spectrum[0] = 0.0
    return (spectrum / field_variance(spectrum))[: lmax + 1]


def field_variance(spectrum: np.ndarray) -> float:
    """Variance at a point of a field with this spectrum: ``sum (2 ell + 1) C_ell / 4 pi``."""
    return float(np.sum((2 * np.arange(len(spectrum)) + 1) * spectrum) / (4 * np.pi))


def draw_alm(spectrum: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian harmonic coefficients with ``<|a_lm|^2> = C_ell``, complex ``(alm_size(lmax),)``.

    Multipole ell takes the ``2 ell + 1`` deviates from ``ell^2`` on: a_l0, then real and imaginary parts by m.
    """
    lmax = len(spectrum) - 1
    deviates = rng.standard_normal((lmax + 1) ** 2)
    ell, order = alm_index(lmax)
    real = deviates[ell**2 + np.maximum(2 * order - 1, 0)]
    imaginary = np.where(order > 0, deviates[ell**2 + 2 * order], 0.0)
    scale = np.sqrt(spectrum[ell] / np.where(order > 0, 2.0, 1.0))
    return scale * (real + 1j * imaginary)


def gaussian_field(nside: int, spectrum: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Isotropic Gaussian field of zero mean with the given spectrum, ``(npix,)``, in the spectrum's root unit."""
    return synthesis(draw_alm(spectrum, rng), nside, len(spectrum) - 1)


def lognormal_field(nside: int, spectrum: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positive field of mean one, ``exp(g - var(g)/2)`` with g Gaussian of the given spectrum, ``(npix,)``.

    With ``var(g)`` taken over the multipoles the map holds, this is the mean of the full field given its large scales,
    so maps of different Nside agree where both resolve the sky.
    """
    log_field = gaussian_field(nside, spectrum, rng)
    return np.exp(log_field - field_variance(spectrum) / 2)


def smooth(sky: np.ndarray, window: np.ndarray, spin: int = 0) -> np.ndarray:
    """Convolve maps ``(..., npix)`` with the axisymmetric kernel of harmonic ``window`` ``(lmax + 1,)``.

    With ``spin=2`` maps are ``(..., 2, npix)`` (Q, U), and the window acts on E and B.

    Multipoles above ``lmax``, which the transform does not hold, keep the window's last value ``w_L``:
    ``out = w_L sky + S (w - w_L) A sky`` with A the analysis (one Jacobi iteration) and S the synthesis.  Cutting them
    off instead makes a steep field like the Galactic plane ring, to negative brightness, over the whole sky.
    """
    lmax = len(window) - 1
    grid = HealpixGrid.of_size(sky.shape[-1])
    ell, _ = alm_index(lmax)
    alm = analysis(sky, lmax, spin, iterations=1) * (window - window[-1])[ell]
    return window[-1] * sky + synthesis(alm, grid.nside, lmax, spin)
