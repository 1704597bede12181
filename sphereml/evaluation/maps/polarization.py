"""What a prediction of Q and U is worth, on the sphere and on patches: E and B, their ratio, TE, nulls, angles.

Conventions: Stokes maps are ``(npix, 2)`` or ``(n, size, size, 2)``, COSMO.  Everything is made of auto and cross
powers of five fields, in this order: the intensity T, the true E and B, the predicted E and B.  On patches ``r_EE`` and
``r_BB`` are means of single modes as for scalars; on the sphere they are of a band's powers, and so is all else
(``ee_bb``: the ratio; ``te``, ``tb``, ``eb``: correlations).  Parity makes TB and EB vanish.  E and B of a masked sky
are those of the windowed Q and U, which mixes them at its edges, alike in prediction and truth.  On patches, which
count as periodic, the window falls to zero over a tenth of a side.

What a template leaves, ``left_ee`` and ``left_bb``, is measured on the truth: one ``amplitude`` for Q and U is fitted
(:mod:`sphereml.templates.polarization`) and the template subtracted; 1 where nothing was gained.

Angles are those of polarization; their residual is the mean of ``|difference|``, 45 degrees by chance and where nothing
is predicted, in the quarters of the polarization fraction (of the polarized intensity where no intensity is known).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sphereml.domains import FlatPatch
from sphereml.evaluation.maps.patches import PATCH_BANDS, PatchScores, TestPatches
from sphereml.evaluation.maps.sphere import JackknifeMasks, SphereScores
from sphereml.evaluation.statistics import block_jackknife, jackknife_error, leave_one_out
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.flat import FlatModes
from sphereml.harmonics.spectra import all_spectra, band_power, masked_alms
from sphereml.harmonics.transforms import analysis
from sphereml.patches.taper import cosine_taper
from sphereml.templates.polarization import marginalize_polarization

_TAPER = 0.1
_QUARTERS = 4


@dataclass(frozen=True, eq=False)
class PolarizedRegion:
    """The true polarization under a mask of the sphere.

    Args:
        stokes, intensity: the truth, ``(npix, 2)`` and ``(npix,)``; zeros where no intensity is known.
        mask: ``(npix,)`` weights in 0..1.
        bands: clipped to what the map resolves.
        block_nside: of the jackknife.
    """

    stokes: np.ndarray
    intensity: np.ndarray
    mask: np.ndarray
    bands: Bands
    block_nside: int

    @cached_property
    def masks(self) -> JackknifeMasks:
        return JackknifeMasks.of(self.mask, self.block_nside)

    @property
    def lmax(self) -> int:
        return min(self.bands.lmax + 1, self.masks.grid.safe_lmax)

    @cached_property
    def _truth(self) -> np.ndarray:
        """Coefficients of T, E and B under every mask, ``(2 + nblock, 3, nalm)``."""
        return self.masks.measure(self._true_alms)

    def score(self, prediction: np.ndarray) -> tuple[tuple[SphereScores, SphereScores], dict[str, Any]]:
        """Scores of E and B of a full-sky prediction ``(npix, 2)``, and what else is known of them as JSON values."""
        own = self.masks.measure(lambda mask, iterations: _eb(prediction, mask, self.lmax, iterations))
        alms = np.concatenate([self._truth, own], axis=1)
        spectra = np.stack([all_spectra(one, self.lmax) for one in alms])
        bands = self.bands.clipped(self.lmax, lmin=2)
        e, b = (
            SphereScores.of([spectra[:, i, i + 2], spectra[:, i, i], spectra[:, i + 2, i + 2]], bands, self.masks, True)
            for i in (1, 2)
        )
        powers = band_power(spectra, bands)
        facts = powers_to_json(powers, bands, self.masks.size) | self._left(prediction, powers, bands)
        return (e, b), facts | self._angles(prediction)

    def _left(self, prediction: np.ndarray, powers: np.ndarray, bands: Bands) -> dict[str, Any]:
        """Shares of the true EE and BB that are left when the prediction is fitted to the truth and subtracted."""
        fit = marginalize_polarization(self.stokes.T, prediction.T, self.mask, lmax=self.lmax)
        amplitude = float(fit.amplitudes[0])
        left = {
            name: (powers[:, i, i] - 2 * amplitude * powers[:, i, i + 2] + amplitude**2 * powers[:, i + 2, i + 2])
            / powers[:, i, i]
            for name, i in (("left_ee", 1), ("left_bb", 2))
        }
        return {"amplitude": amplitude} | _by_band(left, bands, self.masks.size)

    def _true_alms(self, mask: np.ndarray, iterations: int) -> np.ndarray:
        scalar = masked_alms(self.intensity[None], mask, lmax=self.lmax, iterations=iterations)
        return np.concatenate([scalar, _eb(self.stokes, mask, self.lmax, iterations)])

    def _angles(self, prediction: np.ndarray) -> dict[str, Any]:
        """Residuals of the angle by quarter of the polarization fraction, where the mask is mostly open."""
        seen = self.mask > 0.5
        truth = self.stokes[seen].astype(np.float64)
        residual = _angle_between(prediction[seen].astype(np.float64), truth)
        level, intensity = np.hypot(*truth.T), self.intensity[seen]
        fraction = np.divide(level, intensity, out=level.copy(), where=intensity > 0)
        edges = np.quantile(fraction, np.linspace(0, 1, _QUARTERS + 1))
        quarter = np.clip(np.searchsorted(edges, fraction, side="right") - 1, 0, _QUARTERS - 1)
        blocks = self.masks.blocks[seen]
        rows = [block_jackknife(residual[quarter == i], blocks[quarter == i]) for i in range(_QUARTERS)]
        return {
            "angles": [
                {"fraction": [float(lo), float(hi)], "mean": float(mean), "sem": float(sem)}
                for lo, hi, (mean, sem) in zip(edges[:-1], edges[1:], rows, strict=True)
            ]
        }


def score_polarized_patches(
    prediction: np.ndarray, target: np.ndarray, intensity: np.ndarray, test: TestPatches, bands: Bands
) -> tuple[tuple[PatchScores, PatchScores], dict[str, Any]]:
    """Scores of E and B of predicted patches ``(n, size, size, 2)`` against the target's, and what else is known.

    Args:
        intensity: ``(n, size, size)``; zeros where none is known.
    """
    window = torch.from_numpy(test.window * cosine_taper(test.patch, _TAPER * 60 * test.patch.extent))
    domain, modes = FlatPatch.of(test.patch, test.patch.projection), FlatModes(test.patch)
    true, predicted = (domain.eb(torch.from_numpy(x.astype(np.float64)), window) for x in (target, prediction))
    r = modes.per_mode_r(predicted, true)
    scores = PatchScores.of(modes, r[:, 0], bands), PatchScores.of(modes, r[:, 1], bands)
    scalar = torch.from_numpy(intensity.astype(np.float64))
    fields = torch.cat([(scalar - _mean(scalar, window))[:, None] * window[:, None], true, predicted], dim=1)
    flat = bands.chosen(PATCH_BANDS)
    powers = modes.band_mean(modes.cross_power(fields[:, :, None], fields[:, None]), flat).numpy()
    samples = leave_one_out(powers, test.block)
    size = np.unique(test.block, return_counts=True)[1]
    return scores, powers_to_json(np.concatenate([samples[:1], samples]), flat, size)


def powers_to_json(powers: np.ndarray, bands: Bands, size: np.ndarray) -> dict[str, Any]:
    """``ee_bb``, ``te``, ``tb`` and ``eb`` by band, of the prediction and of the truth (``true_*``).

    Args:
        powers: ``(2 + g, 5, 5, nband)``: the best value, then jackknife samples of all and of all but each group.
        size: ``(g,)`` of the groups.
    """
    found = {}
    for start, e, b in (("", 3, 4), ("true_", 1, 2)):
        found[f"{start}ee_bb"] = powers[:, e, e] / powers[:, b, b]
        for name, i, j in (("te", 0, e), ("tb", 0, b), ("eb", e, b)):
            if powers[0, 0, 0].any() or i:
                found[f"{start}{name}"] = powers[:, i, j] / np.sqrt(powers[:, i, i] * powers[:, j, j])
    return _by_band(found, bands, size)


def _by_band(found: dict[str, np.ndarray], bands: Bands, size: np.ndarray) -> dict[str, Any]:
    """Values and jackknife samples ``(2 + g, nband)`` as JSON values."""
    return {
        name: {
            band: {"mean": float(values[0, i]), "sem": float(jackknife_error(values[1:, i], size))}
            for i, band in enumerate(bands)
        }
        for name, values in found.items()
    }


def _eb(stokes: np.ndarray, mask: np.ndarray, lmax: int, iterations: int) -> np.ndarray:
    return analysis(mask * np.where(mask > 0, stokes.T.astype(np.float64), 0.0), lmax, spin=2, iterations=iterations)


def _mean(images: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    pixels = (-2, -1)
    return (images * window).sum(pixels, keepdim=True) / window.sum(pixels, keepdim=True).clamp_min(1e-30)


def _angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``|difference|`` of the polarization angles of ``(n, 2)``, degrees in [0, 90]; 45 where one has none."""
    product = (a[:, 0] + 1j * a[:, 1]) * (b[:, 0] - 1j * b[:, 1])
    return np.where(product == 0, 45.0, np.degrees(np.abs(np.angle(product))) / 2)
