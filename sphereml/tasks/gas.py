"""What networks see of the gas: its log column and the line profile, which do not change with the amount of gas.

Conventions: features are standardized over the training pixels and clipped to their central 99.6 % there, so that a sky
unlike the training's stays within what was learnt.  ``features`` is ``channels`` (as they are), ``total`` (the gas
column), ``column`` (its logarithm) or ``profile`` (that and ``I_v / sum_v I_v``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sphereml.data.store import Sky, column
from sphereml.tasks.maps import MapScaling, MapTask, named, refuse_other_fields, single, standardization

# Below this share of the mean, a column or a sum of channels is noise: profiles are taken relative to the floor.
_FLOOR = 1e-3
_CENTRAL = (0.2, 99.8)  # percentiles


@dataclass(frozen=True)
class GasScaling(MapScaling):
    """How the gas is seen; everything is fitted on the training pixels.

    ``column_floor`` and ``sum_floor`` are the least column and the least sum of channels: what is below is noise, and
    takes no logarithm and no profile.
    """

    features: str = "channels"
    feature_low: tuple[float, ...] = ()
    feature_high: tuple[float, ...] = ()
    column_floor: float = 0.0
    sum_floor: float = 0.0

    @property
    def physical(self) -> bool:
        return self.features in ("column", "profile")

    def see(self, sky: Sky) -> np.ndarray:
        """The standardized features of a sky, ``(npix, F)``; raises UserError for one with other inputs."""
        refuse_other_fields(sky, self)
        gas = None if self.features == "channels" else column(sky)
        raw = _raw_features(sky, gas, self.features, self.column_floor, self.sum_floor)
        features = (raw - single(self.feature_mean)) / single(self.feature_std)
        return np.clip(features, single(self.feature_low), single(self.feature_high)) if self.physical else features


class GasTask(MapTask):
    """A task whose inputs are velocity channels of gas, or columns of it."""

    @property
    def features(self) -> str:
        """What the model of the configuration sees."""
        model = self.config.model
        if self.closed_form:
            return "total" if model.arch == "integrated" else "channels"
        return model.features if model.form == "physical" else "channels"

    @cached_property
    def gas(self) -> np.ndarray:
        """The column of the sky, ``(npix,)``."""
        return column(self.sky)

    def check(self) -> None:
        super().check()
        if self.features != "channels":
            column(self.sky)

    def gas_statistics(self) -> dict[str, Any]:
        """The entries of a scaling that say how the gas is seen."""
        sky, pixels, kind = self.sky, self.learning_pixels, self.features
        more: dict[str, Any] = {"features": kind}
        if kind in ("column", "profile"):
            more["column_floor"] = _FLOOR * float(self.gas[pixels].mean())
            more["sum_floor"] = _FLOOR * float(np.abs(sky.inputs[pixels]).sum(axis=1).mean())
        gas = self.gas if kind != "channels" else None
        raw = _raw_features(sky, gas, kind, more.get("column_floor", 0.0), more.get("sum_floor", 0.0))
        features = raw[pixels].astype(np.float64)
        weight = self.split.weight
        mean, std = standardization(features, (), None if weight is None else weight[pixels])
        if kind in ("column", "profile"):
            low, high = np.percentile((features - mean) / std, _CENTRAL, axis=0)
            more |= {"feature_low": tuple(low.tolist()), "feature_high": tuple(high.tolist())}
        return named("feature", (mean, std)) | more

    @property
    def comparable_inputs(self) -> bool:
        return bool(self.sky.input_unit)

    def raw_features(self) -> np.ndarray:
        return self.gas[:, None] if self.features == "total" else self.sky.inputs


def _raw_features(sky: Sky, gas: np.ndarray | None, kind: str, column_floor: float, sum_floor: float) -> np.ndarray:
    """``(npix, F)``, not yet standardized; ``gas``: the column, None for the channels as they are."""
    if gas is None:
        return sky.inputs
    if kind == "total":
        return gas[:, None]
    log_column = np.log10(np.maximum(gas, column_floor))[:, None].astype(np.float32)
    if kind == "column":
        return log_column
    total = np.maximum(sky.inputs.sum(axis=1, keepdims=True), sum_floor)
    return np.concatenate([log_column, sky.inputs / total], axis=1)
