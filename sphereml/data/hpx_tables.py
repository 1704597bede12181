"""HI4PI's HEALPix binary tables ``HPX_NNN.fits``: one row per pixel, its number and its whole spectrum.

Columns: ``HPXINDEX`` (integer) and ``DATA`` (one value per channel).  A set of files makes one sky; pixels in no file
are NaN, pixels in two are refused.  Where headers are silent, :class:`TableDefaults` says what the archive's documents
say.  A spectrum of 933 channels is one row of 3.7 KB, so any channel costs a pass over every page of every file:
channels are read in blocks as large as memory allows, and the last block is kept.  Pixel numbers are read, and checked,
in the pass of the first block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import healpy
import numpy as np

from sphereml.config.bounds import refuse_beyond_memory
from sphereml.data.channels import checksums, kelvin_factor, refuse_bad_channel, refuse_empty
from sphereml.data.fits_cards import galactic_frame, integer_card, is_nested
from sphereml.data.fits_checksums import refuse_stale
from sphereml.data.fits_files import open_fits, refuse_compressed
from sphereml.data.fits_tables import BinaryTable, read_layout
from sphereml.data.healpix_tables import refuse_bad_pixels
from sphereml.data.pixel_order import refuse_wrong_order
from sphereml.data.velocity import VelocityAxis, spectral_axis_number, velocity_axis
from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.ordering import nest_to_ring

PIXELS, SPECTRUM = "HPXINDEX", "DATA"
# Ten channels at Nside 1024.
BLOCK_BYTES = 512 * 2**20
# Rows handled at once: a quarter of a million spectra of one block are some tens of MB.
_ROWS = 2**18


@dataclass(frozen=True)
class TableDefaults:
    """What a header may leave unsaid; a card in the file always decides.

    Args:
        nside: 0 when not known; a file that says another is refused.
        order: RING or NESTED.
        frame: a COORDSYS value.
        unit: K or mK.
        axis: the velocity axis, used where neither header has one.
        velocity_frame: the frame of a velocity axis that does not say it, ``"LSRK"``.
        beam_arcmin: full width at half maximum.
    """

    nside: int = 0
    order: str = ""
    frame: str = ""
    unit: str = ""
    axis: VelocityAxis | None = None
    velocity_frame: str = ""
    beam_arcmin: float | None = None


# HI4PI Collaboration 2016: 933 channels of 1288.21496 m/s with zero at pixel 466 (from 1), 16.2'.  That HPXINDEX is
# RING and Galactic is how the survey's authors index such tables in their published software (DanielLenz/gaussdec).
HI4PI = TableDefaults(
    nside=1024,
    order="RING",
    frame="G",
    unit="K",
    axis=VelocityAxis.uniform(first=-465 * 1.28821496, width=1.28821496, channels=933),
    velocity_frame="LSRK",
    beam_arcmin=16.2,
)


@dataclass(frozen=True, eq=False)
class _Table:
    """One file's rows and what they mean; ``pixel_column`` and ``spectrum_column`` are numbers of its columns."""

    path: Path
    layout: BinaryTable
    pixel_column: int
    spectrum_column: int
    kelvin: float
    nside: int
    nested: bool
    axis: VelocityAxis

    @property
    def rows(self) -> int:
        return self.layout.rows

    def pixels(self) -> np.ndarray:
        """``(rows,)`` int64, in the file's own order."""
        return self.layout.integers(self.pixel_column)

    def brightness(self, rows: slice, first: int, last: int) -> np.ndarray:
        """Channels ``first`` to ``last`` (not included) of some rows, float32 ``(rows, channels)`` K."""
        stored = self.layout.stored(self.spectrum_column, first, last)[rows]
        scaling = self.layout.columns[self.spectrum_column].scaling
        return scaling.apply(stored) * np.float32(self.kelvin)


@dataclass(eq=False)
class _Block:
    """Consecutive channels of the whole sky: ``values`` float32 ``(npix, last - first)`` NEST."""

    first: int
    last: int
    values: np.ndarray


@dataclass(eq=False)
class HpxTables:
    """A :class:`~sphereml.data.channels.ChannelSource` over a set of table files; made by :func:`open_hpx_tables`."""

    name: str
    tables: tuple[_Table, ...]
    beam_arcmin: float | None
    block_bytes: int = BLOCK_BYTES
    unit: str = "K"
    frame: str = "G"
    _block: _Block | None = field(default=None, repr=False)

    @property
    def nside(self) -> int:
        return self.tables[0].nside

    @property
    def axis(self) -> VelocityAxis:
        return self.tables[0].axis

    @property
    def velocity(self) -> np.ndarray:
        return self.axis.centres

    @cached_property
    def files(self) -> dict[str, str]:
        return checksums([table.path for table in self.tables])

    def read(self, channel: int) -> np.ndarray:
        """One channel, float32 ``(npix,)`` NEST, K, NaN where no file has the pixel.

        Raises:
            UserError: no such channel, nothing but NaN in it, a pixel number out of range or doubled, or pixels that
                are plainly in another order than the one stated.
        """
        refuse_bad_channel(channel, self)
        if self._block is None or not self._block.first <= channel < self._block.last:
            self._block = None  # frees the old block before the new one is made
            self._block = self._load(channel)
        values = np.ascontiguousarray(self._block.values[:, channel - self._block.first])
        refuse_empty(values, channel, self)
        return values

    @property
    def block_channels(self) -> int:
        """Channels that one pass over the files reads."""
        return max(1, min(len(self.axis), self.block_bytes // (4 * HealpixGrid(self.nside).npix)))

    def _load(self, first: int) -> _Block:
        last = min(first + self.block_channels, len(self.axis))
        first = max(0, last - self.block_channels)
        unseen = "_pixels" not in self.__dict__
        values = np.full((HealpixGrid(self.nside).npix, last - first), np.nan, dtype=np.float32)
        for table, pixels in zip(self.tables, self._pixels, strict=True):
            for start in range(0, table.rows, _ROWS):
                rows = slice(start, start + _ROWS)
                values[pixels[rows]] = table.brightness(rows, first, last)
        if unseen:
            self._refuse_wrong_order(values)
        return _Block(first, last, values)

    @cached_property
    def _pixels(self) -> list[np.ndarray]:
        """NEST pixels of every file's rows; they are checked when first asked for."""
        grid = HealpixGrid(self.nside)
        seen = np.zeros(grid.npix, dtype=bool)
        found = []
        for table in self.tables:
            with open_fits(table.path):
                refuse_stale(table.layout.unit)
            pixels = table.pixels()
            refuse_bad_pixels(pixels, grid, table.path.name)
            nest = pixels if table.nested else healpy.ring2nest(grid.nside, pixels)
            if seen[nest].any():
                twice = pixels[seen[nest]][0]
                raise UserError(f"{table.path.name} repeats pixel {twice} of an earlier file", "keep one of the files")
            seen[nest] = True
            found.append(nest.astype(np.int32))
        return found

    def _refuse_wrong_order(self, values: np.ndarray) -> None:
        nested = self.tables[0].nested
        mean = values.mean(axis=1)
        refuse_wrong_order(mean if nested else nest_to_ring(mean), nested, self.tables[0].path.name)


def open_hpx_tables(
    paths: Sequence[Path], defaults: TableDefaults = HI4PI, name: str = "", block_bytes: int = BLOCK_BYTES
) -> HpxTables:
    """Open a set of tables as one sky; only headers are read.

    Args:
        paths: the files, e.g. from ``channels.find_files(folder, "HPX_*.fits")``.
        defaults: what silent headers mean.
        name: for messages; the first file's name when empty.
        block_bytes: memory for the channels read in one pass.
    Raises:
        UserError: a file is absent, no FITS, compressed, truncated or lacks a column; it does not say its order, frame,
            unit or velocity axis and ``defaults`` neither; files disagree in Nside, order or channels.
    """
    tables = tuple(_open(Path(path), defaults) for path in paths)
    if not tables:
        raise UserError("no HPX table was given", "list the files, e.g. HPX_*.fits")
    for table in tables[1:]:
        _refuse_mixed(tables[0], table)
    return HpxTables(name or tables[0].path.name, tables, defaults.beam_arcmin, block_bytes)


def _open(path: Path, defaults: TableDefaults) -> _Table:
    refuse_compressed(path)
    with open_fits(path) as file:
        layout, name = read_layout(file.table()), path.name
        header = layout.header
        number = _column(layout, SPECTRUM, "EDIJK")
        column = layout.columns[number]
        galactic_frame(header, name, defaults.frame)
        nside = _nside(header, defaults.nside, name)
        refuse_beyond_memory(8 * HealpixGrid(nside).npix, name)
        return _Table(
            path=path,
            layout=layout,
            pixel_column=_column(layout, PIXELS, "IJK"),
            spectrum_column=number,
            kelvin=kelvin_factor(column.unit or str(header.get("BUNIT", "")), defaults.unit, name),
            nside=nside,
            nested=is_nested(header, name, defaults.order),
            axis=_axis(header, column.repeat, defaults, number + 1, name),
        )


def _column(layout: BinaryTable, title: str, kinds: str) -> int:
    """The number of the column of that name and of one of those types."""
    name = layout.name
    if title not in layout.names:
        raise UserError(f"{name} has no column {title}", f"its columns are {', '.join(layout.names)}")
    number = layout.names.index(title)
    column = layout.columns[number]
    if column.kind not in kinds or (title == PIXELS and column.repeat != 1):
        form = f"{column.repeat}{column.kind}"
        raise UserError(f"column {title} of {name} has the unexpected format {form}", "fetch the file again")
    return number


def _nside(header: Mapping[str, Any], expected: int, name: str) -> int:
    stated = integer_card(header, "NSIDE", name, (0, 2**29), expected)
    if not stated:
        raise UserError(f"{name} does not say its Nside", "give it to the reader, or add the NSIDE card")
    if expected and stated != expected:
        raise UserError(f"{name} has Nside {stated}, not {expected}", f"set nside={stated} to read it as it is")
    return HealpixGrid(stated).nside


def _axis(header: Mapping[str, Any], channels: int, defaults: TableDefaults, column: int, name: str) -> VelocityAxis:
    described = spectral_axis_number(header) is not None or f"1CTYP{column}" in header
    if described or defaults.axis is None:
        return velocity_axis(header, channels, name, defaults.velocity_frame, column)
    if len(defaults.axis) != channels:
        raise UserError(
            f"{name} has {channels} channels and no velocity axis; the known axis has {len(defaults.axis)}",
            "give the file's own axis",
        )
    return defaults.axis


def _refuse_mixed(first: _Table, other: _Table) -> None:
    names = f"{other.path.name} and {first.path.name}"
    if other.nside != first.nside:
        raise UserError(f"{names} have Nside {other.nside} and {first.nside}", "read them as two sets")
    if len(other.axis) != len(first.axis):
        raise UserError(f"{names} have {len(other.axis)} and {len(first.axis)} channels", "read them as two sets")
    if other.nested != first.nested or not other.axis.matches(first.axis):
        raise UserError(f"{names} differ in pixel order or velocity axis", "read them as two sets")
