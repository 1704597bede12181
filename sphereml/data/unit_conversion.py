"""Factors between units of maps at one frequency: brightness temperatures, thermodynamic temperature, MJy/sr.

Rayleigh-Jeans: ``I = 2 nu^2 k T / c^2``; thermodynamic: the derivative of the Planck function at 2.7255 K (Fixsen
2009).  Bands are not integrated over: the frequency is the one at which the map is given.
"""

from __future__ import annotations

import numpy as np
from scipy.constants import c, h, k

from sphereml.errors import UserError

CMB_TEMPERATURE = 2.7255
_PREFIX = {"uK_RJ": 1e-6, "uK_CMB": 1e-6, "mK_CMB": 1e-3, "K_CMB": 1.0, "K": 1.0, "mK": 1e-3}
_THERMODYNAMIC = {"uK_CMB", "mK_CMB", "K_CMB"}
# W m^-2 Hz^-1 sr^-1.
_INTENSITIES = {"MJy/sr": 1e-20, "kJy/sr": 1e-23, "Jy/sr": 1e-26}


def conversion_factor(unit: str, wanted: str, frequency_ghz: float = 0.0) -> float:
    """What turns values in ``unit`` into values in ``wanted``, both as in ``units.KNOWN_UNITS``.

    Raises:
        UserError: one is not convertible into the other, or the frequency is needed and not given.
    """
    if unit == wanted:
        return 1.0
    if {unit, wanted} <= {"K", "mK", "uK_RJ"} or {unit, wanted} <= _THERMODYNAMIC:
        return _PREFIX[unit] / _PREFIX[wanted]
    if {unit, wanted} <= set(_INTENSITIES):
        return _INTENSITIES[unit] / _INTENSITIES[wanted]
    if not {unit, wanted} <= {*_PREFIX, *_INTENSITIES}:
        raise UserError(f"{unit or 'a pure number'} cannot become {wanted}", "choose another convert_to, or none")
    if frequency_ghz <= 0:
        raise UserError(f"{unit} becomes {wanted} only at a frequency", "give frequency_ghz")
    return _intensity(unit, 1e9 * frequency_ghz) / _intensity(wanted, 1e9 * frequency_ghz)


def _intensity(unit: str, frequency: float) -> float:
    """One of ``unit`` in W m^-2 Hz^-1 sr^-1."""
    if unit in _INTENSITIES:
        return _INTENSITIES[unit]
    rayleigh_jeans = 2 * k * (frequency / c) ** 2
    if unit not in _THERMODYNAMIC:
        return float(rayleigh_jeans * _PREFIX[unit])
    x = h * frequency / (k * CMB_TEMPERATURE)
    return float(rayleigh_jeans * _PREFIX[unit] * x**2 * np.exp(x) / np.expm1(x) ** 2)
