"""Polarized dust of the synthetic Galaxy: the phases' dust, each polarized across its own magnetic field.

Conventions: uK_RJ at 353 GHz, NEST, Stokes ``(npix, 2)`` Q and U in the COSMO sign, float32, at the beam's resolution.

    Q + iU = - sum over phases of p_phase (dust of the phase) z_phase   (+ noise)

with z the field of :mod:`sphereml.simulate.magnetic_field`; the minus sign turns the polarization across the field.
Dark gas is cold gas unseen at 21 cm and shares its field.  Each phase has its own field, so phases on one line of sight
depolarize each other, by shares that the line profile tells and the column does not.  CIB is unpolarized.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sphereml.simulate.fields import smooth


@dataclass(frozen=True, eq=False)
class Emission:
    """Dust of one kind before the beam.

    Args:
        intensity: ``(npix,)`` uK_RJ.
        fraction: of it that is polarized where the field lies in the plane of the sky.
        field: z, complex ``(npix,)``; see :mod:`sphereml.simulate.magnetic_field`.
    """

    intensity: np.ndarray
    fraction: float
    field: np.ndarray


def polarize(emissions: dict[str, Emission], window: np.ndarray) -> dict[str, np.ndarray]:
    """Stokes parameters of each emission through the beam, ``(npix, 2)`` float32 uK_RJ.

    Args:
        window: harmonic window of the beam, ``(lmax + 1,)``.
    """
    parts = {}
    for name, emission in emissions.items():
        across = -emission.fraction * emission.intensity * emission.field
        stokes = smooth(np.stack([across.real, across.imag]), window, spin=2)
        parts[name] = stokes.T.astype(np.float32)
    return parts


@dataclass(frozen=True, eq=False)
class DustPolarization:
    """Stokes parameters of the dust, and the truth behind them.

    Args:
        stokes: ``(npix, 2)``, the sum of ``parts``.
        parts: ``cnm``, ``wnm``, ``ivc``, ``dark`` and ``noise``: ``(npix, 2)`` each.
        intensity: dust of every part but the noise, ``(npix,)``.
    """

    stokes: np.ndarray
    parts: dict[str, np.ndarray]
    intensity: dict[str, np.ndarray]

    @property
    def signal(self) -> np.ndarray:
        """The Stokes parameters without noise, ``(npix, 2)``."""
        return np.asarray(self.stokes - self.parts["noise"])

    def fraction(self, part: str) -> np.ndarray:
        """Polarization fraction of a part's own emission, ``(npix,)``."""
        return np.asarray(np.hypot(*self.parts[part].T) / self.intensity[part])

    def angle(self, part: str) -> np.ndarray:
        """Polarization angle of a part from south towards east, ``(npix,)`` degrees in [-90, 90].

        The magnetic field is at right angles to it.
        """
        q, u = self.parts[part].T
        return np.degrees(0.5 * np.arctan2(u, q))
