"""The README's claims at their full size; `make test-slow` runs them (about seven minutes on two cores)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fixtures_cli import REAL_SKY

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-m", "sphereml.cli.main"]


def study(folder: Path) -> dict:
    return json.loads((folder / "comparison.json").read_text())


def test_demo_survives_a_kill_and_networks_beat_the_linear_model(tmp_path):
    """Killed in the middle of a training, the demo goes on; both U-Nets win in r150 by three paired errors."""
    process = subprocess.Popen([*PROGRAM, "demo"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("runs/demo/*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "runs/demo/comparison.json").exists()
    subprocess.run([*PROGRAM, "demo"], cwd=tmp_path, check=True)
    found = study(tmp_path / "runs/demo")
    for name in ("unet_flat", "unet_sphere"):
        assert found["paired"][name]["linear"]["r150"]["sigmas"] >= 3
        left, linear = (found["marginalization"]["models"][model]["power_left"]["r50"] for model in (name, "linear"))
        assert left < 0.6 * linear


def test_real_sample_baselines_and_best_spherical_network(tmp_path):
    if not REAL_SKY.is_dir():
        pytest.skip(f"no real-sky sample at {REAL_SKY}")
    environment = os.environ | {"SPHEREML_REAL_SKY": str(REAL_SKY.resolve())}
    for words in (["train", "experiment=dust_real_sample"], ["compare", "runs/dust_real_sample"]):
        subprocess.run([*PROGRAM, *words], cwd=tmp_path, env=environment, check=True)
    models = study(tmp_path / "runs/dust_real_sample")["models"]
    for name, (clouds, without) in {"integrated": (0.719, 0.809), "linear": (0.817, 0.820)}.items():
        assert models[name]["sphere"]["r50"] == pytest.approx(clouds, abs=0.005)
        assert models[name]["sphere_without_cuts"]["r50"] == pytest.approx(without, abs=0.005)
    spherical, linear = (models[name]["sphere_without_cuts"]["r50"] for name in ("gain_sphere", "linear"))
    assert spherical >= linear
