"""Batch scripts: what they ask Slurm for, and that a second submission goes on where the first was stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures_cli import GALAXY, PATCHES, Place, done, sphereml

TRAIN = ["train", "experiment=dust_demo", *GALAXY, *PATCHES, "model=unet_sphere", "model.width=4", "model.depth=1"]


def test_a_script_asks_for_what_the_line_needs():
    flags = ["--time", "8:00:00", "--gpus", "1", "--partition", "gpu", "--memory", "32G"]
    script = done("cluster", "render", *flags, *TRAIN, "training.processes=4", "name=a b".replace(" ", "_")).out
    for line in ("--ntasks=4", "--time=8:00:00", "--gpus-per-task=1", "--partition=gpu", "--mem=32G", "--requeue"):
        assert f"#SBATCH {line}\n" in script
    assert script.startswith("#!/bin/bash\n") and "srun --kill-on-bad-exit=1 sphereml train" in script
    assert "training.processes=4 name=a_b --resume\n" in script and "account" not in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    swept = done("cluster", "render", "train", "-m", "experiment=dust_demo", "training.seed=1,2").out
    assert "training.seed=1,2" in swept and "--ntasks=1\n" in swept
    assert "unknown configuration key" in sphereml("cluster", "render", "train", "training.epoch=3").refusal


def test_a_script_is_of_what_its_verb_would_compose(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("defaults:\n  - /experiment/dust_demo\n  - _self_\ntraining:\n  processes: 4\n")
    script = done("cluster", "render", "--cpus", "3", "train", str(mine)).out
    assert "#SBATCH --ntasks=4\n" in script and "#SBATCH --cpus-per-task=3\n" in script
    assert script.index("export SRUN_CPUS_PER_TASK=") < script.index("\nsrun ")
    own = tmp_path / "own" / "training"
    own.mkdir(parents=True)
    (own / "four.yaml").write_text("processes: 4\n")
    words = ["train", "experiment=dust_demo", "training=four"]
    assert "--ntasks=4\n" in done("cluster", "render", *words, "--config-dir", str(own.parent)).out
    assert "four" in sphereml("cluster", "render", *words).refusal
    plugin = str(Path(__file__).parent / "plugin" / "haze.py")
    assert "--ntasks=1\n" in done("cluster", "render", "train", "--plugin", plugin, "task=haze").out
    assert "srun" in done("cluster", "render", "simulate", "lensing", "lensing.skies=10").out
    assert "no-such" in sphereml("cluster", "render", "train", "--no-such").refusal


@pytest.mark.slow
def test_a_second_submission_goes_on(tmp_path):
    """Slurm's commands are stubs; the first job gets SIGUSR1 in its second epoch, as before its time is up."""
    place, stubs = Place(tmp_path, "demo"), tmp_path / "bin"
    stubs.mkdir()
    scripts = {
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
        "scontrol": f'echo "$@" >> {tmp_path / "requeued"}',
        "sphereml": f'exec {sys.executable} -m sphereml.cli.main "$@"',
    }
    for name, body in scripts.items():
        (stubs / name).write_text(f"#!/bin/bash\n{body}\n")
        (stubs / name).chmod(0o755)
    words = ["training.epochs=4", "training.steps_per_epoch=4", "training.validation_batches=1", *place.words]
    job = tmp_path / "job.sh"
    job.write_text(done("cluster", "render", "--cpus", "1", *TRAIN, *words).out)
    environment = os.environ | {"PATH": f"{stubs}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    first = subprocess.Popen(["bash", str(job)], env=environment, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    for line in first.stdout:
        if "epoch 2/4" in line:
            subprocess.run(["pkill", "-USR1", "-P", str(first.pid)], check=True)
            break
    first.communicate()
    assert first.returncode == 138 and (tmp_path / "requeued").read_text() == "requeue 7\n"
    second = subprocess.run(["bash", str(job)], env=environment, capture_output=True, text=True, check=True)
    assert "epoch 1/4" not in second.stdout and "epoch 4/4" in second.stdout
    assert Path(place.run("unet_sphere") / "model.safetensors").is_file()
