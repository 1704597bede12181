"""Training as a run on disk: repeatable to the last bit, also when interrupted; named by its configuration."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_cli import GALAXY, PATCHES, Outcome, Place, done, sphereml

from sphereml.config.compose import compose
from sphereml.data.file_checksums import file_checksum
from sphereml.errors import UserError
from sphereml.training.loggers import open_loggers
from sphereml.training.regression import Regression
from sphereml.training.runs import Run, find_runs

SMALL = ["data.galaxy.nside=16" if "nside" in word else word for word in GALAXY]
STEPS = 2
# Noise and dropout draw random numbers, which a resumed training must draw again.
SETTINGS = [
    *("model.width=4", "model.depth=1", "model.input_noise=0.1", "model.dropout=0.3"),
    *("training.epochs=3", f"training.steps_per_epoch={STEPS}", "training.validation_batches=1"),
    *("training.batch_size=2", "training.decay_every=2", "name=test"),
]
NETWORKS = ("unet_flat", "unet_sphere")


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    """One prepared sky for all."""
    return tmp_path_factory.mktemp("stores")


@pytest.fixture
def train(stores, tmp_path) -> Callable[..., Outcome]:
    """``sphereml train`` into a fresh folder."""

    def run(model: str, *words: str, output: str = "runs") -> Outcome:
        place = [f"output={tmp_path / output}", f"data.stores={stores}", f"model={model}"]
        return sphereml("train", *SMALL, *PATCHES, *SETTINGS, *place, *words)

    return run


def the_run(folder: Path, model: str = "") -> Run:
    """The one finished run (of a model) below a folder."""
    (path,) = folder.glob(f"test/{model or '*'}-????????")
    return Run.open(path)


def same_weights(one: Run, other: Run) -> bool:
    a, b = one.weights(), other.weights()
    assert a.keys() == b.keys()
    return all(torch.equal(a[key], b[key]) for key in a)


class Interrupted:
    """Ctrl-C in the middle of the training step number ``at``, counted from 0 over all epochs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.patch, self.at = monkeypatch, at

    def __enter__(self) -> None:
        step = Regression.training_step

        def interrupted(module: Regression, *batch: object) -> torch.Tensor:
            if module.global_step == self.at:
                raise KeyboardInterrupt
            return step(module, *batch)  # type: ignore[arg-type]

        self.patch.setattr(Regression, "training_step", interrupted)

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


@pytest.mark.parametrize("model", NETWORKS)
def test_the_seed_alone_decides(train, tmp_path, model):
    for output, words in (("one", []), ("two", []), ("other", ["training.seed=2"])):
        assert train(model, *words, output=output).code == 0
    one, two, other = (the_run(tmp_path / output) for output in ("one", "two", "other"))
    assert one.folder.name == two.folder.name and one.folder.name != other.folder.name
    assert file_checksum(one.weights_path) == file_checksum(two.weights_path)
    assert not same_weights(one, other)


# Before anything was saved, at the first step of an epoch, in the middle of one, and in the last.
@pytest.mark.parametrize(
    ("model", "at"),
    [("unet_sphere", 0), ("unet_sphere", STEPS), ("unet_sphere", 2 * STEPS + 1), ("unet_flat", STEPS + 1)],
)
def test_resumed_is_bit_identical(train, tmp_path, monkeypatch, model, at):
    assert train(model, output="whole").code == 0
    with Interrupted(monkeypatch, at):
        outcome = train(model)
    assert outcome.code == 130
    assert outcome.err.count("\n") == 1 and "--resume" in outcome.err
    folder = next((tmp_path / "runs" / "test").iterdir())
    assert not (folder / "model.safetensors").exists()
    refused = train(model)
    assert "unfinished" in refused.refusal and "--resume" in refused.refusal
    resumed = train(model, "--resume")
    assert resumed.code == 0, resumed.err
    assert resumed.out.count("epoch") == 3 - at // STEPS
    assert same_weights(the_run(tmp_path / "whole"), the_run(tmp_path / "runs"))
    facts = [the_run(tmp_path / output).manifest() for output in ("whole", "runs")]
    assert facts[0]["best_epoch"] == facts[1]["best_epoch"] and facts[0]["val_loss"] == facts[1]["val_loss"]


def test_resume_after_the_last_epoch(train, tmp_path, monkeypatch):
    """The power fails between the last epoch and the export."""
    assert train("unet_sphere", output="whole").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert train("unet_sphere").code == 130
    assert train("unet_sphere", "--resume").code == 0
    assert same_weights(the_run(tmp_path / "whole"), the_run(tmp_path / "runs"))


def test_a_model_is_complete_only_at_the_end(train, tmp_path, monkeypatch):
    """The power fails after the weights were written, before the last facts about them were."""
    update = Run.update

    def failing(run: Run, **facts: object) -> None:
        if "seconds_train" in facts:
            raise KeyboardInterrupt
        update(run, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "update", failing)
        assert train("linear").code == 130
    assert "unfinished" in train("linear").refusal
    assert "not finished" in sphereml("predict", tmp_path / "runs" / "test").refusal
    assert train("linear", "--resume").code == 0
    assert the_run(tmp_path / "runs").manifest()["seconds_train"] >= 0


def test_a_finished_run_is_left_alone(train, tmp_path):
    assert train("unet_sphere").code == 0
    run = the_run(tmp_path / "runs")
    stamps = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    for flags in ([], ["--resume"]):
        again = train("unet_sphere", *flags)
        assert again.code == 0 and "already trained" in again.out
    assert stamps == {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    (run.folder / "left from before").touch()
    assert train("unet_sphere", "--overwrite").code == 0
    assert same_weights(run, the_run(tmp_path / "runs"))
    assert run.weights_path.stat().st_mtime_ns > stamps[run.weights_path]
    assert not (run.folder / "left from before").exists()


def test_overwrite_restarts_an_unfinished_run(train, tmp_path, monkeypatch):
    assert train("unet_sphere", output="whole").code == 0
    with Interrupted(monkeypatch, STEPS + 1):
        train("unet_sphere")
    restarted = train("unet_sphere", "--overwrite")
    assert restarted.code == 0 and restarted.out.count("epoch") == 3
    assert same_weights(the_run(tmp_path / "whole"), the_run(tmp_path / "runs"))


def test_the_best_epoch_is_exported(train, tmp_path, monkeypatch):
    losses = [0.5, 0.1, 0.9]

    def validation_step(module: Regression, *_: object) -> None:
        module.log("val_loss", losses[module.current_epoch], batch_size=1)

    monkeypatch.setattr(Regression, "validation_step", validation_step)
    assert train("unet_sphere", output="three").code == 0
    assert train("unet_sphere", "training.epochs=2", output="two").code == 0
    assert train("unet_sphere", "training.epochs=1", output="one").code == 0
    three, two, one = (the_run(tmp_path / output) for output in ("three", "two", "one"))
    assert three.manifest()["best_epoch"] == 1 and three.manifest()["val_loss"] == pytest.approx(0.1)
    assert same_weights(three, two) and not same_weights(three, one)


def test_training_stops_when_nothing_improves(train, tmp_path, monkeypatch):
    def validation_step(module: Regression, *_: object) -> None:
        module.log("val_loss", 1.0 + module.current_epoch, batch_size=1)

    monkeypatch.setattr(Regression, "validation_step", validation_step)
    outcome = train("unet_sphere", "training.epochs=9", "training.patience=2")
    assert outcome.code == 0 and outcome.out.count("epoch") == 3
    assert the_run(tmp_path / "runs").manifest()["best_epoch"] == 0


def test_the_folder_is_complete(train, tmp_path):
    assert train("unet_flat").code == 0
    run = the_run(tmp_path / "runs")
    manifest = run.manifest()
    assert manifest["complete"] is True
    assert {"code", "python", "torch", "seed", "data", "nside", "seconds_train", "epochs"} <= manifest.keys()
    assert manifest["weights_sha256"] == file_checksum(run.weights_path)
    assert manifest["scaling_sha256"] == file_checksum(run.scaling_path)
    assert manifest["data"]["seed"] == compose(SMALL).data.galaxy.seed
    assert manifest["nside"] == 16 and manifest["seed"] == 1
    json.loads(run.scaling_path.read_text())
    rows = list(csv.DictReader((run.folder / "logs" / "csv" / "metrics.csv").open()))
    for column in ("train_loss", "val_loss", "val_r50"):
        assert len([row for row in rows if row[column]]) == 3, column
        assert all(np.isfinite(float(row[column])) for row in rows if row[column])
    assert list((run.folder / "logs" / "tensorboard").glob("events.out.tfevents.*"))
    assert {"best.ckpt", "last.ckpt", "previous.ckpt"} == {path.name for path in run.checkpoints.iterdir()}
    assert Run.of(run.config).folder == run.folder, "config.json leads back to its folder"
    card = (run.folder / "README.md").read_text()
    assert "unet on flat" in card and "galaxy, seed" in card and "dust_demo" not in card


def test_the_folder_is_named_by_the_configuration():
    def folder(*words: str) -> Path:
        return Run.of(compose(["experiment=dust_demo", *words])).folder

    same = ["output=b", "data.stores=c", "data.folder=d", "models=[linear]", "evaluation.patches=5"]
    assert folder("output=a").name == folder(*same, "training.threads=3").name
    assert folder("output=a").parent == Path("a/demo")
    changes = [
        "training.seed=2",
        "data.galaxy.seed=2",
        "model.width=5",
        "split.buffer=9",
        "loss.l1=2",
        "patches.size=32",
    ]
    changes += ["bands.r50=[15, 99]", "training.learning_rate=0.5", "model=linear"]
    names = [folder(), *(folder(change) for change in changes)]
    assert len({path.name.split("-")[-1] for path in names}) == len(names)


def test_runs_are_found_baselines_first(train, tmp_path):
    for model in ("linear", "integrated", "unet_flat"):
        assert train(model, "training.epochs=1").code == 0
    assert [run.name for run in find_runs(tmp_path / "runs" / "test")] == ["integrated", "linear", "unet_flat"]


def test_interruption_during_the_baselines_of_an_experiment(stores, tmp_path, monkeypatch):
    """``train`` of several models goes on with the first unfinished one."""
    place = Place(tmp_path, "demo")
    shutil.copytree(stores, tmp_path / "stores")
    words = ["experiment=dust_demo", "models=[linear,unet_sphere]", *SMALL, *PATCHES]
    words += [word for word in SETTINGS if not word.startswith("name")]
    with Interrupted(monkeypatch, 1):
        assert sphereml("train", *words, *place.words).code == 130
    said = done("train", *words, *place.words, "--resume").out
    assert "linear: already trained" in said and said.count("epoch") == 3


def test_settings_are_logged_and_a_missing_logger_is_said_before_training(train, tmp_path, monkeypatch):
    assert train("unet_flat", "training.logger=csv").code == 0
    run = the_run(tmp_path / "runs")
    assert [path.name for path in (run.folder / "logs").iterdir()] == ["csv"]
    shown = (run.folder / "logs" / "csv" / "hparams.yaml").read_text()
    assert "training.learning_rate: 0.001" in shown and "model.width: 4" in shown
    assert (
        Run.of(compose(["experiment=dust_demo", "training.logger=csv"])).folder
        == Run.of(compose(["experiment=dust_demo"])).folder
    )
    _one_mlflow_run_for_both(run, monkeypatch)
    monkeypatch.setattr("sphereml.training.fit.find_spec", lambda name: None)
    refused = train("unet_sphere", "training.logger=wandb")
    assert "pip install 'sphereml[logging]'" in refused.refusal and not list(tmp_path.glob("runs/test/unet_sphere*"))


def _one_mlflow_run_for_both(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed training goes on in the MLflow run of its first start; a server that refuses is one line."""
    asked, logged = [], []

    class Server:
        run_id = "abc"

        def __init__(self, experiment: str, **options: str | None) -> None:
            if options["tracking_uri"] == "http://nowhere":
                raise RuntimeError("no route\nto it")
            asked.append(options)

        def log_hyperparams(self, settings: dict[str, object]) -> None:
            logged.append(settings)

    monkeypatch.setattr("sphereml.training.loggers.MLFlowLogger", Server)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run.config.training.logger = "mlflow"
    for _ in range(2):
        assert isinstance(open_loggers(run)[-1], Server)
    assert [options["run_id"] for options in asked] == [None, "abc"] and logged[0]["model.width"] == 4
    assert all(options["tracking_uri"].endswith("logs/mlflow/mlflow.db") for options in asked)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://nowhere")
    with pytest.raises(UserError, match=r"training.logger=mlflow does not open \(no route\)"):
        open_loggers(run)
