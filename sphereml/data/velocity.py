"""The velocity axis of a spectral cube: from header cards to LSR km/s, channel selection and rebinning.

Conventions: velocities are LSRK (the kinematic LSR), km/s, in the radio convention ``v = c (1 - f / f0)``, whatever the
file uses.  An axis is its channel edges, in the order of the file, so channels touch and ``int T dv`` is a sum.  Header
pixels count from 1 (FITS): the centre of the first channel is at pixel 1, its edges at 1/2 and 3/2.  Units that a
header leaves out are SI (m/s, Hz), FITS standard 4.0, section 4.3; a frame that it leaves out is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sphereml.data.cube_headers import matrix_elements
from sphereml.errors import UserError

SPEED_OF_LIGHT = 299_792.458  # km/s
# A bound this close to a channel's centre, in channel widths, counts as that centre: bounds are printed rounded.
_ROUNDING = 1e-3
# Channels of 21 cm cubes; outside this range the unit of the axis must be wrong.
_PLAUSIBLE_WIDTH = (0.01, 100.0)
_LSR = ("LSR", "LSRK")
# AIPS memo 27: VELREF is 1 LSR, 2 barycentric, 3 observer, plus 256 for the radio convention.
_VELREF_FRAMES = {1: "LSR", 2: "BARYCENT", 3: "TOPOCENT"}
_CONVENTIONS = {"VRAD": "radio", "VELO": "radio", "VELOCITY": "radio", "VOPT": "optical", "FELO": "optical-frequency"}
_KINDS = (*_CONVENTIONS, "FREQ")
_SCALES = {"m/s": 1e-3, "km/s": 1.0, "hz": 1.0, "khz": 1e3, "mhz": 1e6, "ghz": 1e9}


@dataclass(frozen=True, eq=False)
class VelocityAxis:
    """Channels by their edges.

    Args:
        edges: ``(nchan + 1,)`` float64 LSR km/s, strictly ascending or strictly descending.
    Raises:
        UserError: fewer than one channel, or the edges are not monotonic.
    """

    edges: np.ndarray

    def __post_init__(self) -> None:
        steps = np.diff(self.edges)
        if self.edges.ndim != 1 or not steps.size or not (np.all(steps > 0) or np.all(steps < 0)):
            raise UserError("the velocity axis has no channels in one direction", "check CDELT3 and the channel count")

    @classmethod
    def uniform(cls, first: float, width: float, channels: int) -> VelocityAxis:
        """Channels whose first centre is ``first`` and whose step is ``width``, km/s (negative: descending)."""
        return cls(first + width * (np.arange(channels + 1) - 0.5))

    @cached_property
    def centres(self) -> np.ndarray:
        """``(nchan,)`` km/s, in the order of the file."""
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2)

    @cached_property
    def widths(self) -> np.ndarray:
        """``(nchan,)`` km/s, positive."""
        return np.abs(np.diff(self.edges))

    def __len__(self) -> int:
        return self.edges.size - 1

    def matches(self, other: VelocityAxis) -> bool:
        """Whether both have the same channels, to a thousandth of a channel."""
        if len(self) != len(other):
            return False
        return bool(np.abs(self.edges - other.edges).max() < _ROUNDING * self.widths.min())

    def select(self, low: float, high: float) -> np.ndarray:
        """Channels whose *centre* lies in ``[low, high]`` km/s, ends included: int64 indices in the order of the file.

        A bound within a thousandth of a channel of a centre counts as that centre.  For HI4PI (933 channels of
        1.28821496 km/s, zero at pixel 466) ``select(-64.5, 17)`` gives 64 channels, centres -64.41 to 16.75 km/s.

        Raises:
            UserError: no channel is there, or the axis ends before a bound.
        """
        slack = _ROUNDING * float(self.widths.min())
        chosen = np.flatnonzero((self.centres >= low - slack) & (self.centres <= high + slack))
        if not chosen.size:
            raise UserError(f"no channel has its centre in {low:g} to {high:g} km/s", f"the axis is {self.span}")
        self._refuse_outside(low + slack, high - slack)
        return chosen

    def subset(self, channels: np.ndarray) -> VelocityAxis:
        """The axis of consecutive channels, as :meth:`select` gives them; raises UserError when they are not."""
        if not len(channels) or np.any(np.diff(channels) != 1):
            raise UserError("the chosen channels are not consecutive", "choose one range of velocities")
        return VelocityAxis(self.edges[channels[0] : channels[-1] + 2])

    def rebinning(self, wanted: VelocityAxis) -> np.ndarray:
        """Weights ``W`` float64 ``(len(wanted), len(self))`` such that ``T_wanted = W @ T``.

        ``W[j, i]`` is the overlap of channels j and i over the width of j, so ``sum T dv`` over any union of wanted
        channels is that of the same velocities before; a constant spectrum stays constant (rows sum to one).

        Raises:
            UserError: a wanted channel reaches beyond this axis.
        """
        self._refuse_outside(wanted.edges.min(), wanted.edges.max())
        low, high = _ordered(self.edges)
        wanted_low, wanted_high = _ordered(wanted.edges)
        overlap = np.minimum(wanted_high[:, None], high) - np.maximum(wanted_low[:, None], low)
        weights = overlap.clip(min=0)
        # Rows are one up to the rounding at the ends of the axis that `_refuse_outside` lets pass.
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    @property
    def span(self) -> str:
        """The range in words, for messages."""
        return f"{self.edges.min():.1f} to {self.edges.max():.1f} km/s"

    def _refuse_outside(self, low: float, high: float) -> None:
        slack = _ROUNDING * float(self.widths.min())
        if low < self.edges.min() - slack or high > self.edges.max() + slack:
            raise UserError(
                f"{low:.1f} to {high:.1f} km/s reaches beyond the velocity axis", f"stay within its {self.span}"
            )


@dataclass(frozen=True)
class _SpectralCards:
    """One axis of a header as it stands there: CTYPE, CUNIT, CRPIX, CRVAL, and the step along it."""

    kind: str
    unit: str
    pixel: float
    value: float
    step: float


def spectral_axis_number(header: Mapping[str, Any], axes: int = 9) -> int | None:
    """Which of the first ``axes`` image axes (from 1) is spectral by its CTYPE, or None."""
    for number in range(1, axes + 1):
        if str(header.get(f"CTYPE{number}", "")).strip().upper().split("-")[0] in _KINDS:
            return number
    return None


def velocity_axis(
    header: Mapping[str, Any], channels: int, name: str, frame: str = "", column: int = 0
) -> VelocityAxis:
    """The velocity axis that a header describes.

    Understood are VRAD, VELO (with or without -LSR, -LSRK), VOPT, FELO and VOPT-F2W (optical velocity on a grid linear
    in frequency), and FREQ with RESTFRQ.  VELO is radio unless VELREF says optical.  For a table the cards may be those
    of an image axis, copied from the cube, or those of the vector column (``1CTYPn``, ``1CRPXn``, ...).

    Args:
        header: cards of the image or table.
        channels: length of the axis.
        name: file, for messages.
        frame: the velocity frame where the header has none, e.g. ``"LSRK"`` from the archive's documentation.
        column: number (from 1) of the table's column, 0 for an image.
    Raises:
        UserError: no spectral axis, a frame that is not LSR, an unknown unit, no rest frequency, implausible channels.
    """
    cards = _spectral_cards(header, name, column)
    _refuse_other_frames(header, cards.kind, frame, name)
    pixels = np.arange(channels + 1) + 0.5
    axis = VelocityAxis(_radio_velocity(cards, pixels, header, name))
    low, high = _PLAUSIBLE_WIDTH
    if not (low <= axis.widths.min() and axis.widths.max() <= high):
        raise UserError(
            f"{name} has channels of {axis.widths.mean():g} km/s (its CUNIT is {cards.unit or 'absent'!r})",
            "correct the unit of its spectral axis",
        )
    return axis


def _spectral_cards(header: Mapping[str, Any], name: str, column: int) -> _SpectralCards:
    number = spectral_axis_number(header)
    keys = [f"{key}{number}" for key in ("CTYPE", "CUNIT", "CRPIX", "CRVAL", "CDELT")]
    if number is None and column:
        keys = [f"1{key}{column}" for key in ("CTYP", "CUNI", "CRPX", "CRVL", "CDLT")]
    if keys[0] not in header:
        raise UserError(f"{name} has no velocity axis", "give the axis, or a file with CTYPE3 VRAD, VELO or FREQ")
    step = _step(header, number, keys[4])
    absent = [key for key in keys[2:4] if key not in header] + ([keys[4]] if step is None else [])
    if absent or step is None:
        raise UserError(f"{name} has a velocity axis without {absent[0]}", "add the card, or fetch the file again")
    kind, unit = (str(header.get(key, "")).strip() for key in keys[:2])
    return _SpectralCards(kind.upper(), unit, float(header[keys[2]]), float(header[keys[3]]), step)


def _step(header: Mapping[str, Any], number: int | None, delta: str) -> float | None:
    """The step a pixel: CDi_i, or CDELTi (1 beside a PC matrix) times PCi_i; None where none of them stands there."""
    matrix = {} if number is None else matrix_elements(header)
    turned = matrix.get(("CD", number, number)) if number else None
    if turned is not None:
        return turned
    scale = matrix.get(("PC", number, number)) if number else None
    if delta not in header:
        return scale
    return float(header[delta]) * (1.0 if scale is None else scale)


def _refuse_other_frames(header: Mapping[str, Any], kind: str, frame: str, name: str) -> None:
    suffix = kind.partition("-")[2]
    velref = int(header.get("VELREF", 0))
    stated = {
        str(header.get("SPECSYS", "")).strip().upper(),
        "" if suffix in ("F2W", "W2F") else suffix,
        _VELREF_FRAMES.get(velref % 256, "") if velref > 0 else "",
    } - {""} or {frame.upper()} - {""}
    others = sorted(stated - set(_LSR))
    if others:
        raise UserError(f"{name} has velocities in the frame {others[0]!r}, not LSR", "transform it to LSRK first")
    if not stated:
        raise UserError(f"{name} does not say the frame of its velocities", "set SPECSYS to 'LSRK' if it is the LSR")


def _radio_velocity(cards: _SpectralCards, pixels: np.ndarray, header: Mapping[str, Any], name: str) -> np.ndarray:
    """Radio velocity, km/s, at header pixels (from 1)."""
    scale = _scale(cards, name)
    value, step = cards.value * scale, cards.step * scale
    world = value + step * (pixels - cards.pixel)
    convention = _convention(cards.kind, int(header.get("VELREF", 0)))
    if convention == "frequency":
        return np.asarray(SPEED_OF_LIGHT * (1 - world / _rest_frequency(header, name)))
    if convention == "radio":
        return world
    if convention == "optical":
        return np.asarray(SPEED_OF_LIGHT * (1 - 1 / (1 + world / SPEED_OF_LIGHT)))
    # Linear in frequency, with the optical velocity v and its step given at the reference pixel:
    # f / f0 = 1 / (1 + v / c) there, and d(f / f0) = -dv / c / (1 + v / c)^2 per pixel (Greisen et al. 2006, sec. 3).
    stretch = 1 + value / SPEED_OF_LIGHT
    ratio = 1 / stretch - step / SPEED_OF_LIGHT / stretch**2 * (pixels - cards.pixel)
    return np.asarray(SPEED_OF_LIGHT * (1 - ratio))


def _convention(kind: str, velref: int) -> str:
    family = kind.split("-")[0]
    if family == "FREQ":
        return "frequency"
    if kind == "VOPT-F2W":
        return "optical-frequency"
    # AIPS: VELO and FELO take their convention from VELREF where it is set.
    if family == "VELO" and 0 < velref < 256:
        return "optical"
    if family == "FELO" and velref > 256:
        return "radio"
    return _CONVENTIONS[family]


def _scale(cards: _SpectralCards, name: str) -> float:
    frequency = cards.kind.startswith("FREQ")
    unit = cards.unit.lower().replace(" ", "").replace("s-1", "/s").replace("s^/", "/s").replace("m.", "m")
    unit = unit or ("hz" if frequency else "m/s")
    if unit not in _SCALES or unit.endswith("hz") != frequency:
        raise UserError(f"{name} has its velocity axis in unknown unit {cards.unit!r}", "use m/s, km/s or Hz")
    return _SCALES[unit]


def _rest_frequency(header: Mapping[str, Any], name: str) -> float:
    frequency = float(header.get("RESTFRQ", header.get("RESTFREQ", 0)))
    if frequency <= 0:
        raise UserError(f"{name} has a frequency axis without RESTFRQ", "add the card (HI: 1420405751.768 Hz)")
    return frequency


def _ordered(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of each channel."""
    return np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])
