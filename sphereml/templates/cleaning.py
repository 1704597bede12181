"""Cleaning one sky read from a file, a scalar or Q and U together, of templates read from files.

Conventions: a scalar has one spectrum, called TT whatever its column; a field of spin 2 has EE and BB.  Amplitudes are
in the unit of the sky over that of the template.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sphereml.data.whole_files import write_atomically
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.spectra import band_power
from sphereml.templates.map_choice import ChosenMaps
from sphereml.templates.marginalization import Marginalization, marginalize
from sphereml.templates.polarization import PolarizationFit, marginalize_polarization
from sphereml.templates.products import write_template


@dataclass(frozen=True, eq=False)
class Cleaning:
    """A sky, its templates, and their fit.

    Args:
        bands: in which powers are reported, clipped to the multipoles of the fit.
    """

    sky: ChosenMaps
    templates: tuple[ChosenMaps, ...]
    fit: Marginalization | PolarizationFit
    bands: Bands

    @property
    def labels(self) -> list[tuple[str, str]]:
        """Name and unit of every template."""
        return [(label, one.maps.unit) for one in self.templates for label in one.labels]

    @property
    def spectra(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Spectra before and after, each ``(lmax + 1,)`` in the sky's unit squared."""
        if isinstance(self.fit, Marginalization):
            return {"TT": (self.fit.before, self.fit.after)}
        return {name: (self.fit.before[i], self.fit.after[i]) for i, name in enumerate(("EE", "BB"))}

    def power_left(self) -> dict[str, dict[str, float]]:
        """Power after over before, by spectrum and band."""
        ratios = {name: band_power(after, self.bands) / band_power(before, self.bands)
                  for name, (before, after) in self.spectra.items()}  # fmt: skip
        return {name: dict(zip(self.bands, values.tolist(), strict=True)) for name, values in ratios.items()}

    def describe(self) -> dict[str, Any]:
        """All that is known but the maps, as JSON values; ``before`` and ``after`` are lists of a scalar's one spectrum
        and objects of those of a field of spin 2."""
        powers = {name: [band_power(cl, self.bands).tolist() for cl in pair] for name, pair in self.spectra.items()}
        bands = {
            band: {"lo": lo, "hi": hi}
            | {when: self._plain({name: both[j][i] for name, both in powers.items()})
               for j, when in enumerate(("before", "after"))}
            for i, (band, (lo, hi)) in enumerate(self.bands.items())
        }  # fmt: skip
        curves = {
            when: self._plain({name: pair[j].tolist() for name, pair in self.spectra.items()})
            for j, when in enumerate(("before", "after"))
        }
        return {
            "sky": {"file": self.sky.path.name, "column": ",".join(self.sky.maps.names), "unit": self.sky.maps.unit},
            "templates": [{"name": label, "unit": unit} for label, unit in self.labels],
            **{name: getattr(self.fit, name).tolist() for name in ("amplitudes", "errors", "covariance")},
            "lmin": self.fit.lmin,
            "bands": bands,
            "ell": list(range(len(next(iter(self.spectra.values()))[0]))),
            **curves,
        }

    def save(self, folder: Path) -> None:
        """Write ``cleaned.fits``, under the names that were read, and ``marginalization.json``."""
        maps = dict(zip(self.sky.maps.names, np.atleast_2d(self.fit.cleaned), strict=True))
        write_template(folder / "cleaned.fits", maps, self.sky.maps.unit, overwrite=True, lone_stokes=True)
        text = json.dumps(self.describe(), indent=1) + "\n"
        write_atomically(folder / "marginalization.json", text.encode())

    def _plain(self, values: dict[str, Any]) -> Any:
        return values.get("TT", values)


def clean(
    sky: ChosenMaps,
    templates: Sequence[ChosenMaps],
    mask: np.ndarray,
    bands: Bands,
    *,
    lmin: int = 2,
    lmax: int | None = None,
) -> Cleaning:
    """Fit the templates to the sky on the mask ``(npix,)`` and subtract them, Q and U together where the sky is both.

    Raises:
        UserError: as :func:`~sphereml.templates.marginalization.marginalize` and its like for polarization.
    """
    values = sky.maps.values.T.astype(np.float64)
    stack = np.concatenate([one.maps.values.T for one in templates]).astype(np.float64)
    fit: Marginalization | PolarizationFit
    if sky.spin:
        fit = marginalize_polarization(values, stack.reshape(-1, 2, values.shape[1]), mask, lmin=lmin, lmax=lmax)
    else:
        fit = marginalize(values[0], stack, mask, lmin=lmin, lmax=lmax)
    reached = (fit.before if fit.before.ndim == 1 else fit.before[0]).size - 1
    return Cleaning(sky, tuple(templates), fit, bands.clipped(reached, lmin))
