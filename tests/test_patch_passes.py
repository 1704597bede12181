"""Templates of a patch's lensing B, and estimates of kappa in passes on the delensed B."""

from __future__ import annotations

import pytest
import torch
from fixtures_lensing import WEAK, lensing_config, seeded, toy_spectra

from sphereml.cli.main import main
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.flat import FlatModes
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.lensing.flat_filters import DenseFilter
from sphereml.lensing.patch_passes import PatchPass
from sphereml.lensing.patch_spectra import PatchBands, PatchPowers, correlation_of
from sphereml.lensing.patch_template import gradient_b, potential_modes, remapped_b
from sphereml.simulate.flat_lensing import FlatLensing
from sphereml.tasks.lensing import LensingTask, Sampler
from sphereml.tasks.lensing_features import EstimatorFeatures


def power(modes: torch.Tensor, sky: FlatSky, top: float) -> float:
    """Of the modes that no product aliases into."""
    return float((modes.abs().square() * (sky.ell(modes) < top)).sum())


def test_templates_of_the_true_kappa_are_the_lensing_b():
    """To all orders they are the simulator itself; the first order of the lensed E is off by a few per cent."""
    simulator = FlatLensing(FlatSky(32, 3.75), toy_spectra(strength=WEAK))
    skies = simulator.draw_skies(2, seeded(4))
    sky = simulator.sky
    true = sky.to_eb(sky.to_modes(skies.q), sky.to_modes(skies.u))
    e, kappa = sky.to_modes(skies.e), sky.to_modes(skies.kappa)
    assert power(remapped_b(sky, e, kappa) - true[1], sky, 1500) < 1e-6 * power(true[1], sky, 1500)
    fine = sky.resampled(2 * sky.size)
    left = {name: power(gradient_b(sky, fine, one, kappa) - true[1], sky, 1500) for name, one in
            (("lensed", true[0]), ("unlensed", e))}  # fmt: skip
    assert left["lensed"] < 0.06 * power(true[1], sky, 1500) and left["lensed"] < left["unlensed"]
    ell = sky.ell(kappa)
    assert torch.allclose(potential_modes(sky, kappa)[:, 3, 5] * ell[3, 5] ** 2 / 2, kappa[:, 3, 5])


def task_of(*overrides: str) -> LensingTask:
    spectra = toy_spectra(strength=WEAK, first_order=True)
    return LensingTask(lensing_config("lensing.outputs=[kappa]", *overrides), spectra=spectra)


def test_a_pass_without_a_first_kappa_is_the_estimator_of_eb():
    task = task_of()
    features = task.features
    assert isinstance(features, EstimatorFeatures)
    sample = Sampler(task, task.patches("test")).draw(1, 2)
    legs, one = features.filter(sample.q, sample.u), features.estimator
    eb = type(one)(one.sky, one.spectra, one.observation, "EB", one.lmax_kappa)
    chosen = PatchPass(DenseFilter(features.model), eb, torch.ones(()))
    data = features.model.untapered(sample.q, sample.u)
    refined = chosen(data, legs.e, torch.zeros_like(legs.e))
    wanted = eb(legs)
    assert (refined.kappa - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_every_pass_knows_more_of_kappa():
    tasks = [task_of(f"lensing.passes={passes}") for passes in (1, 2, 3)]
    sample = Sampler(tasks[0], tasks[0].patches("test")).draw(3, 48)
    bands = PatchBands(FlatModes(tasks[0].patch), Bands.edges(200, 800), tasks[0].mask)
    made = [task.features(sample.q, sample.u) for task in tasks]
    assert [features.shape[-1] for features, _ in made] == [8, 13, 13]
    powers = [PatchPowers.measure(bands, base[..., 0], sample.truth["kappa"]) for _, base in made]
    first, second, third = (float(correlation_of(one.stacked.mean(axis=0))[0]) for one in powers)
    assert first + 0.01 < second < third, (first, second, third)


@pytest.mark.parametrize(
    ("words", "fault"), [("lensing.passes=0", "give 1 to 9"), ("lensing.passes=2 model.form=plain", "no estimate")]
)
def test_impossible_passes_are_refused(words: str, fault: str, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "experiment=lensing_quick", *words.split(), "--cfg", "job"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and fault in error
