"""The sky coordinates of a cube's first two axes, whatever else its header says of its other axes.

Only cards of axes 1 and 2 are taken: headers keep cards of axes that are gone (Stokes), and legacy spectral cards.
Pixel steps may stand in CDELTi, in a PC matrix beside it, or in a CD matrix (Greisen & Calabretta 2002, section 2.1);
older names of the matrices (``PC01_01``, ``PC001001``) are understood.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS

from sphereml.errors import UserError

_AXIS_CARDS = ("CTYPE", "CUNIT", "CRPIX", "CRVAL", "CDELT", "CROTA")
_COMMON_CARDS = ("LONPOLE", "LATPOLE", "RADESYS", "RADECSYS", "EQUINOX", "EPOCH")
_MATRIX = re.compile(r"(PC|CD)(?:0*(\d)_0*(\d)|00(\d)00(\d))")


def celestial_wcs(header: fits.Header, name: str) -> WCS:
    """World coordinates of axes 1 and 2 alone.

    Raises:
        UserError: they are no sky coordinates, or a matrix mixes them with another axis.
    """
    matrix = matrix_elements(header)
    for (kind, row, column), value in matrix.items():
        if value and (row <= 2) != (column <= 2):
            raise UserError(
                f"{name} turns its sky axes into others ({kind}{row}_{column}={value:g})", "resample it to upright axes"
            )
    try:
        with warnings.catch_warnings(action="ignore", category=AstropyWarning):
            wcs = WCS(_flat_header(header, matrix))
    except Exception as error:  # wcslib has a dozen exceptions of its own, without a common base
        raise UserError(f"the sky coordinates of {name} are not understood ({error})", "mend its header") from None
    if not wcs.has_celestial or wcs.naxis != 2:
        raise UserError(f"{name} has no sky coordinates on its first two axes", "give a cube of sky x sky x velocity")
    return wcs


def matrix_elements(header: Mapping[str, Any]) -> dict[tuple[str, int, int], float]:
    """Elements of the PC or CD matrix that a header states: (``PC`` or ``CD``, row, column) -> value."""
    found = {}
    for key in header:
        match = _MATRIX.fullmatch(str(key))
        if match and isinstance(header[key], int | float):
            kind, *places = (group for group in match.groups() if group is not None)
            row, column = map(int, places)
            found[kind, row, column] = float(header[key])
    return found


def _flat_header(header: fits.Header, matrix: Mapping[tuple[str, int, int], float]) -> fits.Header:
    flat = fits.Header()
    flat["NAXIS"] = 2
    keys = [f"{card}{axis}" for axis in (1, 2) for card in ("NAXIS", *_AXIS_CARDS)]
    projection = [key for key in header if re.fullmatch(r"P[VS][12]_\d+", str(key))]
    for key in [*keys, *projection, *_COMMON_CARDS]:
        if key in header:
            flat[key] = header[key]
    flat.update({f"{kind}{i}_{j}": value for (kind, i, j), value in matrix.items() if i <= 2 and j <= 2})
    return flat
