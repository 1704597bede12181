"""Nothing is lost and nothing damaged is used: signals, damaged checkpoints, two processes, late divergence."""

from __future__ import annotations

import json
import os
import pickle
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from fixtures_cli import DUST, GALAXY, MASK, PATCHES, RINGS, TOTAL, done, sphereml

from sphereml.cli.signals import Stopped, stoppable
from sphereml.data.holdings import lock
from sphereml.data.whole_files import write_atomically
from sphereml.training.checkpoints import LAST, PREVIOUS
from sphereml.training.held_signals import HeldSignals
from sphereml.training.regression import Regression
from sphereml.training.runs import Run

SMALL = ["data.galaxy.nside=16" if "nside" in word else word for word in GALAXY]
WORDS = [
    *(*SMALL, *PATCHES, "model=unet_sphere", "model.width=4", "model.depth=1", "name=test"),
    *("training.epochs=3", "training.steps_per_epoch=2", "training.validation_batches=1", "training.batch_size=2"),
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture
def words(stores: Path, tmp_path: Path) -> list[str]:
    return [*WORDS, f"data.stores={stores}", f"output={tmp_path}"]


def the_folder(tmp_path: Path) -> Path:
    (folder,) = (path for path in (tmp_path / "test").iterdir() if not path.name.startswith("."))
    return folder


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Ctrl-C in the training step number ``at``."""
    step = Regression.training_step

    def interrupted(module: Regression, *batch: object) -> torch.Tensor:
        if module.global_step == at:
            raise KeyboardInterrupt
        return step(module, *batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Regression, "training_step", interrupted)


class Trap:
    """An object whose unpickling leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(words, tmp_path, monkeypatch):
    done("train", *words, f"output={tmp_path / 'whole'}")
    with monkeypatch.context() as patch:
        interrupt(patch, 4)
        assert sphereml("train", *words).code == 130
    checkpoints = the_folder(tmp_path) / "checkpoints"
    content = bytearray((checkpoints / LAST).read_bytes())
    content[len(content) // 2] ^= 4
    (checkpoints / LAST).write_bytes(content)
    said = done("train", *words, "--resume").out
    assert f"{LAST} is damaged: going on from the one before" in said
    whole, resumed = (Run.open(the_folder(place)) for place in (tmp_path / "whole", tmp_path))
    assert all(torch.equal(value, resumed.weights()[key]) for key, value in whole.weights().items())


def test_a_checkpoint_runs_no_code(words, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, 4)
        sphereml("train", *words)
    checkpoints, mark = the_folder(tmp_path) / "checkpoints", tmp_path / "mark"
    for name in (LAST, PREVIOUS):
        (checkpoints / name).write_bytes(pickle.dumps(Trap(mark)))
    refused = sphereml("train", *words, "--resume")
    assert "checkpoints" in refused.refusal and "--overwrite" in refused.refusal
    done("train", *words, "--overwrite")
    expected = Run.open(the_folder(tmp_path)).weights()
    # Under Slurm Lightning looks for such a file in the working folder.
    for name, value in {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "interactive"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    torch.save({"trap": Trap(mark)}, "hpc_ckpt_1.ckpt")
    Path(LAST).write_bytes(pickle.dumps(Trap(mark)))
    done("train", *words, "--overwrite")
    assert not mark.exists()
    assert all(torch.equal(value, expected[name]) for name, value in Run.open(the_folder(tmp_path)).weights().items())


def test_a_trap_is_one(tmp_path):
    """Unpickled, the file of the test above would leave its mark."""
    pickle.loads(pickle.dumps(Trap(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


def test_stores_are_named_and_cleaned(tmp_path):
    stores = tmp_path / "stores"
    said = done("train", *WORDS, "model=linear", f"data.stores={stores}", f"output={tmp_path / 'runs'}").out
    (path,) = stores.iterdir()
    assert f"the sky is kept for the next time in {path}" in said
    shutil.copytree(path, stores / "old.zarr")
    (stores / "old.zarr" / "inputs" / "zarr.json").write_bytes(b"")
    said = done("data", "clean", stores).out
    assert f"removed: {stores / 'old.zarr'}" in said and "it is damaged" in said and f"kept: {path}" in said
    assert "1 stores removed" in done("data", "clean", stores, "--all").out and not list(stores.iterdir())
    assert "there is no folder" in sphereml("data", "clean", tmp_path / "nowhere").refusal


_REFUSED = [
    ["train", "nosuch=1"],
    ["train", "experiment=dust_demo", "training.epochs=0"],
    ["study", "lensing", "lensing.lmin=0"],
    ["simulate", "lensing", "lensing.skies=0"],
    ["compare", "nowhere"],
    ["predict", "nowhere", "--out", "x"],
    ["report", "nowhere"],
    ["marginalize", "--sky", "bad.fits", "--mask", "bad.fits", "--template", "bad.fits"],
    ["spectra", "bad.fits", "--mask", "bad.fits", "--edges", "2,8"],
    ["hough", "bad.fits", "--out", "x.fits"],
    ["hough", "bad.fits", "--out", "x.fits", "--orientations", "1"],
    ["lensing", "n0", "--noise", "-1", "--beam", "1"],
    ["lensing", "estimate", "--qu", "bad.fits", "--noise", "1", "--beam", "1", "--out", "x.fits"],
    ["lensing", "template", "--e", "bad.fits", "--kappa", "bad.fits", "--out", "x.fits"],
    ["data", "info", "nowhere"],
    ["bench", "conv", "--nside", "3"],
    ["train", "experiment=dust_real_sample", "data.folder=."],
]
_MODULES = """
import json, sys
from sphereml.cli.main import main
codes = [main(words) for words in json.loads(sys.argv[1])]
print(json.dumps([codes, [name for name in ("torch", "camb") if name in sys.modules]]))
"""


def test_refusals_import_neither_torch_nor_camb(tmp_path):
    """Of a command line, a configuration or a header: all of these in one process."""
    for name in ("bad.fits", RINGS, TOTAL, DUST, MASK):
        (tmp_path / name).write_bytes(b"SIMPLE  = nonsense")
    program = [sys.executable, "-c", _MODULES, json.dumps(_REFUSED)]
    outcome = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    codes, heavy = json.loads(outcome.stdout.splitlines()[-1])
    assert codes == [2] * len(_REFUSED), outcome.stderr
    assert not heavy and outcome.stderr.count("\n") == len(_REFUSED), outcome.stderr


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        done("simulate", "dust", *SMALL, f"data.stores={tmp_path / 'stores'}")
        done("train", *WORDS, "model=linear", f"data.stores={tmp_path / 'stores'}", f"output={tmp_path / 'runs'}")
        done("predict", tmp_path / "runs/test", "--out", tmp_path / "out")
    finally:
        os.umask(before)
    made = [path for folder in ("stores", "runs", "out") for path in (tmp_path / folder).rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in made if path.is_file()} == {0o640}
    assert {path.stat().st_mode & 0o777 for path in made if path.is_dir()} == {0o750}


def test_strays_of_dead_processes_are_swept(tmp_path):
    """Those of this machine alone, and not of a process that lives."""
    node, dead = platform.node(), subprocess.Popen(["true"])
    dead.wait()
    names = [f".a.{node}-{dead.pid}.scratch", f".b.{node}-{os.getppid()}.scratch", f".c.elsewhere-{dead.pid}.scratch"]
    for name in names:
        (tmp_path / name).write_text("half")
    write_atomically(tmp_path / "d", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {*names[1:], "d"}


def test_a_killed_overwrite_is_finished_by_the_next_line(words, tmp_path):
    """Killed between taking the finished run away and bringing the new one to its place."""
    done("train", *words, "model=linear")
    folder = the_folder(tmp_path)
    folder.rename(folder.with_name(f".{folder.name}.old"))
    assert "already trained" in done("train", *words, "model=linear").out
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_finished_run_stays_until_the_new_one_stands(words, tmp_path, monkeypatch):
    done("train", *words)
    folder = the_folder(tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        assert sphereml("train", *words, "--overwrite").code == 130
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    done("train", *words, "--overwrite", "--resume")
    assert Run.open(folder).manifest()["complete"] and len(list((tmp_path / "test").iterdir())) == 1


def test_two_trainings_of_one_run(words, tmp_path):
    done("train", *words)
    folder = the_folder(tmp_path)
    path = folder.with_name(f".{folder.name}.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"process 7 on elsewhere")
    assert lock(descriptor)
    assert "process 7 on elsewhere trains in" in sphereml("train", *words).refusal
    os.close(descriptor)
    done("train", *words)
    assert not path.exists()


def test_a_changed_configuration_is_not_gone_on_with(words, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, 4)
        sphereml("train", *words)
    path = the_folder(tmp_path) / "config.json"
    path.write_text(path.read_text().replace('"learning_rate": 0.001', '"learning_rate": 0.002'))
    assert "is not what the training was started with" in sphereml("train", *words, "--resume").refusal


@pytest.mark.parametrize("joined", [False, True])
def test_a_late_divergence_is_said(words, tmp_path, monkeypatch, joined):
    step = Regression.training_step

    def spoiling(module: Regression, *batch: object) -> torch.Tensor:
        return step(module, *batch) * (float("nan") if module.global_step >= 4 else 1.0)  # type: ignore[arg-type]

    monkeypatch.setattr(Regression, "training_step", spoiling)
    said = done("train", *words, f"training.join_validation={joined}").out
    assert "the training diverged in epoch 3; epoch" in said
    run = Run.open(the_folder(tmp_path))
    assert run.manifest()["diverged_after_epoch"] == 3 and run.manifest()["best_epoch"] < 2
    assert all(value.isfinite().all() for value in run.weights().values())


def test_a_signal_waits_for_the_end_of_the_step():
    """Raised anywhere, it could leave the thread that writes TensorBoard's files waiting for ever."""
    held = HeldSignals()
    with pytest.raises(Stopped), stoppable(), held.holding():
        signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(Stopped):
            held.on_train_batch_start()
        with pytest.raises(Stopped):  # a second one does not wait
            signal.raise_signal(signal.SIGTERM)
    with stoppable(), pytest.raises(Stopped), HeldSignals().holding():
        signal.raise_signal(signal.SIGTERM)  # after the last step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_a_chain_of_models(words, tmp_path, number):
    line = [sys.executable, "-m", "sphereml.cli.main", "train", "experiment=dust_demo", *words, "training.epochs=500"]
    line = [word for word in line if not word.startswith("model=")] + ["models=[linear,unet_sphere,unet_flat]"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(f"test/*/checkpoints/{LAST}")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert error.count("\n") == 1 and f"stopped by {number.name}; the same line with --resume goes on" in error
    assert not list(tmp_path.glob("test/unet_flat-*"))
