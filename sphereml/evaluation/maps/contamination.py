"""What templates are worth: skies of CMB plus the true dust, cleaned with each model's template.

The dust is scaled from 353 GHz (uK_RJ) to about its strength at 150 GHz in CMB units, by a modified black body with
beta = 1.54 and T = 19.6 K (Planck 2018 XI has 1.53 and 19.6).
The fit, the power left and the CMB's own loss are measured on the held-out region alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.constants import h, k

from sphereml.data.sky_on_disk import ReadableSky
from sphereml.data.unit_conversion import conversion_factor
from sphereml.harmonics.bands import Bands
from sphereml.simulate.cmb import cmb_spectrum, simulate_cmb
from sphereml.sky.masks import apodize
from sphereml.templates.marginalization import clean_component, marginalize, power_left, signal_loss

DUST_BETA, DUST_TEMPERATURE = 1.54, 19.6
APODIZATION = 5.0  # degrees


def dust_scaling(frequency: float = 150.0, reference: float = 353.0) -> float:
    """uK_CMB at ``frequency`` per uK_RJ at ``reference``, GHz."""
    # B_nu / nu^2 of the modified black body, which is its Rayleigh-Jeans temperature.
    x, x_reference = (1e9 * h * nu / (k * DUST_TEMPERATURE) for nu in (frequency, reference))
    scaled = (frequency / reference) ** (DUST_BETA + 1) * np.expm1(x_reference) / np.expm1(x)
    return float(scaled * conversion_factor("uK_RJ", "uK_CMB", frequency))


@dataclass(frozen=True, eq=False)
class ContaminatedSky:
    """CMB and dust at one frequency in uK_CMB and the mask they are fitted on, each ``(npix,)`` float64 NEST."""

    cmb: np.ndarray
    dust: np.ndarray
    mask: np.ndarray

    @property
    def total(self) -> np.ndarray:
        return self.cmb + self.dust


def contaminate(sky: ReadableSky, test: np.ndarray, seed: int, realizations: int = 8) -> list[ContaminatedSky]:
    """CMB realizations over the true dust of a sky, on the apodized test region."""
    lmax = sky.grid.safe_lmax
    spectrum = cmb_spectrum(lmax)
    dust, mask = dust_scaling() * sky.target.astype(np.float64), apodize(test, sky.grid, APODIZATION)
    return [
        ContaminatedSky(simulate_cmb(sky.grid.nside, lmax, np.random.default_rng([seed, index]), spectrum), dust, mask)
        for index in range(realizations)
    ]


def clean_with_templates(
    skies: Sequence[ContaminatedSky], templates: Mapping[str, np.ndarray], bands: Bands
) -> dict[str, Any]:
    """What cleaning with each template alone leaves, averaged over the CMB realizations; JSON-ready.

    For each model: the amplitude and its error, and by band the share of dust power left and the CMB power kept, each
    with the standard error of its mean (``*_sem``).  One realization's chance alignment with a template would otherwise
    decide the table.
    """
    models = {name: _average([_clean(sky, template, bands) for sky in skies]) for name, template in templates.items()}
    return {
        "bands": {name: list(span) for name, span in bands.items()},
        "frequency_ghz": 150.0,
        "realizations": len(skies),
        "true_amplitude": dust_scaling(),
        "models": models,
    }


def _clean(sky: ContaminatedSky, template: np.ndarray, bands: Bands) -> dict[str, Any]:
    result = marginalize(sky.total, template, sky.mask, bands=bands)
    cleaned_cmb = clean_component(result, sky.cmb, template, sky.mask)
    return {
        "amplitude": float(result.amplitudes[0]),
        "error": float(result.errors[0]),
        "power_left": power_left(sky.dust, sky.dust - result.amplitudes[0] * template, sky.mask, bands),
        "cmb_power": signal_loss(sky.cmb, cleaned_cmb, sky.mask, bands),
    }


def _average(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    average: dict[str, Any] = {key: float(np.mean([one[key] for one in results])) for key in ("amplitude", "error")}
    for key in ("power_left", "cmb_power"):
        table = {band: [one[key][band] for one in results] for band in results[0][key]}
        average[key] = {band: float(np.mean(values)) for band, values in table.items()}
        average[f"{key}_sem"] = {
            band: float(np.std(values, ddof=1) / len(values) ** 0.5) for band, values in table.items()
        }
    return average
