"""Sweeps and searches: which combinations they are, that each is an ordinary run, and the one table of them."""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path

import pytest
from fixtures_cli import GALAXY, PATCHES, Place, done, sphereml

from sphereml.config.sweeps import Interval, SearchSpace, swept_words
from sphereml.errors import UserError
from sphereml.training.runs import Run
from sphereml.training.search import search_settings

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
    with pytest.raises(UserError, match="has no end of values: search in it"):
        swept_words(["training.learning_rate=interval(1e-4,1e-2)"])


def test_a_search_chooses_from_intervals_and_values():
    rate, width = "training.learning_rate=tag(log,interval(1e-4,1e-2))", "model.width=int(interval(8,64))"
    space = SearchSpace.of(["model=unet_sphere", rate, width, "model.depth=1,2"])
    assert space.fixed == ("model=unet_sphere",) and space.ranges["model.depth"] == ["1", "2"]
    assert space.ranges["training.learning_rate"] == Interval(1e-4, 1e-2, log=True)
    assert space.first == ["model=unet_sphere", "training.learning_rate=0.0001", "model.width=8", "model.depth=1"]
    with pytest.raises(UserError, match="a search of nothing"):
        SearchSpace.of(["model=linear"])
    with pytest.raises(UserError, match="unknown configuration key"):
        SearchSpace.of(["training.rate=interval(1,2)"])
    search = ("train", "-m", "--optuna", "2", "--dry-run", *WORDS, "split.buffer=4,12")
    assert "a search is of one network" in sphereml(*search).refusal
    assert "leave out --overwrite, --dry-run" in sphereml(*search, "model=unet_sphere").refusal


def test_a_search_goes_on_and_finds_the_least(tmp_path, monkeypatch):
    """Trials by a stand-in for training, whose loss is least at 1e-3; the fourth is interrupted, the fifth refused."""
    pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'sphereml[sweep]'")
    space = SearchSpace.of(["training.learning_rate=tag(log,interval(1e-5,1e-1))", "model.depth=1,2"])
    seen: list[list[str]] = []
    monkeypatch.setattr(Run, "open", classmethod(lambda cls, folder: folder))

    class Trained:
        def __init__(self, words: list[str]) -> None:
            rate, depth = (float(word.partition("=")[2]) for word in words)
            self.loss, self.folder = abs(rate / 1e-3 - 1) + depth, Path(" ".join(words))

        def manifest(self) -> dict[str, float]:
            return {"val_loss": self.loss}

    def train(words: list[str]) -> Trained:
        seen.append(words)
        if len(seen) == 4:
            raise KeyboardInterrupt
        if len(seen) == 6:
            raise UserError("the training diverged", "lower it")
        return Trained(words)

    storage = tmp_path / "runs" / "search.db"
    with pytest.raises(KeyboardInterrupt):
        search_settings(space, 9, storage, train, print)
    best = search_settings(space, 9, storage, train, print)
    assert len(seen) == 10 and seen[4] == seen[3] and len({tuple(words) for words in seen}) == 9
    losses = {Trained(words).loss: Trained(words).folder for index, words in enumerate(seen) if index != 5}
    assert best == losses[min(losses)]
    assert search_settings(space, 9, storage, train, print) == best and len(seen) == 10


@pytest.mark.slow
def test_trials_are_ordinary_runs(tmp_path):
    pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'sphereml[sweep]'")
    place = Place(tmp_path, "demo")
    words = [*WORDS, "model=unet_sphere", "model.depth=1", "model.width=4", "training.epochs=1", *place.words]
    words += ["training.steps_per_epoch=2", "training.validation_batches=1", "training.batch_size=2"]
    search = ["train", "-m", *words, "training.learning_rate=tag(log,interval(1e-4,1e-2))", "--json", "-q"]
    (best,) = json.loads(done(*search, "--optuna", "2").out)
    (again,) = json.loads(done(*search, "--optuna", "3").out)
    listed = json.loads(done("runs", "list", tmp_path / "runs", "--json").out)
    assert len(listed) == 3 and len({row["training.learning_rate"] for row in listed}) == 3
    assert {best["folder"], again["folder"]} <= {row["run"] for row in listed}
    assert min(listed, key=lambda row: row["val_loss"])["run"] == again["folder"]


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
