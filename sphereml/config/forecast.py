"""The configuration of the forecast of r: two frequencies, surveys, and the skies that are drawn.

Conventions: r is the ratio of tensor to scalar power at 0.05 / Mpc; noise is that of Q and of U in uK_CMB-arcmin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from sphereml.errors import UserError


@dataclass
class ForecastSurvey:
    """One survey: a disc of sky on the test side, and what it measures there.

    Args:
        name: of the survey
        lon [deg]: Galactic longitude of its centre
        lat [deg]: Galactic latitude of its centre
        radius [deg]: of the disc
        taper [deg]: of its edge (C2), inside the radius
        noise [uK_CMB-arcmin]: white noise of Q and of U at each frequency
        dust [uK_CMB^2]: D_ell of the dust's BB at 353 GHz near ell = 80, which the sky's is scaled to; 0: as it is
    """

    name: str = "small"
    lon: float = 316.0
    lat: float = -58.0
    radius: float = 18.0
    taper: float = 8.0
    noise: list[float] = field(default_factory=lambda: [3.0, 3.0])
    dust: float = 4.4


@dataclass
class ForecastConfig:
    """Bias and error of r with templates of dust, over skies drawn anew.

    Args:
        frequencies [GHz]: the two maps, whose cross spectrum measures r
        beta: emissivity index of the dust
        temperature [K]: of the dust
        beam_arcmin [arcmin]: FWHM of both maps; templates are smoothed alike
        r: values that skies are drawn with
        skies: number drawn
        edges: of the bands of ell
        residual_prior: relative width of the prior on the power that a template leaves
        seed: of the skies
        surveys: discs and their noise
        cross_fitted: models whose cross-fitted templates (evaluation.cross_fit) are cleaned with too
        contaminated: trainings of every model, in-sample and cross-fitted, each with the CMB of a sky that it cleans
        cmb_strength: of the CMB that these two kinds of training find in their target
    """

    frequencies: list[float] = field(default_factory=lambda: [95.0, 150.0])
    beta: float = 1.53
    temperature: float = 19.6
    beam_arcmin: float = 30.0
    r: list[float] = field(default_factory=lambda: [0.0, 0.003, 0.01])
    skies: int = 200
    edges: list[float] = field(default_factory=lambda: [30.0, 55.0, 80.0, 110.0, 150.0, 200.0])
    residual_prior: float = 0.5
    seed: int = 1
    surveys: list[ForecastSurvey] = field(
        default_factory=lambda: [
            ForecastSurvey(),
            ForecastSurvey("large", lon=0.0, lat=-90.0, radius=55.0, taper=10.0, noise=[10.0, 10.0], dust=20.0),
        ]
    )
    cross_fitted: list[str] = field(default_factory=list)
    contaminated: int = 0
    cmb_strength: float = 1.0


def forecast_faults(config: ForecastConfig) -> Iterator[UserError]:
    """What a forecast cannot be."""
    if len(config.frequencies) != 2 or not all(frequency > 0 for frequency in config.frequencies):
        yield UserError(f"evaluation.forecast.frequencies={config.frequencies}", "give two, in GHz")
    if config.skies < 5 * len(config.edges):
        what = f"evaluation.forecast.skies={config.skies} for {len(config.edges) - 1} bands"
        yield UserError(what, f"draw {5 * len(config.edges)} or more, their scatter is the covariance")
    if len(config.edges) < 3 or not all(2 <= lo < hi for lo, hi in pairwise(config.edges)):
        yield UserError(f"evaluation.forecast.edges={config.edges}", "give three or more, increasing from 2")
    if not config.r or not all(0 <= r <= 1 for r in config.r):
        yield UserError(f"evaluation.forecast.r={config.r}", "give one value or more in [0, 1]")
    if config.contaminated == 1 or not 0 <= config.contaminated <= config.skies:
        what = f"evaluation.forecast.contaminated={config.contaminated} of {config.skies} skies"
        yield UserError(what, "give 0, or 2 or more, as many as skies at most")
    for name in ("temperature", "beam_arcmin", "residual_prior", "cmb_strength"):
        if not getattr(config, name) > 0:
            yield UserError(f"evaluation.forecast.{name}={getattr(config, name)}", "give a number above 0")
    if not config.surveys or len({survey.name for survey in config.surveys}) < len(config.surveys):
        yield UserError("evaluation.forecast.surveys is empty or repeats a name", "give each survey a name of its own")
    for survey in config.surveys:
        yield from _survey_faults(survey)


def _survey_faults(survey: ForecastSurvey) -> Iterator[UserError]:
    if not 0 < survey.taper < survey.radius <= 90:
        yield UserError(f"the survey {survey.name} has radius {survey.radius:g} and taper {survey.taper:g} degrees",
                        "give 0 < taper < radius <= 90")  # fmt: skip
    if survey.dust < 0:
        yield UserError(f"the survey {survey.name} has dust {survey.dust:g} uK_CMB^2", "give 0 or more")
    if len(survey.noise) != 2 or not all(noise > 0 for noise in survey.noise):
        yield UserError(f"the survey {survey.name} has noise {survey.noise}", "give one above 0 for each frequency")
