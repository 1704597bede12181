"""What networks see of the gas: its log column and the line profile, which do not change with the amount of gas.

Conventions: features are standardized over the training pixels and clipped to their central 99.6 % there, so that a sky
unlike the training's stays within what was learnt.  ``features`` is ``channels`` (as they are), ``total`` (the gas
column), ``moments`` (``sum_v v^m I_v`` for m = 0, 1, ..., v in 10 km/s), ``scales`` (every channel apart by scale, so
that a linear model's weights depend on scale: they are linear in log(ell) between nodes), ``column`` (the logarithm of
the column) or ``profile`` (that and ``I_v / sum_v I_v``); the last two are clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sphereml.data.sky_on_disk import ReadableSky
from sphereml.data.store import Sky, column
from sphereml.errors import UserError
from sphereml.harmonics.filters import multiply, scale_windows
from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.sky.grid import HealpixGrid
from sphereml.sources.sky_source import SkyColumns
from sphereml.tasks.maps import MapScaling, MapTask, named, refuse_other_fields, single, standardization

# Below this share of the mean, a column or a sum of channels is noise: profiles are taken relative to the floor.
_FLOOR = 1e-3
_CENTRAL = (0.2, 99.8)  # percentiles
_FEATURES = ("channels", "total", "moments", "scales", "column", "profile")
# What ``model.inputs`` calls the features of a plain form.
_INPUTS = {"channels": "channels", "integrated": "total", "moments": "moments", "scales": "scales"}


@dataclass(frozen=True)
class GasScaling(MapScaling):
    """How the gas is seen; everything is fitted on the training pixels.

    ``column_floor`` and ``sum_floor`` are the least column and the least sum of channels: what is below is noise, and
    takes no logarithm and no profile.  ``scales`` are the nodes of the features of that name.
    """

    features: str = "channels"
    feature_low: tuple[float, ...] = ()
    feature_high: tuple[float, ...] = ()
    column_floor: float = 0.0
    sum_floor: float = 0.0
    scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features not in _FEATURES:
            raise ValueError(f"there are no features {self.features!r}")

    @property
    def physical(self) -> bool:
        return self.features in ("column", "profile")

    def see(self, sky: Sky) -> np.ndarray:
        """The standardized features of a sky, ``(npix, F)``; raises UserError for one with other inputs."""
        refuse_other_fields(sky, self)
        raw = _raw_features(sky, self.features, vars(self) | {"moments": len(self.feature_mean)})
        features = (raw - single(self.feature_mean)) / single(self.feature_std)
        return np.clip(features, single(self.feature_low), single(self.feature_high)) if self.physical else features


class GasTask(MapTask):
    """A task whose inputs are velocity channels of gas, or columns of it."""

    @property
    def features(self) -> str:
        """What the model of the configuration sees."""
        model = self.config.model
        if self.closed_form:
            return "total" if model.arch == "integrated" else _INPUTS[model.inputs]
        return model.features if model.form == "physical" else _INPUTS[model.inputs]

    @cached_property
    def gas(self) -> np.ndarray:
        """The column of the sky, ``(npix,)``."""
        return column(self.sky)

    def check(self) -> None:
        super().check()
        if self.features in ("total", "column", "profile"):
            column(self.sky)
        if self.features == "moments" and (self.sky.velocity is None or len(self.sky.velocity) < 2):
            raise UserError("the sky has no velocities, and so no moments", "choose model.inputs=channels")

    def column_reader(self, sky: ReadableSky, scaling: Any) -> Callable[[np.ndarray], SkyColumns]:
        if self.features == "scales":  # of the whole sky
            return self.columns(sky.whole(), scaling).at
        return super().column_reader(sky, scaling)

    def gas_statistics(self) -> dict[str, Any]:
        """The entries of a scaling that say how the gas is seen."""
        sky, pixels, kind = self.sky, self.learning_pixels, self.features
        more: dict[str, Any] = {"features": kind}
        if kind in ("column", "profile"):
            more["column_floor"] = _FLOOR * float(self.gas[pixels].mean())
            more["sum_floor"] = _FLOOR * float(np.abs(sky.inputs[pixels]).sum(axis=1).mean())
        if kind == "scales":
            more["scales"] = tuple(self.config.model.scales)
        raw = _raw_features(sky, kind, more | {"moments": self.config.model.moments})
        features = raw[pixels].astype(np.float64)
        weight = self.split.weight
        mean, std = standardization(features, (), None if weight is None else weight[pixels])
        if kind in ("column", "profile"):
            low, high = np.percentile((features - mean) / std, _CENTRAL, axis=0)
            more |= {"feature_low": tuple(low.tolist()), "feature_high": tuple(high.tolist())}
        return named("feature", (mean, std)) | more

    @property
    def comparable_inputs(self) -> bool:
        return bool(self.sky.input_unit) and self.features not in ("moments", "scales")

    def raw_features(self) -> np.ndarray:
        model = self.config.model
        return _raw_features(self.sky, self.features, {"moments": model.moments, "scales": model.scales})


def _raw_features(sky: Sky, kind: str, settings: Mapping[str, Any]) -> np.ndarray:
    """``(npix, F)``, not yet standardized; ``settings``: floors, nodes and number of what has them."""
    if kind == "channels":
        return sky.inputs
    if kind == "total":
        return column(sky)[:, None]
    if kind == "moments":
        return velocity_moments(sky, settings["moments"])
    if kind == "scales":
        return part_by_scale(sky.inputs, settings["scales"])
    log_column = np.log10(np.maximum(column(sky), settings["column_floor"]))[:, None].astype(np.float32)
    if kind == "column":
        return log_column
    total = np.maximum(sky.inputs.sum(axis=1, keepdims=True), settings["sum_floor"])
    return np.concatenate([log_column, sky.inputs / total], axis=1)


def velocity_moments(sky: Sky, count: int) -> np.ndarray:
    """``sum_v (v / 10 km/s)^m I_v dv`` for m = 0 ... count - 1: ``(npix, count)`` float32."""
    assert sky.velocity is not None
    powers = (sky.velocity[:, None] / 10) ** np.arange(count)
    return np.asarray(sky.inputs @ (powers * np.abs(np.gradient(sky.velocity))[:, None]).astype(np.float32))


def part_by_scale(inputs: np.ndarray, nodes: Sequence[float]) -> np.ndarray:
    """Channels ``(npix, nchan)`` parted by scale, those of a channel side by side: ``(npix, nchan * nnode)`` float32.

    The parts of a channel add up to it: the last holds what lies above the resolved multipoles too.
    """
    grid = HealpixGrid.of_size(len(inputs))
    windows = scale_windows(nodes, grid.safe_lmax)
    parts = np.empty((*inputs.shape, len(nodes)), np.float32)
    for channel, values in enumerate(inputs.T):
        alm = analysis(values, grid.safe_lmax)
        lower = np.stack([multiply(alm.copy(), window) for window in windows[:-1]])
        parts[:, channel, :-1] = synthesis(lower, grid.nside, grid.safe_lmax).T
        parts[:, channel, -1] = values - parts[:, channel, :-1].sum(axis=-1)
    return parts.reshape(len(inputs), -1)
