"""Flat networks against the spherical one on the very same pixels: by thirds of the patch, and along the seams.

Conventions: thirds are of the patch's area (:func:`~sphereml.patches.stitching.third_of_area`).  Errors are squared,
summed over pixels of the sphere, and given over the spherical network's there; nothing is resampled for them.  Single
modes' r is that of patches, onto which the spherical network's map and the target are interpolated alike: it is to be
compared between thirds.  A seam of a stitched map lies between pixels in which different patches weigh most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import healpy
import numpy as np
import torch

from sphereml.evaluation.maps.patches import PATCH_BANDS, TestPatches, draw_test_patches
from sphereml.evaluation.sphere_only.networks import HeldOutSky, NetworkSeeds
from sphereml.evaluation.sphere_only.ratios import double_ratio, estimate, ratio
from sphereml.evaluation.statistics import paired
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.flat import FlatModes
from sphereml.patches.projection import ProjectedPatch
from sphereml.patches.sampling import sample_patches
from sphereml.patches.stitching import best_patches, covered_by_thirds, fewest_frames, third_of_area
from sphereml.sky.grid import HealpixGrid

THIRDS = ("centre", "middle", "outer")
# r of a third is taken on patches of which the test region holds at least this share of it.
_LEAST_SHARE = 0.5


def thirds(patch: ProjectedPatch) -> np.ndarray:
    """Third of the area in which each pixel's centre lies, 0 to 2, int ``(size, size)``."""
    row, column = np.indices((patch.size, patch.size))
    return third_of_area(patch, column, row)


def measure_thirds(flat: NetworkSeeds, sphere: NetworkSeeds, held_out: HeldOutSky, bands: Bands) -> dict[str, Any]:
    """By third the ``error`` over the sphere's and ``r`` by band; and the outer third's error over the centre's.

    Raises:
        UserError: the test patches lie in one block of sky.
    """
    config = flat.predictors[0].run.config
    test = draw_test_patches(flat.task.patch, held_out.split, config.patches.max_masked, held_out.evaluation)

    def cut(values: np.ndarray) -> np.ndarray:
        return sample_patches(values, test.frames, test.patch, held_out.spins)

    own = [
        predictor.patches(test.frames, values, held_out.sky)
        for predictor, values in zip(flat.predictors, flat.maps, strict=True)
    ]
    other, true = [cut(values) for values in sphere.maps], cut(held_out.sky.targets)
    found: dict[str, Any] = {
        name: {"r": compare_modes(own, other, true, test, thirds(test.patch) == third, bands)}
        for third, name in enumerate(THIRDS)
    }
    for name, error in third_errors(flat, sphere, held_out).items():
        found.setdefault(name, {}).update(error)
    return found


def third_errors(flat: NetworkSeeds, sphere: NetworkSeeds, held_out: HeldOutSky) -> dict[str, dict[str, Any]]:
    """``error`` by third, on the pixels of the sphere that some patch has there, one patch a pixel; the outer third's
    over the centre's where patches have a pixel in both."""
    patch, blocks = flat.task.patch, held_out.blocks
    covered = covered_by_thirds(fewest_frames(patch), patch, held_out.sky.grid) & held_out.split.test
    own = [
        held_out.squared_errors([one.sphere(held_out.sky, third=third).values for one in flat.predictors])
        for third in range(3)
    ]
    other, both = held_out.squared_errors(sphere.maps).mean(axis=0), covered[0] & covered[2]
    return {
        name: {"error": estimate(ratio, [errors[:, here], other[here]], blocks[here])}
        for name, errors, here in zip(THIRDS, own, covered, strict=True)
    } | {"outer_over_centre": estimate(ratio, [own[2][:, both], own[0][:, both]], blocks[both])}


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
