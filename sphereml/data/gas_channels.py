"""Maps of one gas, from a FITS file or a store, one after another in the memory of a few.

Conventions: maps are NEST, float64, each times the width of its channel where the gas is in K or mK and has
velocities, so that their sum is the integral in K km/s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sphereml.data.healpix_fits import read_healpix
from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid

# A chunk of a store holds all channels of a superpixel, so that one channel costs as much reading as all; so many in
# float32 take no more memory than one map on two by two subpixels.
_CHANNELS_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class GasChannels:
    """Channels that are read when they are iterated over.

    Args:
        grid: of the maps.
        unit: of a weighted channel.
        weights: what each channel counts, ``(nchan,)``.
        read: the channels of a slice, unweighted ``(npix, n)``.
    """

    grid: HealpixGrid
    unit: str
    weights: np.ndarray
    read: Callable[[slice], np.ndarray]

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Weighted channels ``(npix,)``."""
        for first in range(0, len(self), _CHANNELS_AT_ONCE):
            some = slice(first, first + _CHANNELS_AT_ONCE)
            for channel, weight in zip(self.read(some).T, self.weights[some], strict=True):
                yield channel * float(weight)

    def mean(self) -> float:
        """Mean over the sky of the channels' sum."""
        return float(sum(channel.mean(dtype=np.float64) for channel in self))


def open_gas(path: Path, fields: Sequence[int], unit: str = "") -> GasChannels:
    """The channels of a store, or the chosen columns of a HEALPix FITS file.

    Args:
        fields: columns of a FITS file; a store gives all of its channels.
        unit: of a FITS file that states none.
    Raises:
        UserError: the file cannot be read, or the inputs are no channels of one gas.
    """
    if path.is_dir():
        return _open_store(path)
    maps = read_healpix(path, fields, unit)
    return GasChannels(maps.grid, maps.unit, np.ones(maps.values.shape[1]), lambda some: maps.values[:, some])


def _open_store(path: Path) -> GasChannels:
    from sphereml.data.store import IN_KELVIN, open_dataset, stored_fields  # xarray: a third of a second

    dataset = open_dataset(path)
    fields = stored_fields(dataset, "input_fields")
    units = {field.unit for field in fields}
    if len(units) != 1 or "" in units or any(field.spin for field in fields):
        raise UserError(f"the inputs of {path} are no channels of one gas", "give a store of channels in one unit")
    (unit,) = units
    weights = np.ones(len(fields))
    if unit in IN_KELVIN and dataset.coords.get("velocity", np.empty(0)).size > 1:
        weights, unit = np.abs(np.gradient(dataset["velocity"].values)) * IN_KELVIN[unit], "K km/s"

    def read(some: slice) -> np.ndarray:
        values = np.asarray(dataset["inputs"][:, some].values)
        if not np.isfinite(values).all():
            raise UserError(f"the store {path} is damaged", "remove it and prepare it again")
        return values

    return GasChannels(HealpixGrid(int(dataset.attrs["nside"])), unit, weights, read)
