"""Dust from HI: what the network sees, what it predicts, and in which units.

Conventions: full-sky arrays are NEST, pixel-major.  The target is standardized over the training pixels,
``t = (T - mean) / std``; a network's output n becomes a prediction by ``t' = base + gain * n``, pixel by pixel:

* ``plain`` (arXiv:1904.13265): the standardized channels are the features, base = 0, gain = 1.
* ``physical``: the features are the standardized log of the gas column N and the line profile ``I_v / sum_v I_v``, which
  do not change with the amount of gas; the dust is a gain on a first guess, ``T' = T_0 (1 + n)``, so that a network
  which has learnt nothing gives back T_0.  T_0 is the least-squares column (``guess: column``) or the least-squares
  weights of the channels (``guess: linear``).


"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sphereml.config.schema import ModelConfig
from sphereml.data.splits import Split
from sphereml.data.store import Sky, column
from sphereml.models.baselines import LinearModel, fit_integrated, fit_linear

# Below this share of the mean, a column or a sum of channels is noise: profiles are taken relative to the floor.
_FLOOR = 1e-3


@dataclass(frozen=True, eq=False)
class TaskFields:
    """Full-sky arrays a network is trained on, float32, in standardized units.

    ``features`` ``(npix, nfeature)``; ``base``, ``gain`` and ``target`` ``(npix,)``; prediction = base + gain * network.
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
    guess: str
    channels_in: int
    feature_mean: list[float]
    feature_std: list[float]
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
    def channels(self) -> int:
        """Number of features."""
        return len(self.feature_mean)

    def restore(self, prediction: np.ndarray) -> np.ndarray:
        """Standardized prediction to the target's unit."""
        return prediction * self.target_std + self.target_mean


def fit_scaling(sky: Sky, split: Split, model: ModelConfig) -> DustScaling:
    """Means, scales and the first guess T_0 from the training pixels alone."""
    pixels = split.train
    gas = column(sky)
    guess = (
        fit_linear(sky.inputs, sky.target, pixels)
        if model.guess == "linear"
        else fit_integrated(gas, sky.target, pixels)
    )
    column_floor = _FLOOR * float(gas[pixels].mean())
    sum_floor = _FLOOR * float(np.abs(sky.inputs[pixels]).sum(axis=1).mean())
    features = _raw_features(sky, gas, model.form, column_floor, sum_floor)[pixels].astype(np.float64)
    std = features.std(axis=0)
    target = sky.target[pixels].astype(np.float64)
    return DustScaling(
        form=model.form,
        guess=model.guess,
        channels_in=len(sky.channels),
        feature_mean=features.mean(axis=0).tolist(),
        feature_std=np.where(std > 0, std, 1.0).tolist(),
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
    raw = _raw_features(sky, gas, scaling.form, scaling.column_floor, scaling.sum_floor)
    features = (raw - np.float32(scaling.feature_mean)) / np.float32(scaling.feature_std)
    base, gain = _first_guess(sky, gas, scaling)
    target = (sky.target - scaling.target_mean) / scaling.target_std
    return TaskFields(
        features.astype(np.float32), base.astype(np.float32), gain.astype(np.float32), target.astype(np.float32)
    )


def _first_guess(sky: Sky, gas: np.ndarray, scaling: DustScaling) -> tuple[np.ndarray, np.ndarray]:
    """``base`` and ``gain`` in standardized units: T_0 with and without its constant offset."""
    if scaling.form == "plain":
        return np.zeros(sky.grid.npix), np.ones(sky.grid.npix)
    inputs = sky.inputs if scaling.guess == "linear" else gas[:, None]
    guess = LinearModel(np.asarray(scaling.guess_weights), scaling.guess_offset).predict(inputs)
    gain = (guess - scaling.guess_offset) / scaling.target_std
    return (guess - scaling.target_mean) / scaling.target_std, gain


def _raw_features(sky: Sky, gas: np.ndarray, form: str, column_floor: float, sum_floor: float) -> np.ndarray:
    if form == "plain":
        return sky.inputs
    total = np.maximum(sky.inputs.sum(axis=1, keepdims=True), sum_floor)
    log_column = np.log10(np.maximum(gas, column_floor))[:, None].astype(np.float32)
    return np.concatenate([log_column, sky.inputs / total], axis=1)
