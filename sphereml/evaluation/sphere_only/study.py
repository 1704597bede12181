"""What only the sphere shows: one network on the sphere and on patches, measured on the same held-out sky."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from sphereml.config.schema import EvaluationConfig, ExperimentConfig
from sphereml.errors import UserError
from sphereml.evaluation.maps.polarization import PolarizedRegion
from sphereml.evaluation.maps.scores import region_masks
from sphereml.evaluation.maps.sphere import SphereScores, score_sphere
from sphereml.evaluation.protocol import Result, Study
from sphereml.evaluation.provenance import provenance
from sphereml.evaluation.sphere_only.cost import measure_cost
from sphereml.evaluation.sphere_only.networks import HeldOutSky, NetworkSeeds
from sphereml.evaluation.sphere_only.patches import measure_seams, measure_thirds
from sphereml.evaluation.sphere_only.places import measure_edge, measure_places
from sphereml.evaluation.sphere_only.ratios import estimate, ratio
from sphereml.evaluation.sphere_only.result import SphereOnlyResult
from sphereml.harmonics.bands import Bands
from sphereml.tasks.losses import resolved_bands
from sphereml.training.runs import Run

_BELTS = 3


class SphereOnlyStudy(Study):
    """Spherical networks, the first of which flat ones of any patches are held to, and closed forms.

    Runs of one name differ in their seed.
    """

    sections = ("spectra", "thirds", "seams", "latitude", "places", "edge", "cost")
    result: ClassVar[type[Result]] = SphereOnlyResult

    @classmethod
    def refuse(cls, configs: Sequence[ExperimentConfig]) -> None:
        names = {
            domain: list(dict.fromkeys(one.model.name for one in configs if one.model.domain == domain))
            for domain in ("sphere", "flat", "none")
        }
        if not all(names.values()):
            what = ", ".join(f"{len(found)} of domain {domain}" for domain, found in names.items())
            raise UserError(what, "give a network on the sphere, one on patches, and a closed form to compare with")
        first = configs[0]
        for one in configs:
            if (one.task, one.data, one.split) != (first.task, first.data, first.split):
                what = f"{one.model.name} has another task, sky or split than {first.model.name}"
                raise UserError(what, "compare networks that were trained on the same region of one sky")

    @property
    def evaluation(self) -> EvaluationConfig:
        return self.options.evaluation or self.runs[0].config.evaluation

    @cached_property
    def held_out(self) -> HeldOutSky:
        held_out = HeldOutSky.of(self.runs[0], self.evaluation, self.options.say)
        if len(held_out.sky.target_fields) != 1:
            raise UserError(f"the sky has {len(held_out.sky.target_fields)} targets", "choose one: data.target.fields")
        return held_out

    @cached_property
    def networks(self) -> dict[str, NetworkSeeds]:
        """Every model under its name, in all of its seeds."""
        by_name: dict[str, list[Run]] = {}
        for run in self.runs:
            by_name.setdefault(run.name, []).append(run)
        return {name: NetworkSeeds.of(name, runs, self.held_out, self.options.say) for name, runs in by_name.items()}

    def _of(self, domain: str) -> dict[str, NetworkSeeds]:
        return {name: one for name, one in self.networks.items() if one.domain == domain}

    @property
    def sphere(self) -> NetworkSeeds:
        return next(iter(self._of("sphere").values()))

    @property
    def baseline(self) -> NetworkSeeds:
        """The last closed form."""
        return list(self._of("none").values())[-1]

    @cached_property
    def bands(self) -> Bands:
        return resolved_bands(self.runs[0].config.bands, self.held_out.sky.grid.nside)

    def _measure(self) -> SphereOnlyResult:
        """Measure every section that is not skipped; raises UserError as the predictions do."""
        content: dict[str, Any] = {
            "experiment": self.runs[0].config.name,
            "nside": self.held_out.sky.grid.nside,
            "sphere": self.sphere.name,
            "baseline": self.baseline.name,
            "bands": {name: list(band) for name, band in self.bands.items()},
            "models": {name: _facts(one) for name, one in self.networks.items()},
        }
        for section in self.sections:
            if section not in self.options.skip:
                self.options.say(f"measuring {section}")
                content[section] = getattr(self, f"_{section}")()
        return SphereOnlyResult(content | {"notes": NOTES, "provenance": provenance()})

    def _spectra(self) -> dict[str, Any]:
        """r on the held-out sphere by model, field and band, and the paired difference to the spherical network."""
        scores = {name: self._scores(one) for name, one in self.networks.items()}
        return {
            name: {field: _banded(seeds, scores[self.sphere.name][field]) for field, seeds in fields.items()}
            for name, fields in scores.items()
        }

    def _scores(self, network: NetworkSeeds) -> dict[str, list[SphereScores]]:
        """By field, or E and B of one with a spin, one score a seed."""
        (one,), mask = self.held_out.sky.target_fields, region_masks(self.evaluation, self.held_out.split)["test"]
        target, blocks = self.held_out.sky.targets, self.evaluation.block_nside
        if one.spin == 2:
            intensity = self.held_out.sky.intensity
            intensity = np.zeros(len(target), np.float32) if intensity is None else intensity
            region = PolarizedRegion(target, intensity, mask, self.bands, blocks)
            pairs = [region.score(values)[0] for values in network.maps]
            return {name: [pair[i] for pair in pairs] for i, name in enumerate(one.parity_names)}
        return {
            name: [score_sphere(v[:, i], target[:, i], mask, self.bands, blocks) for v in network.maps]
            for i, name in enumerate(one.column_names)
        }

    def _thirds(self) -> dict[str, Any]:
        flat = self._of("flat").items()
        return {name: measure_thirds(one, self.sphere, self.held_out, self.bands) for name, one in flat}

    def _seams(self) -> dict[str, Any]:
        return {name: measure_seams(one, self.sphere, self.held_out) for name, one in self._of("flat").items()}

    def _latitude(self) -> dict[str, Any]:
        """Squared error over the baseline's in thirds of the held-out sky by Galactic |b|."""
        region, sky = self.held_out.split.test, self.held_out.sky
        latitude = np.abs(sky.grid.lonlat()[1])[region]
        edges = np.quantile(latitude, np.linspace(0, 1, _BELTS + 1))
        belt = np.clip(np.searchsorted(edges, latitude, side="right") - 1, 0, _BELTS - 1)
        base = self.held_out.squared_errors(self.baseline.maps).mean(axis=0)[region]
        blocks, found = self.held_out.blocks[region], {}
        for name, one in (self._of("sphere") | self._of("flat")).items():
            errors = self.held_out.squared_errors(one.maps)[:, region]
            parts = [belt == index for index in range(_BELTS)]
            found[name] = [estimate(ratio, [errors[:, here], base[here]], blocks[here]) for here in parts]
        return {"edges": edges.tolist(), "models": found}

    def _places(self) -> dict[str, Any]:
        return measure_places(self.sphere, self.baseline, self.held_out)

    def _edge(self) -> dict[str, Any]:
        return measure_edge(self.sphere, self.held_out)

    def _cost(self) -> dict[str, Any]:
        return {name: measure_cost(one, self.held_out) for name, one in (self._of("sphere") | self._of("flat")).items()}


def _banded(seeds: Sequence[SphereScores], sphere: Sequence[SphereScores]) -> dict[str, Any]:
    own, other = SphereScores.mean(seeds), SphereScores.mean(sphere)
    difference, sem = own.difference(other), own.sem
    spread = {
        band: float(np.std([one.bands[band] for one in seeds], ddof=1)) if len(seeds) > 1 else None
        for band in own.bands
    }
    return {
        band: {"mean": value, "sem": sem[band], "spread": spread[band], "difference": difference[band]}
        for band, value in own.bands.items()
    }


def _facts(network: NetworkSeeds) -> dict[str, Any]:
    facts: dict[str, Any] = {"domain": network.domain, "seeds": len(network.predictors)}
    if network.domain == "flat":
        facts |= {"projection": network.task.patch.projection, "degrees": network.task.patch.extent}
    return facts | {"runs": [one.run.folder.name for one in network.predictors]}


NOTES = [
    "Errors leave out one block of sky at a time; in brackets the standard deviation over seeds of the training.",
    "Thirds of a patch, seams: squared error of a flat network over that of the spherical one on the same pixels of "
    "the sphere; thirds of one patch a pixel, seams of the stitched map.",
    "Places: squared error of the spherical network while pixels of sky lie in a place of the grid, over that of the "
    "same pixels while they lie elsewhere, over eight random turns of the sky; control: the baseline's.",
    "Edge: error where the network is shown the test region alone, over that with the whole sky, by pixels from there.",
    "What no network can know (noise, background) is in all errors and draws their ratios towards 1.",
]
