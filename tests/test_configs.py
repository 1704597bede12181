"""Every file that ships in ``configs/`` and ``data_manifests/`` loads, holds together and keeps its name."""

from __future__ import annotations

import pytest
import yaml
from fixtures_cli import GALAXY, NETWORK, PATCHES, TRAINING, sphereml

from sphereml.config.compose import compose, load, run_hash, to_yaml
from sphereml.config.overrides import config_names, schema_keys
from sphereml.config.resources import resource_folder
from sphereml.config.schema import ExperimentConfig
from sphereml.data.manifests import list_products, load_manifest

NAMES = config_names()
CHOICES = [(group, name) for group in ("data", "split", "model", "training") for name in NAMES[group]]
MANIFESTS = sorted(resource_folder("data_manifests").glob("*.yaml"))


def same_after_saving(config: ExperimentConfig, tmp_path) -> None:
    """What a run's config.yaml must be: complete, and the same configuration when read."""
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    again = load(path)
    assert again == config and run_hash(again) == run_hash(config)
    assert set(yaml.safe_load(path.read_text())) == {key for key in schema_keys() if "." not in key}


@pytest.mark.parametrize("name", NAMES["experiment"])
def test_every_experiment_composes(name, tmp_path):
    config = compose([f"experiment={name}"])
    assert config == compose([f"experiment={name}"])
    same_after_saving(config, tmp_path)
    assert set(config.models) <= set(NAMES["model"])
    assert config.task == "lensing" or "integrated" in config.models
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
    config = compose([f"{group}={name}"])
    same_after_saving(config, tmp_path)
    if group != "training":
        assert getattr(config, group).name == name


@pytest.mark.parametrize("name", NAMES["model"])
def test_the_command_line_has_the_last_word(name):
    """Also over what a model's file says about training."""
    config = compose([f"model={name}", *GALAXY, *PATCHES, *TRAINING, *NETWORK])
    assert (config.training.epochs, config.training.batch_size) == (2, 2)
    assert (config.model.width, config.model.depth) == (4, 1)


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
