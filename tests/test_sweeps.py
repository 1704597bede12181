"""Sweeps: which combinations they are, that each is an ordinary run, and the one table of them."""

from __future__ import annotations

import csv
import json
from io import StringIO

import pytest
from fixtures_cli import GALAXY, PATCHES, Place, done, sphereml

from sphereml.config.sweeps import swept_words
from sphereml.errors import UserError

WORDS = ["experiment=dust_demo", *GALAXY, *PATCHES, "model=linear"]


def test_combinations_are_hydras():
    assert swept_words(["a"]) == [["a"]]
    rate, seed = "training.learning_rate=1e-3,3e-4", "training.seed=range(1,3)"
    found = swept_words([rate, "model=linear", seed])
    assert len(found) == 4 and all(words[1] == "model=linear" for words in found)
    assert [words[2] for words in found] == ["training.seed=1", "training.seed=2"] * 2
    assert [float(words[0].split("=")[1]) for words in found] == [1e-3, 1e-3, 3e-4, 3e-4]
    assert swept_words(["model=choice(linear,integrated)"]) == [["model=linear"], ["model=integrated"]]
    for one in ("bands.r50=[15, 99]", "output='a,b'", "models=[linear,integrated]"):
        assert swept_words([one]) == [[one]]
    with pytest.raises(UserError, match="there is no model 'unknown'"):
        swept_words(["model=linear,unknown"])
    with pytest.raises(UserError, match="quote a value"):
        swept_words(["output=a=b,c"])


def test_a_sweep_is_ordinary_runs_in_one_table(tmp_path):
    place = Place(tmp_path, "demo")
    done("train", "-m", *WORDS, "split.buffer=4,12", *place.words)
    again = done("train", "-m", *WORDS, "split.buffer=4,12", "training.seed=1", *place.words).out
    assert again.count("already trained") == 2
    listed = json.loads(done("runs", "list", tmp_path / "runs", "--json").out)
    assert sorted(row["split.buffer"] for row in listed) == [4, 12]
    assert all(row["model"] == "linear" and row["state"] == "finished" and row["task"] == "dust" for row in listed)
    assert len({row["run"] for row in listed}) == 2 and "training.seed" not in listed[0]
    rows = list(csv.DictReader(StringIO(done("runs", "list", tmp_path / "runs", "--csv").out)))
    assert [row["run"] for row in rows] == [row["run"] for row in listed]
    shown = done("runs", "list", tmp_path / "runs").out
    assert "split.buffer" in shown and "finished" in shown


def test_a_combination_that_fails_leaves_the_others(tmp_path):
    place = Place(tmp_path, "demo")
    outcome = sphereml("train", "-m", *WORDS, "split.centre_margin=17,89.9", "model=linear,unet_flat", *place.words,
                       "model.depth=1", "model.width=4", "training.epochs=1", "training.steps_per_epoch=1",
                       "training.validation_batches=1", "training.batch_size=2")  # fmt: skip
    assert "of 4 combinations failed" in outcome.refusal
    assert {row["state"] for row in json.loads(done("runs", "list", tmp_path / "runs", "--json").out)} == {"finished"}


def test_runs_that_are_not_finished_say_so(tmp_path):
    place = Place(tmp_path, "demo")
    done("train", *WORDS, *place.words)
    (folder,) = place.study.glob("linear-????????")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "complete": False, "checksum": None}))
    assert json.loads(done("runs", "list", tmp_path, "--json").out)[0]["state"] == "unfinished"
    (folder / "config.json").write_text("{")
    assert json.loads(done("runs", "list", tmp_path, "--json").out)[0]["state"] == "damaged"
    assert "there is no folder" in sphereml("runs", "list", tmp_path / "none").refusal
    (tmp_path / "empty").mkdir()
    assert "no run" in sphereml("runs", "list", tmp_path / "empty").refusal
