"""Skies of one survey, cleaned of every template: bandpowers kept on disk as they are drawn.

Conventions: arrays of draws are ``(nsky, nr, ntemplate, nmethod, ...)``; sky i of a seed is the same whatever has been
drawn before it, so a stopped forecast goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np

from sphereml import __version__
from sphereml.data.array_files import read_arrays, write_arrays
from sphereml.data.unit_conversion import conversion_factor
from sphereml.evaluation.forecast.cleaning import METHODS, amplitude_of, cleaned, cross_bandpowers
from sphereml.evaluation.forecast.skies import DRAWN, REFERENCE_GHZ, Products, SurveyField, Theory, dust_scaling, joined
from sphereml.harmonics.deprojection import Deprojection, deprojection_bias
from sphereml.progress import TimeLeft

_KEEP_EVERY = 10
_NOT_OF_SKIES = ("skies", "residual_prior", "cross_fitted", "contaminated", "cmb_strength")


@dataclass(frozen=True, eq=False)
class Draws:
    """Cleaned BB ``bandpowers`` (..., nbin) and ``amplitudes`` (..., 2) of every sky, r, template and method."""

    bandpowers: np.ndarray
    amplitudes: np.ndarray


@dataclass(frozen=True, eq=False)
class SurveyForecast:
    """One survey with its dust and templates.

    Args:
        field: the masked sky.
        theory: spectra of what is drawn.
        dust: ``(2, npix)`` uK_RJ at 353 GHz, without noise.
        templates: by name ``(2, npix)``, in any unit.
    """

    field: SurveyField
    theory: Theory
    dust: np.ndarray
    templates: Mapping[str, np.ndarray]

    @property
    def names(self) -> list[str]:
        """The templates, after none."""
        return ["none", *self.templates]

    @cached_property
    def scalings(self) -> list[float]:
        """uK_CMB at each frequency per uK_RJ of the dust's map, its level that of the survey."""
        config = self.field.config
        return [self.level * dust_scaling(ghz, config.beta, config.temperature) for ghz in config.frequencies]

    @cached_property
    def level(self) -> float:
        """What brings D_ell of the dust's BB, in the band nearest to ell = 80, to that of the survey."""
        if self.field.survey.dust == 0:
            return 1.0
        workspace = self.field.workspace
        middle = (workspace.lower + workspace.upper - 1) / 2
        band = int(np.abs(middle - 80).argmin())
        factor = (
            middle[band] * (middle[band] + 1) / (2 * np.pi) * conversion_factor("uK_RJ", "uK_CMB", REFERENCE_GHZ) ** 2
        )
        return float(np.sqrt(self.field.survey.dust / (factor * self.kept_products.bandpowers[0, 0, band])))

    @cached_property
    def kept_parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Dust and templates at the beam's resolution, and their coefficients: the same in every sky."""
        maps = self.field.smoothed(np.stack([self.dust, *self.templates.values()]).astype(np.float64))
        return maps, self.field.alms(maps)

    @cached_property
    def implicit_bias(self) -> np.ndarray:
        """What projecting each template out takes from the BB of the CMB, ``(1 + ntemplate, nbin)``; none takes none.

        The CMB alone is the guess: what it takes from the dust is what it is for.
        """
        workspace, masked = self.field.workspace, self.field.workspace.fields[0]
        guess = np.zeros((2, 2, masked.lmax + 1))
        length = self.theory.cmb.shape[-1]
        guess[[0, 1], [0, 1], :length] = self.theory.cmb * workspace.beam_product[:length]
        biases = [np.zeros(len(workspace.membership))]
        for one in self.kept_parts[0][1:]:
            projection = Deprojection(masked, one[None])
            coupled = deprojection_bias(projection, projection, guess, (masked, masked)).reshape(4, -1)
            biases.append(workspace.decouple(coupled)[workspace.names.index("BB")])
        return np.stack(biases)

    def model(self, spectra: np.ndarray) -> np.ndarray:
        """BB bandpowers ``(nbin,)`` of skies with the spectra EE and BB ``(2, lmax + 1)``."""
        workspace, theory = self.field.workspace, np.zeros((4, self.field.workspace.fields[0].lmax + 1))
        theory[[0, 3], : self.field.lmax + 1] = spectra[:, : self.field.lmax + 1]
        return np.asarray(np.einsum("bcl,cl->b", workspace.windows[workspace.names.index("BB")], theory))

    def draw(self, folder: Path, say: Callable[[str], None]) -> Draws:
        """Every sky, those on disk included."""
        name, count = self.field.survey.name + "-mirrored" * self.field.mirrored, self.field.config.skies
        path = folder / f"forecast-{name}-{self._digest()}.npz"
        rows = _read(path)[:count]
        left = TimeLeft(count, len(rows))
        for sky in range(len(rows), count):
            rows.append(self._one(sky))
            if (sky + 1) % _KEEP_EVERY == 0 or sky + 1 == count:
                _write(path, rows)
                say(f"{name}: sky {sky + 1} of {count}{left(sky + 1)}")
        bins = len(self.field.workspace.membership)
        whole = np.stack(rows)
        return Draws(whole[..., :bins], whole[..., bins:])

    def residual_shares(self, others: np.ndarray | float = 0.0) -> np.ndarray:
        """Power that a template leaves of the dust over its own, ``(1 + ntemplate, nmethod, nbin)``; 0 for none.

        Call it where the dust is known: on the mirrored survey, or with a target in place of the dust.

        Args:
            others: BB ``(nbin,)`` of what the target holds beside dust, CMB and noise.
        """
        products = self.kept_products
        parts = np.eye(len(self.names))  # the dust, then the templates
        shares = np.zeros((len(self.names), len(METHODS), len(self.field.workspace.membership)))
        for index in range(1, len(parts)):
            own = products.bandpowers[index, index]
            for method, name in enumerate(METHODS):
                amplitude = amplitude_of(name, parts[0], index, products, self._lmin)
                left = parts[0] - amplitude * parts[index]
                shares[index, method] = (cross_bandpowers(left, left, products) - others) / (amplitude**2 * own)
        return shares

    def template_power(self) -> np.ndarray:
        """BB of the templates, ``(1 + ntemplate, nbin)``; the first is none's, 0."""
        power = np.einsum("ttb->tb", self.kept_products.bandpowers).copy()
        power[0] = 0
        return power

    @cached_property
    def kept_products(self) -> Products:
        """Products of the dust and the templates."""
        return self.field.products(self.kept_parts, self.kept_parts)

    @property
    def _lmin(self) -> int:
        return int(self.field.config.edges[0])

    def _one(self, sky: int) -> np.ndarray:
        """Bandpowers and amplitudes of one sky, ``(nr, ntemplate, nmethod, nbin + 2)``."""
        config = self.field.config
        maps = self.field.draw(self.theory, np.random.default_rng([config.seed, sky]))
        drawn = maps, self.field.alms(maps)
        products = joined(
            self.field.products(drawn, drawn), self.field.products(drawn, self.kept_parts), self.kept_products
        )
        return np.stack([self._with_ratio(r, products) for r in config.r])

    def _with_ratio(self, r: float, products: Products) -> np.ndarray:
        """One sky of this r: the first map and the second, cleaned of every template in both ways."""
        data = self._data(r)
        rows = np.zeros((len(self.names), len(METHODS), len(self.field.workspace.membership) + 2))
        for index, method in np.ndindex(rows.shape[:2]):
            template = None if index == 0 else len(DRAWN) + index
            bandpowers, amplitudes = cleaned(data, template, METHODS[method], products, self._lmin)
            if METHODS[method] == "implicit":
                bandpowers = bandpowers - self.implicit_bias[index]
            rows[index, method] = np.concatenate([bandpowers, amplitudes])
        return rows

    def _data(self, r: float) -> tuple[np.ndarray, np.ndarray]:
        """Shares of the parts in both maps."""
        count = len(DRAWN) + 1 + len(self.templates)
        first, second = np.zeros((2, count))
        for vector, noise, scaling in zip((first, second), ("noise_1", "noise_2"), self.scalings, strict=True):
            vector[DRAWN.index("cmb")] = vector[DRAWN.index(noise)] = 1
            vector[DRAWN.index("tensor")] = np.sqrt(r)
            vector[len(DRAWN)] = scaling
        return first, second

    def _digest(self) -> str:
        """Names what the draws depend on, but their number."""
        settings = {key: value for key, value in asdict(self.field.config).items() if key not in _NOT_OF_SKIES}
        settings |= {"surveys": asdict(self.field.survey), "code": __version__, "camb": version("camb")}
        digest = hashlib.sha256(json.dumps([settings, self.field.grid.nside, self.names], sort_keys=True).encode())
        for values in (self.dust, *self.templates.values()):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()[:12]


def _read(path: Path) -> list[np.ndarray]:
    """Skies on disk; none where the file is absent or damaged."""
    return list((read_arrays(path) or {}).get("rows", []))


def _write(path: Path, rows: list[np.ndarray]) -> None:
    write_arrays(path, {"rows": np.stack(rows)}, "choose a folder you may write to")
