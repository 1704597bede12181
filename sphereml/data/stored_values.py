"""From the numbers that a FITS file stores to physical ones, and which of them stand for no data.

Physical values are ``zero + scale * stored``.  A value is missing (NaN) when it is not finite, when it is the blank
that a card states (BLANK, TNULLn: in stored numbers; BAD_DATA: in either), or when it is HEALPix's UNSEEN.  Arithmetic
turns UNSEEN into other numbers of absurd size; see :func:`mark_absurd`.  FITS standard 4.0, sections 4.4.2 and 7.3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sphereml.data.fits_cards import number_card

UNSEEN = -1.6375e30
# Cards are decimal and columns often float32, whose spacing is 6e-8 of the value.
_ROUNDING = 1e-6
# No unit gives a sky such values beside ordinary ones: UNSEEN times 1e-12 is still beyond the first.
_LARGE, _ABSURD = 1e15, 1e25
_GAP = 1e8


@dataclass(frozen=True)
class Scaling:
    """How stored numbers become physical ones.

    Args:
        scale, zero: of ``zero + scale * stored``.
        blank: the stored number that means no data (integers; floats too where someone wrote so).
        bad: the number that BAD_DATA states, stored or physical.
    """

    scale: float = 1.0
    zero: float = 0.0
    blank: float | None = None
    bad: float | None = None

    @classmethod
    def of_image(cls, header: Mapping[str, Any]) -> Scaling:
        scale, zero = number_card(header, "BSCALE"), number_card(header, "BZERO")
        return cls(
            1.0 if scale is None else scale, zero or 0.0, number_card(header, "BLANK"), number_card(header, "BAD_DATA")
        )

    @property
    def changes_values(self) -> bool:
        return (self.scale, self.zero) != (1.0, 0.0)

    def apply(self, stored: np.ndarray, dtype: type[np.floating[Any]] = np.float32) -> np.ndarray:
        """Physical values, native ``dtype`` (no copy where nothing changes), NaN where there are no data."""
        # Damaged cards and cells hold numbers of any size; what overflows is infinite, hence missing.
        with np.errstate(all="ignore"):
            values = stored.astype(dtype, copy=False)
            if self.changes_values:
                values = (self.zero + self.scale * stored.astype(np.float64)).astype(dtype)
            missing = ~np.isfinite(values) | _equal(values, UNSEEN)
            for sentinel in (self.blank, self.bad):
                if sentinel is not None:
                    missing |= _equal(stored, sentinel)
            if self.bad is not None:
                missing |= _equal(values, self.bad)
        return np.where(missing, dtype(np.nan), values) if missing.any() else values


def mark_absurd(values: np.ndarray) -> np.ndarray:
    """One column ``(npix,)`` with NaN where UNSEEN went through arithmetic before the file was written.

    Marked are values beyond 1e15 in size that lie eight decades above all others, if they are negative, equal to each
    other, or beyond 1e25: gas columns (1e20 cm^-2) beside a few small numbers stay, and so does a map all of whose
    values are large.
    """
    size = np.abs(values)
    large = size > _LARGE
    if not large.any():
        return values
    ordinary, suspect = size[~large & (size > 0)], size[large]
    if not ordinary.size or suspect.min() < _GAP * ordinary.max():
        return values
    equal = suspect.max() - suspect.min() <= _ROUNDING * suspect.max()
    absurd = large & ((values < 0) | (size > _ABSURD) | equal)
    return np.where(absurd, values.dtype.type(np.nan), values)


def _equal(values: np.ndarray, sentinel: float) -> np.ndarray:
    if values.dtype.kind in "iu":
        return np.asarray(values == sentinel)
    return np.asarray(np.abs(values - values.dtype.type(sentinel)) <= _ROUNDING * abs(sentinel))
