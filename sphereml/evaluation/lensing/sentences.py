"""What was measured, in words: a line an estimator under each figure, from ``lensing.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sphereml.evaluation.lensing.noise import GOAL_SPAN, inside_goal
from sphereml.harmonics.bands import Bands

# Multipoles in which a response is stated.
RESPONSE = (100, 500)
# The paper's statements, in our words, from its abstract; where that gives no number, none is made up.
PAPER = {
    "noise": "At 1 uK-arcmin the network's N_L is 50-70 % lower than the quadratic estimator's.",
    "iterated": "The network's noise lies below the quadratic estimator's over a wide range of scales and comes to the "
    "level of analytic approximations of maximum-likelihood estimators (iterated N0).",
    "spectra": "Spectra of the predicted E and kappa beside the truth, and the residuals'; no number at hand.",
    "scatter": "Scatter between patches, network against quadratic estimator; no number at hand.",
    "nulls": "Unlensed inputs as a null test: the cross-spectrum must be zero; no number at hand.",
    "patch_sizes": "Patches of 1.25, 2.5 and 5 degrees are compared; no number at hand.",
    "omega_c": "Skies of omega_c = 0.1085 and 0.1285 give measurably different maps, and omega_c can be fitted. The "
    "noise bias is that of the fiducial cosmology.",
    "seeds": "Networks of several initial seeds are compared; no number at hand.",
    "uncertainty": "Uncertainties of the network's output can be stated as for standard methods.",
}


@dataclass(frozen=True)
class Sentences:
    """Of one result."""

    content: Mapping[str, Any]

    @property
    def networks(self) -> list[str]:
        return [name for name, model in self.content["models"].items() if model["kind"] != "quadratic"]

    @property
    def reference(self) -> str:
        return str(self.content["experiment"]["reference"])

    def label(self, name: str) -> str:
        return str(self.content["models"][name]["label"])

    def noise(self) -> str:
        """Where each network's N_L is below the reference's."""
        return "\n".join(self._below(name) for name in self.networks)

    def _below(self, name: str) -> str:
        edges, ratio = self.content["bands"]["edges"], self.content["models"][name]["ratio"][self.reference]
        values, errors = floats(ratio["value"]), floats(ratio["error"])
        below = np.flatnonzero(values + errors < 1)
        if not len(below):
            return f"{self.label(name)}: N_L is nowhere below that of {self.label(self.reference)}."
        spans = ", ".join(
            f"{edges[run[0]]:.0f}-{edges[run[-1] + 1]:.0f} (ratio {_span(values[run])})"
            for run in np.split(below, np.flatnonzero(np.diff(below) > 1) + 1)
        )
        return f"{self.label(name)}: N_L is below that of {self.label(self.reference)} at L = {spans}."

    def ratio(self) -> str:
        """The mean ratio over the goal's multipoles, to each quadratic estimator."""
        parts = []
        for name in self.networks:
            goals = {other: ratio["goal"] for other, ratio in self.content["models"][name]["ratio"].items()}
            found = [f"{g['value']:.2f} ± {g['error']:.2f} to {self.label(n)}" for n, g in goals.items() if g]
            parts.append(f"{self.label(name)}, mean ratio over {GOAL_SPAN}: " + "; ".join(found) + ".")
        return "\n".join(parts) + "\nGoal: at most 0.5. Triangles at the top: the curve goes on above the frame."

    def spectra(self) -> str:
        parts = [self._extremes(name, "residual", "residual power over the truth's") for name in self.networks]
        return "\n".join(parts) + "\nPredictions are shown as they come, without R."

    def scatter(self) -> str:
        parts = []
        for name in self.networks:
            own, other = (floats(self.content["models"][n]["scatter"]["value"]) for n in (name, self.reference))
            ratio = own / other
            parts.append(f"{self.label(name)}: {_span(ratio)} times the scatter of {self.label(self.reference)}.")
        return "\n".join(parts)

    def nulls(self) -> str:
        """chi^2 of every estimator on both skies."""
        parts = []
        for sky, tests in self.content["nulls"].items():
            found = [f"{self.label(name)} {_spelt(test)}" for name, test in tests.items()]
            parts.append(f"chi² on {sky} skies: " + "; ".join(found) + ".")
        return "\n".join(parts)

    def null_autos(self) -> str:
        return (
            "Auto power after R² where kappa is not in the data, over the N_L of lensed skies. What a quadratic "
            "estimator falls short of 1 is noise that lensing makes beyond its spectra (N1) and, on unlensed skies, "
            "also the missing lensed B. A network may exceed 1 on Gaussian skies: it takes their B for lensing."
        )

    def sizes(self) -> str:
        parts = []
        for setting in self.content["patch_sizes"]:
            inside = inside_goal(Bands.edges(*setting["bands"]["edges"]))
            for name in setting["networks"] if inside.any() else []:
                ratio = floats(setting["models"][name]["ratio"]["value"])[inside].mean()
                parts.append(f"{name} on {setting['degrees']:g}°: {ratio:.2f}.")
        return f"Mean ratio to the quadratic estimator over {GOAL_SPAN}: " + " ".join(parts)

    def omega_c(self) -> str:
        return (
            "Dashed: debiased with the fiducial R and N_L, as the paper does; lines: with those of each omega_c, "
            "extrapolated beyond the outermost skies. Skies of the three cosmologies share their phases, so offsets "
            "are alike. Numbers are in the table below."
        )

    def seeds(self) -> str:
        parts = []
        for name, spread in self.content["seeds"].items():
            relative = 100 * floats(spread["relative"])
            goal = self.content["models"][name]["ratio"][self.reference]["goal"]
            mean = f"; the mean's N_L ratio {goal['value']:.2f} ± {goal['error']:.2f}" if goal else ""
            share = spread["pixel"] / spread["pixel_error"]
            apart = f"spectra {relative.min():.1f}-{relative.max():.1f} % apart, pixels {share:.2f} of their error"
            parts.append(f"{name}: {apart}{mean}.")
        return "\n".join(parts)

    def uncertainty(self) -> str:
        parts = [
            f"{self.label(name)}: pull {part['pull']:.3f}, {100 * part['within_1_sigma']:.1f} % within one sigma and "
            f"{100 * part['within_2_sigma']:.1f} % within two (68.3 and 95.4 % if Gaussian); of the modes "
            f"{100 * part['modes_within_1_sigma']:.1f} and {100 * part['modes_within_2_sigma']:.1f} %."
            for name, part in self.content["uncertainty"].items()
        ]
        return "\n".join(parts)

    def responses(self) -> str:
        """Slopes in the bands of ``RESPONSE``, and who does not follow."""
        edges = np.array(self.content["bands"]["edges"])
        inside = (edges[:-1] >= RESPONSE[0]) & (edges[1:] <= RESPONSE[1])
        parts = []
        for what, found in self.content["responses"].items():
            for name in [*self.networks, self.reference] if inside.any() else []:
                slope, collapsed = floats(found[name]["slope"])[inside], np.array(found[name]["collapsed"])[inside]
                fault = "; it does not follow the sky" if collapsed.any() else ""
                parts.append(f"{self.label(name)}, {what}: slope {_span(slope)}{fault}.")
        where = f"Of recovered over true power in the bands of {RESPONSE[0]} < L < {RESPONSE[1]}"
        return "\n".join([*parts, f"{where}; 1: unbiased, 0: the prior, whatever the sky."])

    def delensing(self) -> str:
        """What each template leaves, and whether it follows B that is no lensing."""
        found, parts = self.content["delensing"], []
        for name, model in found["models"].items():
            label = "true kappa" if name == "truth" else self.label(name)
            lensing, other = (
                " ± ".join(f"{model[f'follows_{what}'][part][0]:.3f}" for part in ("value", "error"))
                for what in ("lensing", "other")
            )
            parts.append(
                f"{label}: its template leaves {_span(floats(model['left']['value']))} of the lensing B; at ell < "
                f"{found['cut']} its correlation with that is {lensing}, with another B {other}."
            )
        return "\n".join(parts)

    def latitude(self) -> str:
        """Squared errors by latitude."""
        found, parts = self.content["latitude"], []
        belts = ", ".join(f"{low}-{high}" for low, high in pairwise(found["edges"]))
        for name, model in found["models"].items():
            values = " ".join(f"{value:.3f}" for value in model["value"])
            parts.append(f"{self.label(name)}: squared error over the first pass's at |b| = {belts}: {values}.")
        return "\n".join(parts)

    def maps(self) -> str:
        return "Truth, prediction and their difference on one scale; sigma from the validation patches' residuals."

    def _extremes(self, name: str, quantity: str, called: str) -> str:
        values = floats(self.content["models"][name][quantity]["value"])
        return f"{self.label(name)}: {called} {_span(values)}."


def _spelt(test: Mapping[str, Any]) -> str:
    """chi^2 over the number of bands, and its probability where it has one."""
    shown = "no p: too few skies" if test["probability"] is None else f"p = {test['probability']:.2g}"
    return f"{test['chi2']:.1f} / {test['bands']} ({shown})"


def spelt_fit(found: Mapping[str, Any]) -> str:
    """A fit of omega_c: mean and deviation, or the limit that the grid leaves."""
    if found["mean"] is not None:
        return f"{found['mean']:.4f} ± {found['sigma']:.4f}"
    for sign, limit in ((">", found["lower"]), ("<", found["upper"])):
        if limit is not None:
            return f"{sign} {limit:.4f} (95 %)"
    return "not bounded by the grid"


def _span(values: np.ndarray) -> str:
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    return low if low == high else f"{low} to {high}"


def floats(values: list[float | None]) -> np.ndarray:
    """An array with NaN for null."""
    return np.array([np.nan if value is None else value for value in values])
