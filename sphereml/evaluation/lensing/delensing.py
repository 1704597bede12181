"""Lensing-B templates from every estimate of kappa: what they leave of the lensing B, and what else they follow.

Conventions: B are scalar images ``(patch, n, n)`` in uK, cut from whole periodic skies, on which B is known; spectra
are taken under a window that falls over ``EDGE`` of the patch's side, as the B of a patch is made beyond its edge, too.

* A template is that of order ``gradient`` (:mod:`~sphereml.lensing.patch_template`) of the exact filter's E and of
  kappa weighted by ``<k' k> / <k' k'>`` of the validation patches, band by band: the same for networks and estimators.
  The ``truth`` is the true kappa: what is left then is the template's own floor.
* Left: ``<(B - T)^2> / <B^2>`` by band, ratios to the reference on the same patches.
* Bias of internal delensing: the same skies with another B of ell < ell_cut added, Gaussian, with the spectrum of the
  lensed one, as tensor modes or residual foregrounds would add it.  Below ell_cut a template should follow the lensing
  B and know nothing of the other; ell_cut is ``lensing.lmin_b`` where that leaves a band above ``LOWEST``, else 300.
  Noise enters just as it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sphereml.evaluation.lensing.estimates import Estimates, QuadraticEstimate
from sphereml.evaluation.lensing.noise import Measured, output_bands
from sphereml.evaluation.statistics import jackknife_error, leave_one_out
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.flat import FlatModes
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.lensing.patch_model import Legs
from sphereml.lensing.patch_spectra import PatchBands, PatchPowers, correlation_of, residual_of
from sphereml.lensing.patch_template import gradient_b
from sphereml.patches.taper import cosine_taper
from sphereml.simulate.flat_lensing import FlatLensing, LensedPatches
from sphereml.sources.batch import batch_seed
from sphereml.tasks.lensing import LensingSample, LensingTask
from sphereml.training.predictor import best_device

EDGE = 0.4
CUT = 300
# Lower edge of the band in which templates should follow the lensing B alone.
LOWEST = 30
_STREAM = 14


def ell_cut(lmin_b: int, lowest: float = LOWEST) -> int:
    """The multipole below which a template is asked what it follows: ``lmin_b`` where it lies above ``lowest``."""
    return lmin_b if lmin_b > lowest else CUT


@dataclass(frozen=True, eq=False)
class KnownB:
    """Observed patches, their lensing B, and the other B below the cut that was added to them."""

    sample: LensingSample
    lensing: torch.Tensor
    other: torch.Tensor


@dataclass(frozen=True, eq=False)
class KnownPatches:
    """``count`` patches in batches, always the same; with the other B or without it, on equal phases."""

    task: LensingTask
    count: int
    batch: int
    with_other: bool = False

    @property
    def simulator(self) -> FlatLensing:
        return self.task.drawn().simulator

    @property
    def groups(self) -> np.ndarray:
        return self.task.drawn().groups(np.arange(self.count), self.batch)

    @property
    def cut(self) -> int:
        """A mode of the patch lies below it."""
        return ell_cut(self.task.settings.lmin_b, max(LOWEST, 360 / self.task.patch.extent))

    def __iter__(self) -> Iterator[KnownB]:
        seed, device = self.task.config.evaluation.seed, best_device()
        for index, start in enumerate(range(0, self.count, self.batch)):
            generator = torch.Generator(device).manual_seed(batch_seed(seed, _STREAM, index))
            yield self._draw(min(self.batch, self.count - start), generator)

    def _draw(self, count: int, generator: torch.Generator) -> KnownB:
        simulator, sky = self.simulator, self.simulator.sky
        skies = simulator.draw_skies(simulator.skies_of(count), generator)
        lensing = sky.to_images(sky.to_eb(sky.to_modes(skies.q), sky.to_modes(skies.u))[1])
        power = np.where(np.arange(self.task.spectra.lmax + 1) < self.cut, self.task.spectra.bb_lensed, 0.0)
        modes = sky.draw(power, len(skies), generator)
        if self.with_other:
            q, u = (sky.to_images(part) for part in sky.to_qu(torch.zeros_like(modes), modes))
            skies = replace(skies, q=skies.q + q, u=skies.u + u)
        patches = LensedPatches(*(simulator.cut(getattr(skies, one.name))[:count] for one in fields(skies)))
        other = simulator.cut(sky.to_images(modes))[:count]
        return KnownB(self.task.observe(patches, generator), simulator.cut(lensing)[:count], other)


@dataclass(frozen=True, eq=False)
class Delensing:
    """Templates of several estimates.

    Args:
        estimators: networks and the fair quadratic estimators, the last of which, ``fair``, lends its E.
        mean_fields: of the quadratic estimates, to be subtracted.
        weights: of each estimate's kappa by L, from L = 0, which make it the most likely one; others are left out.
        reference: the estimate that ratios are taken to.
    """

    task: LensingTask
    estimators: Sequence[Estimates]
    fair: QuadraticEstimate
    mean_fields: Mapping[str, torch.Tensor]
    weights: Mapping[str, np.ndarray]
    reference: str
    patches: KnownPatches

    def measure(self) -> dict[str, Any]:
        """The part ``delensing`` of ``lensing.json``."""
        plain = self._powers(self.patches, {"lensing": self._bands})["lensing"]
        low = self._powers(replace(self.patches, with_other=True), {"lensing": self._low, "other": self._low})
        left = {name: residual_of(self._samples(powers)) for name, powers in plain.items()}
        models = {
            name: {"left": _measured(sample), "ratio": _measured(sample / left[self.reference])}
            | {f"follows_{what}": _measured(correlation_of(self._samples(low[what][name]))) for what in low}
            for name, sample in left.items()
        }
        bands = {"edges": list(self._bands.edges), "ell": self._bands.centers.tolist()}
        return {"bands": bands, "cut": self.patches.cut, "reference": self.reference, "models": models}

    def _samples(self, powers: PatchPowers) -> np.ndarray:
        return leave_one_out(powers.stacked, self.patches.groups)

    @cached_property
    def _bands(self) -> PatchBands:
        return self._windowed(output_bands(self.task.config, "e"))

    @property
    def _low(self) -> PatchBands:
        """One band up to the cut."""
        return self._windowed(Bands.edges(float(LOWEST), float(self.patches.cut)))

    def _windowed(self, bands: Bands) -> PatchBands:
        patch = self.task.patch
        return PatchBands(FlatModes(patch), bands, torch.from_numpy(cosine_taper(patch, EDGE * 60 * patch.extent)))

    def _powers(self, patches: KnownPatches, wanted: Mapping[str, PatchBands]) -> dict[str, dict[str, PatchPowers]]:
        """Of every template with the ``lensing`` or ``other`` B, by what is wanted and by name."""
        found: dict[str, dict[str, list[np.ndarray]]] = {what: {} for what in wanted}
        for known in patches:
            for name, template in self._templates(known.sample).items():
                for what, bands in wanted.items():
                    powers = PatchPowers.measure(bands, template, getattr(known, what).cpu())
                    found[what].setdefault(name, []).append(powers.stacked)
        return {what: {name: _joined(wanted[what], lots) for name, lots in by.items()} for what, by in found.items()}

    @torch.no_grad()
    def _templates(self, sample: LensingSample) -> dict[str, torch.Tensor]:
        """Images ``(batch, n, n)`` by name, on the CPU."""
        legs = self.fair.filter(sample.q, sample.u)
        kappa = {"truth": sample.truth["kappa"].cpu()}
        for estimate in self.estimators:
            maps = {name: found["kappa"] for name, found in estimate(sample).items() if name in self.weights}
            kappa |= {name: image - self.mean_fields.get(name, 0.0) for name, image in maps.items()}
        return {name: self._template(legs, image, self.weights.get(name)) for name, image in kappa.items()}

    def _template(self, legs: Legs, kappa: torch.Tensor, weights: np.ndarray | None) -> torch.Tensor:
        sky = legs.sky
        modes = torch.fft.rfft2(kappa.to(legs.e.device), s=(sky.size, sky.size)) * sky.step**2
        if weights is not None:
            modes = modes * sky.weights(weights, modes)
        return legs.images(gradient_b(sky, self._fine, legs.e, modes))[0].float().cpu()

    @property
    def _fine(self) -> FlatSky:
        return self.fair.estimators["qe_mv"].fine


def _joined(bands: PatchBands, lots: Sequence[np.ndarray]) -> PatchPowers:
    return PatchPowers(bands, *np.concatenate(lots).swapaxes(0, 1))


def wiener_weights(powers: PatchPowers, lmax: int | None = None) -> np.ndarray:
    """``<k' k> / <k' k'>`` of an estimate, by L from 0 to ``lmax`` (None: a little beyond the bands).

    Interpolated between the bands, and constant beyond them.
    """
    auto, cross, _ = powers.stacked.mean(axis=0)
    top = int(powers.bands.edges[-1]) + 1 if lmax is None else lmax
    return np.interp(np.arange(top + 1), powers.bands.centers, cross / auto)


def _measured(samples: np.ndarray) -> dict[str, Any]:
    return Measured(samples[0], jackknife_error(samples)).to_json()
