"""Flat networks against the spherical one on the very same pixels: by thirds of the patch, and along the seams.

Conventions: thirds are of the patch's area, squares about its centre (0), a frame around these (1) and the outermost
one (2), so that a third near the border is one to all four sides.  Errors are squared, summed over pixels, and given
over the spherical network's.  A seam of a stitched map lies between pixels in which different patches weigh most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import healpy
import numpy as np
import torch

from sphereml.evaluation.maps.patches import PATCH_BANDS, TestPatches, draw_test_patches
from sphereml.evaluation.sphere_only.networks import HeldOutSky, NetworkSeeds, squared_error
from sphereml.evaluation.sphere_only.ratios import double_ratio, estimate, ratio
from sphereml.evaluation.statistics import paired
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.flat import FlatModes
from sphereml.patches.sampling import sample_patches
from sphereml.patches.stitching import best_patches, fewest_frames
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.plane import SquareGrid

THIRDS = ("centre", "middle", "outer")
# r of a third is taken on patches of which the test region holds at least this share of it.
_LEAST_SHARE = 0.5


def thirds(patch: SquareGrid) -> np.ndarray:
    """Third of the area in which each pixel's centre lies, 0 to 2, int ``(size, size)``."""
    reach = np.maximum(*np.abs(patch.offsets())) / (patch.size * patch.step / 2)
    return np.minimum((3 * reach**2).astype(int), 2)


def measure_thirds(flat: NetworkSeeds, sphere: NetworkSeeds, held_out: HeldOutSky, bands: Bands) -> dict[str, Any]:
    """By third the ``error`` over the sphere's and ``r`` by band; and the outer third's error over the centre's.

    Raises:
        UserError: the test patches lie in one block of sky.
    """
    config = flat.predictors[0].run.config
    test = draw_test_patches(flat.task.patch, held_out.split, config.patches.max_masked, held_out.evaluation)

    def cut(values: np.ndarray) -> np.ndarray:
        return sample_patches(values, test.frames, test.patch, held_out.spins)

    true = cut(held_out.sky.targets)
    own = [
        predictor.patches(test.frames, values, held_out.sky)
        for predictor, values in zip(flat.predictors, flat.maps, strict=True)
    ]
    other = [cut(values) for values in sphere.maps]
    zones = thirds(test.patch)[None] == np.arange(3)[:, None, None]
    sums = [third_errors(one, true, test, zones) for one in (own, other)]
    (centre, _, outer), (sphere_centre, _, sphere_outer) = sums[0], sums[1].mean(axis=1)
    found: dict[str, Any] = {
        name: {
            "error": estimate(ratio, [flat_sum, sphere_sum], test.block),
            "r": compare_modes(own, other, true, test, zone, bands),
        }
        for name, zone, flat_sum, sphere_sum in zip(THIRDS, zones, sums[0], sums[1].mean(axis=1), strict=True)
    }
    edge = estimate(double_ratio, [outer, sphere_outer, centre, sphere_centre], test.block)
    return found | {"outer_over_centre": edge}


def third_errors(values: Sequence[np.ndarray], true: np.ndarray, test: TestPatches, zones: np.ndarray) -> np.ndarray:
    """Squared errors of patches ``(n, size, size, columns)``, one a seed, by zone: ``(zone, seed, n)``."""
    errors = np.stack([squared_error(one, true) * test.window for one in values])
    return np.einsum("knij,zij->zkn", errors, zones.astype(np.float64))


def compare_modes(
    own: Sequence[np.ndarray],
    other: Sequence[np.ndarray],
    true: np.ndarray,
    test: TestPatches,
    zone: np.ndarray,
    bands: Bands,
) -> dict[str, Any]:
    """r of single modes under one zone's window, both networks' mean over seeds and columns, and their difference."""
    window = test.window * zone
    kept = window.mean(axis=(1, 2)) > _LEAST_SHARE * zone.mean()
    if len(np.unique(test.block[kept])) < 2:
        return {}
    modes, flat_bands = FlatModes(test.patch), bands.chosen(PATCH_BANDS)
    weight = torch.from_numpy(window[kept])[:, None]

    def score(seeds: Sequence[np.ndarray]) -> np.ndarray:
        images = [torch.from_numpy(np.moveaxis(one[kept].astype(np.float64), -1, 1)) for one in (true, *seeds)]
        rows = [modes.band_mean(modes.per_mode_r(one, images[0], weight), flat_bands) for one in images[1:]]
        return np.asarray(torch.stack(rows).mean(dim=(0, 2)).numpy())

    scores = score(own), score(other)
    return {
        band: {"flat": float(flat.mean()), "sphere": float(sphere.mean())}
        | {"difference": paired(flat, sphere, test.block[kept]).to_json()}
        for band, flat, sphere in zip(flat_bands, scores[0].T, scores[1].T, strict=True)
    }


def measure_seams(flat: NetworkSeeds, sphere: NetworkSeeds, held_out: HeldOutSky) -> dict[str, Any]:
    """Errors of the stitched map over the sphere's within a pixel of its seams and elsewhere, and their ratio."""
    region, patch = held_out.split.test, flat.task.patch
    along = seams(best_patches(fewest_frames(patch), patch, held_out.sky.grid)[0])
    own, other = (held_out.squared_errors(one.maps) for one in (flat, sphere))
    found = compare_places(own[:, region], other.mean(axis=0)[region], along[region], held_out.blocks[region])
    overlap = [one.seam for one in flat.predictions if one.seam is not None]
    return found | {"share": float(along[region].mean()), "overlap": float(np.mean(overlap))}


def compare_places(own: np.ndarray, other: np.ndarray, inside: np.ndarray, blocks: np.ndarray) -> dict[str, Any]:
    """``own`` ``(seed, n)`` over ``other`` ``(n,)`` inside of a place, outside, and the one over the other."""
    parts = [own * inside, other * inside, own * ~inside, other * ~inside]
    return {
        "at": estimate(ratio, parts[:2], blocks),
        "elsewhere": estimate(ratio, parts[2:], blocks),
        "at_over_elsewhere": estimate(double_ratio, parts, blocks),
    }


def seams(owner: np.ndarray) -> np.ndarray:
    """Pixels with a neighbour that another patch owns, bool ``(npix,)`` NEST."""
    grid = HealpixGrid.of_size(owner.size)
    around = healpy.get_all_neighbours(grid.nside, np.arange(grid.npix), nest=True)
    return np.asarray(((owner[around] != owner) & (around >= 0)).any(axis=0))
