"""Every model on the same held-out sky, in both languages.

Flat: gnomonic test patches, r of single Fourier modes averaged over r50 and r150, patch by patch; flat networks predict
the patches themselves, everything else is projected onto them.  Standard errors are block jackknives over the coarse
pixels that hold the patch centres, because patches overlap.  Sphere: pseudo-spectra of the full-sky maps under the
test mask, ``r_ell = C^ab / sqrt(C^aa C^bb)`` averaged over the integers of a band (ell >= 2), their errors by leaving
out one coarse pixel of the sky at a time; flat networks' maps are stitched to the sphere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sphereml.config.schema import EvaluationConfig, ExperimentConfig
from sphereml.data.splits import Split
from sphereml.data.store import Sky
from sphereml.errors import UserError
from sphereml.evaluation.sphere import SphereScores, score_sphere
from sphereml.evaluation.statistics import block_jackknife, paired
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.flat import FlatModes
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.sampling import PatchZone, draw_frames, sample_patches
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import apodize, disc, latitude_cut
from sphereml.tasks.losses import resolved_bands

REFERENCE = "integrated"
PATCH_BANDS = ("r50", "r150")


@dataclass(frozen=True, eq=False)
class TestPatches:
    """The held-out patches: frames ``(n, 3, 3)``, window and target ``(n, size, size)``, jackknife block ``(n,)``."""

    patch: GnomonicPatch
    frames: np.ndarray
    window: np.ndarray
    target: np.ndarray
    block: np.ndarray


def draw_test_patches(config: ExperimentConfig, sky: Sky, split: Split) -> TestPatches:
    """``evaluation.patches`` patches with centres in the test region, ``centre_margin`` from the equator."""
    patch = GnomonicPatch(config.patches.size, config.patches.pixel_arcmin)
    margin = split.margin if config.split.train in ("north", "south") else 0.0
    centres = split.test & ~latitude_cut(sky.grid, -margin, margin) if margin else split.test
    zone = PatchZone(centres, split.test, config.patches.max_masked)
    frames = draw_frames(np.random.default_rng(config.evaluation.seed), config.evaluation.patches, zone, patch)
    sampled = sample_patches(np.stack([split.test, sky.target], axis=1).astype(np.float32), frames, patch)
    block = HealpixGrid(config.evaluation.block_nside).pixels_at(frames[:, :, 2])
    if len(np.unique(block)) < 2:
        raise UserError(
            f"all {len(frames)} test patches lie in one block of sky: no standard error can be given",
            "raise evaluation.patches or evaluation.block_nside",
        )
    return TestPatches(patch, frames, (sampled[..., 0] > 0.999).astype(np.float64), sampled[..., 1], block)


@dataclass(frozen=True, eq=False)
class PatchScores:
    """Correlations of one model: bands ``{name: (n,)}`` and binned r ``(n, nbin)`` at ``ell``."""

    bands: dict[str, np.ndarray]
    ell: np.ndarray
    binned: np.ndarray


def score_patches(prediction: np.ndarray, test: TestPatches, bands: Bands) -> PatchScores:
    """Per-mode r of predicted patches ``(n, size, size)`` against the target under the window."""
    modes = FlatModes(test.patch)
    predicted, target = (torch.from_numpy(values.astype(np.float64)) for values in (prediction, test.target))
    r = modes.per_mode_r(predicted, target, torch.from_numpy(test.window))
    flat = bands.chosen(PATCH_BANDS)
    scores = dict(zip(flat, modes.band_mean(r, flat).numpy().T, strict=True))
    kept = modes.bin_ell < max(bands.upper)
    return PatchScores(scores, modes.bin_ell[kept], modes.bin_mean(r).numpy()[:, kept])


@dataclass(eq=False)
class Comparison:
    """Scores of every model, in the order they are shown, and what is needed to draw them."""

    config: ExperimentConfig
    bands: Bands
    test: TestPatches
    masks: dict[str, np.ndarray]
    patches: dict[str, PatchScores] = field(default_factory=dict)
    sphere: dict[str, dict[str, SphereScores]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    marginalization: dict[str, Any] | None = None

    def add(self, name: str, patches: np.ndarray, sphere: np.ndarray, sky: Sky, **facts: Any) -> None:
        """Score one model's predicted patches ``(n, size, size)`` and full-sky map ``(npix,)``."""
        self.patches[name] = score_patches(patches, self.test, self.bands)
        self.sphere[name] = {
            region: score_sphere(sphere, sky.target, mask, self.bands, self.config.evaluation.block_nside)
            for region, mask in self.masks.items()
        }
        self.facts[name] = facts

    def to_json(self) -> dict[str, Any]:
        """The schema of DESIGN.md's ``comparison.json`` with errors, pairs, spectra and notes beside it."""
        return {
            "experiment": {"name": self.config.name, "data": self.config.data.name, "seed": self.config.training.seed},
            "split": self.config.split.name,
            "ell_bands": self.bands,
            "models": {name: self._model(name) for name in self.patches},
            "paired": {name: self._pairs(name) for name in self.patches},
            "paired_sphere": {name: self._sphere_pairs(name) for name in self.patches},
            "spectra": {name: self._spectra(name) for name in self.patches},
            **({"marginalization": self.marginalization} if self.marginalization else {}),
            "notes": self.notes(),
        }

    def _model(self, name: str) -> dict[str, Any]:
        scores, reference = self.patches[name].bands, self.patches[REFERENCE].bands
        entry: dict[str, Any] = dict(self.facts[name])
        for band in PATCH_BANDS:
            entry[band] = None
            if band in scores:
                mean, sem = block_jackknife(scores[band], self.test.block)
                entry[band] = {"mean": float(mean), "sem": float(sem)}
        wins = {band: int((values > reference[band]).sum()) for band, values in scores.items()}
        entry["wins_vs_integrated"] = {**{b: wins.get(b, 0) for b in PATCH_BANDS}, "of": len(self.test.frames)}
        for region, key in (("test", "sphere"), ("without_cuts", "sphere_without_cuts")):
            if region in self.sphere[name]:
                scores_here = self.sphere[name][region]
                entry[key] = dict.fromkeys(("r50", "r150", "r_low")) | scores_here.bands
                entry[f"{key}_sem"] = scores_here.sem
        return entry

    def _pairs(self, name: str) -> dict[str, Any]:
        """Differences to the baselines, patch by patch."""
        own = self.patches[name].bands
        pairs: dict[str, Any] = {}
        for baseline in ("integrated", "linear"):
            if baseline in self.patches and baseline != name:
                other = self.patches[baseline].bands
                results = {band: paired(own[band], other[band], self.test.block) for band in own}
                pairs[baseline] = {
                    band: {"mean": pair.mean, "sem": pair.sem, "sigmas": pair.sigmas} for band, pair in results.items()
                }
        return pairs

    def _sphere_pairs(self, name: str) -> dict[str, Any]:
        """The same on the sphere, in each region, from the common jackknife."""
        pairs: dict[str, Any] = {}
        for baseline in ("integrated", "linear"):
            if baseline in self.sphere and baseline != name:
                pairs[baseline] = {
                    region: scores.difference(self.sphere[baseline][region])
                    for region, scores in self.sphere[name].items()
                }
        return pairs

    def _spectra(self, name: str) -> dict[str, Any]:
        scores, sphere = self.patches[name], self.sphere[name]["test"]
        mean, sem = block_jackknife(scores.binned, self.test.block)
        return {
            "flat": {"ell": scores.ell.tolist(), "r": mean.tolist(), "sem": sem.tolist()},
            "sphere": {"ell": sphere.ell.tolist(), "r": sphere.r.tolist()},
        }

    def notes(self) -> list[str]:
        """What a reader must know to trust the numbers."""
        asked = {name: list(getattr(self.config.bands, name)) for name in ("r_low", "r50", "r150")}
        notes = [
            f"The band {name} was asked over {lo:g} <= ell < {hi:g}, the map resolves ell < {self.bands[name][1]:g}."
            if name in self.bands
            else f"The band {name} ({lo:g} <= ell < {hi:g}) lies beyond what the map resolves and is left out."
            for name, (lo, hi) in asked.items()
            if name not in self.bands or self.bands[name][1] < hi
        ]
        blocks = len(np.unique(self.test.block))
        notes.append(
            f"Standard errors leave out one of {blocks} blocks of sky (Nside {self.config.evaluation.block_nside}) at "
            "a time, because patches overlap; the training sky is one realization."
        )
        return notes

    def save(self, folder: Path) -> Path:
        """Write ``comparison.json``; raises UserError when the folder cannot be written."""
        from sphereml.data.whole_files import write_atomically

        text = json.dumps(_strict(self.to_json()), indent=1, allow_nan=False)
        return write_atomically(folder / "comparison.json", text.encode())


def _strict(value: Any) -> Any:
    """The same with null where a number is not finite: strict JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value


def begin_comparison(config: ExperimentConfig, sky: Sky, split: Split) -> Comparison:
    """A comparison without models yet, on the test region of an experiment."""
    bands = resolved_bands(config.bands, sky.grid.nside)
    if "r50" not in bands:
        raise UserError(
            f"the maps of Nside {sky.grid.nside} do not resolve bands.r50={config.bands.r50}", "lower bands.r50"
        )
    return Comparison(config, bands, draw_test_patches(config, sky, split), _masks(config.evaluation, split))


def _masks(config: EvaluationConfig, split: Split) -> dict[str, np.ndarray]:
    """Weights of the test region, and of the same without the discs of ``evaluation.cuts``."""
    regions = {"test": split.test}
    if config.cuts:
        cut = np.any([disc(split.grid, item.lon, item.lat, item.radius) for item in config.cuts], axis=0)
        regions["without_cuts"] = split.test & ~cut
    if config.apodization == 0:
        return {name: region.astype(np.float64) for name, region in regions.items()}
    return {name: apodize(region, split.grid, config.apodization) for name, region in regions.items()}
