"""What every reader of spectral cubes offers: one channel at a time, as a full-sky HEALPix map.

Conventions: maps are NEST, Galactic, brightness temperature in K, NaN where the source has no data; velocities are LSR
km/s.  A source holds no cube in memory: ``read`` fetches one channel from the disk, whose size may be 33 GiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from sphereml.data.file_checksums import file_checksum
from sphereml.data.store import IN_KELVIN
from sphereml.data.units import reconcile_units
from sphereml.data.velocity import VelocityAxis
from sphereml.errors import UserError


class ChannelSource(Protocol):
    """A spectral cube on the sphere.

    Attributes:
        name: for messages and provenance.
        unit: ``"K"``.
        frame: ``"G"``.
        nside: of the maps that :meth:`read` gives.
        beam_arcmin: full width at half maximum, None where not known.
        axis: all channels in the order of the source.
        velocity: ``(nchan,)`` km/s, ``axis.centres``.
        files: file name -> SHA-256, computed when first asked for (it reads every byte).
    """

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def frame(self) -> str: ...
    @property
    def nside(self) -> int: ...
    @property
    def beam_arcmin(self) -> float | None: ...
    @property
    def axis(self) -> VelocityAxis: ...
    @property
    def velocity(self) -> np.ndarray: ...
    @property
    def files(self) -> dict[str, str]: ...

    def read(self, channel: int) -> np.ndarray:
        """One channel, float32 ``(npix,)`` K; raises UserError when it is not there or holds no data at all."""
        ...


def find_files(folder: str | Path, pattern: str) -> list[Path]:
    """Files of a folder that match a glob, sorted by name; raises UserError when there is none."""
    found = sorted(path for path in Path(folder).glob(pattern) if path.is_file())
    if not found:
        raise UserError(f"no file {pattern} in {folder}", "check the folder and the pattern, or fetch the files")
    return found


def kelvin_factor(stated: str, otherwise: str, name: str) -> float:
    """What turns a file's brightness into K; ``otherwise`` is its unit where it states none.

    Raises:
        UserError: the unit is absent, unknown or no brightness.
    """
    unit = reconcile_units(stated, "" if stated.strip() else otherwise, name)
    if unit not in IN_KELVIN:
        raise UserError(f"{name} is in {unit!r}, not a brightness temperature", "give channels in K or mK")
    return IN_KELVIN[unit]


def checksums(paths: Sequence[Path]) -> dict[str, str]:
    """File name -> SHA-256."""
    return {path.name: file_checksum(path) for path in paths}


def refuse_bad_channel(channel: int, source: ChannelSource) -> None:
    """Raise UserError when the source has no such channel."""
    if not 0 <= channel < len(source.axis):
        raise UserError(f"{source.name} has no channel {channel}", f"its channels are 0 to {len(source.axis) - 1}")


def refuse_empty(values: np.ndarray, channel: int, source: ChannelSource) -> None:
    """Raise UserError when a channel's map is NaN everywhere."""
    if np.isnan(values).all():
        raise UserError(
            f"channel {channel} ({source.velocity[channel]:.1f} km/s) of {source.name} holds no data",
            "choose a narrower range of velocities, or fetch the files again",
        )
