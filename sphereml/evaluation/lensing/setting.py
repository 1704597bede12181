"""Every measurement on the runs of one setting: the same patches, mask, noise and cosmology.

Each set of patches is drawn once, reconstructed by all networks and quadratic estimators, and kept.  Quadratic
estimators are taken less their mean field over the fiducial validation patches; a network has none taken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from sphereml.config.schema import ExperimentConfig
from sphereml.errors import UserError
from sphereml.evaluation.lensing.delensing import Delensing, KnownPatches, wiener_weights
from sphereml.evaluation.lensing.estimates import Estimates, NetworkEstimate, QuadraticEstimate
from sphereml.evaluation.lensing.fiducials import Fiducials
from sphereml.evaluation.lensing.noise import Judged, patch_bands
from sphereml.evaluation.lensing.nulls import NullTest, null_test
from sphereml.evaluation.lensing.samples import PatchSet, PatchSets, Reconstructions, reconstruct
from sphereml.evaluation.lensing.uncertainty import CalibratedError, Calibration, check_calibration
from sphereml.evaluation.protocol import StudyOptions
from sphereml.evaluation.response import Response
from sphereml.evaluation.run_groups import same_but_seed
from sphereml.lensing.patch_spectra import PatchBands, PatchPowers
from sphereml.tasks.lensing import LensingTask
from sphereml.training.predictor import Predictor
from sphereml.training.runs import Run

# Pixels of all patches that are worked on at a time.
_PIXELS_AT_ONCE = 50 * 64**2


def settings_of(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs grouped by what they see, the largest group first, then the largest patches.

    Raises:
        UserError: a run does not predict kappa.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        config = run.config
        if "kappa" not in config.lensing.outputs:
            raise UserError(f"the run in {run.folder} predicts no kappa", "name runs of lensing with kappa in outputs")
        lensing = asdict(config.lensing) | {"loss": "", "outputs": [], "passes": 1, "features": "all"}
        groups.setdefault(repr((config.model.domain, config.patches, lensing)), []).append(run)
    return sorted(groups.values(), key=lambda group: (-len(group), -group[0].config.patches.size))


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs of one setting under their names; ``say`` takes progress lines."""

    runs: dict[str, Run]
    options: StudyOptions = field(default_factory=StudyOptions)
    sections: ClassVar[tuple[str, ...]] = ("nulls", "omega_c", "uncertainty", "responses", "delensing")

    def say(self, line: str) -> None:
        self.options.say(line)

    @cached_property
    def config(self) -> ExperimentConfig:
        """That of the first run, with the evaluation that is asked for."""
        config = next(iter(self.runs.values())).config
        return replace(config, evaluation=self.options.evaluation or config.evaluation)

    @cached_property
    def task(self) -> LensingTask:
        """Observes the patches; its truth has every output that some run predicts."""
        physical = [run.config for run in self.runs.values() if run.config.model.form == "physical"]
        first = max(physical, key=lambda config: config.lensing.passes, default=self.config)
        outputs = list(dict.fromkeys(name for run in self.runs.values() for name in run.config.lensing.outputs))
        lensing = replace(first.lensing, outputs=outputs)
        return LensingTask(replace(first, lensing=lensing, evaluation=self.config.evaluation))

    @cached_property
    def networks(self) -> list[NetworkEstimate]:
        """Runs that see and predict the same share their features, and so the filter's matrix."""
        tasks: dict[tuple[str, int, tuple[str, ...]], LensingTask] = {}
        found = []
        for name, run in self.runs.items():
            key, same = (
                (config.model.form, config.lensing.passes, tuple(config.lensing.outputs))
                for config in (run.config, self.task.config)
            )
            fresh = self.task if key == same else LensingTask(run.config, self.say, self.task.spectra)
            found.append(NetworkEstimate(name, Predictor(run, tasks.setdefault(key, fresh))))
        return found

    @cached_property
    def estimators(self) -> list[Estimates]:
        """Networks first; without noise there is no fair quadratic estimator."""
        naive, fair = QuadraticEstimate("naive", self.task), QuadraticEstimate("fair", self.task)
        quadratic = [naive, fair] if self.task.config.lensing.noise > 0 else [naive]
        return [*self.networks, *quadratic]

    @property
    def quadratic(self) -> list[str]:
        return [name for part in self.estimators if isinstance(part, QuadraticEstimate) for name in part.names]

    @property
    def reference(self) -> str:
        """What ratios are taken against: the fair estimator of both pairs, or what there is."""
        return self.quadratic[-1]

    @cached_property
    def ensembles(self) -> dict[str, list[str]]:
        """Names of runs that differ in their seed alone, by the name of their mean."""
        called = {id(run): name for name, run in self.runs.items()}
        groups = [[called[id(run)] for run in group] for group in same_but_seed(list(self.runs.values()))]
        return {f"mean of {len(group)} {self.runs[group[0]].name}": group for group in groups}

    @cached_property
    def sets(self) -> PatchSets:
        return PatchSets(self.task, max(4, _PIXELS_AT_ONCE // self.task.patch.size**2))

    def _reconstruct(self, what: str, patches: PatchSet) -> Reconstructions:
        self.say(f"{what}: {patches.count} patches")
        made = reconstruct(patches, self.estimators, self.say)
        for called, names in self.ensembles.items():
            made = made.with_mean_of(names, called)
        return made

    @cached_property
    def _raw_validation(self) -> Reconstructions:
        return self._reconstruct("validation", self.sets.part("validation"))

    @cached_property
    def validation(self) -> Reconstructions:
        return self._raw_validation.without(self._mean_fields_of_others)

    @cached_property
    def test(self) -> Reconstructions:
        return self.cleaned("test", self.sets.part("test"))

    @cached_property
    def _mean_fields(self) -> dict[str, torch.Tensor]:
        return self._raw_validation.mean_fields(self.quadratic)

    @cached_property
    def _mean_fields_of_others(self) -> dict[str, torch.Tensor]:
        return self._raw_validation.mean_fields_of_others(self.quadratic)

    def cleaned(self, what: str, patches: PatchSet) -> Reconstructions:
        """Less the mean fields, each patch without its own share (or that of its like, of the same phases)."""
        related = patches.stream == "validation" and self.config.lensing.simulator == "flat"
        return self._reconstruct(what, patches).without(self._mean_fields_of_others if related else self._mean_fields)

    @property
    def extent(self) -> float:
        """Degrees a side."""
        return self.task.patch.extent

    def described(self) -> dict[str, Any]:
        """The entry ``experiment`` of the result."""
        lensing, patches = self.config.lensing, self.config.patches
        return {
            "name": self.config.name, "simulator": lensing.simulator, "noise": lensing.noise, "beam": lensing.beam,
            "taper": lensing.taper, "size": patches.size, "pixel_arcmin": patches.pixel_arcmin,
            "degrees": self.extent, "patches": len(self.test.groups), "seed": self.config.evaluation.seed,
            "lmin": lensing.lmin, "lmax_eb": lensing.lmax_eb, "reference": self.reference,
        }  # fmt: skip

    @cached_property
    def bands(self) -> PatchBands:
        """Of kappa."""
        return self.output_bands("kappa")

    def output_bands(self, output: str) -> PatchBands:
        return patch_bands(self.task, output)

    def notes(self) -> list[str]:
        """What a reader must know of the measurement."""
        return [
            f"{len(self.test.groups)} test patches, drawn from seeds (or skies) that no training saw; R, the mean "
            "fields and the debiasing N_L come from as many validation patches.",
            "All spectra are taken under the patch's mask. The naive QE's image already falls off as the mask squared "
            "and is not multiplied again; its response takes that up.",
            "N_L is the paper's proxy <auto>/R^2 - C^kk: on lensed skies it holds N1 and higher terms beside N0. "
            "Compare proxy with proxy.",
        ]

    def maps(self, uncertain: bool) -> dict[str, np.ndarray]:
        """Truth, predictions and, if asked for, their sigma on the test patches."""
        maps = {"truth": self.test.truth["kappa"].numpy()}
        for name in self.runs:
            maps[name] = self.test.images[name]["kappa"].numpy()
            if uncertain:
                maps[f"{name}_sigma"] = self.sigma(name).numpy()
        return maps

    def powers(self, made: Reconstructions, output: str = "kappa") -> dict[str, PatchPowers]:
        """Of every estimate that has this output."""
        bands = self.bands if output == "kappa" else self.output_bands(output)
        truth = made.truth[output]
        images = {name: maps[output] for name, maps in made.images.items() if output in maps}
        return {name: PatchPowers.measure(bands, image, truth) for name, image in images.items()}

    @cached_property
    def judged(self) -> dict[str, Judged]:
        """Of kappa, by name."""
        return self.judge("kappa")

    def judge(self, output: str) -> dict[str, Judged]:
        validation, test = self.powers(self.validation, output), self.powers(self.test, output)
        groups = self.validation.groups, self.test.groups
        return {name: Judged(validation[name], test[name], *groups) for name in test}

    def delensing(self) -> dict[str, Any] | None:
        """What templates leave of the lensing B; None where there is no exact filter to take E from."""
        fair = self.estimators[-1]
        if not isinstance(fair, QuadraticEstimate) or fair.kind != "fair":
            return None
        weights = {name: wiener_weights(powers) for name, powers in self.powers(self.validation).items()
                   if name != "qe_naive"}  # fmt: skip
        patches = KnownPatches(self.task, self.config.evaluation.patches, self.sets.batch)
        self.say(f"delensing: {patches.count} patches, twice")
        estimators: list[Estimates] = [*self.networks, fair]
        made = Delensing(self.task, estimators, fair, self._mean_fields, weights, self.reference, patches)
        return made.measure()

    def null_tests(self) -> dict[str, dict[str, NullTest]]:
        """By sky (``unlensed``, ``gaussian``) and name."""
        gaussian = self.sets.of("gaussian", self.task.drawn(gaussian=True))
        sets = {"unlensed": self.sets.unlensed(), "gaussian": gaussian}
        return {
            sky: {
                name: null_test(powers, self.judged[name], patches.groups)
                for name, powers in self.powers(self.cleaned(sky, patches)).items()
            }
            for sky, patches in sets.items()
        }

    @cached_property
    def fiducials(self) -> Fiducials:
        """Skies of other cosmologies, seen by the same estimates."""
        return Fiducials(self)

    def responses(self, omega_c: bool = True) -> dict[str, dict[str, Response]]:
        """Slope of recovered against true power of kappa, by what is varied (A_lens, and omega_c) and name."""
        return self.fiducials.responses(omega_c)

    @cached_property
    def errors(self) -> dict[str, CalibratedError]:
        """Of every network's kappa, from the validation patches."""
        truth = self.validation.truth["kappa"]
        images = self.validation.images
        return {name: CalibratedError.fit(images[name]["kappa"], truth, self.bands) for name in self._predicted}

    def calibrations(self) -> dict[str, Calibration]:
        """How well these errors describe the test patches."""
        truth, images = self.test.truth["kappa"], self.test.images
        return {
            name: check_calibration(error, images[name]["kappa"], truth, self.bands)
            for name, error in self.errors.items()
        }

    def sigma(self, name: str) -> torch.Tensor:
        """A network's error in every pixel of the test patches, ``(patch, size, size)``."""
        return self.errors[name].sigma(self.test.images[name]["kappa"])

    @property
    def _predicted(self) -> list[str]:
        return [*self.runs, *self.ensembles]

    def seconds(self) -> dict[str, float]:
        """What each training took."""
        return {name: float(run.manifest().get("seconds_train", np.nan)) for name, run in self.runs.items()}
