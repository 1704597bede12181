"""SIGKILL at any moment, and two processes at once: the same line again gives the same product, and leaves no strays.

A server is started once, imports everything, and forks a process for every line, so that a trial costs no import.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fixtures_cli import Outcome
from fixtures_faults import TINY, Tally, Trial, elapsed, made_runs, snapshot, strays

from sphereml.sky.fields import Field
from sphereml.sky.maps import SkyMap
from sphereml.templates.products import write_mask, write_sky_map

_IMPORTS = """
import torch, lightning
torch.set_num_threads(1)
import sphereml.training.lightning_fit, sphereml.evaluation.maps.study, sphereml.templates.cleaning, sphereml.tasks.dust
import sphereml.harmonics.workspace, sphereml.plotting.maps, sphereml.data.survey, sphereml.simulate.lensing_store
"""
_SERVER = """
import json, os, sys
from sphereml.cli.main import main
print("ready", flush=True)
for line in sys.stdin:
    words, log = json.loads(line)
    child = os.fork()
    if child == 0:
        target = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(target, 1), os.dup2(target, 2)
        try:
            code = main(words)
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 1
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    # The parent of the children tells how each ended, when it did.
    for _ in iter(lambda: sys.stdin.readline().strip(), "go"):
        done, status = os.waitpid(child, os.WNOHANG)
        print(os.waitstatus_to_exitcode(status) if done else "running", flush=True)
"""


class Server:
    """Processes of the program, forked from one that has everything imported."""

    def __init__(self, imports: str = _IMPORTS) -> None:
        self._process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", imports + _SERVER], text=True,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def run(self, words: list[str | Path], log: Path, kill_after: float | None = None) -> Trial | None:
        """A line's trial; None when it was killed before its end."""
        self._write(json.dumps([[str(word) for word in words], str(log)]))
        child, start, killed = int(self._read()), time.monotonic(), False
        while True:
            self._write("?")
            state = self._read()
            if state != "running":
                break
            if not killed and kill_after is not None and time.monotonic() - start >= kill_after:
                os.kill(child, signal.SIGKILL)
                killed = True
            time.sleep(0.002)
        self._write("go")
        if int(state) == -signal.SIGKILL:
            return None
        text = log.read_text()
        code = int(state)
        crash = text if code not in (0, 2) else ""
        return Trial(Outcome(code, text if code == 0 else "", text if code else ""), crash)

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(30)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


@dataclass(frozen=True)
class Verb:
    """A line, where it writes, and what of that is its product."""

    words: Callable[[Path], list[str | Path]]
    product: Callable[[Path], object]


def bare(content: dict) -> dict:
    """A comparison without the times that it tells: of its making, too, hence without its checksum."""
    told = ("checksum", "provenance")
    timeless = json.loads(json.dumps({key: value for key, value in content.items() if key not in told}))
    for model in timeless["models"].values():
        model.pop("seconds_train"), model.pop("seconds_predict")
    return timeless


def page(root: Path) -> str:
    """A report without when and by what line its comparison was made, and the seconds it tells."""
    text = (root / "runs/test/report.html").read_text()
    text = re.sub(r'<tr><th scope="row">(date|command)</th>.*?</tr>', "", text)
    return re.sub(r">[0-9.]+ s<", "> s<", text)


def trained(root: Path) -> object:
    folders = sorted((root / "runs/test").glob("unet_sphere-*"))
    names = ("model.safetensors", "config.json", "scaling.json", "split.fits")
    return [(folder.name, [(folder / name).read_bytes() for name in names]) for folder in folders]


def where(root: Path) -> list[str | Path]:
    return [*TINY, f"data.stores={root / 'stores'}", f"output={root / 'runs'}"]


def maps(root: Path) -> list[str | Path]:
    return ["--mask", root / "mask.fits"]


VERBS = {
    "simulate": Verb(
        lambda root: ["simulate", "dust", *where(root)[:3], f"data.stores={root / 'fresh'}"],
        lambda root: snapshot(root / "fresh"),
    ),
    "train": Verb(lambda root: ["train", *where(root), "model=unet_sphere", "training.seed=5", "--resume"], trained),
    "train again": Verb(lambda root: ["train", *where(root), "model=unet_sphere", "--overwrite", "--resume"], trained),
    "predict": Verb(
        lambda root: ["predict", root / "runs/test", "--stores", root / "stores", "--out", root / "out", "--overwrite"],
        lambda root: snapshot(root / "out"),
    ),
    "compare": Verb(
        lambda root: ["compare", root / "runs/test", "--stores", root / "stores"],
        lambda root: (
            bare(json.loads((root / "runs/test/comparison.json").read_text())),
            sorted(path.name for path in (root / "runs/test/figures").iterdir()),
        ),
    ),
    "report": Verb(
        lambda root: ["report", root / "runs/test"],
        page,
    ),
    "marginalize": Verb(
        lambda root: ["marginalize", "--sky", root / "sky.fits", *maps(root), "--template", root / "template.fits",
                      "--out", root / "clean", "--overwrite"],
        lambda root: snapshot(root / "clean"),
    ),
    "spectra": Verb(
        lambda root: ["spectra", root / "sky.fits", *maps(root), "--edges", "2,8,16,30", "--out", root / "cl.fits",
                      "--workspace", root / "ws.npz"],
        lambda root: [(root / name).read_bytes() for name in ("cl.fits", "ws.npz")],
    ),
    "hough": Verb(
        lambda root: ["hough", root / "sky.fits", "--length", "1800", "--smoothing", "900", "--out", root / "qu.fits",
                      "--overwrite"],
        lambda root: (root / "qu.fits").read_bytes(),
    ),
}  # fmt: skip


def prepared(root: Path) -> None:
    rng = np.random.default_rng(1)
    for name in ("sky", "template"):
        write_sky_map(root / f"{name}.fits", SkyMap(rng.normal(size=(3072, 1)), Field("I", "uK_CMB"), order="nest"))
    write_mask(root / "mask.fits", np.arange(3072) % 5 > 0)


def place(tmp_path: Path, factory: pytest.TempPathFactory) -> Path:
    """A folder of its own, with runs, a store and maps."""
    root = tmp_path / "place"
    shutil.copytree(made_runs(factory), root)
    prepared(root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("kills", [8])
@pytest.mark.parametrize("name", VERBS)
def test_kills(name, kills, server, tmp_path, tmp_path_factory, record_property):
    root = place(tmp_path, tmp_path_factory)
    kill(server, name, kills, root, record_property)


def test_kills_of_a_light_verb(tmp_path, record_property):
    """A sample for every run of the tests, which pays for few imports."""
    server, root = Server(imports=""), tmp_path / "place"
    root.mkdir()
    prepared(root)
    kill(server, "marginalize", 1, root, record_property)
    server.close()


def kill(server: Server, name: str, kills: int, root: Path, record_property: Callable[[str, object], None]) -> None:
    """Kill a line at random moments and give it again each time."""
    verb, log, tally = VERBS[name], root.with_name("log"), Tally("kills")
    tmp_path = root.parent
    untouched = tmp_path / "untouched"
    shutil.copytree(root, untouched)
    whole = elapsed(lambda: server.run(verb.words(root), log))
    expected = verb.product(root)
    rng, killed, tries = np.random.default_rng(len(name)), 0, 0
    while killed < kills and tries < 4 * kills:
        tries += 1
        shutil.rmtree(root)
        shutil.copytree(untouched, root)
        if server.run(verb.words(root), log, kill_after=float(rng.uniform(0, whole))) is not None:
            continue
        killed += 1
        again = server.run(verb.words(root), log)
        assert again is not None
        left = strays(root)
        verdict = again.verdict(lambda: verb.product(root) == expected)
        tally.add(f"STRAYS {left}" if left else verdict, f"{name} {tries}")
    tally.finish(record_property)


PAIRS = [
    *(("train again", "train again"), ("predict", "train again"), ("compare", "compare"), ("simulate", "simulate")),
    *(("marginalize", "marginalize"), ("spectra", "spectra"), ("predict", "predict"), ("report", "compare")),
]


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_two_processes(pair, server, tmp_path, tmp_path_factory, record_property):
    """Two lines in one folder at once: each is done or refused, and afterwards the product is there."""
    root, tally, other = place(tmp_path, tmp_path_factory), Tally("two processes"), Server()
    first, second = (VERBS[name] for name in pair)
    expected = []
    for verb in (first, second):
        server.run(verb.words(root), tmp_path / "log")
        expected.append(verb.product(root))
    found: list[Trial | None] = []
    from threading import Thread

    for one in range(3):
        found.clear()
        thread = Thread(target=lambda: found.append(other.run(second.words(root), tmp_path / "log2")))
        thread.start()
        found.append(server.run(first.words(root), tmp_path / "log"))
        thread.join()
        for trial in found:
            assert trial is not None
            tally.add(trial.verdict(lambda: True), f"{pair} {one}")
        again = [server.run(verb.words(root), tmp_path / "log") for verb in (first, second)]
        assert all(trial is not None and not trial.crash for trial in again), again
        unharmed = all(verb.product(root) == known for verb, known in zip((first, second), expected, strict=True))
        tally.add("identical" if unharmed and not strays(root) else f"LOST {strays(root)}", f"{pair} {one}")
    other.close()
    tally.finish(record_property)
