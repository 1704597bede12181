"""One map's way through harmonic space: analysis, frame, beam, pixel window, low-pass, synthesis at another Nside.

Conventions: maps are NEST without gaps, ``(nmap, npix)``, or ``(nmap, 2, npix)`` (Q, U) with spin 2.  All gains are at
most one (see ``harmonics.filters``): nothing is deconvolved.  The pixel window is either kept as it is in the input or
brought to that of the output's pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sphereml.config.survey import FilterConfig
from sphereml.errors import UserError
from sphereml.harmonics.filters import (
    beam_change,
    butterworth,
    multiply,
    pixel_window_change,
    rotate_to_galactic,
)
from sphereml.harmonics.rings import alm_size
from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.sky.grid import HealpixGrid


@dataclass(frozen=True)
class MapKind:
    """What the filter must know of the maps it is for; ``beam_arcmin`` None where it is not known."""

    name: str
    nside: int
    beam_arcmin: float | None
    frame: str = "G"


@dataclass(frozen=True, eq=False)
class MapFilter:
    """Made by :func:`design_filter`.

    Args:
        kind: of the maps that go in.
        nside: of the maps that come out.
        gain: ``(lmax + 1,)``.
        iterations: of the analysis.
        beam_arcmin: of the maps that come out, but for the low-pass; None where it is not known.
        band_limited: the caller named an lmax, so even a gain of one changes the maps.
    """

    kind: MapKind
    nside: int
    gain: np.ndarray
    iterations: int
    beam_arcmin: float | None
    band_limited: bool = False

    @property
    def lmax(self) -> int:
        return len(self.gain) - 1

    @property
    def changes_nothing(self) -> bool:
        """Nothing was asked for, so pixels stay as they are and no transform is made."""
        if self.band_limited or self.kind.nside != self.nside or self.kind.frame != "G":
            return False
        return bool((self.gain == 1).all())

    def apply(self, maps: np.ndarray, spin: int = 0) -> np.ndarray:
        """Maps ``(nmap, npix_in)`` without NaN -> float32 ``(nmap, npix_out)``; ``(nmap, 2, npix)`` with a spin.

        E and B turn with the sky's frame as scalars do, and take Q and U with them.
        """
        if self.changes_nothing:
            return maps.astype(np.float32, copy=False)
        alm = analysis(maps, self.lmax, spin, self.iterations)
        alm = multiply(rotate_to_galactic(alm, self.lmax, self.kind.frame), self.gain)
        return synthesis(alm, self.nside, self.lmax, spin).astype(np.float32)

    def bytes_per_map(self) -> int:
        """Memory that :meth:`apply` needs for each map at its peak, input and result included."""
        pixels_in, pixels_out = HealpixGrid(self.kind.nside).npix, HealpixGrid(self.nside).npix
        alm = 16 * alm_size(self.lmax)
        repeated = 16 * pixels_in + alm if self.iterations else 0
        return 4 * pixels_in + alm + max(repeated, 12 * pixels_out)


def design_filter(config: FilterConfig, kind: MapKind) -> MapFilter:
    """The filter of maps of one kind.

    Raises:
        UserError: lmax beyond what the grids carry, a beam or pixel narrower than the input's, an unknown beam that
            would have to be changed.
    """
    lower = min(kind.nside, config.nside)
    lmax = config.lmax or 2 * lower
    if lmax > 3 * lower - 1:
        raise UserError(f"lmax={lmax} is beyond maps of Nside {lower} ({kind.name})", f"give {2 * lower} or less")
    gain, beam = np.ones(lmax + 1), kind.beam_arcmin
    if config.butterworth_ell:
        gain = gain * butterworth(lmax, config.butterworth_ell, config.butterworth_order)
    if config.beam_arcmin:
        gain, beam = gain * _beam_gain(lmax, config.beam_arcmin, kind), config.beam_arcmin
    if config.pixel_window == "match":
        gain = gain * pixel_window_change(lmax, kind.nside, config.nside, kind.name)
    return MapFilter(kind, config.nside, gain, config.iterations, beam, band_limited=config.lmax > 0)


def _beam_gain(lmax: int, wanted: float, kind: MapKind) -> np.ndarray:
    if kind.beam_arcmin is None:
        raise UserError(
            f"the beam of {kind.name} is not known, so it cannot be brought to {wanted:g} arcmin",
            "give the beam_arcmin of the file, or ask for no common beam (beam_arcmin=0)",
        )
    return beam_change(lmax, kind.beam_arcmin, wanted, kind.name)
