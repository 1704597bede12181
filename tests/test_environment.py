"""What surrounds the program decides nothing: streams, locales, clusters, notebooks, another Hydra, odd paths."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from fixtures_cli import TINY, Place, done
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sphereml.cli.environment import settle_environment
from sphereml.config.compose import compose
from sphereml.config.quoting import quote_texts
from sphereml.config.schema import ExperimentConfig, ModelConfig
from sphereml.domains import HealpixSky
from sphereml.harmonics.rings import threads
from sphereml.models.networks import build
from sphereml.training.lightning_cluster import JoinedProcesses
from sphereml.training.processes import Process

PROGRAM = [sys.executable, "-m", "sphereml.cli.main"]
CLUSTERS = {
    "salloc -n4": {"SLURM_JOB_ID": "1234", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "job", "SLURM_PROCID": "0"},
    "sbatch -N2": {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NODELIST": "n[1-2]"},
    "torchrun": {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_PORT": "none", "TORCHELASTIC_RUN_ID": "x"},
}
ODD_NAMES = ["a=b", "a,b", "a(b)", "a[1]", "50%", "x#y", "it's", "größe_数据", "{x}", "a:b", "-dash", "tilde~x", "a;b"]


def run(shell: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """``shell`` with ``$P`` the program."""
    program = " ".join(PROGRAM)
    environment = os.environ | {"P": program} | variables
    return subprocess.run(["bash", "-c", shell], capture_output=True, env=environment, timeout=60, check=False)


@pytest.mark.parametrize("shell", ["$P --help | true; exit ${PIPESTATUS[0]}", "$P --version >&-", "$P --help 2>&-"])
def test_a_reader_that_goes_away_does_not_end_the_work(shell: str) -> None:
    outcome = run(shell)
    assert (outcome.returncode, outcome.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disc_behind_the_output_is_one_line() -> None:
    outcome = run("$P --help > /dev/full")
    assert outcome.returncode == 2 and outcome.stderr.count(b"\n") == 1 and b"No space left" in outcome.stderr


def test_a_locale_without_unicode_spells_it() -> None:
    outcome = run("$P 'größe ± 1'", LC_ALL="POSIX", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert outcome.returncode == 2 and outcome.stderr.isascii() and rb"gr\xf6\xdfe +- 1" in outcome.stderr


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_cluster_around_us_is_no_reason_to_share_the_training(monkeypatch: pytest.MonkeyPatch, cluster: str) -> None:
    for name, value in CLUSTERS[cluster].items():
        monkeypatch.setenv(name, value)
    one = JoinedProcesses(Process())
    assert (one.world_size(), one.global_rank(), one.local_rank(), one.node_rank()) == (1, 0, 0, 0)
    assert not one.creates_processes_externally
    one.teardown()
    assert all(os.environ[name] == value for name, value in CLUSTERS[cluster].items())


def test_training_in_an_interactive_allocation_is_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, "dust_demo")
    for name, value in (CLUSTERS["salloc -n4"] | CLUSTERS["torchrun"]).items():
        monkeypatch.setenv(name, value)
    done("train", "experiment=dust_demo", "model=unet_sphere", *TINY, *place.words, "data.galaxy.nside=16")
    (weights,) = tmp_path.rglob("model.safetensors")
    mask = os.umask(0)
    os.umask(mask)
    assert weights.stat().st_mode & 0o777 == 0o666 & ~mask


def test_backends_and_warnings_of_others_are_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settle_environment()
        warnings.warn("of a library", DeprecationWarning, stacklevel=1)
    assert os.environ["MPLBACKEND"] == "agg"


@pytest.mark.parametrize(("stated", "number"), [("3", 3), ("4,2", 4), ("abc", 0), ("", 0), ("-3", 0), ("0", 0)])
def test_threads_are_a_number_or_all(monkeypatch: pytest.MonkeyPatch, stated: str, number: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", stated)
    assert threads() == (number or os.cpu_count())
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    assert threads() <= 512


def test_networks_are_float32_in_a_session_of_float64() -> None:
    config, domain = ModelConfig(width=4, depth=1), HealpixSky(4)
    torch.manual_seed(0)
    right = build(config, domain, 2, 1).state_dict()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        ours = build(config, domain, 2, 1).eval()
        assert torch.get_default_dtype() == torch.float64
        assert ours(torch.zeros(1, 192, 2, dtype=torch.float32), domain).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    for name, value in ours.state_dict().items():
        assert value.dtype == right[name].dtype and torch.equal(value, right[name])


def test_a_hydra_application_around_us_stays_as_it_is(tmp_path: Path) -> None:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    (tmp_path / "theirs.yaml").write_text("schema: 7\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert compose(["experiment=dust_demo", "model.width=5"]).model.width == 5
        assert hydra_compose("theirs").schema == 7
    assert compose(["experiment=dust_demo"]).name == "demo"


def hydra_reads(word: str) -> object:
    """The value of an override, quoted by us, as Hydra understands it."""
    (quoted,) = quote_texts([word], ExperimentConfig)
    return OverridesParser.create().parse_override(quoted).value()


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("key", ["output", "data.folder", "++data.stores", "data.survey.cube.pattern"])
def test_paths_of_any_character_are_those_very_paths(name: str, key: str) -> None:
    assert hydra_reads(f"{key}=/x/{name}") == f"/x/{name}"


@given(path=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda text: f"/x{text}/y"))
@example(path="/x\\'/y")
@example(path="/x'\\")
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_text_is_that_text(path: str) -> None:
    assert hydra_reads(f"output={path}") == path


def test_odd_paths_go_all_the_way() -> None:
    path = "/x/it's größe, a=b [1] {2} #3;"
    config = compose([f"output={path}", f"data.folder={path}"])
    assert (config.output, config.data.folder) == (path, path)


def test_quotes_null_and_the_home_folder_mean_what_they_do() -> None:
    assert hydra_reads("output='a b'") == "a b"
    assert hydra_reads("data.folder=null") is None
    assert hydra_reads("output=null") == "null"  # a folder there must be
    assert hydra_reads("output=~/x") == str(Path.home() / "x")
    assert hydra_reads("models=[linear]") == ["linear"]
    assert hydra_reads("training.epochs=3") == 3
