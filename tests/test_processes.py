"""Training by several processes: who is one, what they share, and that two learn what one does."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_cli import GALAXY, PATCHES, sphereml

from sphereml.errors import UserError
from sphereml.models.shared_statistics import SharedBatchNorm
from sphereml.training.processes import Process, local_device, together

WORDS = [
    *("train", "experiment=dust_demo", *GALAXY, *PATCHES, "model.width=4", "model.depth=1"),
    *("training.epochs=3", "training.steps_per_epoch=4", "training.validation_batches=2", "training.batch_size=4"),
    *("model.dropout=0", "model.input_noise=0.1", "training.clip=1"),
]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start(words: Sequence[str], count: int) -> list[subprocess.Popen[str]]:
    """The program as torchrun would start it."""
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    line = [sys.executable, "-m", "sphereml.cli.main", *words, f"training.processes={count}"]
    return [
        subprocess.Popen(
            line,
            env=os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def curves(folder: Path) -> dict[str, list[float]]:
    """The losses of every epoch of the one run below a folder."""
    (path,) = folder.glob("demo/*/logs/csv/metrics.csv")
    rows = list(csv.DictReader(path.open()))
    return {name: [float(row[name]) for row in rows if row[name]] for name in ("train_loss", "val_loss")}


def test_shares_are_equal_parts_of_a_batch():
    batch = np.arange(12)
    parts = [batch[Process(rank, 3).share(12)] for rank in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), batch)
    with pytest.raises(UserError, match="a batch of 1 cannot be shared equally by 2"):
        Process(0, 2).share(1)


def test_alone_nothing_changes():
    values = torch.randn(8, 3)
    assert Process().gathered(values) is values and Process().from_first("x") == "x"
    ours, theirs = SharedBatchNorm(3), torch.nn.BatchNorm1d(3)
    torch.testing.assert_close(ours(values), theirs(values), rtol=0, atol=0)
    assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_processes_that_nobody_started_are_refused(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"processes=2, but 1 process was started"), together(2):
        pass
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "3")
    assert "3 processes were started" in sphereml(*WORDS, "model=unet_sphere", "training.processes=2").refusal


def test_a_process_that_sees_one_device_uses_it(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("SLURM_LOCALID", "3")
    for seen, own in ((0, 3), (1, 0), (2, 1), (4, 3)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda seen=seen: seen)
        assert local_device() == own


@pytest.mark.slow
@pytest.mark.parametrize("model", ["unet_sphere", "unet_flat", "unet_sphere model.norm=none"])
def test_two_processes_learn_what_one_does(tmp_path, model):
    """Losses of the same whole batches, batch statistics of all samples, one folder, one voice."""
    words = [*WORDS, *f"model={model}".split(), "training.learning_rate=0.01", f"data.stores={tmp_path / 'stores'}"]
    alone, *_ = (one.communicate() for one in start([*words, f"output={tmp_path / 'one'}"], 1))
    (first, second) = [one.communicate() for one in start([*words, f"output={tmp_path / 'two'}"], 2)]
    assert second == ("", "") and first[1] == alone[1] == ""
    assert first[0].count("epoch") == 3
    one, two = (curves(tmp_path / name) for name in ("one", "two"))
    for name, losses in one.items():
        np.testing.assert_allclose(two[name], losses, rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_lost_process_ends_the_training_and_it_goes_on(tmp_path):
    words = [*WORDS, "model=unet_sphere", f"data.stores={tmp_path / 'stores'}", "training.epochs=6"]
    for one in start([*words, f"output={tmp_path / 'whole'}"], 2):
        one.communicate()
    lost = [*words, f"output={tmp_path / 'lost'}"]
    first, second = start([*lost, "training.steps_per_epoch=4"], 2)
    assert first.stdout is not None
    for line in first.stdout:
        if "epoch 2/6" in line:
            break
    second.send_signal(signal.SIGKILL)
    _, said = first.communicate()
    assert first.returncode == 2 and said.count("\n") == 1 and "another process of this training ended" in said
    second.wait()
    time.sleep(0.1)
    (one, error), _ = [each.communicate() for each in start([*lost, "--resume"], 2)]
    assert error == "" and "epoch 6/6" in one
    whole, resumed = (next(tmp_path.glob(f"{name}/demo/*/model.safetensors")) for name in ("whole", "lost"))
    assert whole.read_bytes() == resumed.read_bytes()
