"""Dust from HI: what the network sees, what it predicts, and in which units.

Conventions: those of :mod:`sphereml.tasks.maps` and :mod:`sphereml.tasks.gas`.  The network's outputs n_c become a
prediction pixel by pixel, ``t' = base + sum_c gain_c f(n_c)``, in the standardized target ``t = (T - mean) / std``:

* ``plain`` (arXiv:1904.13265): the standardized channels are the features, base = 0, one gain of 1, f(n) = n.
* ``physical``: the features are the standardized log of the gas column N (``features: column``) and with it the line
  profile ``I_v / sum_v I_v`` (``profile``), which do not change with the amount of gas; the dust is a gain on a first
  guess T_0, so that a network which has learnt nothing gives back T_0: the least-squares column (``guess: column``) or
  the least-squares weights of the channels (``linear``).  With ``gains: one``, ``T' = T_0 + (T_0 - c) f(n)`` with c the
  guess's constant; with ``gains: channels``, ``T' = T_0 + sum_v w_v I_v f(n_v)``.  f(n) = n, or with a ``gain_limit`` L
  ``f(n) = exp(L tanh(n / L)) - 1``: gains stay positive and within exp(+-L), also where the sky is unlike the
  training's.

The closed-form models weigh the channels (``linear``) or the gas column alone (``integrated``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from sphereml.data.store import Sky, column
from sphereml.domains.channels import Channels
from sphereml.errors import UserError
from sphereml.models.baselines import fit_linear
from sphereml.sources.batch import Batch
from sphereml.sources.sky_source import SkyColumns
from sphereml.tasks.gas import GasScaling, GasTask
from sphereml.tasks.maps import MapScaling, fields_of
from sphereml.tasks.protocol import add_gains


@dataclass(frozen=True)
class DustScaling(GasScaling):
    """Everything fitted on the training pixels.

    ``guess_weights`` and ``guess_offset`` make T_0 (target unit per unit of column or channel).
    """

    gains: str = ""
    guess: str = ""
    gain_limit: float = 0.0
    guess_weights: tuple[float, ...] = ()
    guess_offset: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gains not in ("", "one", "channels") or self.guess not in ("", "column", "linear"):
            raise ValueError(f"there is no guess {self.guess!r} with gains {self.gains!r}")

    def first_guess(self, sky: Sky) -> tuple[np.ndarray, np.ndarray]:
        """T_0 and its gains, standardized: ``(npix, 1)`` and ``(npix, 1, G)``."""
        inputs = sky.inputs if self.guess == "linear" else column(sky)[:, None]
        unit = self.target_std[0]
        parts = inputs * (np.asarray(self.guess_weights) / unit)
        total = parts.sum(axis=1, keepdims=True)
        gains = parts if self.gains == "channels" else total
        return total + (self.guess_offset - self.target_mean[0]) / unit, gains[:, None, :]


class DustTask(GasTask):
    """Dust intensity, or any one map, from HI channels."""

    name = "dust"
    scaling: ClassVar[type[MapScaling]] = DustScaling

    def check(self) -> None:
        super().check()
        if self.features in ("column", "profile") and len(self.sky.target_fields) != 1:
            what = f"model.form=physical has one target, and the data have {len(self.sky.target_fields)}"
            raise UserError(what, "choose one with data.target.fields=[0], or model.form=plain")

    def fit_scaling(self) -> DustScaling:
        guess = self._guess() if self.features in ("column", "profile") else {}
        statistics = self.gas_statistics() | self.target_statistics()
        return DustScaling.from_json(fields_of(self.sky) | statistics | guess)

    def _guess(self) -> dict[str, Any]:
        """The entries of the scaling that make the first guess and its gains."""
        sky, model = self.sky, self.config.model
        inputs = sky.inputs if model.guess == "linear" else self.gas[:, None]
        guess = fit_linear(inputs, sky.target, self.learning_pixels, self.split.weight, self.comparable_inputs)
        return {
            "gains": model.gains,
            "guess": model.guess,
            "gain_limit": model.gain_limit,
            "guess_weights": tuple(guess.weights.tolist()),
            "guess_offset": guess.offset,
        }

    def columns(self, sky: Sky, scaling: DustScaling) -> SkyColumns:
        if scaling.features == "channels":
            return super().columns(sky, scaling)
        features, target = scaling.see(sky), scaling.targets(sky)
        base, gains = scaling.first_guess(sky) if scaling.physical else (np.zeros_like(target), None)
        return SkyColumns(self.channels(scaling)[0], features, base, gains, target)

    def channels(self, scaling: DustScaling) -> tuple[Channels, Channels]:
        if scaling.features == "channels":
            return super().channels(scaling)
        outputs = len(scaling.guess_weights) if scaling.gains == "channels" else len(scaling.outputs)
        return Channels(len(scaling.feature_mean)), Channels(outputs)

    def combine(self, batch: Batch, output: torch.Tensor, scaling: DustScaling) -> torch.Tensor:
        limit = scaling.gain_limit
        return add_gains(batch.base, batch.gains, torch.expm1(limit * torch.tanh(output / limit)) if limit else output)
