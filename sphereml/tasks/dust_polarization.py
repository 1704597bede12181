"""Dust polarization from HI: velocity channels in, Q and U out, as one field of spin 2.

Conventions: those of :mod:`sphereml.tasks.maps`, :mod:`sphereml.tasks.gas` and :mod:`sphereml.filaments`; Q and U are
standardized by one deviation and have no mean.  ``B_v`` are Q and U that the filaments of channel v foretell, in the
channel's unit: ``I_v`` times an orientation of length 1 or less, by the structure tensor or the Hough transform.

* ``physical``: with one fitted amplitude a, even scalar outputs n_v and an output c of spin 2,

      P' = a sum_v B_v exp(L tanh(n_v / L)) + a I c,   I = sum_v |I_v|,

  so that gains are positive and within exp(+-L) (``gain_limit``), and a network that has learnt nothing gives back the
  baseline ``a sum_v B_v``, exactly.  Features are the log column, the line profile, and the baseline's orientation
  ``sum_v B_v / I``.
* ``plain``: the standardized channels are the features, the output is P'.
* The closed forms have no network: ``tensor`` and ``hough`` are the baselines themselves with their fitted amplitude,
  ``linear`` is ``sum_v w_v eth^2 I_v`` and ``integrated`` ``w eth^2 N``, N the gas column.

A sky's intensity, where it is a target too, is not learnt: masks and scores take it (``Sky.intensity``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
import torch

from sphereml.config.dust_polarization import DustPolarizationConfig
from sphereml.config.schema import ExperimentConfig
from sphereml.data.sky_on_disk import ReadableSky
from sphereml.data.split_files import Split
from sphereml.data.store import Sky, column
from sphereml.domains.channels import Channels
from sphereml.errors import UserError
from sphereml.filaments.derivatives import fit_polarization, second_derivatives
from sphereml.filaments.hough import HoughSettings, HoughTransform
from sphereml.filaments.tensor import TensorSettings, channel_stokes
from sphereml.models.networks import Network
from sphereml.sources.batch import Batch
from sphereml.sources.sky import load_sky
from sphereml.sources.sky_source import SkyColumns
from sphereml.tasks.gas import GasScaling, GasTask
from sphereml.tasks.maps import MapScaling, fields_of
from sphereml.tasks.protocol import Say


@dataclass(frozen=True)
class Base:
    """What is foretold without a network: ``kind`` is a closed form's ``arch``, with the settings of the task."""

    kind: str
    settings: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, kind: str, settings: dict[str, Any]) -> Base:
        return cls(kind, tuple(sorted(settings.items())))

    def maps(self, sky: Sky) -> np.ndarray:
        """Q and U of every channel (``integrated``: of the column), float32 ``(npix, n, 2)``, to be weighed."""
        return _maps(sky, self)


@lru_cache(maxsize=3)
def _maps(sky: Sky, base: Base) -> np.ndarray:
    chosen = DustPolarizationConfig(**dict(base.settings))
    if base.kind in ("linear", "integrated"):
        inputs = sky.inputs if base.kind == "linear" else column(sky)[:, None]
        return second_derivatives(inputs, [chosen.derivatives]).astype(np.float32)
    if base.kind == "tensor":
        tensor = TensorSettings(chosen.fine, chosen.coarse, chosen.neighbourhood)
        return np.stack([one.astype(np.float32) for one in channel_stokes(sky.inputs, tensor)], axis=1)
    stick = HoughSettings(chosen.length, chosen.smoothing, chosen.threshold, chosen.orientations)
    transform = HoughTransform(sky.grid, stick)
    channels = torch.from_numpy(np.ascontiguousarray(sky.inputs.T))
    return np.stack([(one[:, None] * transform.orientation(one)).float().numpy() for one in channels], axis=1)


@lru_cache(maxsize=3)
def polarized(sky: Sky) -> Sky:
    """The sky with Q and U as its only target, and a target that is their intensity as the component ``intensity``."""
    spins = [one.spin for one in sky.target_fields]
    if not spins or spins == [2]:
        return sky
    if spins.count(2) != 1:
        what = f"the data have {spins.count(2)} polarized targets"
        raise UserError(what, "give Q and U of one as a target")
    first = sum(one.columns for one in sky.target_fields[: spins.index(2)])
    components, units = dict(sky.components), dict(sky.component_units)
    if sky.intensity is not None:
        components["intensity"], units["intensity"] = sky.intensity, sky.target_fields[0].unit
    return replace(
        sky,
        targets=np.ascontiguousarray(sky.targets[:, first : first + 2]),
        target_fields=(sky.target_fields[spins.index(2)],),
        components=components,
        component_units=units,
    )


@dataclass(frozen=True)
class PolarizationScaling(GasScaling):
    """Everything fitted on the training pixels; ``weights`` are in the target's unit per unit of the base's maps."""

    base: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    weights: tuple[float, ...] = ()
    orientation_std: float = 1.0
    gain_limit: float = 0.0

    def foretold(self, sky: Sky) -> np.ndarray:
        """Q and U by the base, weighed, in units of the target's deviation: ``(npix, n, 2)``."""
        maps = Base.of(self.base, self.settings).maps(sky)
        return maps * (np.asarray(self.weights, np.float32) / np.float32(self.target_std[0]))[:, None]

    def amount(self, sky: Sky) -> np.ndarray:
        """The length that the base would have were all of its channels fully oriented and aligned, ``(npix,)``."""
        total = np.abs(sky.inputs).sum(axis=1)
        return np.asarray(total * np.float32(abs(self.weights[0]) / self.target_std[0]))


class DustPolarizationTask(GasTask):
    """Q and U of the dust from HI channels."""

    name = "dust_polarization"
    scaling: ClassVar[type[MapScaling]] = PolarizationScaling
    pixelwise: ClassVar[bool] = False  # the base looks around

    def __init__(
        self, config: ExperimentConfig, say: Say = print, sky: ReadableSky | None = None, split: Split | None = None
    ) -> None:
        super().__init__(config, say, None if sky is None else polarized(sky.whole()), split)

    @cached_property
    def sky(self) -> Sky:
        given: Sky | None = self.__dict__.get("readable_sky")
        return polarized(load_sky(self.config.data, self.say)) if given is None else given

    @property
    def features(self) -> str:
        return "channels" if self.closed_form else super().features

    @property
    def base(self) -> Base | None:
        """What the configuration's model is, or corrects; None for a plain network."""
        model, settings = self.config.model, self.config.dust_polarization
        if self.closed_form:
            return Base.of(model.arch, asdict(settings))
        return Base.of(settings.base, asdict(settings)) if model.form == "physical" else None

    def check(self) -> None:
        data = self.config.data
        if data.kind == "galaxy" and not data.galaxy.polarization and "readable_sky" not in self.__dict__:
            raise UserError("the synthetic Galaxy has no Q and U", "give data.galaxy.polarization=true")
        super().check()
        if not self.sky.target_fields:
            raise UserError("the sky has no target", "give Q and U as data.target")

    def fit_scaling(self) -> PolarizationScaling:
        target = self.target_statistics()
        found = fields_of(self.sky) | self.gas_statistics() | target
        return PolarizationScaling.from_json(found | (self._base_entries() if self.base else {}))

    def _base_entries(self) -> dict[str, Any]:
        """The weights of the base, by least squares over the pixels that are learnt from."""
        base, sky, pixels = self.base, self.sky, self.learning_pixels
        assert base is not None
        maps, spread = base.maps(sky), 1.0
        if base.kind in ("tensor", "hough"):
            maps = maps.sum(axis=1, keepdims=True)
            total = np.maximum(np.abs(sky.inputs[pixels]).sum(axis=1), 1e-30)
            spread = float(np.sqrt(np.mean(np.square(maps[pixels, 0] / total[:, None])))) or 1.0
        root = np.ones(1) if self.split.weight is None else np.sqrt(self.split.weight)[:, None]
        weights = fit_polarization(maps * root[..., None], sky.targets * root, pixels)
        return {
            "base": base.kind,
            "settings": dict(base.settings),
            "weights": tuple(weights.tolist()),
            "orientation_std": spread,
            "gain_limit": self.config.model.gain_limit,
        }

    def columns(self, sky: Sky, scaling: PolarizationScaling) -> SkyColumns:
        sky, spins = polarized(sky), scaling.output_spins
        features, target = scaling.see(sky), scaling.targets(sky)
        if not scaling.base:
            return SkyColumns(self.channels(scaling)[0], features, np.zeros_like(target), None, target, spins)
        foretold = scaling.foretold(sky)
        base = foretold.sum(axis=1)
        if not scaling.physical:
            return SkyColumns(Channels(1), np.zeros((len(base), 1), np.float32), base, None, target, spins)
        amount = scaling.amount(sky)
        orientation = base / np.maximum(amount, 1e-30)[:, None] / np.float32(scaling.orientation_std)
        gains = np.concatenate([foretold.swapaxes(1, 2), np.repeat(amount, 2).reshape(-1, 2, 1)], axis=2)
        features = np.concatenate([features, orientation], axis=1)
        return SkyColumns(self.channels(scaling)[0], features, base, gains, target, spins, scalar_gains=1)

    def channels(self, scaling: PolarizationScaling) -> tuple[Channels, Channels]:
        if scaling.physical:
            return Channels(len(scaling.feature_mean), spin2=1), Channels(len(scaling.inputs), spin2=1)
        return Channels(1 if scaling.base else len(scaling.feature_mean)), Channels(spin2=1)

    def solve(self, network: Network, scaling: PolarizationScaling) -> None:
        """Nothing: a closed form is its base, whose weights the scaling has, and its network stays at zero."""

    def combine(self, batch: Batch, output: torch.Tensor, scaling: PolarizationScaling) -> torch.Tensor:
        if not scaling.physical:
            return batch.base + output
        limit, count = scaling.gain_limit, output.shape[-1] - 2
        gains = torch.expm1(limit * torch.tanh(output[..., None, :count] / limit)).expand(*output.shape[:-1], 2, count)
        assert batch.gains is not None
        factors = torch.cat([gains, output[..., count:, None]], dim=-1)
        return batch.base + (batch.gains * factors).sum(dim=-1)
