"""The columns of a FITS binary table, read by position: names may be absent, doubled or blank.

Layout (FITS standard 4.0, section 7.3): a row is the columns one after another, ``TFORMn = rT`` being r values of type
T.  Columns count from 0 here, cards from 1.  Numbers leave as native float32 (one and two-byte integers, logicals,
float32) or float64, missing ones as NaN; see :mod:`sphereml.data.stored_values`.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sphereml.data.fits_cards import integer_card, number_card
from sphereml.data.fits_files import Unit
from sphereml.data.stored_values import Scaling
from sphereml.errors import UserError

_FORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])")
# Bytes of one value; bits (X) are counted apart, P and Q are descriptors of values kept elsewhere.
_BYTES = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_NUMBERS = {"L": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_CONTENTS = {"A": "text", "X": "bits", "C": "complex numbers", "M": "complex numbers"}
_MOST_COLUMNS = 999


@dataclass(frozen=True)
class TableColumn:
    """One column; ``kind`` is the letter of its TFORM, ``repeat`` its values a row, ``offset`` bytes into the row."""

    name: str
    unit: str
    kind: str
    repeat: int
    offset: int
    scaling: Scaling

    @property
    def is_numeric(self) -> bool:
        return self.kind in _NUMBERS and self.repeat > 0

    @property
    def stored(self) -> np.dtype:
        """Type of one stored value."""
        return np.dtype(_NUMBERS[self.kind])

    def physical(self, values: np.ndarray) -> np.ndarray:
        """Stored values as float32 or float64, NaN where missing."""
        if self.kind == "L":
            truth = np.where(values == ord("T"), np.float32(1), np.float32(0))
            return np.where(values == 0, np.float32(np.nan), truth)
        # Offsets that make unsigned integers are whole numbers; anything else deserves all digits.
        exact = not self.scaling.changes_values or (self.scaling.scale == 1 and self.scaling.zero.is_integer())
        wide = np.result_type(self.stored.newbyteorder("="), np.float32) if exact else np.float64
        return self.scaling.apply(values, np.dtype(wide).type)


@dataclass(frozen=True, eq=False)
class BinaryTable:
    """A binary table; made by :func:`read_layout`.  ``header`` answers for the whole file where the table is silent."""

    unit: Unit
    header: Mapping[str, Any]
    rows: int
    row_bytes: int
    columns: tuple[TableColumn, ...]

    @property
    def name(self) -> str:
        return self.unit.file.name

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def values(self, number: int) -> np.ndarray:
        """All numbers of a column, ``(rows * repeat,)`` float, NaN where missing.

        Raises:
            UserError: the column holds no numbers.
        """
        column = self._numeric(number)
        return column.physical(self._stored(column).reshape(-1))

    def integers(self, number: int) -> np.ndarray:
        """A column of whole numbers, one a row, int64 ``(rows,)``; raises UserError when it is something else."""
        column = self._numeric(number)
        if column.kind not in "BIJK" or column.repeat != 1 or column.scaling.changes_values:
            raise UserError(f"column {number} of {self.name} is no list of pixel numbers", "fetch the file again")
        return self._stored(column).reshape(-1).astype(np.int64)

    def stored(self, number: int, first: int, last: int) -> np.ndarray:
        """Stored values ``first`` to ``last`` (not included) of every row, ``(rows, last - first)``, memory-mapped."""
        return self._stored(self._numeric(number))[:, first:last]

    @cached_property
    def _bytes(self) -> np.ndarray:
        return self.unit.data()[: self.rows * self.row_bytes]

    def _stored(self, column: TableColumn) -> np.ndarray:
        return np.ndarray(
            shape=(self.rows, column.repeat),
            dtype=column.stored,
            buffer=self._bytes,
            offset=column.offset,
            strides=(self.row_bytes, column.stored.itemsize),
        )

    def _numeric(self, number: int) -> TableColumn:
        column = self.columns[number]
        if not column.is_numeric:
            held = _CONTENTS.get(column.kind, "no numbers" if column.repeat == 0 else "rows of varying length")
            raise UserError(f"column {number} ({column.name}) of {self.name} holds {held}", "choose another column")
        return column


def read_layout(unit: Unit) -> BinaryTable:
    """The columns of a table, from its header alone.

    Raises:
        UserError: the header contradicts itself, or claims what no table has.
    """
    header, name = unit.header, unit.file.name
    count = integer_card(header, "TFIELDS", name, (0, _MOST_COLUMNS))
    rows = integer_card(header, "NAXIS2", name, (0, 2**62))
    row_bytes = integer_card(header, "NAXIS1", name, (0, 2**62))
    columns, offset = [], 0
    for number in range(1, count + 1):
        column, size = _column(header, number, offset, name)
        columns.append(column)
        offset += size
    if offset != row_bytes or not columns or not rows:
        raise UserError(
            f"{name} has rows of {row_bytes} bytes and columns of {offset} in {rows} rows", "fetch it again"
        )
    return BinaryTable(unit, ChainMap(header, unit.file.primary.header), rows, row_bytes, tuple(columns))


def _column(header: Mapping[str, Any], number: int, offset: int, name: str) -> tuple[TableColumn, int]:
    """A column and its bytes in the row."""
    form = _FORM.match(str(header.get(f"TFORM{number}", "")).strip().upper())
    if form is None:
        raise UserError(f"{name} has no valid TFORM{number} card", "mend its header, or fetch it again")
    repeat, kind = int(form[1] or 1), form[2]
    size = -(-repeat // 8) if kind == "X" else repeat * _BYTES[kind]
    title, unit = (str(header.get(f"{key}{number}", "")).strip() for key in ("TTYPE", "TUNIT"))
    scale, zero = number_card(header, f"TSCAL{number}"), number_card(header, f"TZERO{number}")
    scaling = Scaling(1.0 if scale is None else scale, zero or 0.0, number_card(header, f"TNULL{number}"), _bad(header))
    return TableColumn(title or f"field_{number - 1}", unit, kind, repeat, offset, scaling), size


def _bad(header: Mapping[str, Any]) -> float | None:
    """The value of missing pixels, in the words of HEALPix, or of an image that became a table."""
    bad = number_card(header, "BAD_DATA")
    return number_card(header, "BLANK") if bad is None else bad
