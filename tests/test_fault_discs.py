"""Discs that are full or may not be written: one line, no half of a set, no strays, and what stood there stands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fixtures_faults import Tally, attempt, full_disc, snapshot, strays
from test_fault_kills import VERBS, place, prepared

pytestmark = pytest.mark.filterwarnings("ignore")
_LOGS = ("logs/", "checkpoints/")  # what a training leaves on its way


def standing(root: Path, name: str) -> object:
    """The products of a verb as they stand, or None."""
    try:
        return VERBS[name].product(root)
    except (OSError, ValueError, KeyError):
        return None


def fill(name: str, discs: int, root: Path, tally: Tally) -> None:
    """Give a line on discs of random room, in a place where its product stands already and in one where it does not."""
    verb, rng = VERBS[name], np.random.default_rng(len(name))
    untouched = root.with_name("untouched")
    shutil.copytree(root, untouched)
    with full_disc(root, 2**25):
        assert attempt(*verb.words(root)).outcome.code == 0
    made, old = verb.product(root), root.with_name("made")
    shutil.copytree(root, old)
    for number in range(discs):
        start = old if number % 2 else untouched
        shutil.rmtree(root)
        shutil.copytree(start, root)
        before = standing(root, name)
        with full_disc(root, 4096 * int(rng.integers(0, 40))):
            trial = attempt(*verb.words(root))
            verdict = trial.verdict(lambda: standing(root, name) == made)
            after, left = standing(root, name), strays(root)
            if verdict == "refused" and after not in (before, made) and name != "train":
                verdict = "LOST"
            tally.add(f"STRAYS {left}" if left else verdict, f"{name} {number} {trial.outcome.err}")
        with full_disc(root, 2**25):
            again = attempt(*verb.words(root))
            tally.add(again.verdict(lambda: standing(root, name) == made), f"{name} {number}, with room again")
    shutil.rmtree(untouched)
    shutil.rmtree(old)


@pytest.mark.slow
@pytest.mark.parametrize("name", VERBS)
def test_full_discs(name, tmp_path, tmp_path_factory, record_property):
    tally = Tally("full discs (every second with room again)")
    fill(name, 4, place(tmp_path, tmp_path_factory), tally)
    tally.finish(record_property)


def test_a_full_disc(tmp_path, record_property):
    root = tmp_path / "place"
    root.mkdir()
    prepared(root)
    tally = Tally("full discs (every second with room again)")
    fill("marginalize", 2, root, tally)
    tally.finish(record_property)


_AS_NOBODY = """
import json, os, sys
sys.stdout.flush()
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
os.environ["HOME"] = os.environ["MPLCONFIGDIR"] = os.environ["TMPDIR"] = sys.argv[2]
from sphereml.cli.main import main
for words in json.loads(sys.argv[1]):
    code = main(words)
    sys.stderr.flush()
    print(json.dumps(code), flush=True)
"""


@pytest.mark.slow
def test_read_only_folders(tmp_path_factory, record_property):
    """Every verb as somebody who may not write where it must."""
    from fixtures_faults import made_runs

    tally = Tally("read-only folders")
    root, scratch = Path("/tmp") / f"sphereml-read-only-{os.getpid()}", Path("/tmp") / f"sphereml-{os.getpid()}"
    try:
        shutil.copytree(made_runs(tmp_path_factory), root)
        prepared(root)
        scratch.mkdir(mode=0o777)
        scratch.chmod(0o777)
        before = snapshot(root)
        for path in [root, *root.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        lines = {name: [str(word) for word in verb.words(root)] for name, verb in VERBS.items()}
        outcome = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _AS_NOBODY, json.dumps(list(lines.values())), str(scratch)],
            capture_output=True, text=True, timeout=500, cwd=scratch, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        codes = [int(line) for line in outcome.stdout.splitlines() if line.isdigit()]
        refusals = [line for line in outcome.stderr.splitlines() if line.startswith("sphereml: ")]
        assert len(codes) == len(lines), outcome.stderr[-2000:]
        for name, code in zip(lines, codes, strict=True):
            tally.add("refused" if code == 2 else f"CRASH code {code}", f"{name}: {outcome.stderr[-2000:]}")
        assert len(refusals) == len(outcome.stderr.splitlines()) == codes.count(2), outcome.stderr[-3000:]
        assert snapshot(root) == before
    finally:
        for folder in (root, scratch):
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o755)
            shutil.rmtree(folder)
    tally.finish(record_property)
