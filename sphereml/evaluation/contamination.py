"""What templates are worth: a sky of CMB plus the true dust, cleaned with each model's template.

The dust is scaled from 353 GHz (uK_RJ) to about its strength at 150 GHz in CMB units, by a modified black body with
beta = 1.54 and T = 19.6 K (Planck 2018 XI) and the conversion x^2 e^x / (e^x - 1)^2 from CMB to RJ.  The fit, the power
left and the CMB's own loss are measured on the held-out region alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sphereml.data.store import Sky
from sphereml.simulate.cmb import cmb_spectrum, simulate_cmb
from sphereml.sky.masks import apodize
from sphereml.templates.marginalization import clean_component, marginalize, power_left, signal_loss

PLANCK_OVER_BOLTZMANN = 0.0479924307  # K / GHz
DUST_BETA, DUST_TEMPERATURE, CMB_TEMPERATURE = 1.54, 19.6, 2.7255
APODIZATION = 5.0  # degrees


def dust_scaling(frequency: float = 150.0, reference: float = 353.0) -> float:
    """uK_CMB at ``frequency`` per uK_RJ at ``reference``, GHz."""
    ratio = frequency / reference
    thermal = np.expm1(PLANCK_OVER_BOLTZMANN * reference / DUST_TEMPERATURE) / np.expm1(
        PLANCK_OVER_BOLTZMANN * frequency / DUST_TEMPERATURE
    )
    x = PLANCK_OVER_BOLTZMANN * frequency / CMB_TEMPERATURE
    # B_nu / nu^2 of the modified black body, then Rayleigh-Jeans to CMB temperature.
    return float(ratio ** (DUST_BETA + 1) * thermal * np.expm1(x) ** 2 / (x**2 * np.exp(x)))


@dataclass(frozen=True, eq=False)
class ContaminatedSky:
    """CMB and dust at one frequency in uK_CMB and the mask they are fitted on, each ``(npix,)`` float64 NEST."""

    cmb: np.ndarray
    dust: np.ndarray
    mask: np.ndarray

    @property
    def total(self) -> np.ndarray:
        return self.cmb + self.dust


def contaminate(sky: Sky, test: np.ndarray, seed: int) -> ContaminatedSky:
    """A CMB realization over the true dust of a sky, on the apodized test region."""
    lmax = sky.grid.safe_lmax
    cmb = simulate_cmb(sky.grid.nside, lmax, np.random.default_rng([seed, 150]), cmb_spectrum(lmax))
    return ContaminatedSky(cmb, dust_scaling() * sky.target.astype(np.float64), apodize(test, sky.grid, APODIZATION))


def clean_with_templates(
    contaminated: ContaminatedSky, templates: Mapping[str, np.ndarray], bands: Mapping[str, list[float]]
) -> dict[str, Any]:
    """Amplitude, share of dust power left and CMB power kept with each template alone, by band; JSON-ready."""
    spans = {name: (float(lo), float(hi)) for name, (lo, hi) in bands.items()}
    models = {}
    for name, template in templates.items():
        result = marginalize(contaminated.total, template, contaminated.mask, bands=spans)
        cleaned_cmb = clean_component(result, contaminated.cmb, template, contaminated.mask)
        left = contaminated.dust - result.amplitudes[0] * template
        models[name] = {
            "amplitude": float(result.amplitudes[0]),
            "error": float(result.errors[0]),
            "power_left": power_left(contaminated.dust, left, contaminated.mask, spans),
            "cmb_power": signal_loss(contaminated.cmb, cleaned_cmb, contaminated.mask, spans),
        }
    return {"bands": {name: list(span) for name, span in spans.items()}, "frequency_ghz": 150.0, "models": models}
