"""``sphereml info``: what a bug report needs."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version

from sphereml import __version__
from sphereml.cli.experiment import say

_LIBRARIES = ("torch", "lightning", "healpy", "ducc0", "camb", "numpy", "scipy", "xarray", "zarr", "hydra-core")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(options: argparse.Namespace) -> None:
    import torch

    from sphereml.config.resources import resource_folder
    from sphereml.harmonics.transforms import threads

    say(f"sphereml {__version__}  Python {platform.python_version()}  {platform.system()} {platform.machine()}")
    say("  ".join(f"{name} {_version(name)}" for name in _LIBRARIES))
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    say(f"device: {device}  cores: {os.cpu_count()}  threads: torch {torch.get_num_threads()}, ducc0 {threads()}")
    say(f"configs: {resource_folder('configs')}")
    for name in ("SPHEREML_REAL_SKY", "SPHEREML_DATA"):
        say(f"{name}: {os.environ.get(name, 'not set')}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
