"""A synthetic Galaxy: an HI spectral cube, and the dust that its gas carries.

Conventions: maps NEST; brightness temperature K; LSR velocity km/s; columns cm^-2; dust uK_RJ at 353 GHz.

A physical toy, made so that the shape of the line tells more of the dust than its integral does.  Cold (CNM), warm
(WNM) and intermediate-velocity (IVC) gas are independent lognormal fields concentrated to the plane; their lines
overlap in velocity and wander over the sky, so no fixed weights of channels separate them, but a narrow line is cold
gas and a broad one is warm wherever it lies.  Then

    dust = sum over phases of (dust ratio x column) + dark gas + CIB + noise

with per-phase ratios, and dark gas (H_2 and opaque HI, seen in dust but not at 21 cm) that rises faster than linearly
with the cold column: ``N_dark = dark_share N_cnm^2 / (N_cnm + N_transition)``.

The dust is polarized across the magnetic field of its phase (:mod:`sphereml.simulate.magnetic_field`,
:mod:`sphereml.simulate.polarization`).  By default the field follows the gas, which is what it was before there was a
field; with ``filaments`` above 0 the cold gas in turn follows the field (:mod:`sphereml.simulate.filaments`), in column
and in velocity.

Everything but the white noises passes the beam.  The random fields hold multipoles up to ``lmax = 2 nside``; the large
scales of a seed are the same at every Nside, to the few per cent by which unresolved clumps change a pixel's column
(the noise per pixel is drawn afresh).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sphereml.config.schema import GalaxyConfig
from sphereml.data.velocity import VelocityAxis
from sphereml.errors import UserError
from sphereml.harmonics.filters import gaussian_beam
from sphereml.simulate.fields import gaussian_field, smooth
from sphereml.simulate.filaments import string_filaments
from sphereml.simulate.magnetic_field import draw_field
from sphereml.simulate.phases import PHASES, PhaseSky, draw_phase
from sphereml.simulate.polarization import DustPolarization, Emission, polarize
from sphereml.simulate.spectral_cube import channel_maps
from sphereml.sky.grid import HealpixGrid

# Streams of random numbers, so that each part of the sky is a function of (seed, part) alone.
_PHASE_STREAM, _CIB_STREAM, _DUST_NOISE_STREAM, _CUBE_NOISE_STREAM, _STOKES_NOISE_STREAM = 0, 100, 101, 102, 103
_FIELD_STREAM, _FILAMENT_STREAM = 200, 300  # and the number of the phase


@dataclass(frozen=True)
class DustModel:
    """Dust beyond the phases' own ratios.

    Args:
        dark_share: column of dark gas per cold column where the latter is large.
        dark_transition: cold column around which hydrogen turns dark, cm^-2.
        dark_ratio: dust per dark gas, uK_RJ per 1e20 cm^-2.
        cib_power: C_ell of the cosmic infrared background at ell = 100, uK_RJ^2 sr.
        cib_slope: its power law (clustered galaxies).
        noise: white noise of the dust map, uK_RJ arcmin; 12 is about Planck's at 353 GHz.
        stokes_noise: that of Q and of U; 34 is about Planck's (Planck 2018 I, arXiv:1807.06205, table 4).
    """

    dark_share: float = 0.7
    dark_transition: float = 2e20
    dark_ratio: float = 14.0
    cib_power: float = 1e-3
    cib_slope: float = -1.2
    noise: float = 12.0
    stokes_noise: float = 34.0


DUST = DustModel()


@dataclass(frozen=True)
class Galaxy:
    """A simulated sky.

    ``velocity`` ``(nchan,)`` channel centres; ``brightness`` ``(npix, nchan)`` float32; ``dust`` ``(npix,)`` float32.
    ``components`` holds the truth at the beam's resolution, ``(npix,)`` float32 each: ``column_PHASE`` (cm^-2) and, in
    uK_RJ, ``dust_PHASE``, ``dust_dark``, ``dust_cib``, ``dust_noise``, whose sum is ``dust``.  ``polarization`` is made
    when it is first asked for.
    """

    grid: HealpixGrid
    velocity: np.ndarray
    brightness: np.ndarray
    dust: np.ndarray
    components: dict[str, np.ndarray]
    config: GalaxyConfig

    @cached_property
    def polarization(self) -> DustPolarization:
        """Q and U of the dust, by phase; the gas is drawn again for it, so intensity alone costs no more."""
        return _polarization(self.config, self.components)


def simulate_galaxy(config: GalaxyConfig, progress: Callable[[str], None] | None = None) -> Galaxy:
    """Simulate the HI cube and the dust map of one seed.

    Args:
        config: resolution, seed, velocity axis, beam and noise.
        progress: called with a line of text as the work goes on.

    Raises:
        UserError: a value of ``config`` that no sky can have.
    """
    _validate(config)
    report = progress or (lambda line: None)
    grid = HealpixGrid(config.nside)
    window = gaussian_beam(grid.safe_lmax, config.beam_arcmin)
    skies = []
    for number, phase in enumerate(PHASES):
        report(f"gas: {phase.name}")
        skies.append(_draw(config, number))
    components = _columns(skies, window)
    dust = _dust_parts(skies, components, config, window)
    axis = VelocityAxis(config.velocity_start + config.channel_width * np.arange(config.channels + 1))
    brightness = _observe(skies, axis, config, window, report)
    total = sum(dust.values(), start=np.zeros(grid.npix, dtype=np.float32))
    return Galaxy(grid, axis.centres, brightness, total, components | dust, config)


def _validate(config: GalaxyConfig) -> None:
    for key in ("velocity_start", "channel_width", "beam_arcmin", "noise_mk"):
        if not math.isfinite(getattr(config, key)):
            raise UserError(f"galaxy.{key}={getattr(config, key)} is not a number", "give a finite one")
    for key, smallest in (("seed", 0), ("channels", 1), ("beam_arcmin", 0), ("noise_mk", 0)):
        if getattr(config, key) < smallest:
            raise UserError(f"galaxy.{key}={getattr(config, key)} is too small", f"give at least {smallest}")
    if not 0 <= config.filaments <= 1:
        raise UserError(f"galaxy.filaments={config.filaments:g} is no share", "give 0 to 1")
    if config.channel_width <= 0:
        raise UserError(f"galaxy.channel_width={config.channel_width} is not positive", "give a width in km/s")


def _generator(config: GalaxyConfig, stream: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, stream])


def _draw(config: GalaxyConfig, number: int) -> PhaseSky:
    """The gas of one phase; the kind that lies along its field gets filaments if they are wanted."""
    grid, phase = HealpixGrid(config.nside), PHASES[number]
    sky = draw_phase(grid, phase, _generator(config, _PHASE_STREAM + number), grid.safe_lmax)
    if not (config.filaments and phase.alignment):
        return sky
    field = draw_field(sky, _generator(config, _FIELD_STREAM + number))
    return string_filaments(sky, field, config.filaments, _generator(config, _FILAMENT_STREAM + number))


def _polarization(config: GalaxyConfig, components: dict[str, np.ndarray]) -> DustPolarization:
    emissions = {}
    for number, phase in enumerate(PHASES):
        sky = _draw(config, number)
        field = draw_field(sky, _generator(config, _FIELD_STREAM + number))
        emissions[phase.name] = Emission(phase.dust_ratio / 1e20 * sky.column, phase.polarization, field)
        if phase.name == "cnm":
            dark = DUST.dark_ratio / 1e20 * dark_column(sky.column)
            emissions["dark"] = Emission(dark, phase.polarization, field)
    grid = HealpixGrid(config.nside)
    parts = polarize(emissions, gaussian_beam(grid.safe_lmax, config.beam_arcmin))
    white = _generator(config, _STOKES_NOISE_STREAM).standard_normal((grid.npix, 2))
    parts["noise"] = (DUST.stokes_noise / (60 * grid.resolution) * white).astype(np.float32)
    total = sum(parts.values(), start=np.zeros((grid.npix, 2), dtype=np.float32))
    return DustPolarization(total, parts, {name: components[f"dust_{name}"] for name in emissions})


def _columns(skies: list[PhaseSky], window: np.ndarray) -> dict[str, np.ndarray]:
    return {f"column_{sky.phase.name}": smooth(sky.column, window).astype(np.float32) for sky in skies}


def _dust_parts(
    skies: list[PhaseSky], columns: dict[str, np.ndarray], config: GalaxyConfig, window: np.ndarray
) -> dict[str, np.ndarray]:
    """The additive parts of the dust map, float32 uK_RJ, at the beam's resolution."""
    parts: dict[str, np.ndarray] = {
        f"dust_{sky.phase.name}": np.float32(sky.phase.dust_ratio / 1e20) * columns[f"column_{sky.phase.name}"]
        for sky in skies
    }
    cold = next(sky.column for sky in skies if sky.phase.name == "cnm")
    parts["dust_dark"] = smooth(DUST.dark_ratio / 1e20 * dark_column(cold), window)
    parts["dust_cib"] = gaussian_field(
        config.nside, cib_spectrum(len(window) - 1) * window**2, _generator(config, _CIB_STREAM)
    )
    arcmin_per_pixel = 60 * HealpixGrid(config.nside).resolution
    white = _generator(config, _DUST_NOISE_STREAM).standard_normal(cold.size)
    parts["dust_noise"] = DUST.noise / arcmin_per_pixel * white
    return {name: part.astype(np.float32) for name, part in parts.items()}


def dark_column(cold: np.ndarray) -> np.ndarray:
    """Column of hydrogen unseen at 21 cm for a cold column, both cm^-2: quadratic, then linear."""
    return DUST.dark_share * cold**2 / (cold + DUST.dark_transition)


def cib_spectrum(lmax: int) -> np.ndarray:
    """C_ell of the CIB-like background before the beam, ``(lmax + 1,)`` uK_RJ^2, no monopole."""
    ell = np.arange(lmax + 1, dtype=np.float64)
    return np.where(ell > 0, DUST.cib_power * (np.maximum(ell, 1) / 100) ** DUST.cib_slope, 0.0)


def _observe(
    skies: list[PhaseSky], axis: VelocityAxis, config: GalaxyConfig, window: np.ndarray, report: Callable[[str], None]
) -> np.ndarray:
    """Brightness ``(npix, nchan)`` float32 K: each channel through the beam, plus white noise per pixel."""
    rng = _generator(config, _CUBE_NOISE_STREAM)
    cube = np.empty((skies[0].column.size, len(axis)), dtype=np.float32)
    for channel, brightness in enumerate(channel_maps(skies, axis)):
        noise = 1e-3 * config.noise_mk * rng.standard_normal(len(cube), dtype=np.float32)
        cube[:, channel] = smooth(brightness, window) + noise
        if (channel + 1) % 16 == 0 or channel + 1 == len(axis):
            report(f"HI cube: {channel + 1}/{len(axis)} channels")
    return cube
