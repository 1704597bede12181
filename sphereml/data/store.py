"""One sky on disk: xarray over zarr version 3, dims ``(pixel, channel)``, self-describing.

Conventions: pixels are NEST, frame Galactic, so a chunk of the pixel axis is one superpixel (64 x 64 pixels, or a base
pixel on coarser grids) with all its channels: a tile or a patch reads few chunks.  Every variable has its ``units``;
velocities are LSR km/s.  The attribute ``provenance`` is JSON without dates: the same sky makes the same bytes.
A damaged store is noticed: chunks carry a CRC-32C, the attributes the SHA-256 of all metadata, and absent float chunks
read as NaN.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from sphereml.data.group_checksums import has_whole_metadata, seal_metadata
from sphereml.data.whole_files import refuse_unwritable, scratch_beside
from sphereml.errors import UserError
from sphereml.sky.fields import Field, count_columns
from sphereml.sky.grid import HealpixGrid

FORMAT = "sphereml-sky"
FORMAT_VERSION = 3
SUPERPIXEL_SIDE = 64
# N_HI = 1.823e18 cm^-2 int (T / K) d(v / km/s) for optically thin gas; Dickey & Lockman 1990, eq. 3.
COLUMN_PER_K_KMS = 1.823e18
IN_KELVIN = {"K": 1.0, "mK": 1e-3}
_COMPONENT = "component_"


@dataclass(frozen=True, eq=False)
class Sky:
    """Inputs and targets on the whole sphere, NEST, Galactic.

    Args:
        grid: the pixelization.
        inputs: float32 ``(npix, columns of input_fields)``.
        targets: float32 ``(npix, columns of target_fields)``; a sky that is only predicted on has none.
        input_fields, target_fields: what the columns are, each with its unit.
        total: ``(npix,)`` total gas column in ``total_unit``, or None.
        velocity: LSR km/s of the inputs' channel centres, ``(ninput,)``, or None.
        components: named ``(npix,)`` parts of a simulated sky; their units in ``component_units``.
        provenance: what it was made from; JSON values, no dates.
        pixels: the NEST pixels that the rows are of, where they are a part of the sphere (see :meth:`at`).
    Raises:
        ValueError: shapes or lengths disagree.

    Example:
        >>> import numpy as np, sphereml as sm
        >>> from sphereml.sky.grid import HealpixGrid
        >>> gas = np.ones((48, 2), np.float32)
        >>> fields = (sm.Field("near", "cm^-2"), sm.Field("far", "cm^-2"))
        >>> sm.Sky(HealpixGrid(2), gas, gas[:, :1], fields, (sm.Field("dust", "uK_RJ"),))
        Sky(nside=2, inputs: near [cm^-2], far [cm^-2]; targets: dust [uK_RJ])
    """

    grid: HealpixGrid
    inputs: np.ndarray
    targets: np.ndarray
    input_fields: tuple[Field, ...]
    target_fields: tuple[Field, ...]
    total: np.ndarray | None = None
    total_unit: str = ""
    velocity: np.ndarray | None = None
    components: dict[str, np.ndarray] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    component_units: dict[str, str] = field(default_factory=dict)
    pixels: np.ndarray | None = None

    def __post_init__(self) -> None:
        npix = self.grid.npix if self.pixels is None else len(self.pixels)
        for name, fields in (("inputs", self.input_fields), ("targets", self.target_fields)):
            found, expected = getattr(self, name).shape, (npix, count_columns(fields))
            if found != expected:
                raise ValueError(f"{name} have shape {found}, not {expected}")
        for name, values in {"total": self.total, **self.components}.items():
            if values is not None and values.shape != (npix,):
                raise ValueError(f"{name} has shape {values.shape}, not {(npix,)}")
        if self.velocity is not None and self.velocity.shape != (len(self.input_fields),):
            raise ValueError(f"velocity has shape {self.velocity.shape}, not {(len(self.input_fields),)}")

    def __repr__(self) -> str:
        inputs, targets = (
            ", ".join(f"{field.name} [{field.unit or '1'}]" for field in _few(fields))
            for fields in (self.input_fields, self.target_fields)
        )
        return f"Sky(nside={self.grid.nside}, inputs: {inputs}; targets: {targets})"

    def at(self, pixels: np.ndarray) -> Sky:
        """The rows of these NEST pixels, rising and distinct, without the components."""
        if len(pixels) == self.grid.npix:
            return self
        total = None if self.total is None else self.total[pixels]
        inputs, targets = self.inputs[pixels], self.targets[pixels]
        return replace(self, inputs=inputs, targets=targets, total=total, components={}, pixels=pixels)

    def whole(self) -> Sky:
        """The sky with all of its rows in memory: this one."""
        return self

    @property
    def target(self) -> np.ndarray:
        """The one target column ``(npix,)`` of a sky that has no other.

        Raises:
            UserError: there are several, or none.
        """
        return only_column(self.targets, self.target_fields)

    @property
    def intensity(self) -> np.ndarray | None:
        """What the targets' polarization is a part of, ``(npix,)``; see :func:`polarized_intensity`."""
        return polarized_intensity(self.targets, self.target_fields, self.components.get("intensity"))

    @property
    def input_unit(self) -> str:
        """The unit that all inputs share, or the empty string where they differ."""
        units = {one.unit for one in self.input_fields}
        return units.pop() if len(units) == 1 else ""


def only_column(targets: np.ndarray, fields: tuple[Field, ...]) -> np.ndarray:
    """The one column of targets ``(npix, columns)``; raises UserError when there are several, or none."""
    if targets.shape[1] != 1:
        names = [name for one in fields for name in one.column_names]
        raise UserError(f"the sky has the target columns {', '.join(names) or 'none'}", "use a sky with one")
    return targets[:, 0]


def _few(fields: tuple[Field, ...], most: int = 3) -> list[Field]:
    return [*fields[:most], *([Field(f"... {len(fields)} fields")] if len(fields) > most else [])]


def column(sky: Sky) -> np.ndarray:
    """Total gas column ``(npix,)`` float64, cm^-2 (or ``total_unit`` when the sky brings its own total).

    The sky's ``total`` if it has one; else ``1.823e18 sum_v T_v dv`` along its velocity axis; else the sum of inputs
    that are columns already.

    Raises:
        UserError: none of the three can be had.
    """
    if sky.total is not None:
        return sky.total.astype(np.float64)
    if sky.velocity is not None and len(sky.velocity) > 1 and sky.input_unit in IN_KELVIN:
        widths = np.abs(np.gradient(sky.velocity)) * IN_KELVIN[sky.input_unit]
        # float32 weights keep the product from copying the whole cube to float64.
        integral: np.ndarray = sky.inputs @ widths.astype(sky.inputs.dtype)
        return COLUMN_PER_K_KMS * integral.astype(np.float64)
    if sky.input_unit == "cm^-2":
        return np.asarray(sky.inputs.sum(axis=1, dtype=np.float64))
    raise UserError(
        f"no gas column can be made from inputs in {sky.input_unit or 'different units'!r} without a velocity axis",
        "give `data.total`, inputs in cm^-2, or channels in K with velocities",
    )


def write_store(path: str | Path, sky: Sky, overwrite: bool = False) -> Path:
    """Write a sky; the store appears complete or not at all.

    Raises:
        UserError: ``path`` exists (and not ``overwrite``) or its folder cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists", "remove it or choose another path")
    with _replacing(path) as scratch:
        _write(scratch, sky)
    return path


def write_blocks(folder: Path, sky: Sky, blocks: Iterable[np.ndarray]) -> None:
    """Write a store whose inputs come piece by piece: the same bytes as :func:`write_store` would make.

    The store stands in ``folder`` from the start, so the caller brings it to its place when this returns.

    Args:
        sky: all but the inputs; those may be :func:`blank_inputs`.
        blocks: the inputs, ``(pixels, nchan)`` from the first pixel on, each a whole number of superpixels.
    """
    _write(folder, replace(sky, inputs=blank_inputs(sky.grid, sky.inputs.shape[1])))
    array = zarr.open_group(folder, mode="r+")["inputs"]
    assert isinstance(array, zarr.Array)
    first = 0
    for block in blocks:
        array[first : first + len(block)] = block
        first += len(block)


def blank_inputs(grid: HealpixGrid, channels: int) -> np.ndarray:
    """NaN ``(npix, channels)`` that take no memory; zarr leaves their chunks unwritten."""
    return np.broadcast_to(np.float32(np.nan), (grid.npix, channels))


def superpixel_size(grid: HealpixGrid) -> int:
    """Pixels of a chunk along the pixel axis."""
    return min(grid.nside, SUPERPIXEL_SIDE) ** 2


def open_dataset(path: str | Path) -> xarray.Dataset:
    """The store as a lazily read dataset; raises UserError when it is not one of ours, or its metadata are damaged."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"no store {path}", "make it with `sphereml data prepare` or `sphereml simulate dust`")
    if not is_store(path):
        raise UserError(f"{path} is not a sphereml store", "give a store made by this program, or another path")
    version = _stated(path, "format_version")
    if version not in (FORMAT_VERSION, None):
        raise UserError(f"{path} has store version {version}, not {FORMAT_VERSION}", "remove it and prepare it again")
    if not has_whole_metadata(path):
        raise _damaged(path)
    try:
        return xarray.open_zarr(path, consolidated=False, chunks=None)
    except (KeyError, ValueError, OSError, RuntimeError):  # coordinates are read at once
        raise _damaged(path) from None


def _damaged(path: Path) -> UserError:
    return UserError(f"the store {path} is damaged", "remove it and prepare it again")


def polarized_intensity(
    targets: np.ndarray, fields: tuple[Field, ...], component: np.ndarray | None
) -> np.ndarray | None:
    """The first target if it is a scalar, else the component called intensity; None where there is neither."""
    return targets[:, 0] if fields and not fields[0].spin else component


def stored_component(dataset: xarray.Dataset, name: str) -> np.ndarray | None:
    """One component of a store, ``(npix,)``, or None."""
    variable = _COMPONENT + name
    return dataset[variable].values if variable in dataset else None


def open_store(path: str | Path, pixels: np.ndarray | None = None) -> Sky:
    """Read a whole store, or the rows of some pixels without the components.

    Args:
        pixels: NEST, rising and distinct; None: all.

    Raises:
        UserError: absent, not a sphereml store, or damaged.
    """
    with whole_dataset(path) as dataset:
        sky = _from_dataset(dataset, pixels)
    held = (sky.inputs, sky.targets, sky.total, sky.velocity, *sky.components.values())
    if not all(np.isfinite(values).all() for values in held if values is not None):
        raise _damaged(Path(path))
    return sky


@contextmanager
def whole_dataset(path: str | Path) -> Iterator[xarray.Dataset]:
    """A store to read from; raises UserError when it lacks a variable, or one cannot be read."""
    with open_dataset(path) as dataset:
        try:
            # A variable whose metadata is gone would look like one the sky never had.
            if not set(dataset.attrs["variables"]) <= set(dataset.variables):
                raise _damaged(Path(path))
            yield dataset
        except (KeyError, ValueError, OSError, RuntimeError):
            raise _damaged(Path(path)) from None


def is_store(path: Path) -> bool:
    """Whether ``path`` may be made anew: marked, of any version, or so damaged that the mark is gone."""
    return is_marked(path) or (path / "inputs" / "zarr.json").is_file()


def is_marked(path: Path) -> bool:
    """Whether the metadata of ``path`` can be read and say that it is of this format."""
    return bool(_stated(path, "format") == FORMAT)


def _stated(path: Path, attribute: str) -> Any:
    """An attribute of the store's own; None where its metadata cannot be read."""
    try:
        return json.loads((path / "zarr.json").read_text())["attributes"][attribute]
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A scratch folder beside ``path`` that takes its place at the end, or vanishes on any failure."""
    refuse_unwritable(path.parent)
    scratch: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = scratch_beside(path)
        scratch.mkdir()
        new, old = scratch / "new", scratch / "old"
        yield new
        if path.exists():
            path.replace(old)
        new.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})", "choose a folder with room") from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _write(folder: Path, sky: Sky) -> None:
    dataset = _to_dataset(sky)
    checked: dict[str, Any] = {"compressors": [ZstdCodec(level=0), Crc32cCodec()]}
    encoding = {str(name): checked for name in dataset.coords} | {
        str(name): _encoding(variable, sky.grid) | checked for name, variable in dataset.data_vars.items()
    }
    dataset.to_zarr(folder, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
    seal_metadata(folder)


def _encoding(variable: xarray.DataArray, grid: HealpixGrid) -> dict[str, Any]:
    return {"chunks": (superpixel_size(grid), *variable.shape[1:]), "fill_value": np.nan}


def _to_dataset(sky: Sky) -> xarray.Dataset:
    variables: dict[str, Any] = {
        "inputs": (("pixel", "channel"), sky.inputs, _described(sky, "input", _units(sky.input_fields))),
        "targets": (("pixel", "target"), sky.targets, _described(sky, "target", _units(sky.target_fields))),
    }
    if sky.total is not None:
        variables["total"] = (("pixel",), sky.total, _described(sky, "total", sky.total_unit))
    for name, values in sky.components.items():
        variables[_COMPONENT + name] = (("pixel",), values, {"units": sky.component_units.get(name, "unknown")})
    coordinates: dict[str, Any] = {
        "channel": ("channel", _column_names(sky.input_fields)),
        "target": ("target", _column_names(sky.target_fields)),
    }
    if sky.velocity is not None:
        coordinates["velocity"] = ("channel", sky.velocity, {"units": "km/s", "frame": "LSR"})
    attributes = _attributes(sky) | {"variables": sorted({*variables, *coordinates})}
    return xarray.Dataset(variables, coords=coordinates, attrs=attributes)


def _described(sky: Sky, role: str, units: str) -> dict[str, Any]:
    """The attributes of a variable: its unit, and by file what a reader of it must know (``own_maps.describe``)."""
    sources = sky.provenance.get("sources", {}).get(role, {})
    return {"units": units} | ({"sources": sources} if sources else {})


def _units(fields: tuple[Field, ...]) -> str:
    """The unit that the columns share, or all of them in order."""
    units = [one.unit for one in fields]
    return units[0] if len(set(units)) == 1 else ", ".join(units)


def _column_names(fields: tuple[Field, ...]) -> np.ndarray:
    return np.array([name for one in fields for name in one.column_names], dtype=object)


def _attributes(sky: Sky) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "nside": sky.grid.nside,
        "order": "NEST",
        "frame": "G",
        "total_unit": sky.total_unit,
        "input_fields": [asdict(one) for one in sky.input_fields],
        "target_fields": [asdict(one) for one in sky.target_fields],
        "provenance": json.dumps(sky.provenance, sort_keys=True),
    }


def stored_fields(dataset: xarray.Dataset, which: str) -> tuple[Field, ...]:
    """The fields of a store's ``inputs`` or ``targets`` (``which``: ``input_fields`` or ``target_fields``)."""
    return tuple(Field(**values) for values in dataset.attrs[which])


def _from_dataset(dataset: xarray.Dataset, pixels: np.ndarray | None) -> Sky:
    if pixels is not None:
        dataset = dataset[[name for name in ("inputs", "targets", "total") if name in dataset]].isel(pixel=pixels)
    parts = [str(name) for name in dataset.data_vars if str(name).startswith(_COMPONENT)]
    names = {part: part.removeprefix(_COMPONENT) for part in parts}
    return Sky(
        grid=HealpixGrid(int(dataset.attrs["nside"])),
        inputs=dataset["inputs"].values,
        targets=dataset["targets"].values,
        input_fields=stored_fields(dataset, "input_fields"),
        target_fields=stored_fields(dataset, "target_fields"),
        total=dataset["total"].values if "total" in dataset else None,
        total_unit=dataset.attrs["total_unit"],
        velocity=dataset["velocity"].values if "velocity" in dataset.coords else None,
        components={names[part]: dataset[part].values for part in parts},
        provenance=json.loads(dataset.attrs["provenance"]),
        component_units={names[part]: dataset[part].attrs["units"] for part in parts},
        pixels=pixels,
    )
