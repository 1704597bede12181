"""Filaments of cold gas, strung along the magnetic field.

Conventions: columns cm^-2, velocities km/s, widths degrees on the sky, maps NEST.

Noise of several widths is drawn out along the field by averaging it over stretches of field lines (line integral
convolution, Cabral & Leedom 1993), each some eight widths long: threads that follow the field wherever it turns.  A
share F of the variance of the log column is threads in place of the phase's isotropic clumps.  Gas of one thread moves
together (HI filaments are coherent in velocity; Clark, Peek & Putman 2014, arXiv:1312.1338), so of the turbulent
velocity a larger share, ``1 - (1 - F)^3``, is threads too: threads that lie over each other in the column come apart in
the channels, and a channel map shows the field where the column does not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sphereml.simulate.fields import field_variance, gaussian_field
from sphereml.simulate.phases import PhaseSky
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.stokes import directions, tangent_basis

_WIDTHS = (1.0, 2.0, 4.0, 8.0)
_ASPECT = 8  # length over width
# Amplitude of threads by width^exponent; velocities are smoother than columns, as in `phases`.
_COLUMN_EXPONENT, _VELOCITY_EXPONENT = 0.4, 0.85
_OCTAVES = 0.5  # spread of ln(l) of one width's noise


def string_filaments(sky: PhaseSky, field: np.ndarray, share: float, rng: np.random.Generator) -> PhaseSky:
    """The phase with a share of its structure in filaments along the field.

    Args:
        sky: of one phase, with isotropic structure.
        field: z of its magnetic field, complex ``(npix,)``; see :mod:`sphereml.simulate.magnetic_field`.
        share: F, of the variance of the log column, in [0, 1].
    """
    grid, phase = HealpixGrid.of_size(field.size), sky.phase
    column_threads, velocity_threads = draw_threads(grid, field, rng)
    log_clumps = np.log(sky.clumps) + phase.log_dispersion**2 / 2
    log_clumps = np.sqrt(1 - share) * log_clumps + np.sqrt(share) * phase.log_dispersion * column_threads
    stretched = np.exp(log_clumps - phase.log_dispersion**2 / 2)
    moving = 1 - (1 - share) ** 3
    turbulence = np.sqrt(1 - moving) * sky.turbulence + np.sqrt(moving) * phase.velocity_dispersion * velocity_threads
    return replace(
        sky,
        column=sky.column * stretched / sky.clumps,
        velocity=sky.velocity - sky.turbulence + turbulence,
        turbulence=turbulence,
    )


def draw_threads(grid: HealpixGrid, field: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two independent patterns of threads along one field, ``(npix,)`` each of zero mean and unit variance."""
    columns, velocities = np.zeros(grid.npix), np.zeros(grid.npix)
    # A generator for each pattern, so that neither depends on the other's multipoles.
    for width, child in zip(_WIDTHS, rng.spawn(len(_WIDTHS)), strict=True):
        spectrum = thread_spectrum(grid.safe_lmax, width)
        noise = np.stack([gaussian_field(grid.nside, spectrum, one) for one in child.spawn(2)], axis=-1)
        drawn = average_along(grid, field, noise, width / 2, _ASPECT)
        drawn = (drawn - drawn.mean(axis=0)) / drawn.std(axis=0)
        columns += width**_COLUMN_EXPONENT * drawn[:, 0]
        velocities += width**_VELOCITY_EXPONENT * drawn[:, 1]
    return columns / columns.std(), velocities / velocities.std()


def thread_spectrum(lmax: int, width: float) -> np.ndarray:
    """C_ell ``(lmax + 1,)`` of unit variance about the multipole of half waves ``width`` degrees long, none below 2."""
    ell = np.arange(lmax + 1)
    centre = 180 / (2 * width)
    spectrum = np.exp(-0.5 * (np.log(np.maximum(ell, 1) / centre) / _OCTAVES) ** 2) / (ell + 1.0) ** 2
    spectrum[:2] = 0
    return spectrum / field_variance(spectrum)


def average_along(grid: HealpixGrid, field: np.ndarray, maps: np.ndarray, step: float, steps: int) -> np.ndarray:
    """Averages of maps over a stretch of the field line through every pixel, weighed by a squared cosine.

    Args:
        field: z, complex ``(npix,)``; only its angle matters, and a line has no sense.
        maps: ``(npix, n)``.
        step: of the line, degrees; shorter than what the maps resolve.
        steps: to either side.
    """
    along = _line_directions(grid, field)
    total, norm = maps.copy(), 1.0
    for sense in (1.0, -1.0):
        place, heading = grid.vectors(), sense * along
        for k in range(1, steps + 1):
            place = _unit(place + np.radians(step) * heading)
            pixel = grid.pixels_at(place)
            local = along[pixel]
            # A field line has no arrow: of both senses the one that goes on is meant.
            local = local * np.sign(np.sum(local * heading, axis=1))[:, None]
            heading = _unit(local - np.sum(local * place, axis=1)[:, None] * place)
            weight = np.cos(0.5 * np.pi * k / (steps + 1)) ** 2
            total += weight * maps[pixel]
            norm += weight
    return total / norm


def _line_directions(grid: HealpixGrid, field: np.ndarray) -> np.ndarray:
    _, south, east = tangent_basis(*directions(grid.vectors()))
    angle = 0.5 * np.angle(field)
    return np.asarray(np.cos(angle)[:, None] * south + np.sin(angle)[:, None] * east)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
