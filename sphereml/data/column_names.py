"""Columns of FITS files by name: how they are asked for, and what their names say.

Conventions: ``FILE``, ``FILE[NAME]``, ``FILE[#2]`` (the third column, counting from 0 and all columns of the table),
``FILE[Q,U]``, and ``FILE+1[NAME]`` for the table in header and data unit 1 (the primary one is 0).  A file whose own
name holds these characters is that file.  Names compare without regard to case.  A column is Stokes Q or U when its
name says so in any of the spellings in use (``Q_POLARISATION``, ``U-STOKES``, ``STOKES_U``, ``DUST_Q``, ``QPOL``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sphereml.errors import UserError
from sphereml.sky.fields import Field

_REFERENCE = re.compile(r"(?P<file>.+?)(?:\+(?P<unit>\d{1,3}))?(?:\[(?P<columns>[^\[\]]*)\])?", re.DOTALL)
_STOKES = re.compile(r"(?:STOKES|POL)?(?P<letter>[IQUV])(?:STOKES|POL\w*|\d+)?")
_STOKES_WORDS = ("STOKES", "POL", "POLARISATION", "POLARIZATION")
_INTENSITIES = ("I", "T", "TEMPERATURE", "INTENSITY")


@dataclass(frozen=True)
class ColumnReference:
    """A file and columns of it.

    Args:
        unit: number of the header and data unit, None for the first table.
        columns: names or ``#n``; all columns, or the reader's choice, when empty.
    """

    path: Path
    unit: int | None = None
    columns: tuple[str, ...] = ()

    def find(self, names: Sequence[str]) -> list[int]:
        """Numbers of the columns asked for among ``names``, those of all columns of the table.

        Raises:
            UserError: there is no such column, or a name is that of several.
        """
        whole = ",".join(self.columns)
        if len(self.columns) > 1 and whole.upper() in (name.upper() for name in names):
            return [self._number(whole, names)]
        return [self._number(column, names) for column in self.columns]

    def _number(self, column: str, names: Sequence[str]) -> int:
        listed = ", ".join(f"#{i} {name}" for i, name in enumerate(names))
        if re.fullmatch(r"#\d{1,4}", column):
            number = int(column[1:])
            if number >= len(names):
                raise UserError(f"{self.path.name} has no field {number}", f"its columns are {listed}")
            return number
        exact = [i for i, name in enumerate(names) if name == column]
        found = exact or [i for i, name in enumerate(names) if name.upper() == column.upper()]
        if len(found) > 1:
            raise UserError(
                f"{self.path.name} has {len(found)} columns called {column}",
                f"choose one by its number, e.g. [#{found[-1]}]",
            )
        if not found:
            raise UserError(f"{self.path.name} has no column {column}", f"its columns are {listed}")
        return found[0]


def parse_reference(text: str | Path) -> ColumnReference:
    """What ``FILE``, ``FILE[NAME]``, ``FILE[#2]``, ``FILE+1`` or ``FILE+1[NAME]`` asks for.

    Example:
        >>> parse_reference("dust.fits+1[Q,U]").columns
        ('Q', 'U')
    """
    whole = Path(text).expanduser()
    match = _REFERENCE.fullmatch(str(whole))
    if match is None or match.end("file") == len(str(whole)) or whole.exists():
        return ColumnReference(whole)
    # The columns alone may be the reference, where the file's own name ends in "+1".
    files = [(match["file"], match["unit"])]
    if match["unit"] is not None and match["columns"] is not None:
        files.insert(0, (f"{match['file']}+{match['unit']}", None))
    file, unit = next(((f, u) for f, u in files if Path(f).exists()), files[-1])
    columns = tuple(column.strip() for column in (match["columns"] or "").split(",") if column.strip())
    return ColumnReference(Path(file), None if unit is None else int(unit), columns)


def stokes(name: str) -> str | None:
    """``"Q"`` or ``"U"`` when a column's name says that it is that Stokes parameter, else None."""
    return next((letter for letter in _letters(name) if letter in "QU"), None)


def stem(name: str) -> str:
    """What is left of a Stokes column's name without the letter: equal for Q and U that belong together."""
    return "_".join(word for word in _words(name) if not _STOKES.fullmatch(word) and word not in _STOKES_WORDS)


def is_intensity(name: str) -> bool:
    """Whether a column's name says that it is total intensity."""
    return stokes(name) is None and any(word in _INTENSITIES or _letter(word) == "I" for word in _words(name))


def flips_with_convention(name: str) -> bool:
    """Whether a column changes its sign between the IAU's and HEALPix's convention: U, and covariances odd in U."""
    words = _words(name)
    if any(word.startswith("COV") for word in words):
        return any(re.fullmatch(r"[ITQUV]{2}", word) and word.count("U") == 1 for word in words)
    return stokes(name) == "U"


def group_fields(names: Sequence[str], unit: str) -> tuple[Field, ...]:
    """The fields that columns of these names are, in their order: Q followed by its U is one field of spin 2.

    A lone Q or U is left as a scalar of its own name; whoever uses it must say so.
    """
    fields: list[Field] = []
    skip = False
    for name, following in zip(names, [*names[1:], ""], strict=True):
        if skip:
            skip = False
            continue
        skip = stokes(name) == "Q" and stokes(following) == "U" and stem(name) == stem(following)
        fields.append(Field(stem(name) or "P", unit, spin=2) if skip else Field(name, unit))
    return tuple(fields)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^A-Z0-9]+", name.upper()) if word]


def _letter(word: str) -> str | None:
    match = _STOKES.fullmatch(word)
    return match["letter"] if match else None


def _letters(name: str) -> list[str]:
    return [letter for word in _words(name) if (letter := _letter(word)) is not None]
