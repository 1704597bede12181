"""Maps of different Nside, frame, beam and unit brought to one grid in harmonic space, each field once.

Conventions: what comes out is NEST, Galactic, float32; a field keeps its unit and its spin (Q and U turn with the
frame, through E and B).  Pixels without data, up to a share of the map, are filled before the transform, from their
surroundings and so that the band limit does not ring (:mod:`sphereml.harmonics.gap_filling`).  Afterwards they, and
what is nearer to them than the common beam (or a pixel of the common grid), have weight 0 in the mask.  A map that is
on the grid already, and of which nothing is asked, keeps its values bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sphereml.config.schema import DataConfig
from sphereml.config.survey import FilterConfig
from sphereml.data.map_filter import MapFilter, MapKind, design_filter
from sphereml.data.own_maps import OwnMap
from sphereml.errors import UserError, refuse_all
from sphereml.harmonics.filters import FRAMES
from sphereml.harmonics.gap_filling import fill_band_limited
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import fill_gaps, near, regrade, to_galactic

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Regridded:
    """Maps on one grid.

    Args:
        fields: of every map that went in, each with its values ``(npix,)`` or ``(2, npix)``.
        mask: float32 ``(npix,)``, 0 where a map had no data; None where all had.
        history: by file, what was done.
    """

    grid: HealpixGrid
    fields: list[list[tuple[Field, np.ndarray]]]
    mask: np.ndarray | None
    history: dict[str, Any]


def regrid(maps: Sequence[OwnMap], data: DataConfig, say: Say) -> Regridded:
    """Bring maps to the grid that a configuration asks for.

    Raises:
        UserError: all that is wrong with any of them: an lmax that a grid does not carry, a beam that is unknown or
            wider than the one asked for, too many pixels without data.
    """
    grid = HealpixGrid(data.nside or min(one.maps.grid.nside for one in maps))
    filters = _design(maps, data, grid)
    mask, fields, history = np.ones(grid.npix, np.float32), [], {}
    for one, map_filter in zip(maps, filters, strict=True):
        say(_line(one, map_filter))
        fields.append([(field, _filtered(values, field, map_filter)) for field, values in one.field_values()])
        missing = np.isnan(one.maps.values).any(axis=1)
        if missing.any():
            mask[_unusable(missing, one.maps.frame, map_filter, grid, data.beam_arcmin)] = 0
        history[one.config.file] = _history(map_filter, int(missing.sum()))
    if not mask.any():
        raise UserError("the pixels without data of all maps leave no sky", "leave a map out, or complete it")
    return Regridded(grid, fields, None if mask.all() else mask, history)


def _design(maps: Sequence[OwnMap], data: DataConfig, grid: HealpixGrid) -> list[MapFilter]:
    wanted = FilterConfig(
        nside=grid.nside,
        lmax=data.lmax,
        iterations=data.iterations,
        butterworth_ell=0.0,
        beam_arcmin=data.beam_arcmin,
        max_missing=data.max_missing,
    )
    filters, faults = [], []
    for one in maps:
        kind = MapKind(one.config.file, one.maps.grid.nside, one.config.beam_arcmin or None, one.maps.frame)
        try:
            filters.append(design_filter(wanted, kind))
        except UserError as error:
            faults.append(error)
        faults += _too_many_gaps(one, data.max_missing)
    refuse_all(faults)
    return filters


def _too_many_gaps(one: OwnMap, most: float) -> list[UserError]:
    share = float(np.isnan(one.maps.values).any(axis=1).mean())
    if share <= most:
        return []
    what = f"{share:.2%} of the pixels of {one.config.file} have no data, data.max_missing={most:g}"
    return [UserError(what, "complete the map, or raise it: they are filled for the transform, and masked")]


def _filtered(values: np.ndarray, field: Field, map_filter: MapFilter) -> np.ndarray:
    rows = np.atleast_2d(values).astype(np.float64)
    missing = np.asarray(np.isnan(rows).any(axis=0))
    filled = np.stack([fill_gaps(row) for row in rows])
    if missing.any() and not map_filter.changes_nothing:
        lmax = min(map_filter.lmax, HealpixGrid.of_size(missing.size).safe_lmax)
        filled = fill_band_limited(filled if field.spin else filled[0], missing, lmax, field.spin)
    return map_filter.apply(filled.reshape(1, *(rows.shape if field.spin else values.shape)), field.spin)[0]


def _unusable(
    missing: np.ndarray, frame: str, map_filter: MapFilter, grid: HealpixGrid, beam_arcmin: float
) -> np.ndarray:
    """Pixels of the common grid that a gap reaches into, bool ``(npix,)``."""
    gaps = regrade(to_galactic(missing, frame).astype(np.float32), grid) > 0
    if map_filter.changes_nothing:
        return gaps
    reach = max(beam_arcmin / 60, float(np.degrees(np.sqrt(4 * np.pi / grid.npix))))
    return gaps | near(gaps, grid, reach)


def _line(one: OwnMap, map_filter: MapFilter) -> str:
    if map_filter.changes_nothing:
        return f"{one.config.file}: Nside {map_filter.nside}, Galactic, as it is"
    was = f"Nside {one.maps.grid.nside}, {FRAMES[one.maps.frame]}"
    return f"{one.config.file}: {was}, to Nside {map_filter.nside}, Galactic, lmax {map_filter.lmax}"


def _history(one: MapFilter, missing: int) -> dict[str, Any]:
    was = {"nside": one.kind.nside, "frame": one.kind.frame, "beam_arcmin": one.kind.beam_arcmin}
    done = {"lmax": one.lmax, "beam_arcmin": one.beam_arcmin, "unchanged": one.changes_nothing, "filled": missing}
    return {"from": was} | done
