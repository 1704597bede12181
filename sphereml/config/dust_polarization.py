"""The configuration of dust polarization from HI: how the orientation of the gas is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sphereml.config.maps import map_faults
from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.config.schema import ExperimentConfig


@dataclass
class DustPolarizationConfig:
    """Settings of the filaments that a network corrects, and of the models ``structure_tensor``, ``hough``, ``linear``.

    Args:
        base: what a physical form corrects, channel by channel: structure tensor or rolling Hough transform
        fine [deg]: smaller smoothing of the tensor's gradient, sigma
        coarse [deg]: larger smoothing of the tensor's gradient, sigma
        neighbourhood [deg]: the tensor is averaged over it, sigma
        length [arcmin]: of the Hough transform's stick
        smoothing [arcmin]: FWHM of the Hough transform's unsharp mask
        threshold: share of the stick that must be bright, in [0, 1)
        orientations: number of the stick's angles
        derivatives [deg]: smoothing of the channels whose second derivatives are weighed (linear, integrated), sigma
    """

    base: str = "tensor"
    fine: float = 0.5
    coarse: float = 6.0
    neighbourhood: float = 8.0
    length: float = 600.0
    smoothing: float = 240.0
    threshold: float = 0.7
    orientations: int = 25
    derivatives: float = 1.0


def polarization_faults(config: ExperimentConfig) -> Iterator[UserError]:
    """What an experiment on dust polarization cannot be, beside the limits of every experiment on maps."""
    yield from map_faults(config)
    model, settings = config.model, config.dust_polarization
    if model.domain != "none" and model.form == "physical" and not model.gain_limit > 0:
        what = f"model.gain_limit={model.gain_limit:g} with model.form=physical: a channel's gain is bounded here"
        yield UserError(what, "give more than 0, e.g. 1")
    if model.arch == "spectral":
        what = f"model.arch=spectral ({model.name}) sees single pixels, whose scalars do not foretell Q and U"
        yield UserError(what, "choose another network")
    if not 0 <= settings.fine < settings.coarse:
        what = f"dust_polarization.fine={settings.fine:g} and dust_polarization.coarse={settings.coarse:g}"
        yield UserError(what, "give 0 <= fine < coarse")
    for name in ("neighbourhood", "derivatives"):
        if getattr(settings, name) < 0:
            yield UserError(f"dust_polarization.{name}={getattr(settings, name):g} is impossible", "give 0 or more")
    for name in ("length", "smoothing"):
        if not 0 < getattr(settings, name) < 180 * 60:
            what = f"dust_polarization.{name}={getattr(settings, name):g} arcmin is impossible"
            yield UserError(what, "give more than 0, below 10800")
    if not 0 <= settings.threshold < 1:
        yield UserError(f"dust_polarization.threshold={settings.threshold:g} is no share", "give 0 or more, below 1")
    if settings.orientations < 3:
        yield UserError(f"dust_polarization.orientations={settings.orientations}", "give at least 3")
