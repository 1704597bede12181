"""The gas phases of the synthetic Galaxy: where the hydrogen is, how it moves, and how much dust it carries.

Conventions: columns in hydrogen atoms cm^-2, LSR velocities and line widths (Gaussian sigma) in km/s, dust intensity at
353 GHz in uK_RJ, Galactic coordinates, float64 maps NEST.

The dust-to-gas ratios are Planck's: tau_353/N_H = 6-7e-27 cm^2 at 20 K (Planck 2013 XI, arXiv:1312.1300) is 8-9 uK_RJ
per 1e20 cm^-2 in diffuse gas, up to twice that in cold dense gas, and about half in intermediate-velocity clouds
(Planck Early XXIV, arXiv:1101.2036).  Intrinsic polarization fractions are chosen so that the sum over phases, each
depolarized by its own field and by the others, reaches the 20 % at most that Planck finds (Planck 2018 XII,
arXiv:1807.06212); cold gas lies along its field, warm gas does not (see :mod:`sphereml.simulate.magnetic_field`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sphereml.simulate.fields import gaussian_field, lognormal_field, power_law
from sphereml.sky.grid import HealpixGrid


@dataclass(frozen=True)
class Phase:
    """One kind of gas.

    Args:
        column: mean column towards the Galactic pole, cm^-2.
        thickness: sine of the latitude below which the column stops rising towards the plane.
        log_dispersion: standard deviation of the natural logarithm of the column about its envelope.
        slope: power-law slope of C_ell of the log column.
        velocity: mean LSR velocity, km/s.
        velocity_dispersion: standard deviation of the smooth velocity field, km/s.
        rotation: amplitude of the ``sin l cos b`` pattern of Galactic rotation, km/s.
        line_width: Gaussian sigma of the line, km/s.
        dust_ratio: dust per gas, uK_RJ at 353 GHz per 1e20 cm^-2.
        polarization: fraction of its dust emission that is polarized where the field lies in the plane of the sky.
        alignment: share of the gas whose field runs along the ridges of its column.
        turbulence: strength of the turbulent field per uniform field, in the rest of the gas.
    """

    name: str
    column: float
    thickness: float
    log_dispersion: float
    slope: float
    velocity: float
    velocity_dispersion: float
    rotation: float
    line_width: float
    dust_ratio: float
    polarization: float
    alignment: float
    turbulence: float


PHASES = (
    Phase(
        name="cnm",
        column=0.5e20,
        thickness=0.02,
        log_dispersion=0.8,
        slope=-2.8,
        velocity=-8.0,
        velocity_dispersion=5.0,
        rotation=-5.0,
        line_width=2.5,
        dust_ratio=12.0,
        polarization=0.25,
        alignment=0.8,
        turbulence=0.9,
    ),
    Phase(
        name="wnm",
        column=1.2e20,
        thickness=0.03,
        log_dispersion=0.5,
        slope=-2.8,
        velocity=-8.0,
        velocity_dispersion=5.0,
        rotation=-5.0,
        line_width=9.0,
        dust_ratio=8.0,
        polarization=0.12,
        alignment=0.0,
        turbulence=0.9,
    ),
    Phase(
        name="ivc",
        column=0.3e20,
        thickness=0.20,
        log_dispersion=0.7,
        slope=-2.8,
        velocity=-45.0,
        velocity_dispersion=5.0,
        rotation=3.0,
        line_width=6.0,
        dust_ratio=5.0,
        polarization=0.10,
        alignment=0.0,
        turbulence=0.9,
    ),
)

TURBULENCE_KNEE = 8.0
# Smoother than the column (velocity spectra are steeper than those of density).  The knee keeps many coherent cells in
# a hemisphere: with a few giant ones, weights of channels learnt in the north fail in the south on some seeds.
VELOCITY_SLOPE, VELOCITY_KNEE = -3.7, 20.0


@dataclass(frozen=True)
class PhaseSky:
    """Maps of one phase before the beam, each ``(npix,)``.

    Args:
        phase: whose maps these are.
        column: cm^-2.
        velocity: centre of the line, km/s.
        clumps: column over its plane-parallel envelope as first drawn, isotropic, of mean one.
        turbulence: the random part of the velocity, km/s.
    """

    phase: Phase
    column: np.ndarray
    velocity: np.ndarray
    clumps: np.ndarray
    turbulence: np.ndarray


def plane_envelope(lat: np.ndarray, thickness: float) -> np.ndarray:
    """Path length through a plane-parallel disc, in units of that to the pole: csc|b|, levelled off at the plane.

    ``sqrt((1 + h^2) / (sin^2 b + h^2))``; ``lat`` in degrees, h the ``thickness``.
    """
    return np.sqrt((1 + thickness**2) / (np.sin(np.radians(lat)) ** 2 + thickness**2))


def draw_phase(grid: HealpixGrid, phase: Phase, rng: np.random.Generator, lmax: int) -> PhaseSky:
    """A realization of one phase on the whole sky, with structure up to ``lmax``."""
    # One child generator per field: neither field's large scales may depend on how many deviates the other took.
    column_rng, velocity_rng = rng.spawn(2)
    lon, lat = grid.lonlat()
    spectrum = phase.log_dispersion**2 * power_law(lmax, phase.slope, TURBULENCE_KNEE)
    clumps = lognormal_field(grid.nside, spectrum, column_rng)
    column = phase.column * plane_envelope(lat, phase.thickness) * clumps

    spectrum = phase.velocity_dispersion**2 * power_law(lmax, VELOCITY_SLOPE, VELOCITY_KNEE)
    turbulence = gaussian_field(grid.nside, spectrum, velocity_rng)
    rotation = phase.rotation * np.sin(np.radians(lon)) * np.cos(np.radians(lat))
    return PhaseSky(phase, column, phase.velocity + rotation + turbulence, clumps, turbulence)
