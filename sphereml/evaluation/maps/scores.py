"""Scores of every model on the same held-out sky, in both languages.

Flat: gnomonic test patches, r of single Fourier modes averaged over r50 and r150, patch by patch; flat networks predict
the patches themselves, everything else is projected onto them.  Standard errors are block jackknives over the coarse
pixels that hold the patch centres, because patches overlap.  Sphere: pseudo-spectra of the full-sky maps under the
test mask, ``r_ell = C^ab / sqrt(C^aa C^bb)`` averaged over the integers of a band (ell >= 2), their errors by leaving
out one coarse pixel of the sky at a time; flat networks' maps are stitched to the sphere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sphereml.config.schema import EvaluationConfig
from sphereml.data.split_files import Split
from sphereml.errors import UserError
from sphereml.evaluation.maps.sphere import SphereScores, score_sphere
from sphereml.evaluation.statistics import block_jackknife, paired
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.flat import FlatModes
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.sampling import PatchZone, draw_frames, sample_patches
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import apodize, disc, latitude_cut

# Every other model is paired with them, where they are there.
BASELINES = ("integrated", "linear")
PATCH_BANDS = ("r50", "r150")


@dataclass(frozen=True, eq=False)
class TestPatches:
    """The held-out patches: frames ``(n, 3, 3)``, window ``(n, size, size)``, jackknife block ``(n,)``."""

    patch: GnomonicPatch
    frames: np.ndarray
    window: np.ndarray
    block: np.ndarray


def draw_test_patches(
    patch: GnomonicPatch, split: Split, max_masked: float, evaluation: EvaluationConfig
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


def score_patches(prediction: np.ndarray, target: np.ndarray, test: TestPatches, bands: Bands) -> PatchScores:
    """Per-mode r of predicted patches ``(n, size, size)`` against the target's under the window."""
    modes = FlatModes(test.patch)
    predicted, true, window = (torch.from_numpy(x.astype(np.float64)) for x in (prediction, target, test.window))
    r = modes.per_mode_r(predicted, true, window)
    flat = bands.chosen(PATCH_BANDS)
    scores = dict(zip(flat, modes.band_mean(r, flat).numpy().T, strict=True))
    kept = modes.bin_ell < max(bands.upper)
    return PatchScores(scores, modes.bin_ell[kept], modes.bin_mean(r).numpy()[:, kept])


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Where models are scored: patches, masks of the sphere by region, and the bands that the map resolves."""

    test: TestPatches
    masks: dict[str, np.ndarray]
    bands: Bands
    evaluation: EvaluationConfig


def region_masks(evaluation: EvaluationConfig, split: Split) -> dict[str, np.ndarray]:
    """Weights ``(npix,)`` of the test region, and of the same without the discs of ``evaluation.cuts``.

    Those of an apodized mask stay; ``evaluation.apodization`` tapers the regions' edges beside.
    """
    regions = {"test": split.test}
    if evaluation.cuts:
        cut = np.any([disc(split.grid, item.lon, item.lat, item.radius) for item in evaluation.cuts], axis=0)
        regions["without_cuts"] = split.test & ~cut
    return {
        name: split.weigh(region).astype(np.float64)
        * (apodize(region, split.grid, evaluation.apodization) if evaluation.apodization else 1.0)
        for name, region in regions.items()
    }


@dataclass(eq=False)
class TargetScores:
    """Scores of every model for one target column, in the order in which they are shown.

    Args:
        target: of the whole sphere ``(npix,)`` and on the test patches ``(n, size, size)``.
    """

    held_out: HeldOut
    target: tuple[np.ndarray, np.ndarray]
    patches: dict[str, PatchScores] = field(default_factory=dict)
    sphere: dict[str, dict[str, SphereScores]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, sphere: np.ndarray, patches: np.ndarray, **facts: Any) -> None:
        """Score one model's full-sky map ``(npix,)`` and its patches ``(n, size, size)``."""
        held_out = self.held_out
        self.patches[name] = score_patches(patches, self.target[1], held_out.test, held_out.bands)
        self.sphere[name] = {
            region: score_sphere(sphere, self.target[0], mask, held_out.bands, held_out.evaluation.block_nside)
            for region, mask in held_out.masks.items()
        }
        self.facts[name] = facts

    def to_json(self) -> dict[str, Any]:
        """``models``, ``paired``, ``paired_sphere`` and ``spectra`` of ``comparison.json``."""
        parts = {"models": self._model, "paired": self._pairs, "paired_sphere": self._sphere_pairs}
        parts["spectra"] = self._spectra
        return {key: {name: entry(name) for name in self.patches} for key, entry in parts.items()}

    def _model(self, name: str) -> dict[str, Any]:
        scores, block = self.patches[name].bands, self.held_out.test.block
        entry: dict[str, Any] = dict(self.facts[name])
        for band in PATCH_BANDS:
            entry[band] = None
            if band in scores:
                mean, sem = block_jackknife(scores[band], block)
                entry[band] = {"mean": float(mean), "sem": float(sem)}
        entry["wins_vs_integrated"] = self._wins(name)
        for region, key in (("test", "sphere"), ("without_cuts", "sphere_without_cuts")):
            if region in self.sphere[name]:
                found = self.sphere[name][region]
                entry[key] = dict.fromkeys(("r50", "r150", "r_low")) | found.bands
                entry[f"{key}_sem"] = found.sem
        return entry

    def _wins(self, name: str) -> dict[str, int] | None:
        """Patches on which the model is above the integrated one; None without it."""
        if "integrated" not in self.patches:
            return None
        scores, reference = self.patches[name].bands, self.patches["integrated"].bands
        wins = {band: int((values > reference[band]).sum()) for band, values in scores.items()}
        return {**{band: wins.get(band, 0) for band in PATCH_BANDS}, "of": len(self.held_out.test.frames)}

    def _others(self, name: str) -> list[str]:
        return [other for other in BASELINES if other in self.patches and other != name]

    def _pairs(self, name: str) -> dict[str, Any]:
        """Differences to the baselines, patch by patch."""
        own, pairs = self.patches[name].bands, {}
        for baseline in self._others(name):
            other = self.patches[baseline].bands
            found = {band: paired(own[band], other[band], self.held_out.test.block) for band in own}
            pairs[baseline] = {
                band: {"mean": one.mean, "sem": one.sem, "sigmas": one.sigmas} for band, one in found.items()
            }
        return pairs

    def _sphere_pairs(self, name: str) -> dict[str, Any]:
        """Differences to the baselines on the sphere, in each region, from the common jackknife."""
        return {
            baseline: {
                region: scores.difference(self.sphere[baseline][region]) for region, scores in self.sphere[name].items()
            }
            for baseline in self._others(name)
        }

    def _spectra(self, name: str) -> dict[str, Any]:
        scores, sphere = self.patches[name], self.sphere[name]["test"]
        mean, sem = block_jackknife(scores.binned, self.held_out.test.block)
        return {
            "flat": {"ell": scores.ell.tolist(), "r": mean.tolist(), "sem": sem.tolist()},
            "sphere": {"ell": sphere.ell.tolist(), "r": sphere.r.tolist()},
        }
