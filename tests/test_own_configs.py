"""Configurations of one's own: where they are looked for, what they may leave out, and what their keys mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from fixtures_cli import done, sphereml

from sphereml.config.compose import compose, run_hash, to_yaml
from sphereml.config.documentation import document_keys
from sphereml.config.overrides import experiment_schema, schema_keys
from sphereml.config.resources import config_folders, searching
from sphereml.config.validation import allowed_values
from sphereml.errors import UserError

EXPERIMENT = """# @package _global_
defaults:
  - override /model: linear
  - _self_
name: {name}
split:
  buffer: {buffer}
"""


def put(folder: Path, buffer: float, name: str = "mine") -> Path:
    """A folder with an experiment of this name."""
    path = folder / "experiment" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(EXPERIMENT.format(name=name, buffer=buffer))
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPHEREML_CONFIGS", raising=False)


def test_the_folder_named_first_wins(tmp_path, monkeypatch):
    put(tmp_path / "configs", 1)
    assert compose(["experiment=mine"]).split.buffer == 1
    monkeypatch.setenv("SPHEREML_CONFIGS", f"{put(tmp_path / 'two', 2)}:{put(tmp_path / 'three', 3)}")
    assert compose(["experiment=mine"]).split.buffer == 2
    with searching([put(tmp_path / "it's, [a] folder=4", 4)]):
        assert compose(["experiment=mine"]).split.buffer == 4
        assert compose(["experiment=dust_demo"]).name == "demo", "the shipped ones stay"
    assert compose(["experiment=mine"]).model.arch == "linear"


def test_ones_own_file_shadows_a_shipped_one(tmp_path):
    model = tmp_path / "configs" / "model" / "linear.yaml"
    model.parent.mkdir(parents=True)
    model.write_text("name: linear\narch: linear\ndomain: none\nwidth: 77\n")
    (tmp_path / "configs" / "config.yaml").write_text("of: another program\n")
    assert compose(["experiment=dust_demo", "model=linear"]).model.width == 77
    assert compose(["experiment=dust_demo", "model=integrated"]).model.width != 77
    assert f"of {tmp_path / 'configs'}: model: linear" in done("config", "list").out


@pytest.mark.parametrize("words", ["config validate", "config show", "train --cfg job", "data prepare --cfg job"])
def test_every_verb_takes_a_folder(tmp_path, words):
    put(tmp_path / "here", 5)
    line = [*words.split(), "experiment=mine"]
    assert "no experiment 'mine'" in sphereml(*line).refusal
    done(*line, "--config-dir", tmp_path / "here")
    assert "no folder" in sphereml(*line, "--config-dir", tmp_path / "nowhere").refusal


def test_a_file_is_an_experiment(tmp_path):
    path = tmp_path / "my first try.yaml"
    path.write_text("split:\n  buffer: 3\n")
    config = compose([str(path), "model=linear"])
    assert (config.name, config.split.buffer, config.model.name) == ("my_first_try", 3, "linear")
    assert run_hash(config) == run_hash(compose(["split.buffer=3", "model=linear", "name=my_first_try"]))
    saved = tmp_path / "saved.yml"
    saved.write_text(to_yaml(config))
    assert compose([str(saved)]) == config
    assert "my_first_try" in done("config", "show", path.name, "--plain").out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("split: [\n", "no YAML file (line 2)"),
        ("- a\n", "holds no keys"),
        ("", "holds no keys"),
        ("split:\n  bufer: 3\n", "did you mean split.buffer"),
        ("task: maps\ndata:\n  total: {file: x}\n", "no use for data.total"),
        ("defaults:\n  - override /model: nosuch\n", "nosuch"),
    ],
)
def test_files_that_are_no_experiment(tmp_path, text, says):
    (tmp_path / "x.yaml").write_text(text)
    assert says in sphereml("config", "validate", "x.yaml").refusal


def test_what_is_missing_is_said(tmp_path):
    assert "there is no file x.yaml" in sphereml("train", "x.yaml").refusal
    put(tmp_path / "configs", 1)
    (tmp_path / "y.yaml").write_text("name: y\n")
    assert "two experiments" in sphereml("train", "y.yaml", "experiment=mine").refusal
    bare = tmp_path / "configs" / "experiment" / "bare.yaml"
    bare.write_text("split: {buffer: 2}\n")
    assert "# @package _global_" in sphereml("config", "validate", "experiment=bare").refusal


def test_what_hydra_users_type(tmp_path):
    shown = done("train", "experiment=dust_demo", "training.epochs=3", "--cfg", "job").out
    assert yaml.safe_load(shown)["training"]["epochs"] == 3 and not (tmp_path / "runs").exists()
    assert yaml.safe_load(done("demo", "--cfg", "job").out)["name"] == "demo"
    assert yaml.safe_load(done("study", "dust", "--cfg=job").out)["name"] == "demo"
    for flag in ("-m", "--multirun"):
        assert "only `sphereml train` sweeps" in sphereml("study", flag, "dust", "training.seed=1,2").refusal
    assert "job" in sphereml("train", "--cfg", "hydra").refusal


def test_every_key_is_documented():
    documents = document_keys(experiment_schema(), allowed_values("dust"))
    assert set(documents) == set(schema_keys())
    buffer, arch = documents["split.buffer"], documents["model.arch"]
    assert buffer.unit == "deg" and "test side" in buffer.meaning
    assert arch.choices == ("unet", "resunet", "stack", "spectral", "linear", "integrated", "tensor", "hough")
    shown = done("config", "show", "experiment=dust_demo").out
    assert "  # no training pixel is nearer to the test side [deg]\n  buffer: 8.0\n" in shown
    assert yaml.safe_load(shown) == yaml.safe_load(done("config", "show", "experiment=dust_demo", "--plain").out)


def test_folders_that_are_none(monkeypatch):
    monkeypatch.setenv("SPHEREML_CONFIGS", "/no/such/folder")
    with pytest.raises(UserError, match="SPHEREML_CONFIGS"):
        config_folders()
