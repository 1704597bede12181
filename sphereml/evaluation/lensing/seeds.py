"""How far networks that differ in their seed alone come apart (eq. 18 of arXiv:1810.01483).

Conventions: ``images`` are every seed's kappa of the same test patches.  The spread is the standard deviation over
seeds (n - 1) of the mean R-corrected band power, and of the maps themselves: the band power of each seed's map, R
corrected, less their mean.  Beside the spread of pixels stands their error, most of which all seeds share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sphereml.evaluation.lensing.noise import Judged
from sphereml.lensing.patch_spectra import PatchBands


def seed_spread(
    judged: Mapping[str, Judged], images: Mapping[str, torch.Tensor], truth: torch.Tensor, bands: PatchBands
) -> dict[str, Any]:
    """Spread of spectra (eq. 18) and of maps between seeds, by band; JSON values.

    Args:
        judged, images: of every seed, under the same names; images and truth ``(patch, size, size)`` of the test
            patches.
    """
    names = list(judged)
    spectra = np.stack([judged[name].means[1][0, 0] / judged[name].response ** 2 for name in names])
    stacked = torch.stack([images[name] for name in names])
    apart = stacked - stacked.mean(dim=0)
    freedom = len(names) / (len(names) - 1)
    response = np.mean([judged[name].response for name in names], axis=0)
    powers = np.mean([bands.power(part, part).mean(axis=0) for part in apart], axis=0) * freedom / response**2
    return {
        "names": names,
        "spectra": spectra.std(axis=0, ddof=1).tolist(),
        "relative": (spectra.std(axis=0, ddof=1) / spectra.mean(axis=0)).tolist(),
        "maps": powers.tolist(),
        "pixel": float(stacked.var(dim=0).mean().sqrt()),
        "pixel_error": float((stacked - truth).square().mean().sqrt()),
    }
