"""Discs that are full or may not be written: one line, no half of a set, no strays, and what stood there stands."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fixtures_faults import Tally, attempt, full_disc, read_only, snapshot, strays
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
            # A new run of a finished one waits to be gone on with.
            after, left = standing(root, name), [one for one in strays(root) if not one.endswith(".new")]
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
    fill("marginalize", 1, root, tally)
    tally.finish(record_property)


@pytest.mark.slow
@pytest.mark.parametrize("name", VERBS)
def test_read_only_folders(name, tmp_path, tmp_path_factory, record_property):
    """A line whose folder may not be written: it says so, or had nothing to write, and changes nothing."""
    root, tally = place(tmp_path, tmp_path_factory), Tally("read-only folders")
    before = snapshot(root)
    with read_only(root):
        trial = attempt(*VERBS[name].words(root))
        tally.add(trial.verdict(lambda: False), f"{name}: {trial.outcome.err}")
        if snapshot(root) != before or strays(root):
            tally.add(f"CHANGED {strays(root)}", name)
    tally.finish(record_property)
