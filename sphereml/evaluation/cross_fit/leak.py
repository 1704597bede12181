"""The CMB that a template has learnt: one is added to the training target, and looked for in the template.

Conventions
-----------
* The CMB is in the target's unit at 353 GHz, of the strength s; fields of spin 2 get its E.  Everything else of a
  training, its seed included, is as in the control, which had none.
* With D the template less its control and c the CMB that was added, masked, in bands of multipoles (power weighted by
  2 ell + 1): ``transfer = C^Dc / (s C^cc)`` is the share of the added CMB that stands in the template; 1 is all of it.
  ``correlation`` and ``control`` are r of the two templates with c, by the control's power.
* The error is the scatter of the same transfer with other skies of CMB, which nobody added: what chance gives.
* In-sample templates are measured where they were trained, cross-fitted ones on all of the mask's sky.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sphereml.config.schema import CrossFitConfig
from sphereml.data.split_files import read_split
from sphereml.data.store import Sky
from sphereml.data.unit_conversion import conversion_factor
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.spectra import band_power, cross_spectrum
from sphereml.simulate.cmb import cmb_spectrum
from sphereml.sky.masks import apodize
from sphereml.tasks.maps import MapTask
from sphereml.tasks.protocol import Say
from sphereml.templates.cross_fit import CrossFit, open_map_task
from sphereml.templates.cross_fitted import cross_fitted_maps
from sphereml.templates.error_fields import components, draw_field
from sphereml.training.fit import fit_task
from sphereml.training.lifecycle import FitOptions
from sphereml.training.predictor import Predictor
from sphereml.training.runs import Run

FREQUENCY = 353.0
APODIZATION = 5.0
_NULL_SKIES = 60
_FIRST_NULL = 1000  # skies of CMB before it are for adding
KINDS = ("in_sample", "cross_fitted")


@dataclass(frozen=True, eq=False)
class LeakTest:
    """The trainings of one model, with and without CMB, and what came of them.

    Args:
        run: the ordinary run, the in-sample control; the others stand beside it.
        settings: regions, strengths and bands.
        seed: of the skies of CMB.
    """

    run: Run
    settings: CrossFitConfig
    seed: int
    say: Say = print

    @cached_property
    def plan(self) -> CrossFit:
        """The cross-fitted control."""
        return CrossFit(self.run.config, self.run.folder.parent, self.settings, self.say)

    @property
    def sky(self) -> Sky:
        return self.plan.sky

    @cached_property
    def bands(self) -> Bands:
        return Bands.edges(*self.settings.edges).clipped(self.sky.grid.safe_lmax)

    @cached_property
    def _ordinary(self) -> MapTask:
        return self._task(self.sky, self.run.config.name, Path(self.run.config.output))

    @property
    def names(self) -> list[str]:
        """Components that the CMB is looked for in: of a field with a spin its E."""
        return [one.parity_names[0] if one.spin else one.name for one in self.sky.target_fields]

    @cached_property
    def controls(self) -> dict[str, np.ndarray]:
        """Templates ``(npix, O)`` of the trainings without CMB."""
        own = Predictor(self.run, self._ordinary).sphere(self.sky).values
        return {"in_sample": own, "cross_fitted": cross_fitted_maps(self.plan)}

    @cached_property
    def masks(self) -> dict[str, np.ndarray]:
        """Where each kind of template is measured, ``(npix,)``."""
        own = self._ordinary
        regions = {"in_sample": own.split.weigh(own.learning_pixels), "cross_fitted": self.plan.kept}
        return {name: weight * apodize(weight, self.sky.grid, APODIZATION) for name, weight in regions.items()}

    @cached_property
    def _spectra(self) -> list[np.ndarray]:
        return target_spectra(self.sky)

    def _draw(self, number: int) -> np.ndarray:
        """Sky ``number`` of CMB in the units of the targets, float64 ``(npix, O)``."""
        rng = np.random.default_rng([self.seed, number])
        return np.concatenate([draw_field(one, self.sky.grid.nside, rng) for one in self._spectra], axis=1)

    def measure(self) -> dict[str, Any]:
        """By strength, kind and component: transfer, correlation, control; JSON-ready."""
        return {f"{strength:g}": self._of_strength(strength) for strength in self.settings.cmb_strengths}

    def _of_strength(self, strength: float) -> dict[str, Any]:
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        for number in range(self.settings.cmb_skies):
            cmb = self._draw(number)
            self.say(f"{self.run.name}: sky {number} of CMB, strength {strength:g}")
            templates = self.templates(f"cmb{self.seed}_{number}_strength{strength:g}", strength * cmb)
            for kind in KINDS:
                found[kind].append(self._compared(kind, templates[kind], cmb, strength))
        return {kind: _mean(entries) for kind, entries in found.items()}

    def templates(self, name: str, cmb: np.ndarray) -> dict[str, np.ndarray]:
        """Templates by kind, of trainings on the target with this CMB ``(npix, O)`` in it, kept by ``name``."""
        folder = self.run.folder.parent / "cmb_leak"
        sky = replace(self.sky, targets=(self.sky.targets + cmb).astype(np.float32))
        task = self._task(sky, name, folder)
        run = fit_task(task, FitOptions(resume=True, say=self.say))
        plan = CrossFit(self.run.config, folder, self.settings, self.say, sky, name)
        return {"in_sample": Predictor(run, task).sphere(sky).values, "cross_fitted": cross_fitted_maps(plan)}

    def _task(self, sky: Sky, name: str, folder: Path) -> MapTask:
        """The ordinary task on the regions of the ordinary run."""
        config = replace(self.run.config, name=name, output=str(folder), models=[])
        return open_map_task(config, self.say, sky, read_split(self.run.split_path))

    def _compared(self, kind: str, template: np.ndarray, cmb: np.ndarray, strength: float) -> dict[str, Any]:
        """By component: transfer and its error, correlation and control, each ``(nband,)``."""
        maps = (self.controls[kind], template, strength * cmb)
        control, leak, added = (dict(components(one, self.sky.target_fields, self.masks[kind])) for one in maps)
        entry = {}
        for name in self.names:
            own, power = leak[name] - control[name], self._power(added[name], added[name])
            chance = [self._power(own, null[name]) for null in self._nulls[kind]]
            norm = np.sqrt(self._power(control[name], control[name]) * power)
            entry[name] = {
                "transfer": self._power(own, added[name]) / power,
                "error": strength * np.std(chance, axis=0) / power,
                "correlation": self._power(leak[name], added[name]) / norm,
                "control": self._power(control[name], added[name]) / norm,
            }
        return entry

    def _power(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Cross power of coefficients ``(nalm,)`` in the bands."""
        return band_power(cross_spectrum(one, other, self.sky.grid.safe_lmax), self.bands)

    @cached_property
    def _nulls(self) -> dict[str, list[dict[str, np.ndarray]]]:
        """Masked coefficients of skies of CMB that were not added, by kind."""
        drawn = [self._draw(_FIRST_NULL + index) for index in range(_NULL_SKIES)]
        fields = self.sky.target_fields
        return {kind: [dict(components(cmb, fields, mask)) for cmb in drawn] for kind, mask in self.masks.items()}


def target_spectra(sky: Sky) -> list[np.ndarray]:
    """C_ell of the CMB in the units of a sky's targets at 353 GHz, by field: TT ``(1, lmax + 1)``, or EE and no BB.

    Raises:
        UserError: a target that is not a brightness.
    """
    lmax, found = sky.grid.safe_lmax, []
    for one in sky.target_fields:
        factor = conversion_factor("uK_CMB", one.unit, FREQUENCY)
        power = factor**2 * cmb_spectrum(lmax, component="EE" if one.spin else "TT")
        found.append(np.stack([power, 0 * power] if one.spin else [power]))
    return found


def _mean(entries: Sequence[Mapping[str, Mapping[str, np.ndarray]]]) -> dict[str, Any]:
    """Means over the skies of CMB, with the error of the mean; and how many errors the transfer is from none."""
    found = {}
    for name in entries[0]:
        means = {key: np.mean([one[name][key] for one in entries], axis=0) for key in entries[0][name]}
        means["error"] = np.sqrt(np.mean([one[name]["error"] ** 2 for one in entries], axis=0) / len(entries))
        means["sigmas"] = means["transfer"] / means["error"]
        found[name] = {key: values.tolist() for key, values in means.items()}
    return found
