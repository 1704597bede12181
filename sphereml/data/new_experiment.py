"""A commented experiment on maps of one's own, written from the headers of their files.

Conventions: file names stand relative to the folder that all files share.  What no file says (a unit, an order, a
frame) is left to be filled in, with a comment that says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import yaml

from sphereml.config.experiment_files import PACKAGE
from sphereml.data.column_names import ColumnReference, group_fields, parse_reference
from sphereml.data.fits_cards import is_nested, sky_frame
from sphereml.data.fits_files import open_fits
from sphereml.data.fits_tables import read_layout
from sphereml.data.healpix_fits import UnsaidCards, read_sky_weights
from sphereml.data.healpix_tables import read_raw
from sphereml.data.own_maps import stokes_columns
from sphereml.data.split_files import read_split
from sphereml.data.units import parse_unit
from sphereml.data.whole_files import write_atomically
from sphereml.errors import UserError, refuse_all
from sphereml.harmonics.filters import FRAMES
from sphereml.sky.grid import HealpixGrid

FILL_IN = "FILL IN"
_T = TypeVar("_T")


@dataclass(frozen=True)
class OwnMaps:
    """What ``sphereml config new`` was given: names as ``FILE`` or ``FILE[COLUMN]``."""

    name: str
    inputs: Sequence[str]
    targets: Sequence[str]
    mask: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class _Found:
    """One file: what its header says, and the share of its pixels without data."""

    asked: str
    reference: ColumnReference
    names: tuple[str, ...]
    nside: int
    unit: str
    order: str
    frame: str
    missing: float
    unsaid: dict[str, str] = field(default_factory=dict)

    @property
    def spins(self) -> bool:
        return any(one.spin for one in group_fields(self.names, ""))

    @property
    def on_a_grid(self) -> tuple[int, str, bool]:
        return self.nside, self.frame or "G", self.missing > 0


@dataclass(frozen=True)
class _Files:
    """All files of an experiment; ``regions`` holds the Nside of the mask and of the split."""

    inputs: list[_Found]
    targets: list[_Found]
    regions: list[int]
    folder: Path

    @property
    def maps(self) -> list[_Found]:
        return [*self.inputs, *self.targets]

    @property
    def lowest(self) -> int:
        return min(one.nside for one in self.maps)

    @property
    def on_one_grid(self) -> bool:
        """Whether the files can be taken as they are."""
        kinds = {one.on_a_grid for one in self.maps}
        return kinds == {(self.lowest, "G", False)} and set(self.regions) <= {self.lowest}


def write_experiment(own: OwnMaps, folder: Path, overwrite: bool = False) -> Path:
    """Write ``folder/experiment/NAME.yaml``.

    Raises:
        UserError: the name is none, a file of that name stands there, or what is wrong with all of the files in one
            line.
    """
    if not re.fullmatch(r"\w[\w.+-]*", own.name):
        raise UserError(f"{own.name!r} is no name for an experiment", "use letters, digits and _ . + - alone")
    path = folder / "experiment" / f"{own.name}.yaml"
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists", "choose another name, or add --overwrite")
    return write_atomically(path, ("\n".join(_lines(own, _find_all(own))) + "\n").encode())


def _find_all(own: OwnMaps) -> _Files:
    faults: list[UserError] = []

    def tried(look: Callable[[str], _T], names: Sequence[str | None]) -> Iterator[_T]:
        for name in names:
            try:
                if name is not None:
                    yield look(name)
            except UserError as error:
                faults.append(error)

    inputs, targets = list(tried(_look_at, own.inputs)), list(tried(_look_at, own.targets))
    regions = [*tried(_mask_nside, [own.mask]), *tried(_split_nside, [own.split])]
    refuse_all(faults)
    named = [one for one in (*own.inputs, *own.targets, own.mask, own.split) if one is not None]
    folder = os.path.commonpath([parse_reference(one).path.absolute().parent for one in named])
    return _Files(inputs, targets, regions, Path(folder))


def _mask_nside(name: str) -> int:
    return HealpixGrid.of_size(read_sky_weights(name, any_frame=True).values.size).nside


def _split_nside(name: str) -> int:
    return read_split(name).grid.nside


def _look_at(asked: str) -> _Found:
    reference = parse_reference(asked)
    columns = stokes_columns(reference)
    with open_fits(reference.path) as file:
        table = read_layout(file.table(reference.unit))
        name, units = file.name, {table.columns[i].unit.strip() for i in columns}
        order, frame = _said(table.header, name)
    if len(units) > 1:
        raise UserError(f"columns of {name} have different units ({', '.join(sorted(units))})", "choose among them")
    unsaid = {key: FILL_IN for key, value in (("order", order), ("frame", frame)) if not value}
    unit = units.pop()
    if not unit or parse_unit(unit) == "uK":
        unsaid["unit"] = FILL_IN
    raw = read_raw(replace(reference, columns=()), columns, UnsaidCards(order or "RING", frame or "G"), True, True)
    missing = float(np.isnan(raw.values).any(axis=1).mean())
    return _Found(asked, reference, raw.names, raw.grid.nside, unit, order, frame, missing, unsaid)


def _said(header: object, name: str) -> tuple[str, str]:
    """Order and frame of a header, empty where it does not say."""
    answers = []
    for ask in (lambda: "NESTED" if is_nested(header, name) else "RING", lambda: sky_frame(header, name)):  # type: ignore[arg-type]
        try:
            answers.append(ask())
        except UserError:
            answers.append("")
    return answers[0], answers[1]


_HEAD = """{package}
# Maps of one's own, by `sphereml config new` from the headers of the files.  What every key means is said by
# `sphereml config show experiment={name}`; `sphereml train experiment={name}` trains the models.
defaults:
  - override /model: linear
  - _self_

name: {name}
task: maps # any maps from any maps
models: [linear, unet_sphere_plain]

data:
  name: {name}
  kind: healpix
  folder: {folder}
  nside: {nside} # {why}
  lmax: 0 # highest multipole kept; 0: twice the Nside
  beam_arcmin: 0.0 # common beam, FWHM; needs the beam_arcmin of every file; 0: each keeps its own"""


def _lines(own: OwnMaps, files: _Files) -> Iterator[str]:
    folder, nside = files.folder, 0 if files.on_one_grid else files.lowest
    yield _HEAD.format(package=PACKAGE, name=own.name, folder=_quoted(str(folder)), nside=nside, why=_reason(files))
    if worst := max(one.missing for one in files.maps):
        yield f"  max_missing: {max(0.1, np.ceil(100 * worst) / 100):g} # {worst:.2%} of a map have no data"
    yield "  inputs:"
    for one in files.inputs:
        yield from _map_lines(one, folder, "    - ")
    yield "  target: # one file; further ones under `targets: [{file: ...}]`"
    yield from _map_lines(files.targets[0], folder, "    ")
    yield from ["  targets:"] if files.targets[1:] else []
    for one in files.targets[1:]:
        yield from _map_lines(one, folder, "    - ")
    yield ""
    yield from _split_lines(own, folder)


def _reason(files: _Files) -> str:
    if files.on_one_grid:
        return "all files share it, and are taken as they are"
    nsides = sorted({*files.regions, *(one.nside for one in files.maps)})
    frames = {FRAMES[one.frame or "G"] for one in files.maps}
    reasons = [f"Nside {', '.join(map(str, nsides))}"] if len(nsides) > 1 else []
    reasons += [" and ".join(sorted(frames)) + " maps"] if frames != {"Galactic"} else []
    reasons += ["gaps"] if any(one.missing for one in files.maps) else []
    return f"one grid, in harmonic space ({'; '.join(reasons)})"


def _map_lines(one: _Found, folder: Path, indent: str) -> Iterator[str]:
    frame = FRAMES.get(one.frame, "frame not said")
    gaps = f", {one.missing:.2%} without data" if one.missing else ""
    spin = "; Q and U are one field of spin 2" if one.spins else ""
    said = f"Nside {one.nside}, {one.order or 'order not said'}, {frame}, {one.unit or 'no unit'}{gaps}"
    file = os.path.relpath(_absolute(one.asked), folder)
    yield f"{indent}file: {_quoted(file)} # {', '.join(one.names)}: {said}{spin}"
    rest = " " * len(indent)
    words = {"unit": "of the values, e.g. K", "order": "RING or NESTED", "frame": "G, C or E"}
    for key in one.unsaid:
        yield f'{rest}{key}: "" # {FILL_IN}: the file does not say it ({words[key]})'


def _split_lines(own: OwnMaps, folder: Path) -> Iterator[str]:
    yield "split:"
    yield f"  name: {own.name}"
    yield "  sky_fraction: null # the faintest share of the target's sky; null: all of it"
    if own.mask:
        file = os.path.relpath(_absolute(own.mask), folder)
        yield f"  mask_file: {_quoted(file)} # weights: what is kept in part counts in part"
    if own.split:
        file = os.path.relpath(_absolute(own.split), folder)
        yield f"  file: {_quoted(file)} # 0 not used, 1 training, 2 validation, 3 test"
    else:
        yield "  train: north # trains where b > buffer, tests where b < -buffer; longitudes validation_lon validate"
        yield "  buffer: 8.0"
        yield "  validation_lon: [30.0, 90.0]"


def _absolute(asked: str) -> Path:
    return Path(asked).expanduser().absolute()


def _quoted(text: str) -> str:
    style = '"' if re.search(r"[^\w./-]", text) else None
    return str(yaml.safe_dump(text, default_style=style, width=10**6, allow_unicode=True)).splitlines()[0]
