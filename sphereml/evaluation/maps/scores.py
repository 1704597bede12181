"""Scores of every model on the same held-out sky, in both languages.

Flat: gnomonic test patches, r of single Fourier modes averaged over r50 and r150, patch by patch; flat networks predict
the patches themselves, everything else is projected onto them.  Standard errors are block jackknives over the coarse
pixels that hold the patch centres, because patches overlap.  Sphere: pseudo-spectra of the full-sky maps under the
test mask, ``r_ell = C^ab / sqrt(C^aa C^bb)`` averaged over the integers of a band (ell >= 2), their errors by leaving
out one coarse pixel of the sky at a time; flat networks' maps are stitched to the sphere.  Of Q and U those are the
scores of E and of B (:mod:`sphereml.evaluation.maps.polarization`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from sphereml.config.schema import EvaluationConfig
from sphereml.data.split_files import Split
from sphereml.evaluation.maps.patches import PATCH_BANDS, PatchScores, TestPatches, score_patches
from sphereml.evaluation.maps.polarization import PolarizedRegion, score_polarized_patches
from sphereml.evaluation.maps.ranking import best_on_patches, best_on_sphere
from sphereml.evaluation.maps.sphere import SphereScores, score_sphere
from sphereml.evaluation.statistics import block_jackknife, jackknife_error, paired
from sphereml.harmonics.bands import Bands
from sphereml.sky.masks import apodize, disc

# Every other model is paired with them, where they are there.
BASELINES = ("integrated", "linear")
# Regions of the sphere, and under which key of a model their scores stand.
REGION_KEYS = {"test": "sphere", "without_cuts": "sphere_without_cuts"}


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


@dataclass(frozen=True, eq=False)
class ScalarTruth:
    """One target column ``(npix,)`` and the same on the test patches ``(n, size, size)``."""

    held_out: HeldOut
    sphere: np.ndarray
    patches: np.ndarray

    def score(self, sphere: np.ndarray, patches: np.ndarray) -> tuple[dict[str, SphereScores], PatchScores]:
        """Scores of a prediction, by region of the sphere and on patches."""
        known, evaluation = self.held_out, self.held_out.evaluation
        regions = {
            region: score_sphere(sphere, self.sphere, mask, known.bands, evaluation.block_nside)
            for region, mask in known.masks.items()
        }
        return regions, score_patches(patches, self.patches, known.test, known.bands)


@dataclass(frozen=True, eq=False)
class PolarizedTruth:
    """Q and U of the target ``(npix, 2)`` and on the test patches, with the intensity (zeros: unknown) ``(..., 1)``."""

    held_out: HeldOut
    sphere: np.ndarray
    patches: np.ndarray
    intensity: tuple[np.ndarray, np.ndarray]

    @cached_property
    def _regions(self) -> dict[str, PolarizedRegion]:
        known = self.held_out
        return {
            name: PolarizedRegion(self.sphere, self.intensity[0], mask, known.bands, known.evaluation.block_nside)
            for name, mask in known.masks.items()
        }

    def score(
        self, sphere: np.ndarray, patches: np.ndarray
    ) -> tuple[list[tuple[dict[str, SphereScores], PatchScores]], dict[str, Any]]:
        """Scores of E and of B of a prediction, and what else is known of it (``polarization`` of a comparison)."""
        found = {name: region.score(sphere) for name, region in self._regions.items()}
        test, bands = self.held_out.test, self.held_out.bands
        flat, facts = score_polarized_patches(patches, self.patches, self.intensity[1], test, bands)
        both = [({name: one[0][i] for name, one in found.items()}, flat[i]) for i in range(2)]
        return both, {REGION_KEYS[name]: one[1] for name, one in found.items()} | {"flat": facts}


@dataclass(eq=False)
class TargetScores:
    """Scores of every model for one target column, or E or B, in the order in which they are shown.

    Args:
        groups: names of means over models that differ in their seed alone, with those models; their scores stand with
            the others, under these names.
        against: models that every other one is paired with; None: each with each.
    """

    held_out: HeldOut
    against: tuple[str, ...] | None = BASELINES
    patches: dict[str, PatchScores] = field(default_factory=dict)
    sphere: dict[str, dict[str, SphereScores]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, sphere: dict[str, SphereScores], patches: PatchScores, **facts: Any) -> None:
        """Take one model's scores by region of the sphere and on patches."""
        self.sphere[name], self.patches[name], self.facts[name] = sphere, patches, facts

    def add_mean(self, name: str, members: list[str]) -> None:
        """Score the mean of models that were added: the scores' mean, not the maps'."""
        self.groups[name] = members
        self.patches[name] = PatchScores.mean([self.patches[member] for member in members])
        parts = [self.sphere[member] for member in members]
        self.sphere[name] = {region: SphereScores.mean([part[region] for part in parts]) for region in parts[0]}
        self.facts[name] = {key: self.facts[members[0]][key] for key in ("domain", "form")}
        self.facts[name] |= {
            key: float(np.mean([self.facts[member][key] for member in members]))
            for key in ("seconds_train", "seconds_predict")
        }

    @property
    def shown(self) -> list[str]:
        """What tables and figures show: every model, and one mean in place of those that differ in their seed."""
        group_of = {member: name for name, members in self.groups.items() for member in members}
        models = [name for name in self.patches if name not in self.groups]
        return list(dict.fromkeys(group_of.get(name, name) for name in models))

    @property
    def firsts(self) -> list[str]:
        """Every model, and the first of those that differ in their seed: whose maps are shown."""
        later = {member for members in self.groups.values() for member in members[1:]}
        return [name for name in self.facts if name not in self.groups and name not in later]

    def to_json(self) -> dict[str, Any]:
        """``models``, ``groups``, ``paired``, ``paired_sphere``, ``best`` and ``spectra`` of ``comparison.json``."""
        models = [name for name in self.patches if name not in self.groups]
        content: dict[str, Any] = {
            "models": {name: self._model(name) for name in models},
            "groups": {name: self._group(name) for name in self.groups},
        }
        for key, entry in (("paired", self._pairs), ("paired_sphere", self._sphere_pairs), ("spectra", self._spectra)):
            content[key] = {name: entry(name) for name in self.patches}
        return content | {"best": self._best()}

    def _best(self) -> dict[str, dict[str, str | None]]:
        """The best of what is shown, by place and band; None where no paired difference is clear."""
        values = {name: self.patches[name].bands for name in self.shown}
        found = {"flat": best_on_patches(values, self.held_out.test.block)}
        for region, key in REGION_KEYS.items():
            if region in self.held_out.masks:
                found[key] = best_on_sphere({name: self.sphere[name][region] for name in self.shown})
        return found

    def _model(self, name: str) -> dict[str, Any]:
        scores, block = self.patches[name].bands, self.held_out.test.block
        entry: dict[str, Any] = dict(self.facts[name])
        for band in PATCH_BANDS:
            entry[band] = None
            if band in scores:
                mean, sem = block_jackknife(scores[band], block)
                entry[band] = {"mean": float(mean), "sem": float(sem)}
        entry["wins_vs_integrated"] = self._wins(name)
        for region, key in REGION_KEYS.items():
            if region in self.sphere[name]:
                found = self.sphere[name][region]
                entry[key] = dict.fromkeys(("r50", "r150", "r_low")) | found.bands
                entry[f"{key}_sem"] = found.sem
        return entry

    def _group(self, name: str) -> dict[str, Any]:
        """A mean over seeds as a model, its members, and the standard deviation (n - 1) of each score over them."""
        members = self.groups[name]
        bands = self.patches[name].bands
        spread = {band: _spread([self.patches[one].bands[band].mean() for one in members]) for band in bands}
        entry = self._model(name) | {"members": members, "spread": spread}
        for region, key in REGION_KEYS.items():
            if region in self.sphere[name]:
                found = [self.sphere[one][region].bands for one in members]
                entry[f"{key}_spread"] = {band: _spread([one[band] for one in found]) for band in found[0]}
        return entry

    def _wins(self, name: str) -> dict[str, int] | None:
        """Patches on which the model is above the integrated one; None without it."""
        if "integrated" not in self.patches:
            return None
        scores, reference = self.patches[name].bands, self.patches["integrated"].bands
        wins = {band: int((values > reference[band]).sum()) for band, values in scores.items()}
        return {**{band: wins.get(band, 0) for band in PATCH_BANDS}, "of": len(self.held_out.test.frames)}

    def _others(self, name: str) -> list[str]:
        known = self.shown if self.against is None else self.against
        return [other for other in known if other in self.patches and other != name]

    def _pairs(self, name: str) -> dict[str, Any]:
        """Differences to the baselines, patch by patch."""
        own = self.patches[name].bands
        return {
            baseline: {
                band: paired(own[band], self.patches[baseline].bands[band], self.held_out.test.block).to_json()
                for band in own
            }
            for baseline in self._others(name)
        }

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
        error = jackknife_error(sphere.r_samples, sphere.size)
        return {
            "flat": {"ell": scores.ell.tolist(), "r": mean.tolist(), "sem": sem.tolist()},
            "sphere": {"ell": sphere.ell.tolist(), "r": sphere.r.tolist(), "sem": error.tolist()},
        }


def _spread(values: list[float]) -> float:
    return float(np.std(values, ddof=1))
