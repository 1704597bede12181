"""Held-out flat patches of the test region, and r of single Fourier modes on them.

Conventions: patches are ``(n, size, size)``, with Q and U in their own axes ``(n, size, size, 2)``; windows hold what a
pixel counts, 0 outside of the test region and where an interpolated pixel mixes in what lies outside.  Blocks are
coarse HEALPix pixels that hold the patch centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sphereml.config.schema import EvaluationConfig
from sphereml.data.split_files import Split
from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.flat import FlatModes
from sphereml.patches.projection import ProjectedPatch
from sphereml.patches.sampling import PatchZone, draw_frames, sample_patches
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import latitude_cut

PATCH_BANDS = ("r50", "r150")


@dataclass(frozen=True, eq=False)
class TestPatches:
    """The held-out patches: frames ``(n, 3, 3)``, window ``(n, size, size)``, jackknife block ``(n,)``."""

    patch: ProjectedPatch
    frames: np.ndarray
    window: np.ndarray
    block: np.ndarray


def draw_test_patches(
    patch: ProjectedPatch, split: Split, max_masked: float, evaluation: EvaluationConfig
) -> TestPatches:
    """``evaluation.patches`` patches with centres in the test region, the split's margin from the equator.

    Raises:
        UserError: all of them lie in one block, so that no standard error could be given.
    """
    margin = split.margin
    centres = split.test & ~latitude_cut(split.grid, -margin, margin) if margin else split.test
    zone = PatchZone(centres, split.test, max_masked)
    frames = draw_frames(np.random.default_rng(evaluation.seed), evaluation.patches, zone, patch)
    block = HealpixGrid(evaluation.block_nside).pixels_at(frames[:, :, 2])
    if len(np.unique(block)) < 2:
        raise UserError(
            f"all {len(frames)} test patches lie in one block of sky: no standard error can be given",
            "raise evaluation.patches or evaluation.block_nside",
        )
    inside = sample_patches(split.test.astype(np.float32), frames, patch) > 0.999
    window = inside.astype(np.float64)
    if split.weight is not None:
        window *= sample_patches(split.weight, frames, patch)
    return TestPatches(patch, frames, window, block)


@dataclass(frozen=True, eq=False)
class PatchScores:
    """Correlations of one model: bands ``{name: (n,)}`` and binned r ``(n, nbin)`` at ``ell``."""

    bands: dict[str, np.ndarray]
    ell: np.ndarray
    binned: np.ndarray

    @classmethod
    def of(cls, modes: FlatModes, r: torch.Tensor, bands: Bands) -> PatchScores:
        """From the correlation of every mode, ``(n, nmodes)``."""
        flat = bands.chosen(PATCH_BANDS)
        scores = dict(zip(flat, modes.band_mean(r, flat).numpy().T, strict=True))
        kept = modes.bin_ell < max(bands.upper)
        return cls(scores, modes.bin_ell[kept], modes.bin_mean(r).numpy()[:, kept])

    @classmethod
    def mean(cls, scores: Sequence[PatchScores]) -> PatchScores:
        """The mean score of several models on each patch."""
        first = scores[0]
        bands = {band: np.mean([one.bands[band] for one in scores], axis=0) for band in first.bands}
        return cls(bands, first.ell, np.mean([one.binned for one in scores], axis=0))


def score_patches(prediction: np.ndarray, target: np.ndarray, test: TestPatches, bands: Bands) -> PatchScores:
    """Per-mode r of predicted patches ``(n, size, size)`` against the target's under the window."""
    modes = FlatModes(test.patch)
    predicted, true, window = (torch.from_numpy(x.astype(np.float64)) for x in (prediction, target, test.window))
    return PatchScores.of(modes, modes.per_mode_r(predicted, true, window), bands)
