"""Lensing on HEALPix: skies with their features, stored once; a task that learns on their tiles; exact prediction."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import healpy
import numpy as np
import pytest
import torch
from fixtures_lensing import toy_spectra

import sphereml as sm
from sphereml.cli.main import main
from sphereml.config.compose import compose
from sphereml.data.store import Sky
from sphereml.domains.channels import Channels
from sphereml.errors import UserError
from sphereml.harmonics.filters import gaussian_beam, multiply
from sphereml.harmonics.rings import alm_index
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.sources import lensed_skies
from sphereml.sources.lensed_skies import LensedSkies
from sphereml.tasks import open_task
from sphereml.tasks.lensing_sphere import SphereLensingTask
from sphereml.templates.products import write_mask
from sphereml.training.fit import fit
from sphereml.training.lifecycle import FitOptions
from sphereml.training.predictor import Predictor
from sphereml.training.runs import Run

NSIDE, LMAX, LMAX_KAPPA = 64, 90, 60
WORDS = [
    *("experiment=lensing_sphere_quick", f"lensing.nside={NSIDE}", f"lensing.lmax_eb={LMAX}", "lensing.lmax=130"),
    *(f"lensing.lmax_kappa={LMAX_KAPPA}", "lensing.spectra_lmax=300", "lensing.skies=3", "lensing.passes=2"),
    *("lensing.noise=0.05", "lensing.lmin=2", "training.tile_nside=4", "training.epochs=1"),
    *("training.steps_per_epoch=2", "training.batch_size=2", "training.validation_batches=1", "model.width=4"),
    *("model.convs_per_level=1",),
]
SMALL = ["lensing.nside=32", "training.tile_nside=2"]
# A network that stays where it starts.
BARE = ["model.width=4", "model.convs_per_level=1", "training.learning_rate=1e-6"]
SPIN = ["model=stack_spin", "model.spin1_width=2", "model.spin2_width=2"]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lensed_skies, "load_spectra", lambda lmax, cosmology: toy_spectra(lmax, 50.0, first_order=True))
        yield tmp_path_factory.mktemp("stores")


def task_of(stores: Path, *words: str) -> SphereLensingTask:
    task = open_task(compose([*WORDS, *words, f"data.stores={stores}", f"output={stores}"]), lambda line: None)
    assert isinstance(task, SphereLensingTask)
    return task


def trained(stores: Path, *words: str) -> Run:
    return fit(task_of(stores, *words).config, FitOptions(say=lambda line: None))


def column(sky: Sky, name: str) -> np.ndarray:
    first = 0
    for one in sky.input_fields:
        if one.name == name:
            return sky.inputs[:, first : first + one.columns].T.astype(np.float64)
        first += one.columns
    raise KeyError(name)


def test_features_hang_together(stores):
    """P_wiener is made of E; the divergence of the product is the last estimate, up to a factor at every L."""
    sky = task_of(stores, "lensing.passes=1").numbered(0)
    e, b = analysis(column(sky, "P_wiener"), LMAX, spin=2)
    assert np.allclose(e, analysis(column(sky, "E")[0], LMAX), atol=1e-4 * np.abs(e).max())
    assert np.abs(b).max() < 1e-4 * np.abs(e).max()
    divergence = analysis(column(sky, "product"), LMAX_KAPPA, spin=1)[0]
    kappa = analysis(column(sky, "kappa")[0], LMAX_KAPPA)
    ell, chosen = alm_index(LMAX_KAPPA)[0], range(5, 31)
    for multipole in chosen:  # products alias on pixels, at high L most
        a, b = divergence[ell == multipole], kappa[ell == multipole]
        assert abs(np.vdot(a, b)) > 0.999 * np.linalg.norm(a) * np.linalg.norm(b)


def test_a_second_pass_lowers_the_noise_of_skies_it_was_not_measured_on(stores):
    sky = task_of(stores).numbered(2)
    truth = analysis(sky.targets[:, 0].astype(np.float64), LMAX_KAPPA)
    rho = {}
    for name in ("kappa", "kappa_first"):
        found, cut = analysis(column(sky, name)[0], LMAX_KAPPA), slice(5, 40)
        power = [cross_spectrum(*pair, LMAX_KAPPA)[cut].sum() for pair in ((found, truth), (found, found))]
        rho[name] = power[0] / np.sqrt(power[1] * cross_spectrum(truth, truth, LMAX_KAPPA)[cut].sum())
    assert rho["kappa"] > 1.1 * rho["kappa_first"] > 0.3


def test_a_sky_is_made_once_and_read_by_tiles(stores, monkeypatch):
    task = task_of(stores)
    first = task.numbered(0)
    monkeypatch.setattr(lensed_skies.LensedSkies, "simulate", lambda *_: pytest.fail("made again"))
    inputs, targets = task.stored("train")[0].read(slice(256, 512))
    assert np.array_equal(inputs, first.inputs[256:512]) and np.array_equal(targets, first.targets[256:512])


def test_skies_are_simulated_on_the_command_line(stores, capsys):
    words = [*WORDS, "model=stack_spin", f"data.stores={stores}"]
    assert main(["simulate", "lensing", *words, "--only", "0,2"]) == 0
    assert "store: " in capsys.readouterr().out and list(stores.glob("lensing-sky-*/sky-0002"))
    assert main(["simulate", "lensing", *words, "--only", "7"]) == 2


def test_workers_are_sent_skies_that_make_the_same_bytes(stores, tmp_path, monkeypatch):
    """What is sent holds the spectra, and the folder the curves of the passes: nothing is measured twice."""
    task = task_of(stores, *SMALL)
    task.skies.prepare([1])
    sent = LensedSkies(task.skies.campaign, tmp_path)
    asked = []

    def on_workers(make, items, scheduler, progress):
        asked.append(scheduler)
        monkeypatch.setattr(lensed_skies, "measure_curves", lambda *_: pytest.fail("measured again"))
        for item in items:
            pickle.loads(pickle.dumps(make))(item)

    monkeypatch.setattr(lensed_skies, "do_items", on_workers)
    sent.prepare([1], scheduler="local")
    assert asked == ["local"]
    here, there = (skies.sky(1) for skies in (task.skies, sent))
    assert np.array_equal(here.inputs, there.inputs) and np.array_equal(here.targets, there.targets)


def test_batches_are_functions_of_their_seed_and_of_several_tiles_where_skies_are_few(stores):
    task = task_of(stores)
    scaling = task.fit_scaling()
    source = task.sources(scaling)["train"]
    batch, again, other = (source.batch(seed, 2) for seed in (3, 3, 4))
    assert batch.domain == again.domain and torch.equal(batch.features, again.features)
    assert not (batch.domain == other.domain and torch.equal(batch.features, other.features))
    assert batch.features.shape == (1, 2 * 256, 9) and batch.target.shape == (1, 2 * 256, 1)


def test_a_scaling_gives_spins_one_deviation_and_no_mean(stores):
    scaling = task_of(stores).fit_scaling()
    assert scaling.feature_mean[3:] == [0.0] * 6
    assert scaling.feature_std[3] == scaling.feature_std[4] and scaling.feature_std[5] == scaling.feature_std[6]
    assert 0.3 < scaling.base_slope[0] < 1.3


@pytest.mark.parametrize(
    "words", [SPIN, ["model=stack_oriented"], ["model=stack_isotropic", "lensing.features=scalars"]]
)
def test_training_starts_from_the_estimate_and_tiles_predict_the_whole_sky(stores, words):
    words = [*words, "model.width=4", "model.convs_per_level=1", "lensing.outputs=[kappa,e]", *SMALL]
    run, sky = trained(stores, *words), task_of(stores, *words).sky
    whole, tiled = (Predictor(run, tile_side=side).sphere(sky).values for side in (32, 16))
    assert whole.shape == (12 * 32**2, 2)
    assert np.allclose(whole, tiled, rtol=0, atol=2e-5 * whole.std(axis=0))
    truth = sky.targets[:, 0]
    assert np.corrcoef(whole[:, 0], truth)[0, 1] > 0.9 * np.corrcoef(sky.inputs[:, 1], truth)[0, 1]


def test_plain_networks_see_q_and_u_alone(stores):
    run = trained(stores, *SPIN, "model.form=plain", "lensing.passes=1", "model.width=4", "model.convs_per_level=1")
    predictor = Predictor(run)
    assert predictor.predict().column_names == ("kappa",)
    assert predictor.task.channels(predictor.scaling)[0] == Channels(spin2=1)


def test_compare_judges_networks_beside_the_passes(stores, tmp_path, capsys):
    """A network that has learnt next to nothing is as good as the passes that it starts from."""
    run = trained(stores, *SPIN, *BARE)
    assert main(["compare", str(run.folder), "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "lensing.json").read_text())
    models, last = content["models"], slice(1, None)
    assert list(models) == ["qe_mv", "iterated", "stack_spin"]
    ratio = np.array([models[name]["ratio"]["qe_mv"]["value"] for name in ("iterated", "stack_spin")])[:, last]
    assert (ratio < 0.95).all() and np.allclose(*ratio, rtol=0.02)
    assert np.all(np.abs(np.array(models["iterated"]["response"]["value"]) - 1) < 1)
    slopes = np.array(content["responses"]["A_lens"]["qe_mv"]["slope"])[last]
    assert (slopes > 0.2).all()
    left = content["delensing"]["models"]
    assert np.mean(left["iterated"]["left"]["value"]) < np.mean(left["qe_mv"]["left"]["value"])
    assert all(value < 1 for value in content["latitude"]["models"]["stack_spin"]["value"])
    assert (tmp_path / "report.html").is_file() and "latitude" in (tmp_path / "report.html").read_text()
    assert "whole test sky" in capsys.readouterr().out


def marginalized(folder, maps: np.ndarray) -> list[float]:
    """Amplitudes of ``b.fits`` and of a dust template in a sky of both that holds .3 of the dust."""
    rng = np.random.default_rng(4)
    dust, columns = 3 * maps[rng.permutation(len(maps))], sm.Field("P", "uK_CMB", spin=2)
    for name, values in {"sky": maps + 0.3 * dust, "dust": dust}.items():
        sm.write_map(folder / f"{name}.fits", sm.SkyMap(values, columns, "nest"))
    write_mask(folder / "mask.fits", np.ones(len(maps)))
    templates = [f"{folder / name}.fits[Q,U]" for name in ("b", "dust")]
    words = [
        "--sky",
        f"{folder / 'sky.fits'}[Q,U]",
        "--mask",
        str(folder / "mask.fits"),
        "--out",
        str(folder / "clean"),
    ]
    assert main(["marginalize", *words, "--template", *templates]) == 0
    return json.loads((folder / "clean" / "marginalization.json").read_text())["amplitudes"]


def test_a_run_makes_kappa_and_template_of_a_users_map(stores, tmp_path, capsys):
    """The map of a test sky gives what the stored features of it give."""
    words = [*SPIN, *BARE]
    run, task = trained(stores, *words), task_of(stores, *words)
    legs = task.skies.draw(2).legs
    seen = multiply(np.stack([legs.e, legs.b]), gaussian_beam(LMAX, 1.0))
    maps = synthesis(seen, 64, LMAX, spin=2).T
    sm.write_map(tmp_path / "qu.fits", sm.SkyMap(maps, sm.Field("P", "uK_CMB", spin=2), "nest"))
    common = ["--qu", str(tmp_path / "qu.fits"), "--run", str(run.folder)]
    own = ["--noise", "0.05", "--lmin", "2", "--lmax", str(LMAX), "--passes", "2", "--lmax-kappa", str(LMAX_KAPPA)]
    assert main(["lensing", "estimate", *common, *own, "--out", str(tmp_path / "kappa.fits")]) == 0
    said = capsys.readouterr().out
    assert "kappa is the network's" in said and "most likely" not in said
    again = ["--out", str(tmp_path / "kappa.fits"), "--overwrite"]
    assert main(["lensing", "estimate", *common, *again, "--json"]) == 0
    curves = json.loads(capsys.readouterr().out)
    assert curves["L"][-1] == LMAX_KAPPA and all(0 < one < 1.5 for one in curves["response"][5:40])
    found = analysis(healpy.read_map(tmp_path / "kappa.fits", nest=True).astype(np.float64), LMAX_KAPPA)
    stored = analysis(Predictor(run).sphere(task.sky).values[:, 0].astype(np.float64), LMAX_KAPPA)
    assert np.linalg.norm(found - stored) < 0.01 * np.linalg.norm(stored)
    assert main(["lensing", "template", *common, "--lmax", "80", "--out", str(tmp_path / "b80.fits")]) == 0
    assert main(["lensing", "template", *common, "--out", str(tmp_path / "b.fits")]) == 0
    e, b = analysis(sm.read_map(tmp_path / "b.fits").values.T, LMAX, spin=2)
    assert np.abs(e).max() < 1e-2 * np.abs(b).max()
    assert marginalized(tmp_path, maps)[1] == pytest.approx(0.3, abs=0.03)
    capsys.readouterr()
    assert main(["lensing", "estimate", *common, "--noise", "2", "--out", str(tmp_path / "other.fits")]) == 2
    assert main(["lensing", "template", *common, "--order", "all", "--out", str(tmp_path / "other.fits")]) == 2
    assert capsys.readouterr().err.count("\n") == 2 and not (tmp_path / "other.fits").exists()
    differing = [("--lmin", "30"), ("--lmin-b", "9"), ("--lmax", "60"), ("--passes", "1"), ("--lmax-kappa", "50")]
    unused = [("--estimator", "EB"), ("--mean-field", "20"), ("--seed", "0")]
    refused = [("estimate", *words) for words in (*differing, *unused)]
    refused += [("template", "--kappa", "k.fits"), ("template", "--e", "e.fits"), ("template", "--filtered")]
    for verb, flag, *value in refused:
        assert main(["lensing", verb, *common, flag, *value, "--out", str(tmp_path / "other.fits")]) == 2
        error = capsys.readouterr().err
        assert flag in error and error.count("\n") == 1, error


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("lensing.nside=48", "lensing.nside"),
        ("training.tile_nside=128", "tile_nside"),
        ("lensing.lmax_eb=200", "lmax_eb"),
        ("lensing.lmax=80", "lensing.lmax"),
        ("lensing.outputs=[q]", "outputs"),
        ("lensing.lmax_kappa=91", "lmax_kappa"),
        ("training.batch_size=193", "batch_size=193 asks for more than the 192 tiles"),
    ],
)
def test_what_cannot_be_is_refused(word, key):
    with pytest.raises(UserError, match=key):
        compose([*WORDS, "model=stack_oriented", word])


def test_features_that_nobody_sees_are_refused():
    plain = [*WORDS, "model=stack_oriented", "model.form=plain", "lensing.passes=1"]
    compose(plain)
    with pytest.raises(UserError, match="leaves no input"):
        compose([*plain, "lensing.features=scalars"])
    with pytest.raises(UserError, match="of whole skies"):
        compose(["experiment=lensing_quick", "lensing.features=scalars"])
