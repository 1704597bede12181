"""The magnetic field of the gas phases, as dust polarization sees it.

Conventions: a field is complex ``(npix,)`` NEST, ``z = cos^2 gamma exp(2i psi)``: psi is the angle of the field on the
sky from south towards east, gamma its inclination to the plane of the sky.  It has spin 2, and ``|z| <= 1``.

Two things make up the field of a phase.  A share 1 - a of its gas is threaded by a uniform field plus an isotropic
turbulent one, three Gaussian components of power-law spectrum (the model of Planck Intermediate XLIV,
arXiv:1604.01029, whose direction, ratio and slope are taken); B enters by ``z = (B_south + i B_east)^2 / |B|^2``.  In
the share a, gas and field have shaped each other, and the field runs along the ridges of the phase's own column.  Which
way a ridge runs is told on all scales alike by the traceless tidal tensor of the log column,

    t = eth^2 f / sqrt((l+2)! / (l-2)!),   z = t / sqrt(|t|^2 + (s sigma)^2),

positive along a ridge; s keeps featureless gas from being aligned with its noise.  Shares are of the gas on a line of
sight, so they add as z.  Aligned cold gas is what makes the dust's EE/BB about two and its TE positive (Clark et al.
2015, arXiv:1508.07005; Planck Intermediate XXXVIII, arXiv:1505.02779); the turbulent field alone has EE = BB and no TE.
Nothing here changes the gas: it is a field for columns that are already drawn.
"""

from __future__ import annotations

import numpy as np

from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.simulate.fields import gaussian_field, power_law
from sphereml.simulate.phases import Phase, PhaseSky
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.stokes import directions, tangent_basis

# Planck Intermediate XLIV, table 1: Galactic longitude and latitude of the uniform field near the Sun, and the slope.
_UNIFORM_LON, _UNIFORM_LAT = 70.0, 24.0
_SLOPE = -2.5
_KNEE = 8.0
# In units of the tidal tensor's standard deviation.
_SATURATION = 0.25


def draw_field(sky: PhaseSky, rng: np.random.Generator) -> np.ndarray:
    """The field of one phase, complex ``(npix,)``; see the module."""
    grid = HealpixGrid.of_size(sky.clumps.size)
    share = sky.phase.alignment
    field = (1 - share) * turbulent_field(grid, sky.phase, rng)
    if share:
        tidal = tidal_tensor(np.log(sky.clumps))
        field += share * tidal / np.hypot(np.abs(tidal), _SATURATION * sky.phase.log_dispersion)
    return field


def turbulent_field(grid: HealpixGrid, phase: Phase, rng: np.random.Generator) -> np.ndarray:
    """A uniform unit vector plus ``phase.turbulence`` times a Gaussian vector of unit variance, as z ``(npix,)``."""
    spectrum = phase.turbulence**2 / 3 * power_law(grid.safe_lmax, _SLOPE, _KNEE)
    turbulence = np.stack([gaussian_field(grid.nside, spectrum, child) for child in rng.spawn(3)], axis=-1)
    lon, lat = np.radians(_UNIFORM_LON), np.radians(_UNIFORM_LAT)
    uniform = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    return projected(grid, uniform + turbulence)


def projected(grid: HealpixGrid, vectors: np.ndarray) -> np.ndarray:
    """``(B_south + i B_east)^2 / |B|^2`` of field vectors ``(npix, 3)``: complex ``(npix,)``."""
    _, south, east = tangent_basis(*directions(grid.vectors()))
    along = np.sum(vectors * south, axis=1) + 1j * np.sum(vectors * east, axis=1)
    return np.asarray(along**2 / np.sum(vectors**2, axis=1))


def tidal_tensor(scalar: np.ndarray) -> np.ndarray:
    """``eth^2 f`` with every multipole's gain taken out, complex ``(npix,)``: its variance is that of f above l = 1."""
    grid = HealpixGrid.of_size(scalar.size)
    alm = analysis(scalar, grid.safe_lmax)
    # Q + iU = -sum (E + iB) 2Y; a spin-2 field has no l < 2, and the synthesis reads none.
    q, u = synthesis(np.stack([-alm, np.zeros_like(alm)]), grid.nside, grid.safe_lmax, spin=2)
    return q + 1j * u
