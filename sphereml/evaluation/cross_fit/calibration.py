"""Whether a cross-fitted template's errors hold the truth: on its own sky, with another Galaxy, and with more noise.

The truth is the target of the synthetic Galaxy.  Networks, regions and errors are those of the training's sky,
elsewhere too.  Shares are of the pixels that the mask of the training's sky keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sphereml.config.schema import GalaxyConfig
from sphereml.data.store import Sky
from sphereml.templates.cross_fit import CrossFit, open_map_task
from sphereml.templates.cross_fitted import CrossFitted, cross_fitted, cross_fitted_elsewhere
from sphereml.templates.error_fields import correlations
from sphereml.templates.error_model import coverage

_OWN = "own sky"


@dataclass(frozen=True)
class Variation:
    """A sky that the networks were not made for."""

    name: str
    galaxy: GalaxyConfig


def calibrate(plan: CrossFit) -> dict[str, Any]:
    """By sky and field: ``within_1_sigma``, ``within_2_sigma``, ``rms`` of the residual, mean ``sigma``; JSON-ready.

    Beside them ``bands_within``: the share of bands whose true r lies in the central 68 % of the template's own.
    """
    runs = plan.train()
    known = cross_fitted(plan, runs)
    found = {_OWN: _entry(known, plan.sky)}
    for one in _variations(plan):
        plan.say(f"{plan.config.model.name}: {one.name}")
        data = replace(plan.config.data, galaxy=one.galaxy)
        sky = open_map_task(replace(plan.config, data=data), plan.say).sky
        found[one.name] = _entry(cross_fitted_elsewhere(plan, runs, sky, known), sky)
    return found


def _variations(plan: CrossFit) -> list[Variation]:
    galaxy = plan.config.data.galaxy
    if plan.config.data.kind != "galaxy":
        return []
    return [
        Variation("another Galaxy", replace(galaxy, seed=galaxy.seed + 1)),
        Variation("twice the noise", replace(galaxy, noise_mk=2 * galaxy.noise_mk)),
    ]


def _entry(result: CrossFitted, truth: Sky) -> dict[str, Any]:
    pixels, first, entry = result.kept > 0, 0, {}
    for one, sigma in zip(truth.target_fields, result.sigma.T, strict=True):
        columns = slice(first, first + one.columns)
        first += one.columns
        residual = truth.targets[:, columns] - result.maps.values[:, columns]
        entry[one.name] = coverage(residual, sigma, pixels) | {
            "rms": float(np.sqrt(np.mean(np.square(residual[pixels])))),
            "sigma": float(np.sqrt(np.mean(np.square(sigma[pixels])))),
        }
    return {"fields": entry, "bands_within": _bands_within(result, truth)}


def _bands_within(result: CrossFitted, truth: Sky) -> Mapping[str, float]:
    """By component."""
    band = result.r_band()
    true = correlations(result.maps.values, truth.targets, truth.target_fields, result.kept)
    return {
        name: float(np.mean((band[f"R_{name}_LOW"] <= r) & (r <= band[f"R_{name}_HIGH"]))) for name, r in true.items()
    }
