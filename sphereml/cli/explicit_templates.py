"""Explicit templates of ``sphereml spectra``: amplitudes are fitted on the masked sky, the templates subtracted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sphereml.cli.spectra_inputs import Part


@dataclass(frozen=True, eq=False)
class ExplicitFit:
    """Maps without their templates, and amplitudes and errors ``(nmap, nt)``."""

    part: Part
    amplitudes: np.ndarray
    errors: np.ndarray


def subtract_explicit(part: Part, mask: np.ndarray) -> ExplicitFit:
    """Fit and subtract the templates of every map of a part.

    Raises:
        UserError: as :func:`~sphereml.templates.marginalization.marginalize` and its like for polarization.
    """
    from sphereml.templates.marginalization import marginalize
    from sphereml.templates.polarization import marginalize_polarization

    same = part.spins[0] == part.spins[1]
    fits, cleaned = [], []
    for index, one in enumerate(part.maps):
        templates = part.templates if same or index == 0 else part.second_templates
        assert templates is not None
        seen, known = (np.where(mask > 0, values, 0.0) for values in (one, templates))
        fit = (marginalize_polarization if one.ndim == 2 else marginalize)(seen, known, mask)
        fits.append(fit)
        cleaned.append(one - np.tensordot(fit.amplitudes, templates, axes=1))
    bare = replace(part, maps=tuple(cleaned), templates=None, second_templates=None)
    kept = fits if same else fits[:1]
    return ExplicitFit(bare, np.stack([fit.amplitudes for fit in kept]), np.stack([fit.errors for fit in kept]))
