"""Flags of ``sphereml lensing estimate | template`` beside ``--run``: the training fixed what they would say.

Conventions: noise in uK-arcmin, beam (FWHM) and taper in arcmin, as in ``lensing`` of the run's configuration.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.config.schema import ExperimentConfig

# Flag, and the run's setting under ``lensing`` that it must agree with.
_FIXED = {
    "noise": "noise",
    "beam": "beam",
    "lmin": "lmin",
    "lmin_b": "lmin_b",
    "lmax": "lmax_eb",
    "lmax_kappa": "lmax_kappa",
    "passes": "passes",
    "taper": "taper",
}
# What a network takes the place of.
_REPLACED = ("estimator", "kappa", "e", "filtered")
_OF_MEAN_FIELDS = ("mean_field", "seed")
# Of the sky's runs, whose masks have no taper.
_OF_PATCHES = "taper"


def refuse_beside_run(options: argparse.Namespace, config: ExperimentConfig, free: tuple[str, ...] = ()) -> None:
    """Compare the flags that were given with the run.

    Args:
        free: flags of the table that say something else to this verb.

    Raises:
        UserError: a flag that a network leaves nothing to do, or one that differs from the run.
    """
    sphere = config.model.domain == "sphere"
    for name in (*_REPLACED, *(_OF_MEAN_FIELDS if sphere else ())):
        if (given := getattr(options, name, None)) or (given is not None and name == "seed"):
            raise UserError(f"{_flag(name)} with --run, which the network leaves no use for", "leave it out")
    for name in (name for name in _FIXED if name not in free and not (sphere and name == _OF_PATCHES)):
        given, own = getattr(options, name, None), _trained(config, name)
        if given is not None and given != own:
            what = f"{_flag(name)} {given:g}, but the run was trained with {own:g}"
            raise UserError(what, "leave it out, or train anew")


def _trained(config: ExperimentConfig, name: str) -> Any:
    value = getattr(config.lensing, _FIXED[name])
    return config.lensing.lmax_eb if name == "lmax_kappa" and not value else value


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
