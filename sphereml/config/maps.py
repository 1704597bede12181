"""What an experiment on full-sky maps cannot be: limits of the patches that a flat network is stitched from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.config.schema import ExperimentConfig

# Degrees: smaller patches leave gaps between the centres a flat network is stitched from (Nside 16 at most).
_STITCHED_EXTENT = 5.0
# Plain regression of maps knows no gas column, and so no physical form.
GAS_SETTINGS = (
    *("data.total", "model.inputs", "model.moments", "model.scales"),
    *("model.features", "model.guess", "model.gains", "model.gain_limit"),
)


def map_faults(config: ExperimentConfig) -> Iterator[UserError]:
    """What an experiment that learns maps from maps cannot be, beside the limits of every experiment."""
    model, patches = config.model, config.patches
    extent = patches.size * patches.pixel_arcmin / 60
    if model.domain == "flat" and extent < _STITCHED_EXTENT:
        yield UserError(
            f"patches of {patches.size} x {patches.size} pixels, {extent:.3g} degrees on a side",
            f"choose patches.size and patches.pixel_arcmin so that a side has {_STITCHED_EXTENT:g} to 90 degrees",
        )
    if model.inputs == "scales" and not all(0 < a < b for a, b in pairwise(model.scales)):
        yield UserError(f"model.scales={list(model.scales)}", "give multipoles above 0 that increase")
    if model.gains == "channels" and model.guess != "linear":
        yield UserError("model.gains=channels with model.guess=column", "a gain a channel needs model.guess=linear")
    if model.arch in ("tensor", "hough") and config.task in ("dust", "maps"):
        what = f"model.arch={model.arch} ({model.name}) foretells polarization, which task={config.task} does not learn"
        yield UserError(what, "choose task=dust_polarization, or another model")


def regression_faults(config: ExperimentConfig) -> Iterator[UserError]:
    """What plain regression of maps cannot be: a form or a baseline that is made of a gas column."""
    model = config.model
    yield from map_faults(config)
    if model.arch == "integrated" or (model.domain != "none" and model.form != "plain"):
        asked = "model.arch=integrated" if model.arch == "integrated" else f"model.form={model.form}"
        what = f"{asked} ({model.name}) is made of a gas column, which task=maps does not have"
        yield UserError(what, "choose model=linear, unet_sphere_plain or unet_flat_plain")
