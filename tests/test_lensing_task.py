"""The lensing task from patches to batches: observation, features, scaling, loss, training that goes on, sources."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures_lensing import QUICK, WEAK, lensing_config, seeded, toy_spectra, with_toy_spectra

from sphereml.cli.main import main
from sphereml.config.compose import compose
from sphereml.errors import UserError
from sphereml.patches.taper import cosine_taper
from sphereml.simulate.flat_lensing import LensedPatches
from sphereml.sky.plane import SquareGrid
from sphereml.sources.batch import Batch, batch_seed
from sphereml.sources.lensed_patches import sky_split
from sphereml.tasks.lensing import LensingTask, Sampler
from sphereml.tasks.losses import PatchLoss
from sphereml.training.fit import fit
from sphereml.training.lifecycle import FitOptions


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    with_toy_spectra(monkeypatch)


def task_of(*overrides: str) -> LensingTask:
    return LensingTask(lensing_config(*overrides), spectra=toy_spectra(strength=WEAK))


def sampler_of(task: LensingTask) -> Sampler:
    return Sampler(task, task.patches("train"))


def costs(loss: PatchLoss, prediction: torch.Tensor, batch: Batch) -> float:
    return float(loss(prediction, batch)[0].detach())


def test_a_patch_is_observed_with_beam_noise_and_mask():
    """A plane wave loses what the beam takes; noise has its variance; the mask multiplies both."""
    task = task_of("lensing.taper=0", "lensing.beam=10", "lensing.noise=0", "model.form=plain")
    size, k = task.patch.size, 4
    wave = torch.cos(2 * np.pi * k * torch.arange(size) / size).expand(1, size, size).contiguous()
    zero = torch.zeros_like(wave)
    patches = LensedPatches(wave, zero, wave, zero, zero, zero)
    seen = task.observe(patches, seeded()).q
    ell = k * task.patch.fundamental_ell - 0.5
    sigma = np.radians(10 / 60) / np.sqrt(8 * np.log(2))
    assert float((seen * wave).sum() / (wave**2).sum()) == pytest.approx(
        np.exp(-ell * (ell + 1) * sigma**2 / 2), rel=2e-3
    )
    noisy = task_of("lensing.noise=3", "lensing.taper=14")
    many = LensedPatches(*(zero.expand(200, -1, -1) for _ in range(6)))
    observed = noisy.observe(many, seeded()).u
    expected = noisy.mask * 3 / noisy.patch.pixel_arcmin
    middle = size // 2
    assert float(observed[:, middle - 4 : middle + 4, middle - 4 : middle + 4].std()) == pytest.approx(
        float(expected[middle, middle]), rel=0.03
    )
    assert observed[:, 0, 0].abs().max() < 0.1 * expected[middle, middle]


def test_taper_is_one_inside_and_symmetric():
    taper = cosine_taper(SquareGrid(32, 4.6875), 28.0)
    assert taper[8:-8, 8:-8].min() == 1 and taper[0, 0] < 0.02
    assert np.array_equal(taper, taper.T) and np.allclose(taper, taper[::-1])
    with pytest.raises(UserError, match=r"lensing\.taper"):
        cosine_taper(SquareGrid(32, 4.6875), 80.0)


def test_an_untrained_physical_network_is_the_estimator():
    task = task_of("lensing.outputs=[kappa]")
    sampler = sampler_of(task)
    scaling = task.scaling_of(sampler.draw(1, 64))
    sample = sampler.draw(2, 64)
    batch = task.batch(sample, scaling)
    network = task.network(scaling, nside=0).eval()
    prediction = task.combine(batch, network(batch.features, batch.domain), scaling)
    assert torch.equal(prediction, batch.base)
    assert costs(PatchLoss(), prediction, batch) < costs(PatchLoss(), torch.zeros_like(batch.target), batch)
    assert 0.3 < scaling.base_slope[0] < 3


@pytest.mark.parametrize("form", ["plain", "physical"])
def test_features_and_targets_are_standardized(form):
    task = task_of(f"model.form={form}", "lensing.outputs=[e,kappa,q,u]")
    sampler = sampler_of(task)
    sample = sampler.draw(1, 64)
    batch = task.batch(sample, task.scaling_of(sample))
    assert batch.features.shape == (64, 32, 32, task.features.count)
    assert batch.target.shape == batch.base.shape == (64, 32, 32, 4)
    assert batch.features.mean((0, 1, 2)).abs().max() < 1e-3
    for part in (batch.features, batch.target):
        assert torch.allclose(part.std((0, 1, 2)), torch.ones(part.shape[-1]), atol=0.01)


def test_samples_are_a_function_of_the_seed():
    sampler = sampler_of(task_of())
    one, same, other = (sampler.draw(batch_seed(1, 0, epoch, 5), 4) for epoch in (0, 0, 1))
    assert torch.equal(one.q, same.q) and not torch.equal(one.q, other.q)


def test_fourier_loss_counts_every_mode_by_its_own_power():
    """Predicting nothing costs one in the mean whatever the spectrum; the pixel loss is the share of variance."""
    task = task_of("lensing.loss=fourier", "lensing.taper=40", "lensing.outputs=[kappa]", "model.form=plain")
    sampler = sampler_of(task)
    scaling = task.scaling_of(sampler.draw(1, 64))
    batch = task.batch(sampler.draw(2, 256), scaling)
    nothing = torch.zeros_like(batch.target)
    fourier = task.loss(scaling)
    assert costs(PatchLoss(), nothing, batch) == pytest.approx(1, rel=0.1)
    assert 0.2 < float(fourier(nothing, batch)[0]) < 1.5
    assert float(fourier(batch.target, batch)[0]) == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("lensing")


def test_a_training_that_was_interrupted_ends_the_same(place):
    """Stopped after the first epoch and gone on with: the same weights to the last bit; averaged ones too."""
    settings = [f"output={place / 'whole'}", "training.average_from=0.4", "training.schedule=plateau"]
    whole = fit(lensing_config(*settings), FitOptions(say=lambda line: None))
    config = lensing_config(f"output={place / 'parts'}", *settings[1:])

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(config, FitOptions(say=stop))
    with pytest.raises(UserError, match="--resume"):
        fit(config, FitOptions())
    parts = fit(config, FitOptions(resume=True, say=lambda line: None))
    assert parts.manifest()["weights_sha256"] == whole.manifest()["weights_sha256"]


def test_train_on_the_command_line(place, capsys):
    words = ["train", "experiment=lensing_quick", *QUICK, f"output={place / 'line'}"]
    assert main(words) == 0
    assert main(words) == 0
    assert "already trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["lensing.noise=-1"], "lensing.noise"),
        (["lensing.beam=-1"], "lensing.beam"),
        (["lensing.taper=90"], "lensing.taper"),
        (["lensing.lmax_eb=9000"], "lmax_eb"),
        (["lensing.outputs=[]"], "lensing.outputs"),
        (["lensing.outputs=[t]"], "lensing.outputs"),
        (["lensing.outputs=[kappa,kappa]"], "each once"),
        (["lensing.noise=0"], "model.form=plain"),
        (["lensing.simulator=curved", "lensing.lmax=1000"], "raise lensing.lmax"),
        (["patches.size=34", "model.depth=1"], None),
        (["patches.size=33", "model.depth=0"], "even"),
        (["model=unet_sphere"], "lmax_eb"),
        (["model=linear"], "resunet"),
        (["lensing.simulator=curved", "lensing.lmax=3000"], "simulate lensing"),
        (["lensing.simulator=curved", "lensing.lmax=3000", "lensing.skies=2"], "each part needs a sky"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(overrides, words, place, capsys):
    code = main(
        ["train", "experiment=lensing_quick", *QUICK, f"output={place / 'bad'}", f"data.stores={place}", *overrides]
    )
    error = capsys.readouterr().err
    if words is None:
        assert code == 0
    else:
        assert code == 2 and error.count("\n") == 1 and words in error


def test_skies_are_split_in_order():
    config = compose(
        ["experiment=lensing_quick", "lensing.skies=10", "lensing.validation_skies=2", "lensing.test_skies=3"]
    )
    split = sky_split(config.lensing)
    assert [list(split[part]) for part in ("train", "validation", "test")] == [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]
    with pytest.raises(UserError, match="each part needs a sky"):
        sky_split(replace(config.lensing, skies=5))


def test_finished_runs_are_compared_and_nothing_else(place, capsys):
    """`compare` writes the study of lensing runs; what is done with full-sky maps alone is refused in one line."""
    words = [*QUICK, f"output={place / 'finished'}", "evaluation.patches=12"]
    assert main(["train", "experiment=lensing_quick", *words]) == 0
    folder = place / "finished" / "lensing_quick"
    assert main(["compare", str(folder)]) == 0
    assert {"lensing.json", "kappa_maps.npz", "report.html"} <= {path.name for path in folder.iterdir()}
    (folder / "report.html").unlink()
    assert main(["report", str(folder)]) == 0 and (folder / "report.html").is_file()
    capsys.readouterr()
    assert main(["predict", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "lensing" in error
