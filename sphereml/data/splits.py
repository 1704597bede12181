"""Training, validation and test regions of one sky.

Conventions: regions are bool ``(npix,)`` NEST.  They are disjoint by construction: the test side is chosen first, all
within the buffer of it is taken out of the rest, and what remains is dealt to training or validation.  A stored split
is one number a pixel, so no pixel can have two parts.  Masks are weights: what they keep in part belongs to its region
with that weight, in the training and in the scores.  Latitudes and longitudes are Galactic degrees.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from sphereml.config.schema import SplitConfig
from sphereml.config.validation import check_folds
from sphereml.data.column_names import ColumnReference, parse_reference
from sphereml.data.healpix_fits import read_sky_weights
from sphereml.data.split_files import PARTS, Split, read_split, regrade_split
from sphereml.data.store import Sky
from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import disc, latitude_cut, longitude_cut, near, regrade_weights, threshold_mask, to_galactic

_OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
# Longitudes of arXiv:1904.13265's second split, 36 degrees apart on either side.
_LONGITUDES = {"east": (198.0, 342.0), "west": (18.0, 162.0)}

_ONE_GRID = "bring it to theirs, or set data.nside to bring all to one grid"


def build_split(config: SplitConfig, sky: Sky, folder: Path | None = None, regraded: bool = False) -> Split:
    """Regions as :class:`~sphereml.config.schema.SplitConfig` describes them.

    ``cuts`` are taken out of every region.  Distances are those between pixel centres along great circles: the sides of
    ``east`` and ``west`` are 36 degrees of longitude apart, which is less than any buffer near the poles.  Of a fold
    nothing that is fitted may know the target: ``sky_fraction`` is that of the sky outside the fold and its buffer,
    which is smoothed as if the target were unknown there, and the threshold is applied to the fold afterwards.

    Args:
        sky: gives the grid and, for ``sky_fraction``, the target whose faintest part is kept.
        folder: where a relative ``mask_file`` or ``file`` is looked up.
        regraded: bring masks and splits of another Nside or frame to the sky's, rather than refuse them.
    Raises:
        UserError: an impossible value, an unusable mask, or an empty region.
    """
    _refuse_impossible(config)
    grid, files = sky.grid, split_files(config, folder)
    test, rest, chosen = _sides(config, grid)
    apart = rest & ~test & ~near(test, grid, config.buffer)
    weight = _kept_sky(config, sky, files.get("split.mask_file"), regraded, apart if config.train == "fold" else None)
    keep = weight > 0
    if "split.file" in files:
        split = _limited(files["split.file"], keep, regraded)
    else:
        learning = keep & apart
        margin = config.centre_margin if config.train in ("north", "south") else 0.0
        split = Split(config.name, grid, learning & ~chosen, learning & chosen, keep & test, margin)
    _refuse_empty(split)
    whole = (weight[split.parts > 0] == 1).all()
    return split if whole else replace(split, weight=weight.astype(np.float32))


def split_files(config: SplitConfig, folder: Path | None) -> dict[str, ColumnReference]:
    """The files that a configuration of regions names, by their key; relative names are looked up in ``folder``."""
    named = {"split.file": config.file, "split.mask_file": config.mask_file}
    return {key: parse_reference(_located(name, key, folder)) for key, name in named.items() if name is not None}


def _limited(file: ColumnReference, keep: np.ndarray, regraded: bool) -> Split:
    split, grid = read_split(file), HealpixGrid.of_size(keep.size)
    if split.grid != grid and not regraded:
        raise UserError(f"the split {file.path} has Nside {split.grid.nside}, the maps {grid.nside}", _ONE_GRID)
    split = regrade_split(split, grid)
    return replace(split, **{name: getattr(split, name) & keep for name in PARTS})


def _kept_sky(
    config: SplitConfig, sky: Sky, mask: ColumnReference | None, regraded: bool, known: np.ndarray | None
) -> np.ndarray:
    """Weights of the mask, or of where the first target is faintest, 0 where the sky is cut: float64 ``(npix,)``.

    Args:
        known: bool ``(npix,)``, where the target may decide what is faint; None: everywhere.
    """
    keep = np.ones(sky.grid.npix)
    if mask is not None:
        weights = read_sky_weights(mask, None if regraded else sky.grid, any_frame=regraded)
        keep = regrade_weights(to_galactic(weights.values, weights.frame), sky.grid)
    elif config.sky_fraction is not None and config.file is None:
        brightness = np.hypot(*sky.targets[:, :2].T) if sky.intensity is None else sky.intensity
        faintest = threshold_mask(brightness, sky.grid, config.sky_fraction, config.smoothing, known)
        keep = faintest.astype(np.float64)
    if "mask" in sky.components:
        keep = keep * sky.components["mask"]
    for cut in config.cuts:
        keep = np.where(disc(sky.grid, cut.lon, cut.lat, cut.radius), 0.0, keep)
    return keep


def _located(name: str, key: str, folder: Path | None) -> Path:
    path = Path(name).expanduser()
    if path.is_absolute() or (folder is None and parse_reference(path).path.is_file()):
        return path.absolute()
    if folder is None:
        raise UserError(f"{name} has no folder to be found in", f"give {key} an absolute path")
    return folder / path


def _sides(config: SplitConfig, grid: HealpixGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The test side, the side that is learned from, and which part of the sky validates."""
    if config.train == "fold":
        test = lune(grid, config.fold, config.folds)
        return test, ~test, lune(grid, (config.fold + 1) % config.folds, config.folds)
    test = _side(_OPPOSITE[config.train], config.buffer, grid)
    return test, _side(config.train, config.buffer, grid), longitude_cut(grid, *config.validation_lon)


def lune(grid: HealpixGrid, fold: int, folds: int) -> np.ndarray:
    """Fold by longitude, bool ``(npix,)``: all see the plane and both poles alike; together they are the whole sky."""
    lon, _ = grid.lonlat()
    return np.asarray(np.minimum((lon * folds / 360).astype(int), folds - 1) == fold)


def _side(side: str, buffer: float, grid: HealpixGrid) -> np.ndarray:
    if side == "north":
        return latitude_cut(grid, buffer, np.inf)
    if side == "south":
        return latitude_cut(grid, -np.inf, -buffer)
    lon, _ = grid.lonlat()
    start, stop = _LONGITUDES[side]
    return (lon > start) & (lon < stop)


def _refuse_impossible(config: SplitConfig) -> None:
    if config.train not in (*_OPPOSITE, "fold"):
        raise UserError(
            f"split.train={config.train!r} is no side of the sky", f"use one of {', '.join(_OPPOSITE)}, fold"
        )
    if config.train == "fold":
        check_folds(config)
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
    for name in PARTS:
        if not getattr(split, name).any():
            raise UserError(f"the {name} region of split {split.name!r} is empty", "widen the mask or the ranges")
