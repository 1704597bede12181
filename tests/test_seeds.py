"""Comparing any set of runs: several seeds as one row, a best value where it is clear, errors on the sphere."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from conftest import hemispheres, synthetic_sky
from fixtures_cli import TINY, Place, done, sphereml

from sphereml.config.schema import EvaluationConfig
from sphereml.data.split_files import Split
from sphereml.data.whole_files import sealed_json
from sphereml.evaluation.maps.patches import draw_test_patches
from sphereml.evaluation.maps.ranking import best_on_patches
from sphereml.evaluation.maps.scores import HeldOut, ScalarTruth, TargetScores, region_masks
from sphereml.evaluation.maps.sphere import score_sphere
from sphereml.evaluation.maps.table import shown_rows
from sphereml.evaluation.protocol import load_result
from sphereml.evaluation.statistics import jackknife_error
from sphereml.harmonics.bands import Bands
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.sampling import sample_patches

WORDS = [*TINY, "name=seeds", "data.galaxy.nside=16", "training.epochs=1", "bands.r50=[14.4,32]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    """A linear model, twice with other seeds, and a network with two seeds; no integrated model."""
    place = Place(tmp_path_factory.mktemp("seeds"), "seeds")
    for model, seed in (("linear", 1), ("linear", 2), ("unet_sphere", 1), ("unet_sphere", 2)):
        done("train", "experiment=dust_demo", f"model={model}", f"training.seed={seed}", *WORDS, *place.words)
    said = done("compare", place.study).out
    assert "left out" in said and "unet_sphere, 2 seeds" in said
    return place


@pytest.fixture(scope="module")
def content(place) -> dict:
    return json.loads((place.study / "comparison.json").read_text())


def test_seeds_are_one_row_with_their_spread(place, content):
    assert content["version"] == 3
    assert list(content["models"]) == ["linear", "unet_sphere-s1", "unet_sphere-s2"]
    (group,) = content["groups"].values()
    members = [content["models"][name] for name in group["members"]]
    assert group["members"] == ["unet_sphere-s1", "unet_sphere-s2"] and "run" not in group
    for key, spread in (("r50", group["spread"]["r50"]), ("sphere", group["sphere_spread"]["r50"])):
        values = [one[key]["mean" if key == "r50" else "r50"] for one in members]
        mean = group[key]["mean" if key == "r50" else "r50"]
        assert mean == pytest.approx(np.mean(values), abs=1e-12)
        assert spread == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert list(shown_rows(content)) == ["linear", "unet_sphere, 2 seeds"]
    page = (place.study / "report.html").read_text()
    assert "unet_sphere, 2 seeds" in page and "(seeds " in page and "unet_sphere-s1</th><td class" not in page
    done("predict", place.study)
    assert sorted(one.stem for one in (place.study / "templates").glob("*.fits")) == list(content["models"])


def test_the_spectra_have_errors_on_the_sphere_and_a_table_beside(place, content):
    for spectra in content["spectra"].values():
        sphere = spectra["sphere"]
        assert len(sphere["sem"]) == len(sphere["r"]) and min(sphere["sem"][2:]) > 0
    rows = list(csv.DictReader((place.study / "comparison.csv").open()))
    assert [row["model"] for row in rows] == [*content["models"], *content["groups"]]
    assert float(rows[0]["sphere.r50"]) == content["models"]["linear"]["sphere"]["r50"]
    result = load_result(place.study)
    assert len(result.to_dataframe()) == 4 and "sem_sphere" in result.to_xarray()
    assert any("two standard errors" in note for note in content["notes"])


def unsealed(content):
    """Without the checksum of the file."""
    return {key: value for key, value in content.items() if key != "checksum"}


def test_a_later_version_is_refused(tmp_path, content):
    (tmp_path / "comparison.json").write_bytes(sealed_json(unsealed(content) | {"version": 99}))
    assert "later sphereml" in sphereml("report", tmp_path).refusal


def test_best_is_marked_where_it_is_clear():
    rng = np.random.default_rng(3)
    block = np.repeat(np.arange(10), 5)
    base = 0.8 + 0.05 * rng.standard_normal(50)
    shifted = {"one": {"r50": base}, "other": {"r50": base + 0.01 + 0.001 * rng.standard_normal(50)}}
    assert best_on_patches(shifted, block) == {"r50": "other"}
    alike = {"one": {"r50": base}, "other": {"r50": base + 1e-4 + 0.01 * rng.standard_normal(50)}}
    assert best_on_patches(alike, block) == {"r50": None}
    assert best_on_patches({"alone": {"r50": base}}, block) == {"r50": None}


def held_out(split: Split) -> HeldOut:
    evaluation = EvaluationConfig(patches=12, block_nside=1)
    test = draw_test_patches(GnomonicPatch(16, 93.6), split, 0.7, evaluation)
    return HeldOut(test, region_masks(evaluation, split), Bands(r_low=(2, 15), r50=(14.4, 32)), evaluation)


def test_the_mean_of_one_model_is_that_model():
    sky = synthetic_sky(16)
    known = held_out(hemispheres(sky))
    scores = TargetScores(known)
    truth = ScalarTruth(known, sky.target, sample_patches(sky.target, known.test.frames, known.test.patch))
    facts = {"domain": "none", "form": "", "seconds_train": 1.0, "seconds_predict": 2.0}
    for index, name in enumerate(("a", "b")):
        values = sky.inputs[:, index]
        found = truth.score(values, sample_patches(values, known.test.frames, known.test.patch))
        scores.add(name, *found, **facts)
    scores.add_mean("mean", ["a", "a"])
    found = scores.to_json()
    for key, value in found["models"]["a"].items():
        assert found["groups"]["mean"][key] == pytest.approx(value), key
    assert found["groups"]["mean"]["spread"]["r50"] == 0 and found["best"]["flat"]["r50"] in ("mean", "b", None)


def test_errors_of_bins_are_the_jackknife_of_bins():
    sky = synthetic_sky(16)
    mask = hemispheres(sky).test.astype(float)
    scores = score_sphere(sky.inputs[:, 0], sky.target, mask, Bands(r50=(12, 22)), 1)
    middle, mean, sem = scores.binned(10)
    assert middle[1] == 16.5 and mean[1] == pytest.approx(scores.bands["r50"], abs=1e-12)
    assert sem[1] == pytest.approx(scores.sem["r50"], abs=1e-12)
    assert jackknife_error(scores.r_samples, scores.size).shape == scores.r.shape


def test_regions_are_called_what_they_are(content, tmp_path):
    cut = unsealed(json.loads(json.dumps(content)))
    for model in [*cut["models"].values(), *cut["groups"].values()]:
        model["sphere_without_cuts"], model["sphere_without_cuts_sem"] = model["sphere"], model["sphere_sem"]
    (tmp_path / "comparison.json").write_bytes(sealed_json(cut))
    result = load_result(tmp_path)
    result.report(tmp_path)
    result.table()
    assert "without the cut discs" in (tmp_path / "report.html").read_text()
