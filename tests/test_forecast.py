"""The forecast of r: recovery with a perfect template, linearity of cleaning, the likelihood, the files."""

from dataclasses import replace

import numpy as np
import pytest
from fixtures_cli import PATCHES, done, sphereml

import sphereml as sm
from sphereml.config.compose import compose
from sphereml.config.forecast import ForecastConfig, ForecastSurvey
from sphereml.data.unit_conversion import conversion_factor
from sphereml.errors import UserError
from sphereml.evaluation.forecast.cleaning import amplitude_of, cleaned
from sphereml.evaluation.forecast.draws import SurveyForecast
from sphereml.evaluation.forecast.likelihood import estimate_ratio
from sphereml.evaluation.forecast.skies import DRAWN, SurveyField, Theory, dust_scaling, target_cmb
from sphereml.harmonics.transforms import synthesis
from sphereml.simulate.fields import draw_alm
from sphereml.sky.grid import HealpixGrid

NSIDE = 16
EDGES = [6.0, 12.0, 18.0, 26.0]


def _survey(**changes) -> SurveyField:
    survey = ForecastSurvey("cap", lon=0, lat=-90, radius=70, taper=25, noise=[8.0, 8.0], dust=1.0)
    config = ForecastConfig(edges=EDGES, skies=24, beam_arcmin=240.0, r=[0.0, 0.05], surveys=[survey], **changes)
    return SurveyField(survey, config, HealpixGrid(NSIDE))


@pytest.fixture(scope="module")
def theory() -> Theory:
    ell = np.arange(2.0, 2 * NSIDE + 1)
    bump = 0.08 * 2 * np.pi / (ell * (ell + 1)) * np.exp(-(((ell - 16) / 12) ** 2))
    flat = np.full(ell.size, 2e-6)
    spectra = {"cmb": (500 * flat, flat), "tensor": (bump, bump)}
    return Theory(**{key: np.pad(np.stack(both), ((0, 0), (2, 0))) for key, both in spectra.items()})


@pytest.fixture(scope="module")
def dust() -> np.ndarray:
    ell = np.arange(2 * NSIDE + 1.0)
    power = np.where(ell < 2, 0, 5e2 / np.maximum(ell, 1) ** 2.4)
    rng = np.random.default_rng(7)
    return synthesis(np.stack([draw_alm(power, rng), draw_alm(power / 2, rng)]), NSIDE, 2 * NSIDE, spin=2)


@pytest.fixture(scope="module")
def forecast(theory, dust) -> SurveyForecast:
    rng = np.random.default_rng(8)
    return SurveyForecast(_survey(), theory, dust, {"dust": dust, "half": dust + 3 * rng.normal(size=dust.shape)})


@pytest.fixture(scope="module")
def draws(forecast, tmp_path_factory):
    return forecast.draw(tmp_path_factory.mktemp("draws"), lambda line: None)


def test_the_dust_itself_leaves_r_unbiased(forecast, theory, draws):
    signal, offset = forecast.model(theory.tensor), forecast.model(theory.cmb)
    for number, r in enumerate((0.0, 0.05)):
        for method in range(2):
            found = estimate_ratio(draws.bandpowers[:, number, 1, method], signal, offset).to_json(r)
            assert abs(found["bias"]) < 4 * found["error"]
        assert (
            estimate_ratio(draws.bandpowers[:, number, 0, 0], signal, offset).to_json(r)["bias"] > 10 * found["error"]
        )


def test_amplitudes_are_those_of_the_scaled_dust(forecast, draws):
    for method in range(2):
        found = draws.amplitudes[:, 0, 1, method]
        error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
        assert (np.abs(found.mean(axis=0) - forecast.scalings) < 4 * error).all() and (error < forecast.scalings).all()


def test_carried_uncertainty_takes_bias_away_and_widens_the_error(forecast, theory, draws):
    signal, offset = forecast.model(theory.tensor), forecast.model(theory.cmb)
    shares, power = forecast.residual_shares()[2, 0], forecast.template_power()[2]
    expected = draws.amplitudes[:, :, 2, 0].mean(axis=(0, 1)).prod() * shares * power
    plain, carried = (
        estimate_ratio(draws.bandpowers[:, 0, 2, 0], signal, offset, left, 0.5) for left in (None, expected)
    )
    assert abs(carried.values.mean()) < 0.3 * plain.values.mean()
    assert carried.sigma > plain.sigma


def test_the_residual_is_measured_beside_noise(forecast):
    """Target less template, without the noise that is expected of it, leaves what the dust itself leaves."""
    rng, level = np.random.default_rng(5), 1.5
    noisy = replace(forecast, dust=forecast.dust + level * rng.normal(size=forecast.dust.shape))
    noise = forecast.model(np.full_like(forecast.theory.cmb, level**2 * forecast.field.grid.pixel_area))
    own, measured, blind = forecast.residual_shares(), noisy.residual_shares(noise), noisy.residual_shares()
    for method in range(2):
        left = [shares[2, method].mean() for shares in (own, measured, blind)]
        assert left[1] == pytest.approx(left[0], rel=0.15) and left[2] > 1.2 * left[0]


def test_the_target_holds_the_cmb_of_the_sky(theory):
    field = _survey()
    drawn = field.draw(theory, np.random.default_rng([1, 3]))[0]
    cmb = target_cmb(theory, NSIDE, 1, 3).T / conversion_factor("uK_CMB", "uK_RJ", 353)
    assert np.abs(field.smoothed(cmb) - drawn).max() < 0.01 * drawn.std()


def test_cleaning_of_summed_parts_is_that_of_summed_maps(forecast):
    """Bandpowers from the products of parts equal those of the map that the parts add up to."""
    field, workspace = forecast.field, forecast.field.workspace
    maps = np.concatenate([field.draw(forecast.theory, np.random.default_rng(1)), forecast.kept_parts[0]])
    products = field.products((maps, field.alms(maps)), (maps, field.alms(maps)))
    data = np.array([1, 0.3, 1, 0, 0.5, 0, 0.0]), np.array([1, 0.3, 0, 1, 0.8, 0, 0.0])
    template = len(DRAWN) + 2
    found, amplitudes = cleaned(data, template, "implicit", products, 6)
    sums = [np.tensordot(one, maps, axes=1) for one in data]
    powers = workspace.bandpowers(*sums, templates=maps[template][None], guess=np.zeros((4, field.lmax + 1)))
    np.testing.assert_allclose(found, powers["BB"], rtol=1e-6, atol=1e-9 * np.abs(powers["BB"]).max())
    assert amplitudes[0] == pytest.approx(amplitude_of("implicit", data[0], template, products, 6))


def test_draws_go_on_where_they_stopped(theory, dust, tmp_path):
    whole = SurveyForecast(_survey(), theory, dust, {"dust": dust})
    first = whole.draw(tmp_path / "a", lambda line: None)
    short = SurveyForecast(_survey(), theory, dust, {"dust": dust})
    short.field.config.skies = 14
    short.draw(tmp_path / "b", lambda line: None)
    short.field.config.skies = 24
    lines: list[str] = []
    second = short.draw(tmp_path / "b", lines.append)
    assert [line.partition(",")[0] for line in lines] == ["cap: sky 20 of 24", "cap: sky 24 of 24"]
    np.testing.assert_array_equal(first.bandpowers, second.bandpowers)


def test_likelihood_states_the_scatter_that_it_finds():
    rng = np.random.default_rng(3)
    signal, offset = np.array([3.0, 2.0, 1.0]), np.array([0.5, 0.5, 0.5])
    bandpowers = 0.1 * signal + offset + rng.normal(size=(4000, 3)) * [0.1, 0.2, 0.3]
    found = estimate_ratio(bandpowers, signal, offset).to_json(0.1)
    exact = np.sum((signal / [0.1, 0.2, 0.3]) ** 2) ** -0.5
    assert found["sigma"] == pytest.approx(exact, rel=0.05) and found["scatter"] == pytest.approx(exact, rel=0.05)
    assert abs(found["bias"]) < 4 * found["error"]


def test_dust_is_scaled_as_a_modified_black_body():
    # From 353 to 150 GHz, beta 1.59 and 19.6 K: .0395 in thermodynamic units (BICEP2/Keck 2018: about 1 / 25).
    ratio = dust_scaling(150, 1.59, 19.6) / conversion_factor("uK_RJ", "uK_CMB", 353)
    assert ratio == pytest.approx(0.0425, rel=0.15)


@pytest.mark.parametrize(
    "override",
    [
        "skies=10",
        "edges=[50,30]",
        "frequencies=[95]",
        "r=[-1]",
        "beam_arcmin=0",
        "residual_prior=0",
        "surveys=[]",
        "contaminated=1",
    ],
)
def test_impossible_forecasts_are_refused(override):
    with pytest.raises(UserError, match="forecast"):
        compose(["task=maps", f"evaluation.forecast.{override}"])


def test_the_study_trains_draws_and_reports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["data.galaxy.nside=16", "data.galaxy.channels=4", "data.galaxy.channel_width=20.4", "bands.r50=[14.4,30]"]
    drawn = ["evaluation.forecast.skies=20", "evaluation.forecast.edges=[8,16,24]", "evaluation.forecast.r=[0]"]
    trained = ["cross_fitted=[structure_tensor]", "contaminated=2"]
    more = ["evaluation.cross_fit.folds=3", *(f"evaluation.forecast.{word}" for word in trained)]
    words = ["experiment=r_forecast", "model=structure_tensor", *small, *PATCHES, *drawn, *more]
    out = done("study", *words).out
    assert "large: sky 20 of 20" in out and "true dust" in out
    result = sm.load_result(tmp_path / "runs/r_forecast")
    cross_fitted = "structure_tensor, cross-fitted"
    assert {row["template"] for row in result.rows()} == {"none", "structure_tensor", cross_fitted, "true dust"}
    assert [row["kind"] for row in result.contamination_rows()] == ["in_sample"] * 2 + ["cross_fitted"] * 2
    large = result.content["surveys"]["large"]
    assert large["held_out"] and large["templates"]["none"]["explicit"]["r"][0]["plain"]["bias"] > 0.1
    assert "Survey large" in (tmp_path / "runs/r_forecast/report.html").read_text()
    again = done("study", *words).out
    assert "sky 20 of 20" not in again


def test_the_forecast_needs_a_known_dust():
    refusal = sphereml("study", "experiment=r_forecast", "data=real_sample").refusal
    assert "true dust" in refusal
