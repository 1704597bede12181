"""Spectra of kappa estimates against the truth in bands of L: what networks and quadratic estimators are judged by.

Conventions
-----------
* Images are ``(patch, size, size)``, estimate and truth under the same window; a band holds ``lo <= L < hi``, its power
  is the mean over its modes, in sr, with the window's loss undone as in :mod:`sphereml.harmonics.flat`.
* ``<>`` is the mean over patches (arXiv:1810.01483, eqs. 10 and 12):

      R_L = <C^{hat k, k}> / <C^kk>,   N_L = <C^{hat k, hat k}> / R_L^2 - <C^kk>,
      rho_L = <C^{hat k, k}> / sqrt(<C^{hat k, hat k}> <C^kk>).

* N_L is the paper's proxy: on lensed skies it holds N1 and higher terms beside N0.
* Standard errors are jackknives that leave out one group of patches at a time; patches of one sky share modes, so they
  are one group.  A ratio of two estimators' N_L is taken within each jackknife sample: what they share drops out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import torch

from sphereml.errors import UserError
from sphereml.harmonics.flat import FlatModes


@dataclass(frozen=True, eq=False)
class Bands:
    """Bands of L on patches of these modes.

    Args:
        edges: increasing; band i holds ``edges[i] <= L < edges[i + 1]``.
        window: ``(size, size)``, multiplies both images less their window-weighted means; none: ones, means kept.

    Raises:
        UserError: fewer than two edges, edges that do not increase, or a band without modes.
    """

    modes: FlatModes
    edges: tuple[float, ...]
    window: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.edges) < 2 or not all(lo < hi for lo, hi in self._limits):
            raise UserError(f"bands of L with edges {list(self.edges)}", "give two edges or more, increasing")
        for lo, hi in self._limits:
            self.modes.in_band(lo, hi)

    @property
    def centers(self) -> np.ndarray:
        """Mean L of the modes in each band."""
        return self._mean(torch.from_numpy(self.modes.ell)).numpy()

    def average(self, curve: np.ndarray) -> np.ndarray:
        """A curve over L = 0, 1, ... averaged over each band's modes, as the powers are."""
        values = np.interp(self.modes.ell - 0.5, np.arange(len(curve)), curve)
        return self._mean(torch.from_numpy(values)).numpy()

    def power(self, a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
        """Cross power of images ``(patch, size, size)`` in each band, float64 ``(patch, band)``."""
        product = (self._modes_of(a) * self._modes_of(b).conj()).real
        kept = 1.0 if self.window is None else float(self.window.double().square().mean())
        return self._mean(product).cpu().numpy() * (self.modes.area / (self.modes.size**4 * kept))

    @property
    def _limits(self) -> list[tuple[float, float]]:
        return list(zip(self.edges, self.edges[1:], strict=False))

    def _mean(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.modes.band_mean(values, lo, hi) for lo, hi in self._limits], dim=-1)

    def _modes_of(self, images: torch.Tensor) -> torch.Tensor:
        field = images.double()
        if self.window is not None:
            window = self.window.to(field)
            mean = (window * field).sum(dim=(-2, -1), keepdim=True) / window.sum()
            field = window * (field - mean)
        members = torch.from_numpy(self.modes.independent).to(field.device)
        return torch.fft.rfft2(field).flatten(-2).index_select(-1, members)


@dataclass(frozen=True, eq=False)
class PatchPowers:
    """Auto power of an estimate, its cross power with the truth and the truth's own, each ``(patch, band)``."""

    bands: Bands
    auto: np.ndarray
    cross: np.ndarray
    truth: np.ndarray

    @classmethod
    def measure(cls, bands: Bands, estimate: torch.Tensor, truth: torch.Tensor) -> PatchPowers:
        powers = (bands.power(a, b) for a, b in ((estimate, estimate), (estimate, truth), (truth, truth)))
        return cls(bands, *powers)

    @classmethod
    def join(cls, parts: Sequence[PatchPowers]) -> PatchPowers:
        """Several lots of patches, of the same bands, as one."""
        stacks = (np.concatenate([getattr(part, name) for part in parts]) for name in ("auto", "cross", "truth"))
        return cls(parts[0].bands, *stacks)

    @cached_property
    def _stacked(self) -> np.ndarray:
        return np.stack([self.auto, self.cross, self.truth], axis=1)

    def jackknife(self, groups: Sequence[int] | np.ndarray | None = None) -> Jackknife:
        """Mean powers of all patches and of all but one group, ``(1 + group, 3, band)``.

        Raises:
            UserError: fewer than two groups, or not one group for each patch.
        """
        patches = len(self.auto)
        names, index = np.unique(np.arange(patches) if groups is None else np.asarray(groups), return_inverse=True)
        if len(index) != patches or len(names) < 2:
            what = f"{len(names)} groups named for {len(index)} of {patches} patches"
            raise UserError(what, "give every patch its group, and at least two groups")
        sums = np.zeros((len(names), *self._stacked.shape[1:]))
        np.add.at(sums, index, self._stacked)
        counts = np.bincount(index)[:, None, None]
        left = (sums.sum(axis=0) - sums) / (patches - counts)
        return Jackknife(np.concatenate([sums.sum(axis=0)[None] / patches, left]))


@dataclass(frozen=True, eq=False)
class Jackknife:
    """Mean auto, cross and truth of the whole (first) and of what each group leaves, ``(1 + group, 3, band)``."""

    means: np.ndarray

    @property
    def response(self) -> np.ndarray:
        return self.means[:, 1] / self.means[:, 2]

    @property
    def noise(self) -> np.ndarray:
        return self.means[:, 0] / self.response**2 - self.means[:, 2]

    @property
    def correlation(self) -> np.ndarray:
        return self.means[:, 1] / np.sqrt(self.means[:, 0] * self.means[:, 2])


@dataclass(frozen=True)
class ReconstructionSpectra:
    """One value a band: mean L, mean powers, R_L, N_L and rho_L with standard errors; see the module's equations."""

    edges: list[float]
    ell: list[float]
    patches: int
    auto: list[float]
    cross: list[float]
    truth: list[float]
    response: list[float]
    response_error: list[float]
    noise: list[float]
    noise_error: list[float]
    correlation: list[float]
    correlation_error: list[float]

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class NoiseRatio:
    """N_L of one estimator over that of another on the same patches, one value a band, with paired standard errors."""

    edges: list[float]
    ell: list[float]
    ratio: list[float]
    error: list[float]

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def summarize(powers: PatchPowers, groups: Sequence[int] | np.ndarray | None = None) -> ReconstructionSpectra:
    """R_L, N_L and rho_L with jackknife errors.

    Args:
        groups: the sky of every patch; without them every patch is a group of its own.
    """
    samples, bands = powers.jackknife(groups), powers.bands
    measured: dict[str, list[float]] = {}
    for name in ("response", "noise", "correlation"):
        values = getattr(samples, name)
        measured |= {name: values[0].tolist(), f"{name}_error": _error(values).tolist()}
    auto, cross, truth = samples.means[0].tolist()
    return ReconstructionSpectra(
        list(bands.edges), bands.centers.tolist(), len(powers.auto), auto, cross, truth, **measured
    )


def compare_noise(
    first: PatchPowers, second: PatchPowers, groups: Sequence[int] | np.ndarray | None = None
) -> NoiseRatio:
    """N_L of ``first`` over that of ``second``, which hold the same patches in the same order.

    Raises:
        UserError: they hold different numbers of patches or different bands.
    """
    if first.auto.shape != second.auto.shape or first.bands.edges != second.bands.edges:
        shapes = f"{first.auto.shape} and {second.auto.shape}"
        raise UserError(f"powers of {shapes} patches and bands", "measure both estimators on the same patches")
    one, two = first.jackknife(groups), second.jackknife(groups)
    ratio = one.noise / two.noise
    bands = first.bands
    return NoiseRatio(list(bands.edges), bands.centers.tolist(), ratio[0].tolist(), _error(ratio).tolist())


def _error(samples: np.ndarray) -> np.ndarray:
    """Jackknife standard error; the first sample is the whole and takes no part."""
    left = samples[1:]
    error: np.ndarray = np.sqrt((len(left) - 1) * left.var(axis=0))
    return error
