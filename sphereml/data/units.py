"""Units of maps: one spelling of each inside the package, many accepted at the FITS border.

Conventions: ``uK_CMB`` is thermodynamic and ``uK_RJ`` Rayleigh-Jeans temperature; a bare ``uK`` does not say which, so
it is understood but must be made definite by whoever reads the file.  ``K`` and ``mK`` are brightness temperatures.
The empty unit is a pure number (masks).  Factors are never swallowed: ``1e20 cm^-2`` is not ``cm^-2``.
"""

from __future__ import annotations

import re

from sphereml.errors import UserError

_KELVIN = r"k(?:elvin)?"
_MILLI = r"(?:m|milli)"
_MICRO = r"(?:u|µ|μ|mu|\\mu|micro)"
_CMB = r"(?:cmb|,?thermo(?:dynamic)?)"
_RJ = r"(?:rj|antenna)"

# Matched against the text without blanks, brackets, "_", "^", "*" and "."; the order does not matter.
_SPELLINGS: dict[str, str] = {
    "K": rf"K|Kelvin|kelvin|K(?i:{_RJ}|tb|tmb)",
    "mK": rf"mK|milliK|milliKelvin|mK(?i:{_RJ})",
    "uK": rf"(?i:{_MICRO}{_KELVIN})",
    "K_CMB": rf"(?i:{_KELVIN}{_CMB})",
    "uK_CMB": rf"(?i:{_MICRO}{_KELVIN}{_CMB})",
    "mK_CMB": rf"(?:{_MILLI}(?i:{_KELVIN}{_CMB}))",
    "uK_RJ": rf"(?i:{_MICRO}{_KELVIN}{_RJ})",
    "MJy/sr": r"MJy(?:/sr|sr-1)",
    "kJy/sr": r"kJy(?:/sr|sr-1)",
    "Jy/sr": r"Jy(?:/sr|sr-1)",
    # Rayleighs of H-alpha, and magnitudes of reddening.
    "R": r"R|(?i:rayleighs?)",
    "mag": r"(?i:mag(?:nitudes?)?)",
    "cm^-2": r"(?i:(?:1|atoms|h)?(?:/cm2|cm-2))",
    "K km/s": r"Kkm(?:/s|s-1)",
    # Planck's masks say "none".
    "": r"(?i:1|dimensionless|unitless|none|n/a)?",
}

KNOWN_UNITS: tuple[str, ...] = tuple(_SPELLINGS)


def parse_unit(text: str) -> str:
    """The package's spelling of a unit, one of :data:`KNOWN_UNITS`, e.g. ``"1/cm2"`` -> ``"cm^-2"``.

    Raises:
        UserError: the unit is not known.
    """
    bare = re.sub(r"[\s_^*.{}()\[\]]", "", text)
    for unit, pattern in _SPELLINGS.items():
        if re.fullmatch(pattern, bare):
            return unit
    known = ", ".join(unit for unit in KNOWN_UNITS if unit)
    raise UserError(f"unknown unit {text!r}", f"use one of {known}")


def reconcile_units(stated: str, asked: str, name: str) -> str:
    """The unit of data whose file says ``stated`` and whose reader was told ``asked``; either may be empty.

    Args:
        stated, asked: spellings as found; blank means that nothing was said.
        name: file or column, for the message.
    Raises:
        UserError: neither says a unit, they disagree, or the unit is unknown or a bare ``uK``.
    """
    if not stated.strip() and not asked.strip():
        raise UserError(
            f"{name} states no unit",
            "give it: `unit: uK_RJ` in a configuration, --unit or --template-unit on the command line",
        )
    said = {parse_unit(text) for text in (stated, asked) if text.strip()}
    if said == {"uK"}:
        raise UserError(
            f"{name} says uK but not which temperature",
            "give `unit: uK_CMB` or `unit: uK_RJ` in a configuration, --unit or --template-unit on the command line",
        )
    if "uK" in said and said & {"uK_CMB", "uK_RJ"}:
        said.remove("uK")
    if len(said) > 1:
        raise UserError(f"{name} is in {stated!r} but the unit asked for is {asked!r}", "correct or drop `unit`")
    return said.pop()
