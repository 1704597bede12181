"""Skies of other cosmologies than the one that estimates were made for: fits of omega_c, and the response of estimates.

Conventions: patches of every cosmology share their random phases; filters, networks, R and mean fields stay fiducial.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sphereml.evaluation.lensing.matter_density import SHIFT, DensityFit
from sphereml.evaluation.lensing.responses import A_LENS, response_slope
from sphereml.evaluation.response import Response
from sphereml.lensing.patch_spectra import PatchPowers
from sphereml.simulate.cmb_spectra import CmbSpectra, load_spectra

if TYPE_CHECKING:
    from sphereml.evaluation.lensing.setting import Setting


@dataclass(frozen=True, eq=False)
class Fiducials:
    """Of one setting."""

    setting: Setting

    def density_fits(self) -> dict[str, DensityFit]:
        """Of omega_c, by name; ``truth`` is what the true maps would say."""
        theory = {omega: self.setting.bands.average(found.kappa) for omega, found in self._omega_spectra.items()}
        validation, test = self._omega_powers["validation"], self._omega_powers["test"]
        simulated = sorted(test)
        names = validation[simulated[1]]
        return {
            name: DensityFit(_of(validation, name), _of(test, name), theory, simulated[1], self._groups)
            for name in names
        }

    @property
    def _groups(self) -> np.ndarray:
        return self.setting.sets.of("test", self.setting.task.drawn()).groups

    @cached_property
    def _omega_spectra(self) -> dict[float, CmbSpectra]:
        """By omega_c, of which the outermost two are not simulated."""
        fiducial = self.setting.config.lensing.cosmology.omch2
        return {round(fiducial + step * SHIFT, 6): self._spectra(step * SHIFT) for step in (-2, -1, 0, 1, 2)}

    @cached_property
    def _omega_powers(self) -> dict[str, dict[float, dict[str, PatchPowers]]]:
        """By part, omega_c of the patches and name."""
        simulated = sorted(self._omega_spectra)[1:-1]
        return {
            part: {omega: self._shifted(part, omega, self._omega_spectra[omega]) for omega in simulated}
            for part in ("validation", "test")
        }

    @cached_property
    def _lens_powers(self) -> dict[float, dict[str, PatchPowers]]:
        """By A_lens of test patches, whose potential's power is so many times the fiducial one, and name."""
        spectra, found = self.setting.task.spectra, {}
        for strength in A_LENS:
            if strength == 1 and self.setting.config.lensing.simulator == "flat":
                found[strength] = self.setting.powers(self.setting.test)
                continue
            patches = self.setting.sets.of(
                "test", self.setting.task.drawn(replace(spectra, potential=strength * spectra.potential))
            )
            found[strength] = self.setting.powers(self.setting.cleaned(f"test, A_lens = {strength:g}", patches))
        return found

    def responses(self, omega_c: bool = True) -> dict[str, dict[str, Response]]:
        """Slope of recovered against true power of kappa, by what is varied (A_lens, and omega_c) and name."""
        varied = {"A_lens": self._lens_powers} | ({"omega_c": self._omega_powers["test"]} if omega_c else {})
        return {
            what: {
                name: response_slope(_of(powers, name), judged.response, self._groups)
                for name, judged in self.setting.judged.items()
            }
            for what, powers in varied.items()
        }

    def _spectra(self, step: float) -> CmbSpectra:
        """Of an omega_c that is so much larger."""
        lensing = self.setting.config.lensing
        moved = replace(lensing.cosmology, omch2=round(lensing.cosmology.omch2 + step, 6))
        self.setting.say(f"CAMB's spectra of omega_c = {moved.omch2:.4f}")
        return load_spectra(lensing.spectra_lmax, moved)

    def _shifted(self, part: str, omega: float, spectra: CmbSpectra) -> dict[str, PatchPowers]:
        """Powers of patches of another cosmology, and of their truth; the filters stay fiducial."""
        if omega == self.setting.config.lensing.cosmology.omch2 and self.setting.config.lensing.simulator == "flat":
            powers = self.setting.powers(self.setting.validation if part == "validation" else self.setting.test)
        else:
            patches = self.setting.sets.of(part, self.setting.task.drawn(spectra))
            powers = self.setting.powers(self.setting.cleaned(f"{part}, omega_c = {omega:.4f}", patches))
        truth = next(iter(powers.values())).truth
        return powers | {"truth": PatchPowers(self.setting.bands, truth, truth, truth)}


def _of(side: dict[float, dict[str, PatchPowers]], name: str) -> dict[float, PatchPowers]:
    """The powers of one estimate by fiducial."""
    return {fiducial: powers[name] for fiducial, powers in side.items()}
