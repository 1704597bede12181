"""The figures of ``lensing.json``, each with the paper's statement and ours, in ``<folder>/figures``.

``figures/captions.json`` maps a figure's name to ``title``, ``paper``, ``ours``, in the order of the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sphereml.data.whole_files import sealed_json, write_atomically
from sphereml.errors import UserError
from sphereml.evaluation.lensing.labels import model_lines, theory_labels
from sphereml.evaluation.lensing.noise import GOAL
from sphereml.evaluation.lensing.sentences import Sentences, floats
from sphereml.plotting import lensing as plots
from sphereml.plotting.style import write_pair

_SKIES = {"unlensed": "polarization before lensing", "gaussian": "Gaussian, with lensed spectra"}
_SKY_LINES = {"unlensed": "-", "gaussian": "--"}
_PATCHES_SHOWN = 2


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure under its name, with what it shows in words."""

    name: str
    figure: Figure
    title: str
    paper: str
    ours: str


def draw_figures(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw a result and the ``kappa_maps.npz`` of its folder; returns the pictures."""
    try:
        with np.load(folder / "kappa_maps.npz") as stored:
            maps = dict(stored)
    except Exception:  # zip and npy headers that changed raise whatever they lead to
        what = f"{folder / 'kappa_maps.npz'} is missing or damaged"
        raise UserError(what, "run `sphereml study lensing` again") from None
    figures = folder / "figures"
    for old in (*figures.glob("*.png"), *figures.glob("dark/*.png")):
        old.unlink()
    drawn = list(LensingFigures(content, maps).all())
    captions = {item.name: {"title": item.title, "paper": item.paper, "ours": item.ours} for item in drawn}
    paths = [write_pair(item.figure, figures / f"{item.name}.png") for item in drawn]
    write_atomically(figures / "captions.json", sealed_json(captions))
    return paths


@dataclass(frozen=True, eq=False)
class LensingFigures:
    """Draws one result; ``maps`` are those of ``kappa_maps.npz``."""

    content: Mapping[str, Any]
    maps: Mapping[str, np.ndarray]

    def all(self) -> Iterator[Drawn]:
        """Every figure that the result holds the numbers of."""
        words = Sentences(self.content)
        paper = self.content["paper"]
        yield Drawn("noise", self._noise(), "Reconstruction noise (fig. 9)", paper["iterated"], words.noise())
        yield Drawn("ratio", self._ratio(), "Noise against the quadratic estimator's", paper["noise"], words.ratio())
        yield Drawn("spectra", self._spectra(), "Spectra and residuals (fig. 8)", paper["spectra"], words.spectra())
        if "degrees" in self.content["experiment"]:
            yield Drawn("scatter", self._scatter(), "Scatter of the debiased spectrum (fig. 10)", paper["scatter"],
                        words.scatter())  # fmt: skip
        if "nulls" in self.content:
            yield Drawn("nulls", self._nulls(), "Null tests (eq. 14, fig. 11)", paper["nulls"], words.nulls())
            yield Drawn("nulls_auto", self._null_autos(), "Power where nothing is lensed", paper["nulls"],
                        words.null_autos())  # fmt: skip
        if len(self.content["patch_sizes"]) > 1:
            yield Drawn("patch_sizes", self._sizes(), "Patch sizes (fig. 12)", paper["patch_sizes"], words.sizes())
        if "omega_c" in self.content:
            yield Drawn("omega_c", self._omega_c(), "omega_c (eqs. 16, 17)", paper["omega_c"], words.omega_c())
        if self.content["seeds"]:
            yield Drawn("seeds", self._seeds(), "Spread of seeds (eq. 18)", paper["seeds"], words.seeds())
        if "responses" in self.content:
            yield Drawn("responses", self._responses(), "Does it follow the sky?", "", words.responses())
        if "delensing" in self.content:
            yield Drawn("delensing", self._delensing(), "Lensing B that templates leave", "", words.delensing())
        if "uncertainty" in self.content:
            yield Drawn("calibration", self._calibration(), "Is the error of a map right?", paper["uncertainty"],
                        words.uncertainty())  # fmt: skip
            yield Drawn("maps", self._rows(), "Two test patches", "", words.maps())

    @property
    def _ell(self) -> list[float]:
        return list(self.content["bands"]["ell"])

    def _curve(self, name: str, measured: Mapping[str, Any], line: str = "-", more: str = "") -> plots.Curve:
        """Of a model, in its colour; ``more`` follows its label."""
        return plots.Curve(self._label(name) + more, self._colour(name), measured["value"], measured["error"], line)

    def _curves(self, quantity: str) -> list[plots.Curve]:
        """A measured quantity of every model."""
        return [self._curve(name, model[quantity]) for name, model in self.content["models"].items()]

    def _colour(self, name: str) -> str:
        if name in plots.QUADRATIC_COLOURS:
            return plots.QUADRATIC_COLOURS[name]
        return _network_colour(self._networks.index(name))

    @property
    def _networks(self) -> list[str]:
        return [name for name, model in self.content["models"].items() if model["kind"] != "quadratic"]

    def _noise(self) -> Figure:
        labels = theory_labels(self.content)
        theory = {label: self.content["theory"][key] for key, label in labels.items()}
        return plots.noise_curves(self._ell, self._curves("noise"), theory, labels["kappa"])

    def _ratio(self) -> Figure:
        """Networks against the fair and the naive estimator, and iterated N0 over N0: what theory has to gain."""
        curves = []
        for name in self._networks:
            for other, line in (("qe_mv", "-"), ("qe_naive", "--")):
                if ratio := self.content["models"][name]["ratio"].get(other):
                    curves.append(self._curve(name, ratio, line, f" over {' '.join(model_lines(other, other))}"))
        theory = self.content["theory"]
        if "N0_iterated" in theory:
            gain = (floats(theory["N0_iterated"]) / floats(theory["N0_EB"])).tolist()
            curves.append(plots.Curve("theory: N0 EB iterated over N0 EB", plots.THEORY_COLOUR, gain, line=":"))
        goals = [plots.Goal(GOAL, (0.3, 0.5), "the paper's, to its own (naive) QE")]
        return plots.ratio_curves(self._ell, curves, "ratio of $N_L$", goals)

    def _spectra(self) -> Figure:
        parts = {"kappa": (self._ell, self._autos(self.content["models"]), self._curves("residual"))}
        if "e" in self.content:
            models = self.content["e"]["models"]
            residuals = [self._curve(name, model["residual"]) for name, model in models.items()]
            parts["unlensed E"] = (self.content["e"]["bands"]["ell"], self._autos(models), residuals)
        return plots.spectra_and_residuals(parts)

    def _label(self, name: str) -> str:
        return str(self.content["models"][name]["label"])

    def _autos(self, models: Mapping[str, Any]) -> list[plots.Curve]:
        truth = plots.Curve("truth", plots.TRUTH_COLOUR, next(iter(models.values()))["truth"])
        return [truth, *(plots.Curve(self._label(n), self._colour(n), model["auto"]) for n, model in models.items())]

    def _scatter(self) -> Figure:
        variance = next(iter(self.content["models"].values()))["sample_variance"]
        label = "true kappa (sample variance)"
        truth = plots.Curve(label, plots.TRUTH_COLOUR, variance["value"], variance["error"])
        ylabel = r"deviation over patches of $\hat{C}_L / R_L^2 - N_L$"
        return plots.power_points(self._ell, [truth, *self._curves("scatter")], ylabel)

    def _nulls(self) -> Figure:
        """Cross power over C^kk."""
        kappa = floats(self.content["theory"]["kappa"])
        skies = {
            _SKIES[sky]: [self._curve(name, _over(test["cross"], kappa)) for name, test in tests.items()]
            for sky, tests in self.content["nulls"].items()
        }
        return plots.null_panels(self._ell, skies, r"cross power / ($R_L\, C_L^{\kappa\kappa}$)")

    def _null_autos(self) -> Figure:
        """Of the networks and the reference, over the N_L of lensed skies; a line style a sky."""
        curves = []
        for sky, tests in self.content["nulls"].items():
            for name in [*self._networks, self.content["experiment"]["reference"]]:
                lensed = floats(self.content["models"][name]["noise"]["value"])
                curves.append(self._curve(name, _over(tests[name]["auto"], lensed), _SKY_LINES[sky], f", {sky}"))
        return plots.ratio_curves(self._ell, curves, "auto power / $R_L^2$ over lensed $N_L$")

    def _sizes(self) -> Figure:
        """Each setting's networks against its own quadratic estimator, over a common axis."""
        panels: list[tuple[Any, list[plots.Curve]]] = []
        for setting in self.content["patch_sizes"]:
            title = f"{setting['degrees']:g}°, {setting['noise_level']:g} uK-arcmin"
            curves: list[plots.Curve] = []
            for name in setting["networks"]:
                ratio = setting["models"][name]["ratio"]
                colour = _network_colour(sum(len(drawn) for _, drawn in panels) + len(curves))
                curves.append(plots.Curve(f"{title}: {name}", colour, ratio["value"], ratio["error"]))
            panels.append((setting["bands"]["ell"], curves))
        return plots.setting_panels(panels, "$N_L$ / $N_L$ of the quadratic estimator")

    def _omega_c(self) -> Figure:
        result = self.content["omega_c"]
        shown = [*self._networks, self.content["experiment"]["reference"]]
        looks = {name: (self._label(name), self._colour(name)) for name in shown}
        looks["truth"] = ("true kappa", plots.TRUTH_COLOUR)
        skies: dict[float, list[plots.LikelihoodCurve]] = {}
        for name, look in looks.items():
            for omega, found in result["models"][name].items():
                curve = plots.LikelihoodCurve(*look, *(found[way]["likelihood"] for way in ("fixed", "corrected")))
                skies.setdefault(float(omega), []).append(curve)
        return plots.likelihood_panels(result["grid"], skies, r"$\omega_c$")

    def _seeds(self) -> Figure:
        """Maps' spread over C^kk."""
        kappa = floats(self.content["theory"]["kappa"])
        curves = []
        for name, spread in self.content["seeds"].items():
            colour, maps = self._colour(name), (floats(spread["maps"]) / kappa).tolist()
            curves.append(plots.Curve(f"{name}: maps, power over $C_L$", colour, maps))
            curves.append(plots.Curve(f"{name}: spectra, relative", colour, spread["relative"], line="--"))
        return plots.power_points(self._ell, curves, "spread between seeds")

    def _responses(self) -> Figure:
        """Slopes of the networks and of the reference; a line style for what is varied."""
        curves = []
        for (what, found), line in zip(self.content["responses"].items(), ("-", "--"), strict=False):
            for name in [*self._networks, self.content["experiment"]["reference"]]:
                measured = {"value": found[name]["slope"], "error": found[name]["error"]}
                curves.append(self._curve(name, measured, line, f", {what}"))
        return plots.ratio_curves(self._ell, curves, "slope of recovered over true power")

    def _delensing(self) -> Figure:
        found = self.content["delensing"]
        floor = found["models"]["truth"]["left"]
        curves = [plots.Curve("true kappa", plots.TRUTH_COLOUR, floor["value"], floor["error"], ":")]
        curves += [self._curve(name, model["left"]) for name, model in found["models"].items() if name != "truth"]
        return plots.ratio_curves(found["bands"]["ell"], curves, "power left over that of the lensing B")

    def _calibration(self) -> Figure:
        found = self.content["uncertainty"]
        rings = [plots.Curve(self._label(n), self._colour(n), part["pull_by_ring"]) for n, part in found.items()]
        bands = [self._curve(name, part["band_pull"]) for name, part in found.items()]
        positions = next(iter(found.values()))["rings"]
        return plots.calibration_panels({"pixels": rings, "bands": bands}, positions, self._ell)

    def _rows(self) -> Figure:
        """Truth, prediction, difference and sigma of the first patches, by the first network."""
        name = next(name for name in self._networks if f"{name}_sigma" in self.maps)
        truth, prediction, sigma = self.maps["truth"], self.maps[name], self.maps[f"{name}_sigma"]
        shown = range(min(_PATCHES_SHOWN, len(truth)))
        rows = [[truth[i], prediction[i], prediction[i] - truth[i], sigma[i]] for i in shown]
        titles = ["true kappa", self._label(name), "difference", "its sigma"]
        return plots.map_rows(rows, titles, self.content["experiment"]["degrees"])


def _network_colour(index: int) -> str:
    return plots.NETWORK_COLOURS[index % len(plots.NETWORK_COLOURS)]


def _over(measured: Mapping[str, Any], scale: np.ndarray) -> dict[str, Any]:
    """A measured quantity over something a band, which noise may have made negative."""
    error = floats(measured["error"]) / np.abs(scale)
    return {"value": (floats(measured["value"]) / scale).tolist(), "error": error.tolist()}
