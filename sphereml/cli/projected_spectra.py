"""``sphereml spectra --mode-projection NSIDE``: exact bandpowers of low multipoles, templates of infinite variance."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.cli.spectra_inputs import Inputs, Part
    from sphereml.harmonics.bandpowers import Bandpowers

# They belong to pseudo-spectra, to a noise that smoothing would correlate, or to weights, which the estimator finds.
_OTHERS = (
    "cross",
    "purify_b",
    "purify_e",
    "explicit",
    "noise_variance",
    "covariance",
    "jackknife",
    "workspace",
    "dl",
    "apodize",
)


def settle_projection(options: argparse.Namespace) -> None:
    """Set the highest multipole, and refuse what the estimator has no use for.

    Raises:
        UserError: no Nside, an option of pseudo-spectra, intensity and polarization together, or no guess.
    """
    if options.mode_projection < 1:
        raise UserError(f"--mode-projection {options.mode_projection}", "give an Nside, 1 to 16")
    given = [name for name in _OTHERS if getattr(options, name)]
    if given or options.field == "IQU":
        what = f"--{given[0].replace('_', '-')}" if given else "--field IQU"
        raise UserError(f"{what} with --mode-projection", "leave it out" if given else "ask for I and QU in turn")
    if not options.guess:
        raise UserError(
            "--mode-projection without --guess", "give spectra that weigh the modes; none biases the result"
        )
    options.lmax = options.lmax or 3 * options.mode_projection


def project(part: Part, inputs: Inputs, options: argparse.Namespace) -> Bandpowers:
    """Bandpowers of one field, degraded; its errors are those of the guess.

    Raises:
        UserError: an Nside above 16 or above the map's, or bands beyond three times it.
    """
    from sphereml.harmonics.mode_projection import ModeProjection, degrade
    from sphereml.sky.grid import HealpixGrid
    from sphereml.sky.masks import regrade_mask

    nside, lmax = options.mode_projection, inputs.lmax
    if nside > HealpixGrid.of_size(inputs.mask.size).nside:
        raise UserError(f"--mode-projection {nside} is above the map's Nside", "lower it")
    sky, smoothing = degrade(part.maps[0], nside, lmax)
    beam = np.ones(lmax + 1) if inputs.beam is None else inputs.beam[: lmax + 1]
    templates = None if part.templates is None else np.stack([degrade(one, nside, lmax)[0] for one in part.templates])
    assert part.guess is not None
    guess = part.guess[[0, -1]] if part.spins[0] else part.guess
    mask = regrade_mask(inputs.mask > 0, HealpixGrid(nside))
    return ModeProjection(mask, inputs.edges, guess / beam**2, None, templates, beam * smoothing).estimate(sky)
