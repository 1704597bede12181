"""Dust from HI: what the network sees, what it predicts, and in which units.

Conventions: full-sky arrays are NEST, pixel-major.  The target is standardized over the training pixels,
``t = (T - mean) / std``; the network's outputs n_c become a prediction pixel by pixel,
``t' = base + sum_c gain_c f(n_c)``:

* ``plain`` (arXiv:1904.13265): the standardized channels are the features, base = 0, one gain of 1, f(n) = n.
* ``physical``: the features are the standardized log of the gas column N (``features: column``) and with it the line
  profile ``I_v / sum_v I_v`` (``profile``), which do not change with the amount of gas; the dust is a gain on a first
  guess T_0, so that a network which has learnt nothing gives back T_0: the least-squares column (``guess: column``) or
  the least-squares weights of the channels (``linear``).  With ``gains: one``, ``T' = T_0 + (T_0 - c) f(n)`` with c the
  guess's constant; with ``gains: channels``, ``T' = T_0 + sum_v w_v I_v f(n_v)``.  f(n) = n, or with a ``gain_limit`` L
  ``f(n) = exp(L tanh(n / L)) - 1``: gains stay positive and within exp(+-L), also where the sky is unlike the
  training's.

The features of the physical form are clipped to their central 99.6 % over the training pixels, for the same reason.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from sphereml.config.schema import ModelConfig
from sphereml.data.store import Sky, column
from sphereml.models.baselines import fit_integrated, fit_linear

# Below this share of the mean, a column or a sum of channels is noise: profiles are taken relative to the floor.
_FLOOR = 1e-3
_CENTRAL = (0.2, 99.8)  # percentiles


@dataclass(frozen=True, eq=False)
class TaskFields:
    """Full-sky arrays a network is trained on, float32, in standardized units.

    ``features`` ``(npix, nfeature)``; ``base`` and ``target`` ``(npix,)``; ``gain`` ``(npix, noutput)``.
    """

    features: np.ndarray
    base: np.ndarray
    gain: np.ndarray
    target: np.ndarray


@dataclass(frozen=True)
class DustScaling:
    """Everything fitted on the training pixels; JSON-ready, stored beside the weights.

    ``guess`` holds the weights and offset of T_0 (target unit per unit of column or channel).
    """

    form: str
    features: str
    guess: str
    gains: str
    gain_limit: float
    channels_in: int
    feature_mean: list[float]
    feature_std: list[float]
    feature_low: list[float]
    feature_high: list[float]
    guess_weights: list[float]
    guess_offset: float
    column_floor: float
    sum_floor: float
    target_mean: float
    target_std: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> DustScaling:
        return cls(**values)

    @property
    def feature_count(self) -> int:
        return len(self.feature_mean)

    @property
    def output_count(self) -> int:
        """Number of network outputs: one for each gain."""
        return len(self.guess_weights) if self.gains == "channels" and self.form == "physical" else 1

    def restore(self, prediction: np.ndarray) -> np.ndarray:
        """Standardized prediction to the target's unit."""
        return prediction * self.target_std + self.target_mean


def fit_scaling(sky: Sky, pixels: np.ndarray, model: ModelConfig) -> DustScaling:
    """Means, scales and the first guess T_0 from the training pixels (bool) alone."""
    gas = column(sky)
    guess = (
        fit_linear(sky.inputs, sky.target, pixels)
        if model.guess == "linear"
        else fit_integrated(gas, sky.target, pixels)
    )
    column_floor = _FLOOR * float(gas[pixels].mean())
    sum_floor = _FLOOR * float(np.abs(sky.inputs[pixels]).sum(axis=1).mean())
    floors = Floors(column_floor, sum_floor)
    features = _raw_features(sky, gas, model.form, model.features, floors)[pixels].astype(np.float64)
    mean, std = features.mean(axis=0), features.std(axis=0)
    std[std == 0] = 1.0
    low, high = np.percentile((features - mean) / std, _CENTRAL, axis=0)
    target = sky.target[pixels].astype(np.float64)
    return DustScaling(
        form=model.form,
        features=model.features,
        guess=model.guess,
        gains=model.gains,
        gain_limit=model.gain_limit,
        channels_in=len(sky.channels),
        feature_mean=mean.tolist(),
        feature_std=std.tolist(),
        feature_low=low.tolist(),
        feature_high=high.tolist(),
        guess_weights=guess.weights.tolist(),
        guess_offset=guess.offset,
        column_floor=column_floor,
        sum_floor=sum_floor,
        target_mean=float(target.mean()),
        target_std=float(target.std()),
    )


def build_fields(sky: Sky, scaling: DustScaling) -> TaskFields:
    """Features, first guess and standardized target of a whole sky."""
    gas = column(sky)
    floors = Floors(scaling.column_floor, scaling.sum_floor)
    raw = _raw_features(sky, gas, scaling.form, scaling.features, floors)
    features = (raw - _single(scaling.feature_mean)) / _single(scaling.feature_std)
    if scaling.form == "physical":
        features = np.clip(features, _single(scaling.feature_low), _single(scaling.feature_high))
    base, gain = _first_guess(sky, gas, scaling)
    target = (sky.target - scaling.target_mean) / scaling.target_std
    return TaskFields(*(array.astype(np.float32) for array in (features, base, gain, target)))


def _single(values: list[float]) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def combine(base: torch.Tensor, gain: torch.Tensor, output: torch.Tensor, gain_limit: float) -> torch.Tensor:
    """Standardized prediction ``(...)`` from base ``(...)``, gains and network outputs ``(..., noutput)``."""
    if gain_limit > 0:
        output = torch.expm1(gain_limit * torch.tanh(output / gain_limit))
    return base + (gain * output).sum(dim=-1)


def _first_guess(sky: Sky, gas: np.ndarray, scaling: DustScaling) -> tuple[np.ndarray, np.ndarray]:
    """``base`` ``(npix,)`` and ``gain`` ``(npix, noutput)`` in standardized units."""
    if scaling.form == "plain":
        return np.zeros(sky.grid.npix), np.ones((sky.grid.npix, 1))
    inputs = sky.inputs if scaling.guess == "linear" else gas[:, None]
    weights = np.asarray(scaling.guess_weights) / scaling.target_std
    parts = inputs * weights
    total = parts.sum(axis=1)
    base = total + (scaling.guess_offset - scaling.target_mean) / scaling.target_std
    return base, parts if scaling.gains == "channels" else total[:, None]


@dataclass(frozen=True)
class Floors:
    """Least column and least sum of channels: what is below is noise, and takes no logarithm and no profile."""

    column: float
    total: float


def _raw_features(sky: Sky, gas: np.ndarray, form: str, features: str, floors: Floors) -> np.ndarray:
    """``(npix, nfeature)`` float32, not yet standardized."""
    if form == "plain":
        return sky.inputs
    log_column = np.log10(np.maximum(gas, floors.column))[:, None].astype(np.float32)
    if features == "column":
        return log_column
    total = np.maximum(sky.inputs.sum(axis=1, keepdims=True), floors.total)
    return np.concatenate([log_column, sky.inputs / total], axis=1)
