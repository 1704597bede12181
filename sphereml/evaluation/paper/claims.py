"""What the paper concludes, checked on the rows of a study by differences on the same held-out patches.

Conventions: a difference is that of mean r over patches, realization by realization, with its block jackknife error
(``evaluation.statistics.paired``); *above* is two errors in every band asked for, *equal* within two in all of them.
A claim about a row that was not run holds neither way: null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sphereml.evaluation.maps.patches import PATCH_BANDS
from sphereml.evaluation.maps.ranking import CLEAR
from sphereml.evaluation.maps.scores import TargetScores
from sphereml.evaluation.statistics import PairedDifference, paired


@dataclass(frozen=True)
class Claim:
    """A sentence about two rows.

    Args:
        text: the conclusion, as a whole sentence.
        row, other: the rows that it compares.
        relation: of the first to the second; ``steeper``: further above it in r150 than in r50.
        paper: what the paper says of it in numbers, if it does.
    """

    text: str
    row: str
    other: str
    relation: Literal["above", "not above", "equal", "steeper"]
    paper: str = ""


CLAIMS = (
    Claim(
        "The U-Net is above the integrated column.",
        "unet_flat",
        "integrated",
        "above",
        "on 764 (r50) and 889 (r150) of 1000 patches",
    ),
    Claim("The U-Net is above the linear weights.", "unet_flat", "linear", "above"),
    Claim("The linear weights equal the integrated column on the test side.", "linear", "integrated", "equal"),
    Claim("Weights that depend on scale are no better there.", "linear_scales", "integrated", "not above"),
    Claim("The U-Net gains more at r150 than at r50.", "unet_flat", "integrated", "steeper"),
    Claim("The correlation must be in the loss: lambda 0 is below 30.", "unet_flat", "lambda_0", "above"),
    Claim("From lambda 30 on nothing changes: 60.", "lambda_60", "unet_flat", "equal"),
    Claim("From lambda 30 on nothing changes: 120.", "lambda_120", "unet_flat", "equal"),
    Claim("Moments in place of channels are no better.", "moments_input", "unet_flat_plain", "not above"),
    Claim(
        "The integrated map as input is no better than channels.", "integrated_input", "unet_flat_plain", "not above"
    ),
    Claim("L2 in place of L1 is no better.", "l2", "unet_flat", "not above"),
    Claim("r of spectra in place of single modes is no better.", "per_ell", "unet_flat", "not above"),
    Claim("The U-Net is above a network of single pixels.", "unet_flat", "spectral", "above"),
    Claim("The U-Net on the sphere is not below the flat one.", "unet_flat", "unet_sphere", "not above"),
    Claim("Nor is that of nine oriented weights.", "unet_flat", "unet_oriented", "not above"),
)


def check_claims(scores: TargetScores) -> list[dict[str, Any]]:
    """Every claim with ``holds`` (true, false, null) and, by band, the difference of its rows."""
    return [_checked(claim, scores, scores) for claim in CLAIMS]


def check_channels(scores: TargetScores, main: TargetScores, sky: str) -> list[dict[str, Any]]:
    """For every row that two skies of one dust and one test region share, that other channels make it no better.

    Args:
        scores, main: of the sky called ``sky``, and of the first one.
    """
    if not np.array_equal(scores.held_out.test.frames, main.held_out.test.frames):
        return []
    names = dict.fromkeys(name.split(",")[0] for name in scores.shown)
    text = "With the channels of {} the row {} is no better."
    claims = [Claim(text.format(sky, name), name, name, "not above") for name in names]
    return [_checked(claim, scores, main) for claim in claims]


def shown_row(scores: TargetScores, name: str) -> str | None:
    """The mean over the seeds of a row where there are several, or the row itself; None where it was not run."""
    means = [shown for shown, members in scores.groups.items() if shown.split(",")[0] == name]
    return next(iter([*means, *([name] if name in scores.patches else [])]), None)


def _checked(claim: Claim, scores: TargetScores, others: TargetScores) -> dict[str, Any]:
    entry: dict[str, Any] = {"text": claim.text, "paper": claim.paper, "holds": None, "difference": {}}
    one, other = shown_row(scores, claim.row), shown_row(others, claim.other)
    if one is None or other is None:
        return entry
    first, second, test = scores.patches[one].bands, others.patches[other].bands, scores.held_out.test
    found = {band: paired(first[band], second[band], test.block) for band in PATCH_BANDS if band in first}
    wins = {band: int((first[band] > second[band]).sum()) for band in found}
    entry |= {"rows": [one, other], "difference": {band: difference.to_json() for band, difference in found.items()}}
    return entry | {"wins": wins, "of": len(test.frames), "holds": _holds(claim, found)}


def _holds(claim: Claim, found: Mapping[str, PairedDifference]) -> bool | None:
    sigmas = [one.sigmas for one in found.values()]
    if claim.relation == "steeper":
        return found["r150"].mean > found["r50"].mean if len(found) == 2 else None
    if claim.relation == "above":
        return all(one > CLEAR for one in sigmas)
    if claim.relation == "not above":
        return not any(one > CLEAR for one in sigmas)
    return all(abs(one) <= CLEAR for one in sigmas)
