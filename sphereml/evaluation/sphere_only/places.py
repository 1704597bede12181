"""A spherical network's error by where on the grid the sky lies: the same sky, turned, falls on one place and another.

Conventions: a place is bool ``(npix,)`` NEST of the grid.  The sky (inputs and target, band-limited at ``2 nside``) is
turned by random rotations, and predicted after each.  Squared errors are brought back to the sky's own pixels by
nearest pixels, ``(turn, seed, npix)``.  The error of a place is that of all pixels of sky while they lie in it, over
that of the same pixels while they lie elsewhere: what the sky itself does to an error is in both.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from sphereml.data.store import Sky
from sphereml.domains import HealpixSky
from sphereml.evaluation.sphere_only.networks import HeldOutSky, NetworkSeeds, squared_error
from sphereml.evaluation.sphere_only.ratios import estimate, ratio
from sphereml.harmonics.rotation import Angles, rotate_alm, rotation_matrix
from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.sky.faces import face_coordinates
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import near
from sphereml.sky.rotations import frame_at
from sphereml.sources.footprints import RegionFootprint
from sphereml.sources.sky_source import SkySource
from sphereml.tasks.maps import MapTask

TURNS = 8
_RADIUS = 6.0  # degrees around poles and corners
_RIM = 2  # pixels to either side of an edge of base pixels
_LATITUDES = (0.0, 20.0, 41.8, 60.0, 90.0)  # polar caps of the grid begin at 41.8 degrees
_DEPTHS = (0, 2, 4, 8)  # pixels from the edge of the sky that a network is shown


def grid_places(grid: HealpixGrid) -> dict[str, np.ndarray]:
    """Poles, the eight corners where three base pixels meet, edges of base pixels, and belts of the grid's latitude."""
    vectors, reach = grid.vectors(), np.cos(np.radians(_RADIUS))
    lon, lat = np.arange(8) % 4 * 90.0, np.degrees(np.arcsin(2 / 3)) * np.repeat([1, -1], 4)
    corners = frame_at(lon, lat)[:, :, 2]
    _, x, y = face_coordinates(grid.nside, np.arange(grid.npix))
    rim = np.minimum(np.minimum(x, grid.nside - 1 - x), np.minimum(y, grid.nside - 1 - y)) < _RIM
    latitude = np.abs(grid.lonlat()[1])
    belts = {f"latitude {lo:g}-{hi:g}": (latitude >= lo) & (latitude < hi) for lo, hi in pairwise(_LATITUDES)}
    at_corners = (vectors @ corners.T).max(axis=1) > reach
    return {"poles": np.abs(vectors[:, 2]) > reach, "corners": at_corners, "edges of base pixels": rim} | belts


def random_angles(count: int, seed: int) -> list[Angles]:
    """Euler angles of rotations uniform over all, the first of them none."""
    rng = np.random.default_rng(seed)
    psi, phi = rng.uniform(0, 2 * np.pi, (2, count - 1))
    theta = np.arccos(rng.uniform(-1, 1, count - 1))
    return [(0.0, 0.0, 0.0), *((float(a), float(b), float(c)) for a, b, c in zip(psi, theta, phi, strict=True))]


def turned_sky(sky: Sky, angles: Angles) -> Sky:
    """Inputs, targets and intensity after a rotation in harmonic space, band-limited at ``2 nside``."""
    components = {} if sky.intensity is None else {"intensity": _turned(sky.intensity[:, None], (), angles)[:, 0]}
    return replace(
        sky,
        inputs=_turned(sky.inputs, sky.input_fields, angles),
        targets=_turned(sky.targets, sky.target_fields, angles),
        total=None if sky.total is None else _turned(sky.total[:, None], (), angles)[:, 0],
        components=components,
    )


def _turned(maps: np.ndarray, fields: tuple[Field, ...], angles: Angles) -> np.ndarray:
    """Columns ``(npix, n)`` of fields (none named: scalars), turned."""
    grid, spins = HealpixGrid.of_size(len(maps)), [one.spin for one in fields] or [0] * maps.shape[1]
    parts, first = [], 0
    for spin in spins:
        rows = maps[:, first : first + (2 if spin else 1)].T.astype(np.float64)
        alm = rotate_alm(analysis(rows, grid.safe_lmax, spin), grid.safe_lmax, angles)
        parts.append(synthesis(alm, grid.nside, grid.safe_lmax, spin).T)
        first += rows.shape[0]
    return np.concatenate(parts, axis=1).astype(np.float32)


def measure_places(network: NetworkSeeds, baseline: NetworkSeeds, held_out: HeldOutSky) -> dict[str, Any]:
    """Error in each place of the grid over that of the same held-out sky elsewhere; ``control``: the baseline's."""
    grid, vectors = held_out.sky.grid, held_out.sky.grid.vectors()
    errors: list[list[np.ndarray]] = [[], []]
    lies_at = []
    for angles in random_angles(TURNS, held_out.evaluation.seed):
        sky = turned_sky(held_out.sky, angles)
        lies_at.append(grid.pixels_at(vectors @ rotation_matrix(angles).T))
        for one, kept in zip((network, baseline), errors, strict=True):
            found = [squared_error(seed.sphere(sky).values, sky.targets) for seed in one.predictors]
            kept.append(np.stack(found)[:, lies_at[-1]])
    region = held_out.split.test
    seen, control = (np.stack(kept)[..., region] for kept in errors)
    at, blocks = np.stack(lies_at)[:, region], held_out.blocks[region]
    return {
        name: compare_turns(seen, place[at], blocks) | {"control": compare_turns(control, place[at], blocks)}
        for name, place in grid_places(grid).items()
    }


def compare_turns(errors: np.ndarray, inside: np.ndarray, blocks: np.ndarray) -> dict[str, Any]:
    """Errors ``(turn, seed, n)`` while pixels lie inside ``(turn, n)`` over those of the same while they do not."""
    both = inside.any(axis=0) & ~inside.all(axis=0)
    errors, inside = errors[..., both], inside[:, both]
    own = np.einsum("tkn,tn->kn", errors, inside)
    times = inside.sum(axis=0)
    elsewhere = np.einsum("tkn,tn->kn", errors, ~inside) * times / (len(inside) - times)
    return estimate(ratio, [own, elsewhere], blocks[both]) | {"pixels": int(times.sum())}


def measure_edge(network: NetworkSeeds, held_out: HeldOutSky) -> dict[str, Any]:
    """Error where the network is shown the test region alone over that with the whole sky, by pixels from the edge."""
    grid, region = held_out.sky.grid, held_out.split.test
    coarse = grid.nside >> network.predictors[0].network.depth
    cut = []
    for predictor in network.predictors:
        task = predictor.task
        assert isinstance(task, MapTask)
        columns = task.columns(held_out.sky, predictor.scaling)
        batch = SkySource(columns, region.astype(np.float32), RegionFootprint(grid.nside, coarse, region)).batch(0, 1)
        assert isinstance(batch.domain, HealpixSky)
        shown = batch.domain.region.pixels
        cut.append(squared_error(predictor.batch(batch)[0].numpy(), held_out.sky.targets[shown]))
    hidden = np.ones(grid.npix, dtype=bool)
    hidden[shown] = False
    whole = held_out.squared_errors(network.maps)[:, shown]
    depth = np.sum([~near(hidden, grid, (reach + 0.5) * grid.resolution)[shown] for reach in _DEPTHS[1:]], axis=0)
    found = {}
    for index, lo in enumerate(_DEPTHS):
        name = f"{lo}-{_DEPTHS[index + 1]}" if index + 1 < len(_DEPTHS) else f"{lo} and more"
        here = (depth == index) & region[shown]
        found[name] = estimate(
            ratio, [np.stack(cut)[:, here], whole[:, here]], held_out.blocks[shown][here]
        ) | {"pixels": int(here.sum())}  # fmt: skip
    return found
