"""From a folder of HEALPix FITS maps to a :class:`~sphereml.data.store.Sky`, and a cache of prepared skies.

A cached store is named by a hash of everything that shapes it: the configuration, the package version and the
checksums of the input files.  Where the files or the stores stand is not part of it, so a moved folder keeps its store.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from sphereml import __version__
from sphereml.config.schema import DataConfig
from sphereml.data.common_grid import regrid
from sphereml.data.file_checksums import file_checksum
from sphereml.data.holdings import SAMPLE_VARIABLE
from sphereml.data.own_maps import OwnMap, configured_files, locate, read_own_maps
from sphereml.data.store import FORMAT_VERSION, Sky, is_store, open_store, write_store
from sphereml.data.survey_sources import identify_files
from sphereml.data.whole_files import refuse_unwritable, tell_rebuilt
from sphereml.errors import UserError, refuse_all
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid


def data_folder(data: DataConfig) -> Path:
    """Folder of the FITS maps: ``data.folder``, else the environment's ``SPHEREML_REAL_SKY``.

    Raises:
        UserError: neither is given, or it is no folder.
    """
    ways = f"set {SAMPLE_VARIABLE} or give data.folder=PATH"
    given = data.folder or os.environ.get(SAMPLE_VARIABLE)
    if not given:
        raise UserError(f"the data {data.name!r} need a folder of FITS maps and none is given", ways)
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise UserError(f"there is no data folder {folder}", ways)
    return folder


def prepare_healpix(data: DataConfig, say: Callable[[str], None] = lambda line: None) -> Sky:
    """Read inputs, total and targets of a ``healpix`` data set; bring them to one grid where that is asked for.

    Returns:
        A sky whose channels are the columns of ``data.inputs`` in their order, scalars before fields with a spin;
        float32, each field in its own unit.
    Raises:
        UserError: see :func:`data_folder`, :func:`~sphereml.data.own_maps.read_own_maps` and
            :func:`~sphereml.data.common_grid.regrid`; different Nside where no grid is asked for; a total of more than
            one column.
    """
    configured_files(data)
    maps = read_own_maps(data, data_folder(data), tolerant=data.regrids)
    named = {one.config.file: one.maps.checksum for one in maps}
    provenance: dict[str, Any] = {"kind": data.kind, "code": __version__, "seed": None, "files": named}
    roles = ("input", "target", "total")
    provenance["sources"] = {role: {one.config.file: one.history for one in maps if one.role == role} for role in roles}
    if data.regrids:
        made = regrid(maps, data, say)
        grid, fields, mask = made.grid, made.fields, made.mask
        provenance["maps"] = made.history
    else:
        _refuse_mixed_grids(maps)
        grid, fields, mask = maps[0].maps.grid, [one.field_values() for one in maps], None
    return _assembled(grid, maps, fields, mask, provenance)


_Values = list[tuple[Field, np.ndarray]]


def _assembled(
    grid: HealpixGrid, maps: list[OwnMap], fields: list[_Values], mask: np.ndarray | None, provenance: dict[str, Any]
) -> Sky:
    by_role: dict[str, _Values] = {"input": [], "target": [], "total": []}
    for one, values in zip(maps, _told_apart(maps, fields), strict=True):
        by_role[one.role] += values
    input_fields, inputs = _stacked(by_role["input"])
    target_fields, targets = _stacked(by_role["target"])
    total = by_role["total"]
    if total and (len(total) > 1 or total[0][0].spin):
        names = ", ".join(name for one, _ in total for name in one.column_names)
        raise UserError(f"data.total names several columns ({names})", "choose one with data.total.fields=[0]")
    return Sky(
        grid=grid,
        inputs=inputs,
        targets=targets,
        input_fields=input_fields,
        target_fields=target_fields,
        total=total[0][1].astype(np.float32) if total else None,
        total_unit=total[0][0].unit if total else "",
        components={} if mask is None else {"mask": mask},
        component_units={} if mask is None else {"mask": ""},
        provenance=provenance,
    )


def _told_apart(maps: list[OwnMap], fields: list[_Values]) -> list[_Values]:
    """The fields of every file; names that several files of one role have are told apart by those of the files."""
    stems = [locate(Path(), one.config).path.name.split(".fits")[0] for one in maps]
    held = {(m.role, field.name, stem) for m, one, stem in zip(maps, fields, stems, strict=True) for field, _ in one}
    count = Counter((role, name) for role, name, _ in held)
    return [
        [(replace(f, name=f"{stem} {f.name}") if count[m.role, f.name] > 1 else f, values) for f, values in one]
        for m, one, stem in zip(maps, fields, stems, strict=True)
    ]


def _stacked(fields: _Values) -> tuple[tuple[Field, ...], np.ndarray]:
    """Fields of different names, scalars first as networks take them, and their columns ``(npix, columns)``."""
    ordered = sorted(fields, key=lambda one: one[0].spin)
    names = [one.name for one, _ in ordered]
    named = tuple(
        one if names.count(one.name) == 1 else replace(one, name=f"{one.name}_{i}")
        for i, (one, _) in enumerate(ordered)
    )
    columns = [np.atleast_2d(values).T for _, values in ordered]
    return named, np.concatenate(columns, axis=1, dtype=np.float32)


def prepared(data: DataConfig, build: Callable[[], Sky]) -> Sky:
    """The sky of ``data``: from its cached store when there is one, else built and stored.

    Args:
        data: the configuration; its store is :func:`store_path`.
        build: makes the sky, e.g. ``lambda: prepare_healpix(data)``.
    Raises:
        UserError: the folder of stores cannot be written, something foreign stands in the store's place, or ``build``
            raises it.  A damaged store of ours is built anew.
    """
    path = store_path(data)
    if path.exists() and not is_store(path):
        raise UserError(f"{path} is not a sphereml store", "move it away or set data.stores=PATH")
    if path.exists():
        try:
            return open_store(path)
        except UserError:
            tell_rebuilt(path)
    # Asked before the build: a simulation may take minutes.
    refuse_unwritable(path.parent)
    sky = build()
    write_store(path, sky, overwrite=True)
    return sky


def store_path(data: DataConfig) -> Path:
    """``<data.stores>/<name>-<12 hex digits>.zarr``; raises UserError when an input file is missing."""
    described = asdict(data)
    for place in ("stores", "folder") + (() if data.kind == "survey" else ("survey",)):
        described.pop(place)
    described |= {"code": __version__, "store": FORMAT_VERSION}
    if data.kind == "healpix":
        folder = data_folder(data)
        described["checksums"] = [file_checksum(locate(folder, one).path) for _, one in configured_files(data)]
    elif data.kind == "survey":
        described["checksums"] = identify_files(data)
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return Path(data.stores).expanduser() / f"{data.name}-{digest[:12]}.zarr"


def _refuse_mixed_grids(maps: list[OwnMap]) -> None:
    first, grid = maps[0].config.file, maps[0].maps.grid
    mend = f"bring all to one Nside: data.nside={min(one.maps.grid.nside for one in maps)} does it in harmonic space"
    others = [one for one in maps if one.maps.grid != grid]
    refuse_all(
        [
            UserError(f"{one.config.file} has Nside {one.maps.grid.nside} but {first} has {grid.nside}", mend)
            for one in others
        ]
    )
