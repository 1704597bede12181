"""Training, validation and test regions of one sky.

Conventions: regions are bool ``(npix,)`` NEST.  They are disjoint by construction: the test side is chosen first, all
within the buffer of it is taken out of the rest, and what remains is dealt to training or validation.  A stored split
is one number a pixel, so no pixel can have two parts.  Latitudes and longitudes are Galactic degrees.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits

from sphereml.config.schema import SplitConfig
from sphereml.config.validation import check_folds
from sphereml.data.healpix_fits import read_healpix, read_mask
from sphereml.data.store import Sky
from sphereml.data.whole_files import write_atomically
from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import disc, latitude_cut, longitude_cut, near, threshold_mask

_OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
# Longitudes of arXiv:1904.13265's second split, 36 degrees apart on either side.
_LONGITUDES = {"east": (198.0, 342.0), "west": (18.0, 162.0)}
_PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Disjoint regions of a sky, each bool ``(npix,)`` NEST.

    Args:
        margin: centres of patches and tiles keep this distance from the equator, degrees; 0 where the regions are not
            parted by it.
    """

    name: str
    grid: HealpixGrid
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    margin: float

    @property
    def parts(self) -> np.ndarray:
        """uint8 ``(npix,)``: 1 trains, 2 validates, 3 tests, 0 is not used."""
        return np.asarray(sum(np.uint8(i) * getattr(self, name) for i, name in enumerate(_PARTS, start=1)))


def build_split(config: SplitConfig, sky: Sky, folder: Path | None = None) -> Split:
    """Regions as :class:`~sphereml.config.schema.SplitConfig` describes them.

    ``cuts`` are taken out of every region.  Distances are those between pixel centres along great circles: the sides of
    ``east`` and ``west`` are 36 degrees of longitude apart, which is less than any buffer near the poles.

    Args:
        sky: gives the grid and, for ``sky_fraction``, the target whose faintest part is kept.
        folder: where a relative ``mask_file`` is looked up.
    Raises:
        UserError: an impossible value, an unusable mask, or an empty region.
    """
    _refuse_impossible(config)
    grid, files = sky.grid, split_files(config, folder)
    keep = _kept_sky(config, sky, files.get("split.mask_file"))
    if "split.file" in files:
        split = _limited(read_split(files["split.file"]), keep, files["split.file"])
    else:
        test, rest, chosen = _sides(config, grid)
        learning = keep & rest & ~test & ~near(test, grid, config.buffer)
        margin = config.centre_margin if config.train in ("north", "south") else 0.0
        split = Split(config.name, grid, learning & ~chosen, learning & chosen, keep & test, margin)
    _refuse_empty(split)
    return split


def split_files(config: SplitConfig, folder: Path | None) -> dict[str, Path]:
    """The files that a configuration of regions names, by their key; relative names are looked up in ``folder``."""
    named = {"split.file": config.file, "split.mask_file": config.mask_file}
    return {key: _located(name, key, folder) for key, name in named.items() if name is not None}


def _limited(split: Split, keep: np.ndarray, path: Path) -> Split:
    if split.grid.npix != keep.size:
        wanted = HealpixGrid.of_size(keep.size).nside
        raise UserError(f"the split {path} has Nside {split.grid.nside}, the maps {wanted}", "bring it to theirs")
    parts = {name: getattr(split, name) & keep for name in _PARTS}
    return replace(split, **parts)


def write_split(path: Path, split: Split) -> Path:
    """Write the parts as a HEALPix FITS map that ``healpy.read_map`` reads; it appears whole or not at all."""
    column = fits.Column(name="PART", format="B", unit="1", array=split.parts)
    table = fits.BinTableHDU.from_columns([column])
    table.header.update(
        {"PIXTYPE": "HEALPIX", "ORDERING": "NESTED", "COORDSYS": "G", "INDXSCHM": "IMPLICIT"}
        | {"NSIDE": split.grid.nside, "FIRSTPIX": 0, "LASTPIX": split.grid.npix - 1}
        | {"SPLIT": split.name, "MARGIN": split.margin}
    )
    table.header["COMMENT"] = "PART: 0 not used, 1 training, 2 validation, 3 test"
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(stream)
    return write_atomically(path, stream.getvalue())


def read_split(path: Path) -> Split:
    """A split that :func:`write_split` wrote; raises UserError for any other file."""
    maps = read_healpix(path)
    header = fits.getheader(path, 1)
    if maps.names != ("PART",) or "SPLIT" not in header or not np.isin(maps.values, range(4)).all():
        raise UserError(f"{path.name} holds no split", "give a file that sphereml wrote")
    train, validation, test = (maps.values[:, 0] == i for i in (1, 2, 3))
    return Split(header["SPLIT"], maps.grid, train, validation, test, float(header["MARGIN"]))


def _kept_sky(config: SplitConfig, sky: Sky, mask: Path | None) -> np.ndarray:
    """The pixels of the mask, or those where the first target is faintest, less what is cut: bool ``(npix,)``."""
    keep = np.ones(sky.grid.npix, dtype=bool)
    if mask is not None:
        keep = read_mask(mask, sky.grid)
    elif config.sky_fraction is not None and config.file is None:
        keep = threshold_mask(sky.targets[:, 0], sky.grid, config.sky_fraction, config.smoothing)
    if "mask" in sky.components:
        keep = keep & (sky.components["mask"] > 0.5)
    for cut in config.cuts:
        keep = keep & ~disc(sky.grid, cut.lon, cut.lat, cut.radius)
    return keep


def _located(name: str, key: str, folder: Path | None) -> Path:
    path = Path(name).expanduser()
    if path.is_absolute() or (folder is None and path.is_file()):
        return path.absolute()
    if folder is None:
        raise UserError(f"{name} has no folder to be found in", f"give {key} an absolute path")
    return folder / path


def _sides(config: SplitConfig, grid: HealpixGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The test side, the side that is learned from, and which part of the sky validates."""
    if config.train == "fold":
        test = _lune(grid, config.fold, config.folds)
        return test, ~test, _lune(grid, (config.fold + 1) % config.folds, config.folds)
    test = _side(_OPPOSITE[config.train], config.buffer, grid)
    return test, _side(config.train, config.buffer, grid), longitude_cut(grid, *config.validation_lon)


def _lune(grid: HealpixGrid, fold: int, folds: int) -> np.ndarray:
    """Fold by longitude: all folds see the plane and both poles alike, and together they are the whole sky."""
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
    for name in _PARTS:
        if not getattr(split, name).any():
            raise UserError(f"the {name} region of split {split.name!r} is empty", "widen the mask or the ranges")
