"""The 21 cm spectral cube of given gas: line profiles integrated over channels, seen through a beam.

Conventions: LSR km/s, brightness temperature K, optically thin gas, ``N_HI = 1.823e18 cm^-2 / (K km/s) * int T dv``.
Channels are ``(npix,)`` NEST maps, made one at a time so that memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import erf

from sphereml.data.velocity import VelocityAxis
from sphereml.simulate.phases import PhaseSky

COLUMN_PER_BRIGHTNESS = 1.823e18  # cm^-2 per K km/s


def gas_below(skies: Sequence[PhaseSky], velocity: float) -> np.ndarray:
    """Column of all phases moving slower than ``velocity`` (km/s), ``(npix,)`` cm^-2, before the beam."""
    total = np.zeros_like(skies[0].column)
    for sky in skies:
        depth = (velocity - sky.velocity) / (np.sqrt(2) * sky.phase.line_width)
        total += 0.5 * sky.column * (1 + erf(depth))
    return total


def channel_maps(skies: Sequence[PhaseSky], axis: VelocityAxis) -> Iterator[np.ndarray]:
    """Mean brightness (K) in each channel in turn, before the beam.

    The difference of cumulative profiles at the channel's edges conserves the flux whatever the line width.
    """
    lower = gas_below(skies, axis.edges[0])
    for edge, width in zip(axis.edges[1:], axis.widths, strict=True):
        upper = gas_below(skies, edge)
        yield (upper - lower) / (COLUMN_PER_BRIGHTNESS * width)
        lower = upper
