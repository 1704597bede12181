"""The paper's measurements: known answers by construction, and a whole study on networks that learnt nothing."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from fixtures_lensing import toy_spectra as any_toy_spectra
from scipy import stats

from sphereml.cli import study as verb
from sphereml.cli.experiment import show
from sphereml.config.compose import compose
from sphereml.config.lensing import Cosmology
from sphereml.errors import UserError
from sphereml.evaluation.lensing import entries, fiducials
from sphereml.evaluation.lensing.chi_square import Covariance
from sphereml.evaluation.lensing.matter_density import Curve, DensityFit, Posterior
from sphereml.evaluation.lensing.noise import Judged, goal_ratio, noise, noise_ratio, patch_bands, wide_bands
from sphereml.evaluation.lensing.nulls import null_test
from sphereml.evaluation.lensing.samples import PatchSet, PatchSets
from sphereml.evaluation.lensing.seeds import seed_spread
from sphereml.evaluation.lensing.setting import settings_of
from sphereml.evaluation.lensing.study import LensingStudy, refuse_few
from sphereml.evaluation.lensing.uncertainty import CalibratedError, check_calibration, edge_distance
from sphereml.evaluation.protocol import StudyOptions
from sphereml.evaluation.run_groups import run_names, same_but_seed
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.flat import FlatModes
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.lensing.iterated import IteratedNoise, Iteration
from sphereml.lensing.noise import NoiseModel
from sphereml.lensing.patch_spectra import PatchBands, PatchPowers
from sphereml.patches.taper import cosine_taper
from sphereml.simulate.cmb_spectra import PLANCK_2013, CmbSpectra
from sphereml.simulate.lensing_store import LensingStore
from sphereml.sources.lensed_patches import StoredPatches
from sphereml.tasks import lensing as lensing_task
from sphereml.tasks.lensing import LensingTask
from sphereml.training.fit import fit
from sphereml.training.lifecycle import FitOptions
from sphereml.training.runs import Run

PATCH = FlatSky(32, 4.6875)
MASK = torch.from_numpy(cosine_taper(PATCH, 28.0))
WORDS = [
    *("experiment=lensing_small", "patches.size=32", "patches.pixel_arcmin=4.6875", "lensing.outputs=[e,kappa]"),
    *("lensing.lmax_eb=2000", "lensing.spectra_lmax=3000", "model.width=4", "evaluation.patches=24"),
    *("training.epochs=2", "training.steps_per_epoch=2", "training.batch_size=4", "training.validation_batches=1"),
    "training.learning_rate=1e-5",
]


def toy_spectra(lmax: int, cosmology: Cosmology = PLANCK_2013, folder: Path | None = None) -> CmbSpectra:
    return any_toy_spectra(lmax, cosmology.omch2 / PLANCK_2013.omch2, lensed=0.98, first_order=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory):
    """Two networks that differ in their seed."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lensing_task, "load_spectra", toy_spectra)
        patch.setattr(fiducials, "load_spectra", toy_spectra)
        configs = [compose([*WORDS, f"output={folder}", f"training.seed={seed}"]) for seed in (1, 2)]
        yield [fit(config, FitOptions(say=lambda line: None)) for config in configs]


def gaussian_patches(spectrum: float, count: int, seed: int) -> torch.Tensor:
    """White fields of this C_L."""
    modes = PATCH.draw(np.full(3000, spectrum), count, torch.Generator().manual_seed(seed))
    return PATCH.to_images(modes)


def measured(response: float, noise_power: float, count: int = 400, seed: int = 0) -> Judged:
    """Of ``response kappa + noise``, kappa the same for every noise."""
    bands = PatchBands(FlatModes(PATCH), Bands.edges(300.0, 600.0, 1000.0, 1500.0, 2000.0), MASK)
    parts = []
    for part in (0, 1):
        kappa = gaussian_patches(1.0, count, 10 + part)
        estimate = response * kappa + gaussian_patches(noise_power, count, 20 + part + 2 * seed)
        parts.append(PatchPowers.measure(bands, estimate, kappa))
    return Judged(parts[0], parts[1], np.arange(count), np.arange(count))


def test_response_and_noise_are_those_that_were_put_in():
    found = measured(0.5, 0.25)
    level = noise(found)
    np.testing.assert_allclose(found.response, 0.5, rtol=0.03)
    assert (np.abs(level.value - 1.0) < 4 * level.error).all() and (level.error < 0.08).all()


def test_the_ratio_of_two_noises_is_paired():
    one, other = measured(0.5, 0.25), measured(2.0, 8.0, seed=5)
    ratio, goal = noise_ratio(one, other), goal_ratio(one, other)
    assert goal is not None
    assert (np.abs(ratio.value - 0.5) < 4 * ratio.error).all()
    assert abs(goal.value[0] - 0.5) < 4 * goal.error[0] < 0.2
    assert noise_ratio(one, one).value == pytest.approx(1) and noise_ratio(one, one).error.max() < 1e-12


def test_the_debiased_power_averages_to_that_of_kappa_and_its_scatter_exceeds_sample_variance():
    found = measured(0.5, 0.25)
    mean = found.debiased(found.test.auto).mean(axis=0)
    assert (np.abs(mean - 1) < 0.08).all()
    # Two equal parts of power make twice the deviation.
    np.testing.assert_allclose(found.scatter().value / found.sample_variance().value, 2, rtol=0.15)


def test_chi_square_of_noise_is_its_number_of_bands_and_its_probability_is_uniform():
    rng = np.random.default_rng(3)
    tests = []
    for _ in range(400):
        powers = rng.normal(size=(40, 6)) @ np.diag(10.0 ** -np.arange(6))
        tests.append(Covariance(powers).test(powers.mean(axis=0), 1 / 40))
    values = np.array([test.value for test in tests])
    assert abs(values.mean() - 6) < 5 * values.std() / 20
    assert stats.kstest([test.probability for test in tests], "uniform").pvalue > 1e-3


def test_too_few_patches_for_a_covariance_are_refused():
    with pytest.raises(UserError, match=r"raise evaluation\.patches"):
        Covariance(np.ones((8, 6)))


def test_a_curve_passes_through_its_points():
    points = np.array([0.1, 0.11, 0.13])
    values = np.stack([points, points**2], axis=1)
    np.testing.assert_allclose(Curve(points, values)(np.array([0.12, 0.1])), [[0.12, 0.0144], [0.1, 0.01]])


def toy_powers(omega: float, count: int, rng: np.random.Generator) -> PatchPowers:
    """True power ``omega / 0.1185`` in 4 bands, R = 0.5, and noise that grows twice as fast as the signal."""
    bands = PatchBands(FlatModes(PATCH), Bands.edges(300.0, 600.0, 1000.0, 1500.0, 2000.0))
    share = omega / 0.1185
    truth = share * (1 + 0.1 * rng.normal(size=(count, 4)))
    auto = 0.25 * (truth + share**2 * (1 + 0.1 * rng.normal(size=(count, 4))))
    return PatchPowers(bands, auto, 0.5 * truth, truth)


def test_the_likelihood_finds_omega_c_once_the_noise_bias_follows_it():
    omegas = (0.1085, 0.1185, 0.1285)
    fit = DensityFit(
        {omega: toy_powers(omega, 800, np.random.default_rng(1)) for omega in omegas},
        {omega: toy_powers(omega, 800, np.random.default_rng(2)) for omega in omegas},
        {omega: np.full(4, omega) for omega in (0.0985, *omegas, 0.1385)},
        fiducial=0.1185,
    )
    for omega in omegas:
        corrected = fit.corrected(omega)
        assert abs(corrected.mean - omega) < 4 * corrected.deviation < 0.003
    # The noise's excess passes for signal, and takes the likelihood over the edge of the grid.
    biased = fit.fixed(0.1085)
    assert biased.mean is None and biased.lower is None and biased.upper < 0.1085
    entry = json.loads(json.dumps(fit.to_json()))
    assert entry["0.1185"]["corrected"]["sigma"] > 0 and not entry["0.1085"]["fixed"]["bounded"]
    assert fit.grid[[0, -1]] == pytest.approx([0.1035, 0.1335])


def test_a_likelihood_is_a_mean_a_limit_or_nothing():
    grid = np.linspace(-1, 1, 401)
    inside, cut, flat = (
        Posterior.of(grid, ((grid - mean) / sigma) ** 2) for mean, sigma in ((0.1, 0.1), (1, 0.2), (0, 9))
    )
    assert (inside.mean, inside.deviation) == pytest.approx((0.1, 0.1), abs=1e-3) and inside.lower is None
    assert cut.mean is None and cut.upper is None and cut.lower == pytest.approx(1 - 1.96 * 0.2, abs=0.01)
    assert flat == replace(flat, mean=None, deviation=None, lower=None, upper=None)


def test_the_paired_shift_of_skies_that_share_their_phases_is_sharper_and_has_a_probability():
    omegas, phases = (0.1085, 0.1185, 0.1285), 300

    def powers(seed: int, moved: float) -> dict[float, PatchPowers]:
        """``moved`` (over and above the phases' noise) at the two omega_c that are not fiducial."""
        found = {omega: toy_powers(0.1185, phases, np.random.default_rng(seed)) for omega in omegas}
        own = np.random.default_rng(seed + 500)
        return {
            omega: replace(
                part, auto=part.auto * (1 + (omega != 0.1185) * (moved + 0.01 * own.normal(size=(phases, 4))))
            )
            for omega, part in found.items()
        }

    theory = {omega: np.full(4, omega) for omega in (0.0985, *omegas, 0.1385)}
    fits = [DensityFit(powers(1, 0), powers(seed, 0), theory, 0.1185) for seed in range(2, 82)]
    assert max(fit.shift(0.1285).value for fit in fits) < 1 and fits[0].shift(0.1285).probability is None
    assert stats.kstest([fit.paired_shift(0.1285).probability for fit in fits], "uniform").pvalue > 1e-3
    found = DensityFit(powers(1, 0), powers(2, 0.005), theory, 0.1185)
    assert found.paired_shift(0.1285).probability < 1e-6


def test_null_errors_are_of_skies_and_without_enough_of_them_chi_square_has_no_probability():
    judged = measured(0.5, 0.25, count=40)
    copies = replace(judged.test, cross=np.tile(judged.test.cross, (3, 1)), auto=np.tile(judged.test.auto, (3, 1)))
    once, thrice = null_test(judged.test, judged, np.arange(40)), null_test(copies, judged, np.tile(np.arange(40), 3))
    np.testing.assert_allclose(thrice.cross.error, once.cross.error)
    assert thrice.chi_square.value == pytest.approx(once.chi_square.value)
    few = null_test(judged.test, judged, np.arange(40) // 10)
    assert few.chi_square.probability is None and once.chi_square.probability is not None


@pytest.mark.parametrize(("count", "alone"), [(400, False), (200, True)])
def test_patches_of_a_drawn_sky_are_one_group_where_there_are_skies_enough(runs: list[Run], count: int, alone: bool):
    """16 of 2.5 degrees on each."""
    task = LensingTask(runs[0].config)
    patches = replace(PatchSets(task, batch=32).of("test", task.drawn()), count=count)
    groups = patches.groups
    assert (np.unique(groups, return_counts=True)[1].max() == 1) == alone and len(groups) == count
    if not alone:
        assert len(np.unique(groups[:32])) == 2 and groups[31] != groups[32]


def residual_patches(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and truths that differ by more at the rim."""
    generator = torch.Generator().manual_seed(seed)
    prediction, normal = (torch.randn(count, 32, 32, generator=generator) for _ in range(2))
    sigma = torch.from_numpy(1 + 3 * (edge_distance(32) < 3)).float()
    return prediction, prediction - sigma * normal


def test_the_error_of_a_map_is_calibrated():
    bands = PatchBands(FlatModes(PATCH), Bands.edges(300.0, 1000.0, 2000.0), MASK)
    error = CalibratedError.fit(*residual_patches(150, 1), bands)
    prediction, truth = residual_patches(150, 2)
    found = check_calibration(error, prediction, truth, bands)
    assert found.pull == pytest.approx(1, abs=0.01) and found.pull_by_ring == pytest.approx(1, abs=0.04)
    assert found.within == pytest.approx((0.683, 0.954), abs=0.005)
    assert (np.abs(found.band_pull.value - 1) < 4 * found.band_pull.error + 0.03).all()
    sigma = error.sigma(prediction)
    assert sigma[:, 0, 0].mean() == pytest.approx(4, rel=0.05) and sigma[:, 16, 16].mean() == pytest.approx(1, rel=0.05)


def test_seeds_come_apart_by_what_was_put_between_them():
    bands = PatchBands(FlatModes(PATCH), Bands.edges(300.0, 1000.0, 2000.0), MASK)
    shared = gaussian_patches(1.0, 200, 1)
    images = {f"s{seed}": shared + gaussian_patches(0.1, 200, 30 + seed) for seed in range(4)}
    powers = {name: PatchPowers.measure(bands, image, shared) for name, image in images.items()}
    judged = {name: Judged(part, part, np.arange(200), np.arange(200)) for name, part in powers.items()}
    found = seed_spread(judged, images, shared, bands)
    assert found["pixel"] == pytest.approx(found["pixel_error"], rel=0.05)
    np.testing.assert_allclose(found["maps"], 0.1, rtol=0.1)
    assert max(found["relative"]) < 0.05


def test_bands_are_no_narrower_than_the_fundamental_multipole():
    assert wide_bands(144, 1000) == Bands.edges(100, 300, 500, 650, 800, 1000)
    bands = wide_bands(288, 3000)
    assert (bands.upper - bands.lower).min() >= 288


def test_sets_of_patches_are_fixed_and_differ(runs: list[Run]):
    sets = PatchSets(LensingTask(runs[0].config), batch=16)
    device = torch.device("cpu")
    first, again, other = (
        next(one.batches(device)).q for one in (sets.part("test"), sets.part("test"), sets.part("validation"))
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert [len(sample.q) for sample in sets.part("test").batches(device)] == [16, 8]


@dataclass(frozen=True)
class TwoSkies:
    """What a set asks of a store."""

    description: dict[str, int]


def test_stored_patches_are_taken_evenly_and_grouped_by_sky(runs: list[Run]):
    task = LensingTask(runs[0].config)
    source = StoredPatches(cast(LensingStore, TwoSkies({"patches_per_sky": 20})), range(5, 7))
    source.__dict__["patches"] = task.drawn().draw(40, torch.Generator().manual_seed(1))
    patches = PatchSet(task, source, "test", 24, 16)
    assert np.unique(patches.groups, return_counts=True)[1].tolist() == [12, 12]
    kappa = torch.cat([sample.truth["kappa"] for sample in patches.batches(torch.device("cpu"))])
    assert torch.equal(kappa[[0, -1]], source.patches.kappa[[0, -1]]) and len(kappa) == 24
    assert len(replace(patches, count=100).groups) == 40


def test_unlensed_patches_have_no_b_and_a_kappa_beside_them(runs: list[Run]):
    sets = PatchSets(LensingTask(runs[0].config), batch=24)
    patches = sets.unlensed()
    lensed = replace(patches, unlensed=False)
    null, full = (next(one.batches(torch.device("cpu"))) for one in (patches, lensed))
    assert torch.equal(null.truth["kappa"], full.truth["kappa"]) and not torch.equal(null.q, full.q)


def test_a_study_measures_everything(runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    show(LensingStudy(runs, StudyOptions(lambda line: None)).measure(), tmp_path)
    report = tmp_path / "report.html"
    content = json.loads((tmp_path / "lensing.json").read_text())
    ensemble = "mean of 2 resunet_small"
    assert list(content["models"]) == ["resunet_small-s1", "resunet_small-s2", "qe_naive", "qe_eb", "qe_mv", ensemble]
    sections = {*LensingStudy.sections} - {"latitude"}  # of whole skies
    assert {*sections, "e", "theory", "patch_sizes"} <= set(content)
    assert set(content["responses"]) == {"A_lens", "omega_c"} and "truth" in content["delensing"]["models"]
    assert set(content["seeds"]) == {ensemble} and "N0_iterated" in content["theory"]
    bands = len(content["bands"]["ell"])
    for model in content["models"].values():
        assert len(model["noise"]["value"]) == bands and min(model["noise"]["error"]) > 0
    # A network that has learnt next to nothing gives back the estimator it starts from.
    assert content["models"]["resunet_small-s1"]["ratio"]["qe_mv"]["goal"]["value"] == pytest.approx(1, abs=0.1)
    page = report.read_text()
    assert "Null tests" in page and 'src="data:image/png' in page and "http://" not in page
    assert "N_L" in capsys.readouterr().out
    with np.load(tmp_path / "kappa_maps.npz") as maps:
        assert maps["truth"].shape == maps["resunet_small-s1_sigma"].shape == (24, 32, 32)


def test_the_verb_reuses_finished_runs_and_skips(runs: list[Run], tmp_path: Path):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    words = [*WORDS, f"output={runs[0].folder.parents[1]}", "training.seed=1"]
    skip = ["--skip", *LensingStudy.sections]
    verb.run(parser.parse_args(["lensing", *words, "--out", str(tmp_path), *skip]))
    content = json.loads((tmp_path / "lensing.json").read_text())
    assert "nulls" not in content and "resunet_small" in content["models"] and not content["seeds"]
    assert any("of one size" in note for note in content["notes"])


def test_the_iterated_noise_falls_back_to_the_convention_that_holds_and_names_it(monkeypatch: pytest.MonkeyPatch):
    def settles(model: object, iteration: Iteration) -> IteratedNoise:
        if iteration.e_filter == "lensed" or not model:
            raise UserError("delensing would remove more B at ell=310 than there is", "raise the noise")
        return IteratedNoise(np.ones(3), 1)

    monkeypatch.setattr(entries, "iterate_eb", settles)
    curve, convention = entries._iterated(cast(NoiseModel, "model"))
    assert curve is not None and convention == "residual ratio, E filter unlensed"
    assert entries._iterated(cast(NoiseModel, "")) == (None, "delensing would remove more B at ell=310 than there is")


def test_runs_are_named_and_grouped(runs: list[Run]):
    assert run_names(runs) == ["resunet_small-s1", "resunet_small-s2"] and len(settings_of(runs)) == 1
    assert same_but_seed(runs) == [runs]
    small = replace(runs[0].config, patches=replace(runs[0].config.patches, size=16))
    other = Run(runs[0].folder, small)
    assert [len(group) for group in settings_of([other, *runs])] == [2, 1]
    scalars = replace(runs[0].config, lensing=replace(runs[0].config.lensing, features="scalars"))
    assert len(settings_of([Run(runs[0].folder, scalars), *runs])) == 1
    assert run_names([other, *runs]) == ["resunet_small-1.25deg", "resunet_small-2.5deg-s1", "resunet_small-2.5deg-s2"]
    assert run_names([runs[0], runs[0]]) == [runs[0].folder.name] * 2


def test_runs_without_kappa_and_too_few_patches_are_refused(runs: list[Run]):
    config = runs[0].config
    with pytest.raises(UserError, match="predicts no kappa"):
        settings_of([Run(runs[0].folder, replace(config, lensing=replace(config.lensing, outputs=["e"])))])
    few = Run(runs[0].folder, replace(config, evaluation=replace(config.evaluation, patches=6)))
    with pytest.raises(UserError, match=r"raise evaluation\.patches"):
        LensingStudy([few], StudyOptions(lambda line: None)).measure()
    curved = replace(config, lensing=replace(config.lensing, simulator="curved", test_skies=1))
    with pytest.raises(UserError, match=r"raise lensing\.test_skies"):
        refuse_few(curved)


def test_too_few_patches_are_refused_before_anything_is_trained(tmp_path: Path):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    with pytest.raises(UserError, match=r"raise evaluation\.patches"):
        verb.run(parser.parse_args(["lensing", *WORDS, "evaluation.patches=6", f"output={tmp_path}"]))
    assert not list(tmp_path.iterdir())


def test_bands_of_an_experiment_end_where_its_spectra_do(runs: list[Run]):
    assert patch_bands(LensingTask(runs[0].config), "e").edges[-1] == 2000
