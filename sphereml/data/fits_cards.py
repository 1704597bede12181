"""The cards that decide what the numbers of a FITS file mean: sky frame, pixel order, sign of Stokes U, counts.

A card that is absent is never guessed: the caller may bring what the archive's documentation says, and is asked for it
otherwise.  A card in the file always decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sphereml.errors import UserError

_FRAMES = {"G": "G", "C": "C", "E": "E", "Q": "C"}
_FRAME_NAMES = {"C": "equatorial", "E": "ecliptic"}


def integer_card(
    header: Mapping[str, Any], key: str, name: str, bounds: tuple[int, int], otherwise: int | None = None
) -> int:
    """A whole number within ``bounds``, or ``otherwise`` where the card is absent.

    Raises:
        UserError: the card is absent without an ``otherwise``, no whole number, or out of bounds.
    """
    value = header.get(key, otherwise)
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    if value is None or not whole or not bounds[0] <= value <= bounds[1]:
        stated = "no" if value is None else f"the impossible {value!r} as its"
        raise UserError(f"{name} has {stated} {key} card", "mend its header, or fetch it again")
    return int(value)


def number_card(header: Mapping[str, Any], key: str) -> float | None:
    """A card's number; None where it is absent or holds something else."""
    value = header.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def sky_frame(header: Mapping[str, Any], name: str, otherwise: str = "") -> str:
    """``"G"``, ``"C"`` or ``"E"``, from the COORDSYS card, or from ``otherwise`` where there is none.

    Raises:
        UserError: neither says the frame.
    """
    stated = str(header.get("COORDSYS", "")).strip().upper() or otherwise.upper()
    frame = _FRAMES.get("C" if stated.startswith("EQ") else stated[:1])
    if frame is None:
        raise UserError(
            f"{name} does not say its frame (COORDSYS={stated!r})",
            "set COORDSYS to 'G', or `frame: G` beside it in a configuration, if it is Galactic",
        )
    return frame


def galactic_frame(header: Mapping[str, Any], name: str, otherwise: str = "") -> str:
    """``"G"``, as :func:`sky_frame`; raises UserError for every other frame."""
    frame = sky_frame(header, name, otherwise)
    if frame != "G":
        raise UserError(
            f"{name} is in the {_FRAME_NAMES[frame]} frame (COORDSYS={header.get('COORDSYS', otherwise)!r})",
            f"rotate it to Galactic: healpy.Rotator(coord=['{frame}', 'G']).rotate_map_alms, or data.nside=NSIDE in a "
            "configuration",
        )
    return frame


def is_nested(header: Mapping[str, Any], name: str, otherwise: str = "") -> bool:
    """The order of pixels, from the ORDERING card, or from ``otherwise`` (RING or NESTED) where there is none.

    Raises:
        UserError: neither says the order.
    """
    stated = str(header.get("ORDERING", "")).strip().upper() or otherwise.upper()
    if stated not in ("RING", "NEST", "NESTED"):
        raise UserError(
            f"{name} has no valid ORDERING card ({stated!r})", "set it, or the reader's `order`, to 'RING' or 'NESTED'"
        )
    return stated != "RING"


def is_iau(header: Mapping[str, Any], otherwise: str = "") -> bool:
    """Whether Stokes U has the sign of the IAU and not HEALPix's own, COSMO: the card POLCCONV, or else ``otherwise``.

    Raises:
        UserError: ``otherwise`` is neither.
    """
    if otherwise.upper() not in ("", "COSMO", "IAU"):
        raise UserError(f"polcconv={otherwise!r} is no sign of Stokes U", "say COSMO or IAU")
    return str(header.get("POLCCONV", otherwise)).strip().upper() == "IAU"
