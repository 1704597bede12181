"""Clark & Hensley's published Stokes parameters of HI by velocity (arXiv:1909.11673), summed over channels.

Conventions of the files (Harvard Dataverse, doi:10.7910/DVN/P41KDE): HDF5, one file for each of I, Q and U
(``Q_v_HI4PI_Kkms.h5``) with one dataset (``QHI_v``) of ``(npix, nchan)`` in K km/s, RING, Galactic; U has the sign of
the IAU; Q and U are NaN where a channel has no filament, which counts as no polarization of that channel.  What is read
is NEST, COSMO, float64, and NaN only where no channel has data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sphereml.data.channels import find_files
from sphereml.errors import UserError
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.maps import SkyMap

_UNIT = "K km/s"
_PIXELS_AT_ONCE = 2**18


def read_stokes_cubes(folder: Path | str, channels: Sequence[int] = ()) -> SkyMap:
    """I, and P (Q, U), summed over channels.

    Args:
        folder: holds the three files.
        channels: first and last, from 0; empty: all.
    Raises:
        UserError: h5py is not installed, a file or its dataset is absent, the cubes have different shapes, no Nside or
            no such channel.
    """
    sums = {letter: _sum(_one_file(Path(folder), letter), f"{letter}HI_v", channels) for letter in "IQU"}
    if len({one.size for one in sums.values()}) > 1:
        raise UserError(f"the cubes in {folder} have different pixels", "give the I, Q and U of one survey")
    HealpixGrid.of_size(sums["I"].size)
    values = np.stack([sums["I"], sums["Q"], -sums["U"]], axis=1)
    return SkyMap(values, (Field("I", _UNIT), Field("P", _UNIT, spin=2)), order="ring").nested()


def _one_file(folder: Path, letter: str) -> Path:
    found = find_files(folder, f"{letter}_v_*.h5")
    if len(found) > 1:
        raise UserError(f"{folder} has {len(found)} cubes {letter}_v", "keep one survey's files in a folder")
    return found[0]


def _sum(path: Path, name: str, channels: Sequence[int]) -> np.ndarray:
    try:
        return _sum_of(path, name, channels)
    except (OSError, RuntimeError) as error:  # what HDF5 says of a damaged file
        raise UserError(f"{path.name} is not a readable HDF5 file ({error})", "fetch it again") from None


def _sum_of(path: Path, name: str, channels: Sequence[int]) -> np.ndarray:
    with _h5py().File(path, "r") as file:
        if name not in file or file[name].ndim != 2:
            raise UserError(f"{path.name} has no cube {name}", f"its datasets are {', '.join(file) or 'none'}")
        cube = file[name]
        end = cube.shape[1] - 1
        first, last = channels or (0, end)
        if not 0 <= first <= last <= end:
            raise UserError(f"{path.name} has no channels {first} to {last}", f"its channels are 0 to {end}")
        total = np.empty(cube.shape[0])
        for start in range(0, cube.shape[0], _PIXELS_AT_ONCE):
            some = cube[start : start + _PIXELS_AT_ONCE, first : last + 1].astype(np.float64)
            total[start : start + len(some)] = np.where(np.isnan(some).all(axis=1), np.nan, np.nansum(some, axis=1))
    return total


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError:
        raise UserError("HDF5 files need h5py, which is not installed", "pip install h5py") from None
    return h5py
