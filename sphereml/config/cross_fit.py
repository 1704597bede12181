"""The configuration of cross-fitted templates and of the study that measures what they are worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from sphereml.errors import UserError


@dataclass
class CrossFitConfig:
    """Cross-fitted templates: the sky in ``folds`` lunes of longitude, each predicted by networks that never saw it.

    Args:
        folds: number of regions, 3 or more
        join [deg]: width over which neighbouring regions' templates pass into each other
        buffer [deg]: no training pixel is nearer to the region; 0: the receptive field plus twice the join
        seeds: networks of each region, which differ in their seed
        edges: of the bands of multipoles that the study measures
        cmb_strengths: the CMB that the study adds to the training target, as shares of the whole
        cmb_skies: number of skies of CMB that are added, one at a time
    """

    folds: int = 5
    join: float = 5.0
    buffer: float = 0.0
    seeds: int = 1
    edges: list[float] = field(default_factory=lambda: [2.0, 15.0, 30.0, 60.0, 100.0, 200.0])
    cmb_strengths: list[float] = field(default_factory=lambda: [0.03, 0.3])
    cmb_skies: int = 2


def cross_fit_faults(config: CrossFitConfig) -> Iterator[UserError]:
    """What cross-fitting cannot be."""
    for name, least in (("folds", 3), ("join", 0), ("buffer", 0), ("seeds", 1), ("cmb_skies", 1)):
        if getattr(config, name) < least:
            yield UserError(f"evaluation.cross_fit.{name}={getattr(config, name)}", f"give {least} or more")
    if not config.cmb_strengths or not all(strength > 0 for strength in config.cmb_strengths):
        yield UserError(f"evaluation.cross_fit.cmb_strengths={config.cmb_strengths}", "give shares above 0")
    if len(config.edges) < 2 or not all(2 <= lo < hi for lo, hi in pairwise(config.edges)):
        yield UserError(f"evaluation.cross_fit.edges={config.edges}", "give two or more, increasing from 2")
