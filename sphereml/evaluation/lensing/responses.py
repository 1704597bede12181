"""Does an estimate follow the sky or its training set?  Slopes of its signal power over fiducials, by band.

Conventions: those of :mod:`sphereml.evaluation.response`; powers are those of patches drawn with equal phases for every
fiducial, filters, R and mean fields stay fiducial.  The power of an estimate less the noise bias of its own fiducial is
that of the part of it that follows the truth,

    <C^{hat k hat k}> - <|hat k - g k|^2> = g^2 <C^kk>,   g = <C^{hat k, k}> / <C^kk>,

over R^2 of the fiducial skies.  A prior amplitude multiplied onto the true phases has slope 0, as has a mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sphereml.evaluation.response import Response, response
from sphereml.lensing.patch_spectra import PatchPowers, response_of

A_LENS = (0.8, 1.0, 1.2)


def signal_power(powers: PatchPowers, calibrated: np.ndarray) -> np.ndarray:
    """Rows ``(patch, band)`` whose mean is ``g^2 <C^kk> / R^2``, and whose scatter is that of the mean to first order.

    Args:
        calibrated: R of the fiducial skies, ``(band,)``; where it is 0, nothing is recovered.
    """
    gain = response_of(powers.stacked.mean(axis=0))
    rows = 2 * gain * powers.cross - gain**2 * powers.truth
    return np.divide(rows, calibrated**2, out=np.zeros_like(rows), where=calibrated**2 > 0)


def response_slope(fiducials: Mapping[float, PatchPowers], calibrated: np.ndarray, groups: np.ndarray) -> Response:
    """Slope of recovered against true power over fiducials, whose patches share phases and ``groups`` ``(patch,)``."""
    recovered = np.concatenate([signal_power(powers, calibrated) for powers in fiducials.values()])
    true = np.concatenate([powers.truth for powers in fiducials.values()])
    labels = np.repeat(list(fiducials), len(groups))
    return response(recovered, true, labels, np.tile(groups, len(fiducials)))
