"""From a folder of HEALPix FITS maps to a :class:`~sphereml.data.store.Sky`, and a cache of prepared skies.

A cached store is named by a hash of everything that shapes it: the configuration, the package version and the
checksums of the input files.  Where the files or the stores stand is not part of it, so a moved folder keeps its store.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sphereml import __version__
from sphereml.config.schema import DataConfig, MapField
from sphereml.data.file_checksums import file_checksum
from sphereml.data.healpix_fits import HealpixMaps, read_healpix
from sphereml.data.holdings import SAMPLE_VARIABLE
from sphereml.data.store import FORMAT_VERSION, Sky, is_store, open_store, refuse_unwritable, write_store
from sphereml.data.survey_sources import identify_files
from sphereml.errors import UserError
from sphereml.sky.fields import Field


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


def prepare_healpix(data: DataConfig) -> Sky:
    """Read inputs, total and target of a ``healpix`` data set.

    Returns:
        A sky whose channels are the columns of ``data.inputs`` in their order; float32.
    Raises:
        UserError: see :func:`data_folder` and ``read_healpix``; inputs or target not configured; different Nside;
            inputs of different units; a total or target of more than one column.
    """
    files = _configured_files(data)
    folder = data_folder(data)
    maps = [read_healpix(_locate(folder, f), f.fields, f.unit) for f in files]
    _refuse_mixed_grids(files, maps)
    inputs = maps[: len(data.inputs)]
    _refuse_mixed_units(files, inputs)
    named = {f.file: m.checksum for f, m in zip(files, maps, strict=True)}
    target_map = maps[len(inputs)]
    return Sky(
        grid=target_map.grid,
        inputs=np.concatenate([m.values for m in inputs], axis=1, dtype=np.float32),
        total=_single(maps[-1], "total") if data.total else None,
        targets=_single(target_map, "target")[:, None],
        input_fields=tuple(Field(name, inputs[0].unit) for name in _channel_names(inputs)),
        target_fields=(Field(target_map.names[0], target_map.unit),),
        total_unit=maps[-1].unit if data.total else "",
        provenance={"kind": data.kind, "code": __version__, "seed": None, "files": named},
    )


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
            pass
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
        described["checksums"] = [file_checksum(_locate(folder, f)) for f in _configured_files(data)]
    elif data.kind == "survey":
        described["checksums"] = identify_files(data)
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return Path(data.stores).expanduser() / f"{data.name}-{digest[:12]}.zarr"


def _configured_files(data: DataConfig) -> list[MapField]:
    """Inputs, then the target, then the total if there is one."""
    if not data.inputs:
        raise UserError(f"the data {data.name!r} have no inputs", "list FITS files under data.inputs")
    if data.target is None:
        raise UserError(f"the data {data.name!r} have no target", "give data.target.file")
    return [*data.inputs, data.target, *([data.total] if data.total else [])]


def _locate(folder: Path, map_field: MapField) -> Path:
    if not map_field.file:
        raise UserError("a map is configured without a file", "give its `file`")
    return folder / Path(map_field.file).expanduser()


def _refuse_mixed_grids(files: list[MapField], maps: list[HealpixMaps]) -> None:
    first, grid = files[0].file, maps[0].grid
    for map_field, one in zip(files, maps, strict=True):
        if one.grid != grid:
            raise UserError(
                f"{map_field.file} has Nside {one.grid.nside} but {first} has {grid.nside}",
                "bring all maps to one Nside (healpy.ud_grade, or in harmonic space)",
            )


def _refuse_mixed_units(files: list[MapField], inputs: list[HealpixMaps]) -> None:
    for map_field, one in zip(files, inputs, strict=False):
        if one.unit != inputs[0].unit:
            raise UserError(
                f"{map_field.file} is in {one.unit!r} but {files[0].file} in {inputs[0].unit!r}",
                "inputs share one unit; convert one of them",
            )


def _single(maps: HealpixMaps, role: str) -> np.ndarray:
    if maps.values.shape[1] != 1:
        raise UserError(
            f"data.{role} names {maps.values.shape[1]} columns ({', '.join(maps.names)})",
            f"choose one with data.{role}.fields=[0]",
        )
    return maps.values[:, 0].astype(np.float32)


def _channel_names(inputs: list[HealpixMaps]) -> tuple[str, ...]:
    """Column names, with their position appended where a name comes twice."""
    names = [name for maps in inputs for name in maps.names]
    return tuple(name if names.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(names))
