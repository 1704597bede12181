"""Every verb on a tiny sky: what it prints, what it writes, and what the files hold."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import healpy
import numpy as np
import pytest
from fixtures_cli import DEMO_MODELS as MODELS
from fixtures_cli import (
    GALAXY,
    TINY,
    Place,
    demo_place,
    done,
    files_below,
    gas_columns,
    sphereml,
    write_map,
)

from sphereml.cli.main import VERBS
from sphereml.data.manifests import list_products
from sphereml.data.store import open_store

HEAVY = ("torch", "healpy", "matplotlib", "lightning", "hydra", "numpy")


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Place:
    return demo_place(tmp_path_factory)


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from sphereml.cli.main import main\n"
        "try: main(['--help'])\n"
        f"finally: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stderr.strip() == "[]"
    assert all(re.search(rf"^ +{verb}\b", answer.stdout, re.MULTILINE) for verb in VERBS)


@pytest.mark.parametrize(
    "line",
    [
        ["train", "training.epochs=two"],
        ["train", "experiment=nosuch"],
        ["study", "experiment=lensing_quick", "lensing.noise=-1"],
        ["config", "validate", "model.wdith=3"],
        ["spectra", "--nosuch"],
        ["nosuch"],
    ],
    ids=" ".join,
)
def test_refusals_import_neither_torch_nor_camb(line):
    script = (
        "import sys; from sphereml.cli.main import main\n"
        f"code = main({line!r})\n"
        "print(code, [name for name in ('torch', 'camb', 'healpy', 'lightning') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "2 []", answer.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        sphereml(verb, "--help")
    assert stop.value.code == 0


def test_no_verb_is_a_call_for_help():
    assert "usage: sphereml" in done().out
    with pytest.raises(SystemExit) as stop:
        sphereml("--version")
    assert stop.value.code == 0


def test_demo_leaves_what_it_promises(demo):
    files = files_below(demo.study)
    assert {"report.html", "comparison.json", *(f"templates/{name}.fits" for name in MODELS)} <= files
    assert not [name for name in files if name.endswith(".part") or "/." in name or name.startswith(".")]
    page = (demo.study / "report.html").read_text()
    assert all(name in page for name in MODELS) and "marginalization" in page.lower()


def test_comparison_follows_the_contract(demo):
    comparison = json.loads((demo.study / "comparison.json").read_text())
    assert isinstance(comparison["split"], str)
    assert comparison["ell_bands"] == {"r_low": [2, 15], "r50": [14.4, 64]}, "clipped to 2 nside, r150 left out"
    assert {name: model["domain"] for name, model in comparison["models"].items()} == MODELS
    for name, model in comparison["models"].items():
        assert -1 <= model["r50"]["mean"] <= 1 and model["r50"]["sem"] > 0
        assert model["r150"] is None
        wins = model["wins_vs_integrated"]
        assert wins["of"] == 12 and 0 <= wins["r50"] <= 12 and wins["r150"] == 0
        assert set(model["sphere"]) == {"r50", "r150", "r_low"} and model["sphere"]["r150"] is None
        assert all(-1 <= model["sphere"][band] <= 1 for band in ("r50", "r_low"))
        assert model["seconds_train"] >= 0 and model["seconds_predict"] >= 0
        assert name != "integrated" or wins["r50"] == 0
    assert any("r150" in note and "left out" in note for note in comparison["notes"])


def test_demo_says_what_marginalization_leaves(demo):
    result = json.loads((demo.study / "comparison.json").read_text())["marginalization"]["models"]
    assert set(result) == set(MODELS)
    for model in result.values():
        assert model["error"] > 0 and math.isfinite(model["amplitude"])
        assert all(0.9 < share < 1.1 for share in model["cmb_power"].values()), "the CMB is not harmed"


def test_the_demo_sky_can_be_cleaned(demo, tmp_path):
    """The files that the demo leaves are what ``marginalize`` asks for."""
    template = demo.study / "templates" / "linear.fits"
    inputs = ["--sky", demo.study / "sky_150ghz.fits", "--mask", demo.study / "mask_test.fits", "--template", template]
    done("marginalize", *inputs, "--apodize", 5, "--out", tmp_path / "out")
    result = json.loads((tmp_path / "out" / "marginalization.json").read_text())
    truth = json.loads((demo.study / "comparison.json").read_text())["marginalization"]["true_amplitude"]
    assert abs(result["amplitudes"][0] - truth) < 4 * result["errors"][0]


def test_templates_are_the_predictions(demo):
    from sphereml.training.runs import Run

    for name in MODELS:
        run = Run.open(demo.run(name))
        values, cards = healpy.read_map(demo.study / "templates" / f"{name}.fits", h=True, dtype=np.float32)
        header = dict(cards)
        assert (header["COORDSYS"], header["ORDERING"], header["NSIDE"], header["TUNIT1"]) == ("G", "RING", 32, "uK_RJ")
        assert (header["RUNID"], header["MODEL"]) == (run.folder.name, name)
        assert header["WEIGHTS"] == run.manifest()["weights_sha256"]
        np.testing.assert_array_equal(values, run.predict().to_healpy())


def test_demo_keeps_what_is_trained(demo, tmp_path):
    """A second demo trains only what is missing, and comes to the same scores."""
    place = Place(tmp_path, "demo")
    for model in ("integrated", "unet_sphere"):
        shutil.copytree(demo.run(model), place.study / demo.run(model).name)
    for run in (demo.root / "runs" / "demo_polarization").glob("*-????????"):
        shutil.copytree(run, tmp_path / "runs" / "demo_polarization" / run.name)
    (tmp_path / "stores").symlink_to(demo.root / "stores")
    said = done("demo", *TINY, "models=[integrated,linear,unet_sphere]", *place.words).out
    assert said.count("already trained") == 2 + 3 and "epoch" not in said
    before, after = (json.loads((p.study / "comparison.json").read_text())["models"] for p in (demo, place))
    for name, model in after.items():
        for key in model.keys() - {"seconds_train", "seconds_predict"}:
            assert model[key] == before[name][key], key


def test_the_verbs_one_by_one(tmp_path, demo):
    place = Place(tmp_path, "demo")
    shutil.copytree(demo.root / "stores", tmp_path / "stores")
    words = ["experiment=dust_demo", *TINY, *place.words]
    done("train", *words, "model=integrated")
    assert "linear" in done("train", *words, "model=linear").out
    table = done("compare", place.study).out
    assert "integrated" in table and "linear" in table and "report:" in table
    said = done("predict", place.study).out
    assert said.count("template: ") == 2
    (place.study / "report.html").unlink()
    done("report", place.study)
    assert "linear" in (place.study / "report.html").read_text()
    assert files_below(place.study / "templates") == {"integrated.fits", "linear.fits"}
    # Elsewhere, and one run alone.
    done("predict", place.run("linear"), "--out", tmp_path / "alone")
    assert files_below(tmp_path / "alone") == {"linear.fits"}
    answer = sphereml("predict", place.run("linear"), "--out", tmp_path / "alone", "--overwrite", "--json")
    assert json.loads(answer.out) == [str(tmp_path / "alone" / "linear.fits")] and "full sky in" in answer.err
    answer = sphereml("compare", place.run("integrated"), place.run("linear"), "--out", tmp_path / "pair", "--json")
    assert set(json.loads(answer.out)["models"]) == {"integrated", "linear"} and "\x1b" not in answer.out + answer.err
    assert {"comparison.json", "report.html"} <= files_below(tmp_path / "pair")


def write_contaminated(folder: Path, amplitudes: tuple[float, ...], nside: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A CMB-like sky plus templates, a mask without the plane; returns sky and templates, RING."""
    ell = np.arange(2, 2 * nside + 1)
    np.random.seed(3)  # noqa: NPY002 - healpy.synfast draws from numpy's global generator
    cmb = healpy.synfast(np.r_[0, 0, 1000.0 / (ell * (ell + 1))], nside, lmax=2 * nside)
    templates = 1e-20 * gas_columns(nside, len(amplitudes))
    sky = cmb + np.array(amplitudes) @ templates
    _, latitude = healpy.pix2ang(nside, np.arange(sky.size), lonlat=True)
    write_map(folder / "sky.fits", sky, "uK_CMB")
    write_map(folder / "mask.fits", (np.abs(latitude) > 20).astype(float), "")
    for index, template in enumerate(templates):
        write_map(folder / f"template{index}.fits", template, "uK_RJ")
    return sky, templates


def test_marginalize_finds_the_amplitudes(tmp_path):
    truth = (40.0, -25.0)
    sky, templates = write_contaminated(tmp_path, truth)
    names = [tmp_path / f"template{index}.fits" for index in range(2)]
    inputs = ["--sky", tmp_path / "sky.fits", "--mask", tmp_path / "mask.fits", "--template", *names]
    said = done("marginalize", *inputs, "--apodize", 5, "--out", tmp_path / "out").out
    assert files_below(tmp_path / "out") == {"cleaned.fits", "marginalization.json", "spectra.png"}
    result = json.loads((tmp_path / "out" / "marginalization.json").read_text())
    pulls = (np.array(result["amplitudes"]) - truth) / result["errors"]
    assert np.abs(pulls).max() < 3 and np.array(result["errors"]).max() < 8, result
    assert "template0: amplitude" in said and "power after / before" in said
    cleaned, cards = healpy.read_map(tmp_path / "out" / "cleaned.fits", h=True, dtype=np.float64)
    np.testing.assert_allclose(cleaned, sky - np.array(result["amplitudes"]) @ templates, atol=1e-3)
    assert dict(cards)["TUNIT1"] == "uK_CMB"


def test_marginalize_does_not_need_what_is_masked(tmp_path):
    sky, _ = write_contaminated(tmp_path, (40.0,))
    inputs = [
        "--sky",
        tmp_path / "sky.fits",
        "--mask",
        tmp_path / "mask.fits",
        "--template",
        tmp_path / "template0.fits",
    ]
    done("marginalize", *inputs, "--out", tmp_path / "whole")
    masked = healpy.read_map(tmp_path / "mask.fits") == 0
    write_map(tmp_path / "sky.fits", np.where(masked, healpy.UNSEEN, sky), "uK_CMB")
    done("marginalize", *inputs, "--out", tmp_path / "holes")
    whole, holes = (json.loads((tmp_path / f / "marginalization.json").read_text()) for f in ("whole", "holes"))
    assert holes["amplitudes"] == pytest.approx(whole["amplitudes"], rel=1e-12)
    cleaned = healpy.read_map(tmp_path / "holes" / "cleaned.fits")
    assert (cleaned[masked] == healpy.UNSEEN).all() and np.isfinite(cleaned).all()


def test_config_show_validate_and_list(demo):
    shown = done("config", "show", "experiment=dust_demo", "training.epochs=3").out
    assert re.search(r"^  epochs: 3$", shown, re.MULTILINE)
    assert re.search(r"hash of the settings [0-9a-f]{8}", done("config", "validate", "experiment=dust_demo").out)
    saved = demo.run("linear") / "config.json"
    assert done("config", "validate", saved).out.split()[-1] == demo.run("linear").name.split("-")[-1]
    listed = done("config", "list").out
    assert "model: " in listed and "unet_sphere" in listed and "dust_real_sample" in listed


def test_info_and_data_list():
    said = done("info").out
    assert "sphereml" in said and "torch" in said and "threads" in said and "missing" not in said
    listed = done("data", "list").out
    assert all(product.name in listed for product in list_products())


def test_data_prepare_and_simulate_make_one_store(tmp_path):
    small = [word for word in GALAXY if "nside" not in word] + ["data.galaxy.nside=16", f"data.stores={tmp_path}"]
    said = done("simulate", "dust", *small).out
    assert "Nside 16, 8 channels" in said and "uK_RJ" in said
    (store,) = tmp_path.glob("*.zarr")
    assert "Nside 16, 8 channels" in done("data", "prepare", "data=galaxy", *small).out
    assert list(tmp_path.glob("*.zarr")) == [store]
    sky = open_store(store)
    assert sky.inputs.shape == (3072, 8) and sky.components


def test_bench_prints_one_json_object():
    result = json.loads(done("bench", "conv", "--nside", 8, "--channels", 4, "--runs", 2, "--json").out)
    assert result["nside"] == 8 and result["channels"] == 4 and result["layers"]
    for row in [*result["layers"].values(), result["conv2d"]]:
        assert 0 < row["fwd_ms"] < row["fwdbwd_ms"]
    assert all(row["ratio_fwdbwd"] > 0 for row in result["layers"].values())
    assert "conv2d" in done("bench", "conv", "--nside", 4, "--channels", 2, "--runs", 1).out
