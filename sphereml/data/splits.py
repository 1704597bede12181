"""Training, validation and test regions of one sky.

Conventions: regions are bool ``(npix,)`` NEST, pairwise disjoint by construction (opposite sides of the sky, then the
validation longitudes taken out of the training side).  Latitudes and longitudes are Galactic degrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sphereml.config.schema import SplitConfig
from sphereml.data.healpix_fits import read_mask
from sphereml.data.store import Sky
from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import disc, latitude_cut, longitude_cut, threshold_mask

_OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
# Longitudes of arXiv:1904.13265's second split, 36 degrees apart on either side.
_LONGITUDES = {"east": (198.0, 342.0), "west": (18.0, 162.0)}


@dataclass(frozen=True, eq=False)
class Split:
    """Disjoint regions of a sky, each bool ``(npix,)`` NEST.

    Args:
        margin: centres of patches and tiles keep this distance from the equator, degrees.
    """

    name: str
    grid: HealpixGrid
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    margin: float


def build_split(config: SplitConfig, sky: Sky, folder: Path | None = None) -> Split:
    """Regions as :class:`~sphereml.config.schema.SplitConfig` describes them.

    ``cuts`` are taken out of every region.  For ``east`` and ``west`` the sides are longitudes (198, 342) and (18, 162)
    and ``buffer`` is not used; their distance shrinks towards the poles.

    Args:
        sky: gives the grid and, for ``sky_fraction``, the target whose faintest part is kept.
        folder: where a relative ``mask_file`` is looked up.
    Raises:
        UserError: an impossible value, an unusable mask, or an empty region.
    """
    _refuse_impossible(config)
    grid = sky.grid
    keep = _kept_sky(config, sky, folder)
    train_side = keep & _side(config.train, config.buffer, grid)
    validation = train_side & longitude_cut(grid, *config.validation_lon)
    split = Split(
        name=config.name,
        grid=grid,
        train=train_side & ~validation,
        validation=validation,
        test=keep & _side(_OPPOSITE[config.train], config.buffer, grid),
        margin=config.centre_margin,
    )
    _refuse_empty(split)
    return split


def _kept_sky(config: SplitConfig, sky: Sky, folder: Path | None) -> np.ndarray:
    keep = np.ones(sky.grid.npix, dtype=bool)
    if config.mask_file is not None:
        keep = read_mask(_mask_path(config.mask_file, folder), sky.grid)
    elif config.sky_fraction is not None:
        keep = threshold_mask(sky.target, sky.grid, config.sky_fraction, config.smoothing)
    for cut in config.cuts:
        keep = keep & ~disc(sky.grid, cut.lon, cut.lat, cut.radius)
    return keep


def _mask_path(name: str, folder: Path | None) -> Path:
    path = Path(name).expanduser()
    if path.is_absolute():
        return path
    if folder is None:
        raise UserError(f"mask {name} has no folder to be found in", "give split.mask_file an absolute path")
    return folder / path


def _side(side: str, buffer: float, grid: HealpixGrid) -> np.ndarray:
    if side == "north":
        return latitude_cut(grid, buffer, np.inf)
    if side == "south":
        return latitude_cut(grid, -np.inf, -buffer)
    lon, _ = grid.lonlat()
    start, stop = _LONGITUDES[side]
    return (lon > start) & (lon < stop)


def _refuse_impossible(config: SplitConfig) -> None:
    if config.train not in _OPPOSITE:
        raise UserError(f"split.train={config.train!r} is no side of the sky", f"use one of {', '.join(_OPPOSITE)}")
    for name, angle in (("buffer", config.buffer), ("centre_margin", config.centre_margin)):
        if not 0 <= angle < 90:
            raise UserError(f"split.{name}={angle:g} degrees is impossible", "choose 0 or more and below 90")
    lon = config.validation_lon
    if len(lon) != 2 or lon[0] == lon[1] or not all(0 <= bound <= 360 for bound in lon):
        raise UserError(f"split.validation_lon={list(lon)} is no range", "give two different longitudes in 0..360")
    for cut in config.cuts:
        if not (0 < cut.radius <= 180 and -90 <= cut.lat <= 90):
            raise UserError(f"the cut {cut.name!r} is no disc on the sky", "give lat in -90..90 and radius in 0..180")


def _refuse_empty(split: Split) -> None:
    for name in ("train", "validation", "test"):
        if not getattr(split, name).any():
            raise UserError(f"the {name} region of split {split.name!r} is empty", "widen the mask or the ranges")
