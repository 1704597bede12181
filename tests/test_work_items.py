"""Items of work here and on a Dask cluster: the same bytes, also when a worker dies or the scheduler is lost."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from fixtures_cli import GALAXY, PATCHES, Place, done, files_below, sphereml
from test_survey import config_for, made_sources, random_channels

from sphereml.config.compose import compose
from sphereml.config.schema import CrossFitConfig
from sphereml.data.survey import write_survey
from sphereml.data.whole_files import write_atomically
from sphereml.data.work_items import do_items
from sphereml.errors import UserError
from sphereml.templates.cross_fit import CrossFit

# `make test-slow` installs the extra.
needs_dask = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import distributed"], capture_output=True).returncode != 0,
    reason="Dask is not installed: pip install 'sphereml[cluster]'",
)
LENSING = ["experiment=lensing_quick", "lensing.skies=3", "lensing.patches_per_sky=2", "patches.size=16"]
LENSING += ["lensing.lmax=300", "lensing.lmax_eb=250", "lensing.spectra_lmax=600", "patches.pixel_arcmin=30"]


def square(number: int) -> int:
    if number == 13:
        raise UserError("13 is no item", "leave it out")
    return number**2


def fatal_once(folder: Path, number: int) -> int:
    """The first worker that takes item 1 is killed in it."""
    mark = folder / "killed"
    if number == 1 and not mark.exists():
        write_atomically(mark, b"")
        os.kill(os.getpid(), signal.SIGKILL)
    write_atomically(folder / f"item-{number}", str(number**2).encode())
    return number**2


def always_fatal(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def slow_item(folder: Path, number: int) -> None:
    path = folder / f"item-{number}"
    if not path.exists():
        time.sleep(0.5)
        write_atomically(path, b"done")


def test_here_items_come_one_after_another():
    told: list[int] = []
    assert do_items(square, [3, 1, 2], "", told.append) == [9, 1, 4] and told == [1, 2, 3]
    with pytest.raises(UserError, match="13 is no item"):
        do_items(square, [1, 13])
    again = pickle.loads(pickle.dumps(UserError("a  b", "c")))
    assert (again.what, again.mend, str(again)) == ("a b", "c", "a b: c")


def test_schedulers_that_are_none(monkeypatch):
    assert "scheduler" in sphereml("train", *GALAXY, "scheduler=here").refusal
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"needs Dask: pip install 'sphereml\[cluster\]'"):
        do_items(square, [1], "local")


@needs_dask
@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match=r"there is no scheduler at tcp://127\.0\.0\.1:9"):
        do_items(square, [1], "tcp://127.0.0.1:9")


@needs_dask
@pytest.mark.slow
def test_workers_give_what_one_process_gives(tmp_path):
    assert do_items(square, [3, 1, 2], "local") == [9, 1, 4]
    with pytest.raises(UserError, match="13 is no item"):
        do_items(square, [1, 13], "local")


@needs_dask
@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_a_fatal_item_is_told(tmp_path):
    assert do_items(partial(fatal_once, tmp_path), range(4), "local") == [0, 1, 4, 9]
    assert (tmp_path / "killed").exists() and len(list(tmp_path.glob("item-*"))) == 4
    with pytest.raises(UserError, match="ended every worker that took it"):
        do_items(always_fatal, [1], "local")


@needs_dask
@pytest.mark.slow
def test_a_campaign_and_a_sweep_are_the_same_on_workers(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name, word in (("here", "scheduler="), ("workers", "scheduler=local")):
        place = Place(tmp_path / name, "demo")
        done("simulate", "lensing", *LENSING, word, f"data.stores={tmp_path / name / 'stores'}")
        words = ["experiment=dust_demo", *GALAXY, *PATCHES, "model=linear", "split.buffer=4,12"]
        done("train", "-m", *words, word, *place.words)
    here, workers = (tmp_path / name for name in ("here", "workers"))
    skies = {path for path in files_below(here) if "sky-" in path}
    weights = {path for path in files_below(here) if path.endswith("safetensors")}
    assert len({path.split("sky-")[1][:4] for path in skies}) == 3 and len(weights) == 2
    for path in skies | weights:
        assert (here / path).read_bytes() == (workers / path).read_bytes(), path


@needs_dask
@pytest.mark.slow
def test_a_survey_and_the_folds_of_a_template_are_the_same_on_workers(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    source = random_channels()  # two batches
    for name, scheduler in (("here", ""), ("workers", "local")):
        folder = tmp_path / name
        folder.mkdir()
        write_survey(folder / "one.zarr", config_for(source), made_sources(folder, source), scheduler=scheduler)
        words = ["experiment=dust_demo", *GALAXY, *PATCHES, "model=linear", f"data.stores={folder / 'stores'}"]
        config = compose([*words, f"scheduler={scheduler}"])
        CrossFit(config, folder / "folds", CrossFitConfig(folds=3, join=6.0), lambda line: None).train()
    here, workers = (tmp_path / name for name in ("here", "workers"))
    made = {path for path in files_below(here) if "one.zarr" in path or path.endswith("safetensors")}
    assert sum(path.endswith("safetensors") for path in made) == 3 and len(made) > 10
    for path in made:
        assert (here / path).read_bytes() == (workers / path).read_bytes(), path


@needs_dask
@pytest.mark.slow
def test_a_lost_scheduler_is_one_line_and_the_work_goes_on(tmp_path):
    """Scheduler and worker are processes of their own; the scheduler is killed while items are under way."""
    place = tmp_path / "address.json"
    head = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--scheduler-file", str(place), "--port", "0"]
    head += ["--no-dashboard"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(place), "--nthreads", "1"]
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    running = [
        subprocess.Popen(head, **quiet),
        subprocess.Popen([*worker, "--no-dashboard", "--no-nanny"], **quiet),
    ]
    try:
        for _ in range(300):
            if place.exists() and place.stat().st_size:
                break
            time.sleep(0.1)
        address = json.loads(place.read_text())["address"]

        def stop(finished: int) -> None:
            if finished == 2:
                running[0].kill()

        with pytest.raises(UserError, match="scheduler of the work was lost: start it again; the same line"):
            do_items(partial(slow_item, tmp_path), range(12), address, stop)
        assert 2 <= len(list(tmp_path.glob("item-*"))) < 12
    finally:
        for one in running:
            one.kill()
            one.wait()
    do_items(partial(slow_item, tmp_path), range(12))
    assert len(list(tmp_path.glob("item-*"))) == 12
