"""Every file that ships in ``configs/`` and ``data_manifests/`` loads, holds together and keeps its name."""

from __future__ import annotations

import pytest
import yaml
from fixtures_cli import GALAXY, NETWORK, PATCHES, TRAINING, sphereml

from sphereml.config.compose import compose, load, run_hash, to_json, to_yaml
from sphereml.config.overrides import config_names, schema_keys
from sphereml.config.resources import resource_folder
from sphereml.config.schema import ExperimentConfig
from sphereml.config.tasks import SCHEMAS, is_used
from sphereml.config.validation import check_resolution
from sphereml.data.manifests import list_products, load_manifest
from sphereml.errors import UserError
from sphereml.tasks import TASKS

NAMES = config_names()
CHOICES = [(group, name) for group in ("data", "split", "model", "training") for name in NAMES[group]]
MANIFESTS = sorted(resource_folder("data_manifests").glob("*.yaml"))


def same_after_saving(config: ExperimentConfig, tmp_path, forms=(to_json,)) -> None:
    """What a run's config.json must be: every key that the task uses, and the same configuration when read."""
    path = tmp_path / "config.yaml"
    for form in forms:
        path.write_text(text := form(config))
        again = load(path)
        assert again == config and run_hash(again) == run_hash(config)
        sections = {key for key in schema_keys() if "." not in key and is_used(config.task, key)}
        assert set(yaml.load(text, yaml.CSafeLoader)) == sections | {"data"}


@pytest.mark.parametrize("name", NAMES["experiment"])
def test_every_experiment_composes(name, tmp_path):
    config = compose([f"experiment={name}"])
    same_after_saving(config, tmp_path, (to_json, to_yaml))
    assert set(config.models) <= set(NAMES["model"])
    assert not is_used(config.task, "data.galaxy") or "integrated" in config.models
    hashes = set()
    for model in config.models:
        one = compose([f"experiment={name}", f"model={model}"])
        assert one.model.name == model
        assert (one.data, one.split, one.bands, one.patches, one.evaluation) == (
            *(config.data, config.split, config.bands, config.patches, config.evaluation),
        ), "models of an experiment must be comparable"
        hashes.add(run_hash(one))
    assert len(hashes) == len(config.models)


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes(group, name, tmp_path):
    words = ["experiment=lensing_quick"] if name.startswith(("lensing", "resunet")) else []
    config = compose([*words, f"{group}={name}"])
    same_after_saving(config, tmp_path)
    if group != "training":
        assert getattr(config, group).name == name


@pytest.mark.parametrize("name", NAMES["model"])
def test_the_command_line_has_the_last_word(name):
    """Also over what a model's file says about training."""
    config = compose([f"model={name}", *GALAXY, *PATCHES, *TRAINING, *NETWORK])
    assert (config.training.epochs, config.training.batch_size) == (2, 2)
    assert (config.model.width, config.model.depth) == (4, 1)


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=lensing_quick", "loss.lambda_r=3"],
        ["experiment=lensing_quick", "split.buffer=3"],
        ["experiment=lensing_quick", "split=folds"],
        ["experiment=lensing_quick", "data=galaxy"],
        ["experiment=lensing_quick", "evaluation.block_nside=4"],
        ["experiment=lensing_quick", "model.gains=one"],
        ["lensing.noise=5"],
    ],
    ids=" ".join,
)
def test_a_key_that_the_task_does_not_use_is_refused(words):
    refusal = sphereml("config", "validate", *words).refusal
    assert f"has no use for {words[-1].split('=')[0]}" in refusal


def test_only_networks_that_pool_the_sky_ask_for_tiles_that_can_be_pooled():
    small = ["experiment=dust_demo", "data.galaxy.nside=32", "training.tile_nside=8", "patches.size=18"]
    check_resolution(compose([*small, "model=spectral", "model.depth=4"]), 32)
    compose([*small, "model.arch=stack", "model.domain=flat"])
    with pytest.raises(UserError, match=r"below training\.tile_nside"):
        check_resolution(compose([*small, "model=unet_sphere", "model.depth=4"]), 32)


def test_every_task_has_a_schema_and_its_settings_are_in_the_files():
    assert set(SCHEMAS) == set(TASKS)
    for name, schema in SCHEMAS.items():
        assert schema.settings is None or name in schema_keys()


def test_hashes_do_not_depend_on_how_a_value_is_written():
    spellings = ["training.learning_rate=1e-3", "training.learning_rate=0.001", "++training.learning_rate=1.0e-3"]
    assert len({run_hash(compose([spelling])) for spelling in spellings}) == 1
    assert run_hash(compose(["patches.pixel_arcmin=20"])) == run_hash(compose(["patches.pixel_arcmin=20.0"]))


def test_the_schema_and_the_files_agree():
    """``config list`` and ``config validate`` are about the same names."""
    listed = sphereml("config", "list").out
    for group, names in NAMES.items():
        assert f"{group}: {' '.join(names)}\n" in listed
    assert {"split.cuts.radius", "data.total.file", "data.inputs.unit", "evaluation.cuts.name"} <= set(schema_keys())


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_every_manifest_loads(path):
    products = load_manifest(path)
    assert products and all(product.files and product.licence for product in products)
    assert {product.name for product in products} <= {product.name for product in list_products()}
