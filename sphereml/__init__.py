"""Spherical-native deep learning for full-sky maps.

``import sphereml as sm`` gives the names below; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Where each name lives: "module:name", or the module itself.
_SURFACE = {
    "Bands": "sphereml.harmonics.bands:Bands",
    "Channels": "sphereml.domains.channels:Channels",
    "Convolution": "sphereml.models.layers:Convolution",
    "Field": "sphereml.sky.fields:Field",
    "FlatPatch": "sphereml.domains.flat:FlatPatch",
    "HealpixSky": "sphereml.domains.healpix:HealpixSky",
    "MapTask": "sphereml.tasks.maps:MapTask",
    "ResUNet": "sphereml.models.resunet:ResUNet",
    "Result": "sphereml.evaluation.protocol:Result",
    "Run": "sphereml.training.runs:Run",
    "SHT": "sphereml.surface:SHT",
    "Sky": "sphereml.data.store:Sky",
    "SkyMap": "sphereml.sky.maps:SkyMap",
    "Task": "sphereml.tasks.protocol:Task",
    "UNet": "sphereml.models.unet:UNet",
    "UserError": "sphereml.errors:UserError",
    "Workspace": "sphereml.harmonics.workspace:Workspace",
    "compare": "sphereml.surface:compare",
    "correlation": "sphereml.surface:correlation",
    "lensing": "sphereml.lensing",
    "load_model": "sphereml.surface:load_model",
    "load_result": "sphereml.evaluation.protocol:load_result",
    "load_sky": "sphereml.surface:load_sky",
    "marginalize": "sphereml.surface:marginalize",
    "open_run": "sphereml.surface:open_run",
    "plot": "sphereml.plotting.surface",
    "read_map": "sphereml.surface:read_map",
    "spectra": "sphereml.surface:spectra",
    "testing": "sphereml.testing",
    "train": "sphereml.surface:train",
    "write_map": "sphereml.surface:write_map",
}
__all__ = [*_SURFACE, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _SURFACE:
        raise AttributeError(f"module 'sphereml' has no attribute {name!r}")
    module, _, attribute = _SURFACE[name].partition(":")
    found = import_module(module)
    if attribute:
        found = getattr(found, attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
