"""What a survey's store holds besides its inputs: target, total, mask, velocities, and what all of it was made from.

Conventions: the component ``mask`` is 0..1, NEST, 1 = keep; it is 0 wherever a map had no data.  Provenance holds no
dates; its ``spectrum`` is the mean over the sky of each channel before any filter, K, with LSR km/s.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sphereml import __version__
from sphereml.config.survey import SurveyConfig
from sphereml.data.channel_plan import ChannelPlan
from sphereml.data.channel_store import StagedMaps
from sphereml.data.manifests import product_facts
from sphereml.data.map_filter import MapFilter
from sphereml.data.store import Sky, blank_inputs
from sphereml.data.survey_sources import SkyMap
from sphereml.errors import UserError
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import apodize, regrade, regrade_weights, to_galactic


@dataclass(frozen=True, eq=False)
class Preparation:
    """How a store was made.

    Args:
        files: name -> checksum.
        filters: of ``inputs``, ``target`` and, if there is one, ``total``.
        units: of the target and the total.
    """

    config: SurveyConfig
    files: dict[str, str]
    plan: ChannelPlan
    filters: dict[str, MapFilter]
    units: dict[str, str]

    @property
    def grid(self) -> HealpixGrid:
        return HealpixGrid(self.config.filters.nside)

    @property
    def channels(self) -> list[str]:
        """Names of the staged inputs."""
        return [channel_name(index) for index in range(len(self.plan.axis))]

    def source_of(self, name: str) -> MapFilter:
        """The filter that a staged map went through."""
        return self.filters.get(name, self.filters["inputs"])


def channel_name(index: int) -> str:
    """The staged map of an input."""
    return f"channel-{index:04d}"


def context_name(channel: int) -> str:
    """The staged mean of a channel of the source that is no input."""
    return f"context-{channel:04d}"


def combine_mask(stage: StagedMaps, made: Preparation, mask: SkyMap | None) -> np.ndarray | None:
    """The survey's mask without the pixels that lack data, apodized: float32 ``(npix,)``; None when all is kept.

    A mask that is apodized already keeps its weights.

    Raises:
        UserError: nothing is left.
    """
    weights, keep = np.ones(made.grid.npix), np.ones(made.grid.npix, dtype=bool)
    if mask is not None:
        weights = regrade_weights(to_galactic(mask.values, mask.frame), made.grid)
        keep = weights > 0
    for name in [*made.channels, *made.units]:
        gaps = stage.get(name).gaps
        if gaps.size:
            missing = np.zeros(HealpixGrid(made.source_of(name).kind.nside).npix, dtype=np.float32)
            missing[gaps] = 1
            keep &= ~(regrade(missing, made.grid) > 0)
    if (weights * keep == 1).all():
        return None
    if not keep.any():
        raise UserError("the mask and the missing pixels leave no sky", "choose another mask, or complete the files")
    width = made.config.mask.apodization if made.config.mask else 0.0
    return (weights * apodize(keep, made.grid, width)).astype(np.float32)


def sky_without_inputs(stage: StagedMaps, made: Preparation, weight: np.ndarray | None) -> Sky:
    """The sky of the store; its inputs are blank and are to be written from the stage."""
    applied = weight is not None and made.config.mask is not None and made.config.mask.apply
    maps = {name: np.array(stage.get(name).values) * (weight if applied else np.float32(1)) for name in made.units}
    velocity = made.plan.axis.centres
    return Sky(
        grid=made.grid,
        inputs=blank_inputs(made.grid, len(velocity)),
        total=maps.get("total"),
        targets=maps["target"][:, None],
        input_fields=tuple(Field(f"{one:+.2f} km/s", "K") for one in velocity),
        target_fields=(Field("target", made.units["target"]),),
        total_unit=made.units.get("total", ""),
        velocity=velocity,
        components={} if weight is None else {"mask": weight},
        component_units={"mask": ""},
        provenance=_provenance(stage, made),
    )


def _provenance(stage: StagedMaps, made: Preparation) -> dict[str, Any]:
    staged = {name: stage.get(name) for name in [*made.channels, *made.units]}
    return {
        "kind": "survey",
        "code": __version__,
        "seed": None,
        "files": made.files,
        "sources": _sources(made.config),
        "survey": asdict(made.config),
        "maps": {name: _history(one) for name, one in made.filters.items()},
        "filled": {name: int(one.gaps.size) for name, one in staged.items() if one.gaps.size},
        "spectrum": {
            "velocity": made.plan.axis.centres.tolist(),
            "mean": [staged[name].mean for name in made.channels],
            "context_velocity": made.plan.context_velocity.tolist(),
            "context_mean": [stage.get(context_name(channel)).mean for channel in made.plan.context],
        },
    }


def _sources(config: SurveyConfig) -> dict[str, dict[str, Any]]:
    """What the manifests say of the files of the target and the total, by role."""
    maps = {"target": config.target, "total": config.total}
    return {role: {one.file: facts} for role, one in maps.items() if one and (facts := product_facts(one.file))}


def _history(one: MapFilter) -> dict[str, Any]:
    kind = one.kind
    was = {"name": kind.name, "nside": kind.nside, "frame": kind.frame, "beam_arcmin": kind.beam_arcmin}
    return {"from": was, "lmax": one.lmax, "beam_arcmin": one.beam_arcmin, "unchanged": one.changes_nothing}
