"""The networks by their names in a configuration, and what a configuration says of them as keyword arguments."""

from __future__ import annotations

from typing import Any

from sphereml.config.schema import ModelConfig
from sphereml.domains import Domain
from sphereml.domains.channels import Channels
from sphereml.models.baselines import PointwiseLinear
from sphereml.models.precision import single_precision
from sphereml.models.resunet import ResUNet
from sphereml.models.spectral import SpectralNetwork
from sphereml.models.stack import ResidualStack
from sphereml.models.unet import UNet

Network = UNet | ResUNet | ResidualStack | SpectralNetwork | PointwiseLinear
NETWORKS: dict[str, type[UNet] | type[ResUNet] | type[ResidualStack] | type[SpectralNetwork]] = {
    "unet": UNet,
    "resunet": ResUNet,
    "stack": ResidualStack,
    "spectral": SpectralNetwork,
}


def build(config: ModelConfig, domain: Domain, channels_in: int | Channels, channels_out: int | Channels) -> Network:
    """A network that starts at zero when it corrects a first guess (form ``physical``).

    Without typed channels (``stencil: spin``) columns are bare numbers to it, whatever they are.
    """
    zero = config.form == "physical"
    if config.stencil != "spin":
        channels_in, channels_out = (Channels.of(one).columns for one in (channels_in, channels_out))
    with single_precision():
        return NETWORKS[config.arch](domain, channels_in, channels_out, zero_output=zero, **options(config))


def options(config: ModelConfig) -> dict[str, Any]:
    """The keyword arguments of a configured network."""
    names = ["kernel", "stencil", "dropout", "norm", "products", "chiral"]
    width = Channels(config.width, config.odd_width, config.spin1_width, config.spin2_width)
    given: dict[str, Any] = {"width": width} | {name: getattr(config, name) for name in names}
    if config.arch == "spectral":
        kept = ("depth", "max_width", "kernel", "dropout")
        return {"width": width} | {name: getattr(config, name) for name in kept}
    if config.arch == "stack":
        return given | {"layers": config.convs_per_level}
    given |= {"depth": config.depth, "max_width": config.max_width}
    return given | ({"convs_per_level": config.convs_per_level} if config.arch == "unet" else {})
