"""Dust from HI: what the network sees, what it predicts, and in which units.

Conventions: those of :mod:`sphereml.tasks.maps`.  The network's outputs n_c become a prediction pixel by pixel,
``t' = base + sum_c gain_c f(n_c)``, in the standardized target ``t = (T - mean) / std``:

* ``plain`` (arXiv:1904.13265): the standardized channels are the features, base = 0, one gain of 1, f(n) = n.
* ``physical``: the features are the standardized log of the gas column N (``features: column``) and with it the line
  profile ``I_v / sum_v I_v`` (``profile``), which do not change with the amount of gas; the dust is a gain on a first
  guess T_0, so that a network which has learnt nothing gives back T_0: the least-squares column (``guess: column``) or
  the least-squares weights of the channels (``linear``).  With ``gains: one``, ``T' = T_0 + (T_0 - c) f(n)`` with c the
  guess's constant; with ``gains: channels``, ``T' = T_0 + sum_v w_v I_v f(n_v)``.  f(n) = n, or with a ``gain_limit`` L
  ``f(n) = exp(L tanh(n / L)) - 1``: gains stay positive and within exp(+-L), also where the sky is unlike the
  training's.

The features of the physical form are clipped to their central 99.6 % over the training pixels, for the same reason.
The closed-form models weigh the channels (``linear``) or the gas column alone (``integrated``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from sphereml.data.store import Sky, column
from sphereml.domains.channels import Channels
from sphereml.errors import UserError
from sphereml.models.baselines import fit_linear
from sphereml.sources.batch import Batch
from sphereml.sources.sky_source import SkyColumns
from sphereml.tasks.maps import MapScaling, MapTask, fields_of, named, refuse_other_fields, single, standardization
from sphereml.tasks.protocol import add_gains

# Below this share of the mean, a column or a sum of channels is noise: profiles are taken relative to the floor.
_FLOOR = 1e-3
_CENTRAL = (0.2, 99.8)  # percentiles


@dataclass(frozen=True)
class DustScaling(MapScaling):
    """Everything fitted on the training pixels.

    ``features`` is ``channels``, ``total`` (the gas column), ``column`` (its logarithm) or ``profile``;
    ``guess_weights`` and ``guess_offset`` make T_0 (target unit per unit of column or channel); ``column_floor`` and
    ``sum_floor`` are the least column and the least sum of channels: what is below is noise, and takes no logarithm and
    no profile.
    """

    features: str = "channels"
    gains: str = ""
    guess: str = ""
    gain_limit: float = 0.0
    feature_low: tuple[float, ...] = ()
    feature_high: tuple[float, ...] = ()
    guess_weights: tuple[float, ...] = ()
    guess_offset: float = 0.0
    column_floor: float = 0.0
    sum_floor: float = 0.0

    @property
    def physical(self) -> bool:
        return self.features in ("column", "profile")

    def first_guess(self, sky: Sky) -> tuple[np.ndarray, np.ndarray]:
        """T_0 and its gains, standardized: ``(npix, 1)`` and ``(npix, 1, G)``."""
        inputs = sky.inputs if self.guess == "linear" else column(sky)[:, None]
        unit = self.target_std[0]
        parts = inputs * (np.asarray(self.guess_weights) / unit)
        total = parts.sum(axis=1, keepdims=True)
        gains = parts if self.gains == "channels" else total
        return total + (self.guess_offset - self.target_mean[0]) / unit, gains[:, None, :]


class DustTask(MapTask):
    """Dust intensity, or any one map, from HI channels."""

    name = "dust"
    scaling: ClassVar[type[MapScaling]] = DustScaling

    @property
    def _features(self) -> str:
        model = self.config.model
        if self.closed_form:
            return "total" if model.arch == "integrated" else "channels"
        return model.features if model.form == "physical" else "channels"

    @cached_property
    def _gas(self) -> np.ndarray:
        return column(self.sky)

    def check(self) -> None:
        super().check()
        if self._features != "channels":
            column(self.sky)
        if self._features in ("column", "profile") and len(self.sky.target_fields) != 1:
            what = f"model.form=physical has one target, and the data have {len(self.sky.target_fields)}"
            raise UserError(what, "choose one with data.target.fields=[0], or model.form=plain")

    def fit_scaling(self) -> DustScaling:
        sky, pixels, kind = self.sky, self.learning_pixels, self._features
        more: dict[str, Any] = {"features": kind}
        if kind in ("column", "profile"):
            more |= self._physical_entries(pixels)
        features = _raw_features(sky, self._gas if kind != "channels" else None, more)[pixels].astype(np.float64)
        weight = self.split.weight
        mean, std = standardization(features, (), None if weight is None else weight[pixels])
        if kind in ("column", "profile"):
            low, high = np.percentile((features - mean) / std, _CENTRAL, axis=0)
            more |= {"feature_low": tuple(low.tolist()), "feature_high": tuple(high.tolist())}
        statistics = named("feature", (mean, std)) | self.target_statistics()
        return DustScaling.from_json(fields_of(sky) | statistics | more)

    def _physical_entries(self, pixels: np.ndarray) -> dict[str, Any]:
        """The first guess, its gains, and the floors below which there is noise."""
        sky, model = self.sky, self.config.model
        inputs = sky.inputs if model.guess == "linear" else self._gas[:, None]
        guess = fit_linear(inputs, sky.target, pixels, self.split.weight, self.comparable_inputs)
        return {
            "gains": model.gains,
            "guess": model.guess,
            "gain_limit": model.gain_limit,
            "guess_weights": tuple(guess.weights.tolist()),
            "guess_offset": guess.offset,
            "column_floor": _FLOOR * float(self._gas[pixels].mean()),
            "sum_floor": _FLOOR * float(np.abs(sky.inputs[pixels]).sum(axis=1).mean()),
        }

    def columns(self, sky: Sky, scaling: DustScaling) -> SkyColumns:
        if scaling.features == "channels":
            return super().columns(sky, scaling)
        refuse_other_fields(sky, scaling)
        raw = _raw_features(sky, column(sky), scaling.to_json())
        features = (raw - single(scaling.feature_mean)) / single(scaling.feature_std)
        target = scaling.targets(sky)
        base, gains = np.zeros_like(target), None
        if scaling.physical:
            features = np.clip(features, single(scaling.feature_low), single(scaling.feature_high))
            base, gains = scaling.first_guess(sky)
        return SkyColumns(self.channels(scaling)[0], features, base, gains, target)

    def channels(self, scaling: DustScaling) -> tuple[Channels, Channels]:
        if scaling.features == "channels":
            return super().channels(scaling)
        outputs = len(scaling.guess_weights) if scaling.gains == "channels" else len(scaling.outputs)
        return Channels(len(scaling.feature_mean)), Channels(outputs)

    def combine(self, batch: Batch, output: torch.Tensor, scaling: DustScaling) -> torch.Tensor:
        limit = scaling.gain_limit
        return add_gains(batch.base, batch.gains, torch.expm1(limit * torch.tanh(output / limit)) if limit else output)

    @property
    def comparable_inputs(self) -> bool:
        return bool(self.sky.input_unit)

    def raw_features(self) -> np.ndarray:
        return self._gas[:, None] if self._features == "total" else self.sky.inputs


def _raw_features(sky: Sky, gas: np.ndarray | None, scaling: dict[str, Any]) -> np.ndarray:
    """``(npix, F)``, not yet standardized; ``scaling`` holds ``features`` and, of the physical form, the floors."""
    if gas is None:
        return sky.inputs
    if scaling["features"] == "total":
        return gas[:, None]
    log_column = np.log10(np.maximum(gas, scaling["column_floor"]))[:, None].astype(np.float32)
    if scaling["features"] == "column":
        return log_column
    total = np.maximum(sky.inputs.sum(axis=1, keepdims=True), scaling["sum_floor"])
    return np.concatenate([log_column, sky.inputs / total], axis=1)
