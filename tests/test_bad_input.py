"""Bad input: exit code 2, one line that names the fault and the mend, and nothing half-written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import healpy
import numpy as np
import pytest
from astropy.io import fits
from fixtures_cli import (
    DUST,
    GALAXY,
    MASK,
    NETWORK,
    PATCHES,
    RINGS,
    TINY,
    TOTAL,
    TRAINING,
    Outcome,
    Place,
    demo_place,
    done,
    files_below,
    gas_columns,
    sky_place,
    sphereml,
    write_map,
)

from sphereml.config.compose import compose
from sphereml.config.overrides import config_names
from sphereml.config.schema import Disc, ExperimentConfig
from sphereml.config.validation import check_resolution, validate
from sphereml.errors import UserError
from sphereml.training.runs import Run

MODELS = ", ".join(config_names()["model"])


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Place:
    return demo_place(tmp_path_factory)


@pytest.fixture(scope="session")
def good_sky(tmp_path_factory) -> Path:
    return sky_place(tmp_path_factory)


# ----------------------------------------------------------------------------------------- configuration

UNKNOWN = [
    ("typo=1", "unknown configuration key 'typo'"),
    ("+typo=1", "unknown configuration key 'typo'"),
    ("++typo=1", "unknown configuration key 'typo'"),
    ("data.typo=1", "unknown configuration key 'data.typo'"),
    ("hydra.run.dir=x", "unknown configuration key 'hydra.run.dir'"),
    ("model.wdith=3", "did you mean model.width?"),
    ("data.galaxy.nsdie=64", "did you mean data.galaxy.nside?"),
    ("training.epoch=3", "did you mean training.epochs?"),
    ("split.cuts=[{name: LMC, rad: 3}]", "unknown configuration key 'split.cuts.rad': did you mean split.cuts.radius?"),
    ("model=nosuch", f"there is no model 'nosuch': choose {MODELS}"),
    ("model=unet_shpere", "did you mean unet_sphere?"),
    ("experiment=dust_dmeo", "did you mean dust_demo?"),
    ("experiment=nosuch", "dust_demo, dust_paper"),
    ("data=nosuch", "galaxy, hi4pi_planck, real_sample"),
    ("split=nosuch", "north_south"),
    ("training=nosuch", "default, demo"),
    ("model=", "there is no model ''"),
]
MALFORMED = ["training.epochs", "=3", "", "~data", "a b=3", "training.epochs==", "model.width=[", "{}", "--wat"]
# Refused by the types of the schema, by its values, by what the sky resolves, and by the regions.
IMPOSSIBLE = [
    *("training.epochs=two", "training.epochs=1.5", "training.epochs=null", "data.galaxy.nside=100"),
    *("training.epochs=0", "model.dropout=1.5", "bands.r50=[100,14]", "training.learning_rate=-1"),
    *("model.depth=9", "training.tile_nside=64", "bands.r50=[500,600]", "evaluation.block_nside=64"),
    *("split.buffer=95", "split.sky_fraction=2", "split.centre_margin=89.9"),
]
VALUES: dict[str, list[object]] = {
    "task": ["lensing2"],
    "name": ["../elsewhere", "a/b", ""],
    "output": ["", " "],
    "training.epochs": [-1],
    "training.learning_rate": [0.0, float("nan"), float("inf")],
    "training.seed": [-1, 2**31],
    "training.tile_nside": [0, 3],
    "training.threads": [-1],
    "training.footprint": ["disc"],
    "model.dropout": [-0.1, 1.0],
    "model.depth": [-1],
    "model.width": [0],
    "model.arch": ["transformer", "linear"],
    "model.domain": ["none"],
    "model.name": ["a/b"],
    "loss.lambda_r": [-1.0],
    "loss.correlation": ["none"],
    "bands.r50": [[14.0], [15.2, 15.8], [-1.0, 3.0], [float("nan"), 3.0]],
    "data.galaxy.nside": [0, -2],
    "data.galaxy.channels": [1],
    "data.galaxy.seed": [-1],
    "data.galaxy.noise_mk": [-1.0],
    "data.kind": ["planck"],
    "data.stores": [""],
    "patches.size": [1, 0],
    "patches.max_masked": [1.0],
    "patches.pixel_arcmin": [5000.0, 0.0],
    "split.train": ["up"],
    "split.buffer": [-1.0],
    "split.cuts": [[Disc("x", 0, 100, 3)]],
    "evaluation.patches": [0],
    "evaluation.block_nside": [3],
    "evaluation.cuts": [[Disc("x", 0, 0, 0)]],
}


def refused_train(tmp_path: Path, *words: str) -> str:
    """The refusal of a training that leaves no run behind."""
    place = Place(tmp_path, "dust_demo")
    refusal = sphereml("train", *TINY, *place.words, *words).refusal
    assert not (tmp_path / "runs").exists()
    return refusal


@pytest.mark.parametrize(("word", "says"), UNKNOWN)
def test_unknown_keys_and_names(tmp_path, word, says):
    assert says in refused_train(tmp_path, word)


@pytest.mark.parametrize("word", MALFORMED)
def test_malformed_overrides(tmp_path, word):
    refusal = refused_train(tmp_path, word)
    assert repr(word) in refusal or word in refusal


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    """The one sky of the refusals that need to look at it."""
    folder = tmp_path_factory.mktemp("stores")
    done("simulate", "dust", *GALAXY, "data.galaxy.nside=16", f"data.stores={folder}")
    return folder


@pytest.mark.parametrize("word", IMPOSSIBLE)
def test_impossible_values(tmp_path, stores, word):
    refusal = refused_train(tmp_path, "data.galaxy.nside=16", f"data.stores={stores}", word)
    assert word.split("=")[0].split(".")[-1] in refusal


@pytest.fixture(scope="module")
def config() -> ExperimentConfig:
    return compose(["experiment=dust_demo"])


@pytest.mark.parametrize("key", VALUES)
def test_impossible_values_have_a_mend(config, key):
    for value in VALUES[key]:
        changed = deepcopy(config)
        *parents, leaf = key.split(".")
        part = changed
        for name in parents:
            part = getattr(part, name)
        assert hasattr(part, leaf)
        setattr(part, leaf, value)
        with pytest.raises(UserError) as refusal:
            validate(changed)
        named = str(refusal.value)
        assert key in named or leaf.removesuffix("s") in named or key.split(".")[0] in named


def test_impossible_resolutions_have_a_mend(config):
    for nside, key in ((4, "model.depth"), (1, "model.depth")):
        with pytest.raises(UserError, match=key):
            check_resolution(config, nside)
    config = deepcopy(config)
    config.model.depth = 0
    with pytest.raises(UserError, match=r"bands\.r50"):
        check_resolution(config, 4)
    config.bands.r50, config.patches.pixel_arcmin = [15.0, 30.0], 10.0
    with pytest.raises(UserError, match=r"no Fourier mode .* bands\.r50"):
        check_resolution(config, 64)


def test_a_small_sky_alone_needs_no_network(tmp_path):
    """What a model could not do with it is no matter to ``simulate`` and ``data prepare``."""
    words = [*GALAXY, "data.galaxy.nside=4", f"data.stores={tmp_path}"]
    assert "Nside 4" in done("simulate", "dust", *words).out and "Nside 4" in done("data", "prepare", *words).out


def test_flat_patches_must_suit_the_network(tmp_path):
    assert "patches.size=16 cannot be halved model.depth=5" in refused_train(
        tmp_path, "model=unet_flat", "model.depth=5"
    )
    assert "even side" in refused_train(tmp_path, "model=unet_flat", "model.kernel=2")
    assert "5 to 90 degrees" in refused_train(tmp_path, "model=unet_flat", "patches.pixel_arcmin=10")
    assert "closed-form baselines on none" in refused_train(tmp_path, "model=linear", "model.domain=flat")


@pytest.mark.parametrize("words", [("nosuch",), ("train", "--nosuch"), ("bench", "fft"), ("simulate",), ("compare",)])
def test_bad_command_lines(words):
    assert "--help`" in sphereml(*words).refusal


@pytest.mark.parametrize("words", [("--nside", 3), ("--runs", 0), ("--channels", 0), ("--batch", -1)])
def test_bad_benchmarks(words):
    assert str(words[1]) in sphereml("bench", "conv", "--json", *words).refusal


# ----------------------------------------------------------------------------------------- input maps


def real_words(folder: Path, place: Place, *words: str) -> list[str]:
    """``train`` on FITS maps: the integrated model unless the words say otherwise."""
    model = [] if any(word.startswith("model=") for word in words) else ["model=integrated"]
    return [
        *("train", "experiment=dust_real_sample", *model, f"data.folder={folder}"),
        *(*PATCHES, *TRAINING, *NETWORK, *place.words, *words),
    ]


def cut_short(folder: Path) -> None:
    content = (folder / RINGS).read_bytes()
    (folder / RINGS).write_bytes(content[: len(content) // 2])


def with_pixel(value: float) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        columns = gas_columns()
        columns[1, 7] = value
        write_map(folder / RINGS, columns, "cm^-2")

    return spoil


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda f: (f / TOTAL).unlink(), f"no file .*{TOTAL}"),
    "truncated": (cut_short, f"{RINGS} is truncated"),
    "no FITS": (lambda f: (f / DUST).write_text("not a map"), f"{DUST} is not a readable FITS"),
    "empty file": (lambda f: (f / DUST).write_bytes(b""), DUST),
    "other Nside": (lambda f: write_map(f / TOTAL, np.ones(768), "cm^-2"), f"{TOTAL} has Nside 8 but {RINGS} has 16"),
    "no order": (lambda f: fits.delval(f / RINGS, "ORDERING", ext=1), f"{RINGS} has no valid ORDERING"),
    "wrong order": (
        lambda f: fits.setval(f / RINGS, "ORDERING", value="SPIRAL", ext=1),
        "'SPIRAL'.*'RING' or 'NESTED'",
    ),
    "no frame": (lambda f: fits.delval(f / DUST, "COORDSYS", ext=1), f"{DUST} does not say its frame"),
    "other frame": (
        lambda f: fits.setval(f / DUST, "COORDSYS", value="C", ext=1),
        f"{DUST} is in the equatorial frame",
    ),
    "NaN": (with_pixel(np.nan), f"{RINGS} has 1 pixels that are NaN"),
    "infinite": (with_pixel(np.inf), f"{RINGS} has 1 pixels"),
    "UNSEEN": (with_pixel(healpy.UNSEEN), f"{RINGS} has 1 pixels"),
    "other unit": (lambda f: write_map(f / RINGS, gas_columns(), "K"), f"{RINGS} is in 'K' but"),
    "unknown unit": (lambda f: write_map(f / RINGS, gas_columns(), "furlong"), "unknown unit 'furlong'"),
    "mask of another Nside": (lambda f: write_map(f / MASK, np.ones(768), ""), f"mask {MASK} has Nside 8"),
    "empty mask": (lambda f: write_map(f / MASK, np.zeros(3072), ""), f"mask {MASK} is empty"),
    "mask beyond 0..1": (lambda f: write_map(f / MASK, np.full(3072, 2.0), ""), f"mask {MASK} has values"),
    "mask of gaps": (lambda f: write_map(f / MASK, np.full(3072, np.nan), ""), f"mask {MASK} is empty"),
    "no mask": (lambda f: (f / MASK).unlink(), f"no file .*{MASK}"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_maps(tmp_path, good_sky, fault):
    spoil, says = FAULTS[fault]
    folder = tmp_path / "maps"
    shutil.copytree(good_sky, folder)
    spoil(folder)
    assert re.search(says, sphereml(*real_words(folder, Place(tmp_path, "dust_real_sample"))).refusal)
    assert not (tmp_path / "runs").exists()
    stores = list((tmp_path / "stores").glob("*")) if (tmp_path / "stores").exists() else []
    assert not stores or "mask" in fault, "a good sky may be stored before its mask is read, nothing else"


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("data.folder=/nonexistent", "no data folder /nonexistent"),
        ("data.inputs=[]", "have no inputs"),
        ("data.target=null", "have no target"),
        ("data.target.fields=[9]", f"{DUST} has no field 9"),
        ("data.target.fields=[]", "choose one with data.target.fields"),
        ("data.target.unit=K", f"{DUST} is in 'uK_RJ' but the unit asked for is 'K'"),
        ("split.mask_file=absent.fits", "no file .*absent.fits"),
        ("model.depth=4", "model.depth=4 pools Nside 16 below training.tile_nside"),
        ("training.tile_nside=32", "tile_nside=32"),
        ("split.centre_margin=89.9", "split.centre_margin"),
    ],
)
def test_bad_descriptions_of_maps(tmp_path, good_sky, word, says):
    words = real_words(good_sky, Place(tmp_path, "dust_real_sample"), "model=unet_sphere", word)
    assert re.search(says, sphereml(*words).refusal)
    assert not (tmp_path / "runs").exists()


def test_a_unit_must_be_said(tmp_path, good_sky):
    folder = tmp_path / "maps"
    shutil.copytree(good_sky, folder)
    write_map(folder / RINGS, gas_columns(), "")
    words = real_words(folder, Place(tmp_path, "dust_real_sample"), f"data.inputs=[{{file: {RINGS}}}]")
    assert f"{RINGS} states no unit" in sphereml(*words).refusal


def test_no_data_folder_at_all(tmp_path, monkeypatch):
    monkeypatch.delenv("SPHEREML_REAL_SKY", raising=False)
    refusal = sphereml("data", "prepare", "data=real_sample", f"data.stores={tmp_path}").refusal
    assert "SPHEREML_REAL_SKY" in refusal and "data.folder=PATH" in refusal


def test_changed_maps_are_noticed(tmp_path, good_sky):
    """By ``train``, ``train --resume``, ``compare`` and ``predict``, until --overwrite."""
    folder, place = tmp_path / "maps", Place(tmp_path, "dust_real_sample")
    shutil.copytree(good_sky, folder)
    done(*real_words(folder, place))
    write_map(folder / TOTAL, 2 * gas_columns().sum(axis=0), "cm^-2")
    words = real_words(folder, place)
    for line in (words, [*words, "--resume"], ["compare", place.study], ["predict", place.study]):
        assert "input maps changed" in sphereml(*line).refusal
    assert not (place.study / "templates").exists() and not (place.study / "comparison.json").exists()
    done(*words, "--overwrite")
    done("predict", place.study)


# ----------------------------------------------------------------------------------------- finished runs


@pytest.fixture
def study(demo, tmp_path) -> Place:
    """A copy of the demo's runs that a test may spoil."""
    for model in ("integrated", "linear", "unet_flat"):
        shutil.copytree(demo.run(model), tmp_path / "runs" / "demo" / demo.run(model).name)
    (tmp_path / "stores").symlink_to(demo.root / "stores")
    return Place(tmp_path, "demo")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


SPOILT: dict[str, tuple[Callable[[Place], object], str]] = {
    "configuration edited": (
        lambda s: edit(s.run("unet_flat") / "config.json", '"width": 4', '"width": 5'),
        "was trained with another configuration",
    ),
    "configuration of another run": (
        lambda s: shutil.copy(s.run("linear") / "config.json", s.run("unet_flat") / "config.json"),
        "was trained with another configuration",
    ),
    "configuration with a typo": (
        lambda s: edit(s.run("unet_flat") / "config.json", '"width": 4', '"wdith": 4'),
        "config.json: unknown configuration key",
    ),
    "configuration no YAML": (lambda s: (s.run("unet_flat") / "config.json").write_text("a: [1"), "is no YAML file"),
    "configuration a list": (lambda s: (s.run("unet_flat") / "config.json").write_text("- a"), "no configuration"),
    "configuration empty": (lambda s: (s.run("unet_flat") / "config.json").write_text(""), "no configuration"),
    "weights swapped": (
        lambda s: shutil.copy(s.run("integrated") / "model.safetensors", s.run("linear") / "model.safetensors"),
        "model.safetensors is not the file that was trained",
    ),
    "weights gone": (lambda s: (s.run("linear") / "model.safetensors").unlink(), "model.safetensors is missing"),
    "scaling edited": (
        lambda s: edit(s.run("unet_flat") / "scaling.json", '"gain_limit": ', '"gain_limit": 1'),
        "scaling.json is not the file that was trained",
    ),
    "scaling gone": (lambda s: (s.run("unet_flat") / "scaling.json").unlink(), "scaling.json is missing"),
    "manifest damaged": (lambda s: (s.run("linear") / "manifest.json").write_text("{"), "manifest.json is damaged"),
    "manifest a list": (lambda s: (s.run("linear") / "manifest.json").write_text("[]"), "manifest.json is damaged"),
    "manifest gone": (lambda s: (s.run("linear") / "manifest.json").unlink(), "has no manifest.json"),
    "training unfinished": (
        lambda s: Run.open(s.run("linear")).update(complete=False),
        "is not finished: .*--resume",
    ),
    "manifest edited": (
        lambda s: edit(s.run("linear") / "manifest.json", '"complete": true', '"complete": null'),
        "manifest.json is damaged",
    ),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_spoilt_runs(study, fault):
    spoil, says = SPOILT[fault]
    spoil(study)
    before = files_below(study.study)
    for verb in ("predict", "compare"):
        assert re.search(says, sphereml(verb, study.study).refusal)
    assert files_below(study.study) == before


def test_runs_of_different_experiments_are_not_compared(study, tmp_path):
    words = [*GALAXY, *PATCHES, "experiment=dust_demo", "model=linear", f"data.stores={tmp_path / 'stores'}"]
    done("train", *words, "patches.size=32", f"output={tmp_path / 'patches'}")
    done("train", *words, "split.buffer=9", f"output={tmp_path / 'buffer'}")
    for other, part in (("patches", "patches"), ("buffer", "split")):
        runs = [study.run("integrated"), tmp_path / other / "demo"]
        refusal = sphereml("compare", *runs, "--out", tmp_path / "both").refusal
        assert f"another `{part}`" in refusal
    assert not (tmp_path / "both").exists()


def test_a_run_given_twice_counts_once(study, tmp_path):
    for out, runs in {"once": [study.study], "twice": [study.study, study.run("linear")]}.items():
        done("compare", *runs, "--out", tmp_path / out)
    once, twice = (json.loads((tmp_path / out / "comparison.json").read_text()) for out in ("once", "twice"))
    assert [list(one["models"]) for one in (once, twice)] == [["integrated", "linear", "unet_flat"]] * 2
    assert once["models"]["linear"]["sphere"] == twice["models"]["linear"]["sphere"]


def test_runs_on_different_skies_are_not_compared(study, tmp_path):
    words = [*GALAXY, "data.galaxy.seed=2", *PATCHES, "experiment=dust_demo", "model=linear"]
    done("train", *words, f"data.stores={tmp_path / 'other_stores'}", f"output={tmp_path / 'other'}")
    runs = [study.run("integrated"), tmp_path / "other" / "demo"]
    refusal = sphereml("compare", *runs, "--out", tmp_path / "both").refusal
    assert "input maps changed" in refusal or "other data" in refusal
    assert not (tmp_path / "both").exists()


def test_a_comparison_needs_no_baseline(study):
    for model in ("integrated", "linear"):
        shutil.rmtree(study.run(model))
    assert "unet_flat" in done("compare", study.study).out
    content = json.loads((study.study / "comparison.json").read_text())
    assert content["models"]["unet_flat"]["wins_vs_integrated"] is None and content["paired"] == {"unet_flat": {}}


@pytest.mark.parametrize("verb", ["predict", "compare"])
def test_missing_runs(tmp_path, verb):
    assert f"no folder {tmp_path / 'absent'}" in sphereml(verb, tmp_path / "absent").refusal
    assert "holds no run" in sphereml(verb, tmp_path).refusal
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in sphereml(verb, tmp_path / "file").refusal


def test_report_without_a_comparison(tmp_path):
    assert "comparison.json does not exist" in sphereml("report", tmp_path).refusal
    (tmp_path / "comparison.json").write_text('{"split": ')
    assert "comparison.json cannot be read" in sphereml("report", tmp_path).refusal
    assert files_below(tmp_path) == {"comparison.json"}


def test_standing_templates_are_kept(study):
    done("predict", study.study)
    templates = study.study / "templates"
    (templates / "integrated.fits").unlink()
    stamp = (templates / "linear.fits").stat().st_mtime_ns
    assert "linear.fits exists: add --overwrite" in sphereml("predict", study.study).refusal
    assert (templates / "linear.fits").stat().st_mtime_ns == stamp
    assert not (templates / "integrated.fits").exists(), "all templates or none"


def test_diverged_weights_make_no_template(study):
    """A training that ran off to NaN is said to have done so."""
    import torch

    from sphereml.training.runs import Run

    run = Run.open(study.run("linear"))
    run.finish({key: value * torch.nan for key, value in run.weights().items()}, run.scaling())
    assert "diverged" in sphereml("predict", run.folder).refusal
    assert files_below(study.study / "templates") == set()


# ----------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/sphereml"])
def test_outputs_that_cannot_be_written(study, tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    target = tmp_path / place
    words = [*GALAXY, *PATCHES, "model=linear", f"data.stores={tmp_path / 'stores'}"]
    lines: list[list[str | Path]] = [
        ["train", *words, f"output={target}"],
        ["simulate", "dust", *GALAXY, "data.galaxy.nside=8", f"data.stores={target}"],
        ["predict", study.run("linear"), "--out", target],
        ["compare", study.run("integrated"), "--out", target],
    ]
    for line in lines:
        assert place.split("/")[0] in sphereml(*line).refusal
    assert (tmp_path / "file").read_text() == "in the way"


# ----------------------------------------------------------------------------------------- marginalize


@pytest.fixture
def inputs(tmp_path) -> Callable[..., Outcome]:
    """``sphereml marginalize`` on three good files, or on what a test puts in their place."""
    columns = 1e-20 * gas_columns()
    write_map(tmp_path / "sky.fits", columns[0] + 3 * columns[1], "uK_CMB")
    write_map(tmp_path / "mask.fits", np.ones(3072), "")
    write_map(tmp_path / "dust.fits", columns[1], "uK_RJ")

    def run(*more: object, **given: str | Path) -> Outcome:
        files = {"sky": "sky.fits", "mask": "mask.fits", "template": "dust.fits"} | given
        named = [word for key, name in files.items() for word in (f"--{key}", tmp_path / name)]
        return sphereml("marginalize", *named, "--out", tmp_path / "out", *(str(word) for word in more))

    return run


def test_bad_marginalizations(inputs, tmp_path):
    columns = gas_columns()
    write_map(tmp_path / "coarse.fits", np.ones(768), "uK_RJ")
    write_map(tmp_path / "holes.fits", np.r_[np.nan, columns[1][1:]], "uK_RJ")
    write_map(tmp_path / "constant.fits", np.ones(3072), "uK_RJ")
    write_map(tmp_path / "empty.fits", np.zeros(3072), "")
    write_map(tmp_path / "unitless.fits", columns[1], "")
    for given, says in (
        ({"template": "coarse.fits"}, "coarse.fits has Nside 8, the sky has 16"),
        ({"mask": "coarse.fits"}, "coarse.fits has Nside 8 but the maps have 16"),
        ({"template": "holes.fits"}, "holes.fits misses 1 pixels"),
        ({"sky": "holes.fits"}, "holes.fits misses 1 pixels"),
        ({"template": "constant.fits"}, "constant on the mask"),
        ({"mask": "empty.fits"}, "empty.fits is empty"),
        ({"sky": "unitless.fits"}, "unitless.fits states no unit"),
        ({"template": "absent.fits"}, "absent.fits"),
    ):
        assert says in inputs(**given).refusal
    for more, says in (
        (["--lmin", 0], "lmin=0"),
        (["--lmax", 500], "lmax=500"),
        (["--lmin", 30, "--lmax", 20], "lmin=30"),
        (["--apodize", -1], "apodization=-1"),
        (["--field", 5], "no field 5"),
        (["--template", tmp_path / "dust.fits", tmp_path / "dust.fits"], "linearly dependent"),
        (["--lmin", "two"], "lmin"),
    ):
        assert says in inputs(*more).refusal
    assert not (tmp_path / "out").exists()


def test_standing_marginalizations_are_kept(inputs, tmp_path):
    assert inputs().code == 0
    (tmp_path / "out" / "cleaned.fits").unlink()
    assert "marginalization.json exists: add --overwrite" in inputs().refusal
    assert not (tmp_path / "out" / "cleaned.fits").exists()
    assert inputs("--overwrite").code == 0


def test_marginalization_into_a_file(inputs, tmp_path):
    (tmp_path / "out").write_text("in the way")
    assert "out is a file" in inputs().refusal
